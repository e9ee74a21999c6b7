//! The token and its file, basic authentication, and noticing that files changed.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    config::consul::ConsulSettings,
    consul::client::{ClientError, connect::tls_files},
    model::secret::SecretText,
};

/// What tells one state of a file from the next: inode, length, modification time.
type Stamp = Option<(u64, u64, i64, i64)>;

/// What authenticates a request. Looking at a file costs one `stat`, so every request does it.
pub(crate) struct Credentials {
    token: Option<SecretText>,
    file: Option<Mutex<TokenFile>>,
    basic: Option<SecretText>,
    tls: Mutex<Vec<(PathBuf, Stamp)>>,
}

struct TokenFile {
    path: PathBuf,
    stamp: Stamp,
    token: SecretText,
    /// What is there now could not be read. It may be readable soon and look the same: `install` writes a file before
    /// it gives it to the group that may read it.
    is_unread: bool,
}

impl Credentials {
    pub(crate) fn new(settings: &ConsulSettings) -> Result<Self, ClientError> {
        let file = match (&settings.token, &settings.token_file) {
            (None, Some(path)) => Some(Mutex::new(TokenFile::open(path)?)),
            _ => None,
        };
        let basic = settings.http_auth.as_ref().map(basic_header);
        let tls = tls_files(settings).paths().map(|path| (path.to_owned(), stamp(path))).collect();
        Ok(Self { token: settings.token.clone(), file, basic, tls: Mutex::new(tls) })
    }

    /// The token to send now. A file that vanished or became empty leaves the last token in use.
    pub(crate) fn token(&self) -> Option<SecretText> {
        if let Some(file) = &self.file {
            file.lock().unwrap_or_else(PoisonError::into_inner).refresh();
        }
        self.known()
    }

    /// The token as last read.
    pub(crate) fn known(&self) -> Option<SecretText> {
        match &self.file {
            Some(file) => Some(file.lock().unwrap_or_else(PoisonError::into_inner).token.clone()),
            None => self.token.clone().filter(|token| !token.is_empty()),
        }
    }

    /// The value of the `Authorization` header.
    pub(crate) fn basic(&self) -> Option<&SecretText> {
        self.basic.as_ref()
    }

    /// Whether a TLS file changed since this was last asked.
    pub(crate) fn tls_changed(&self) -> bool {
        let mut files = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut has_changed = false;
        for (path, known) in files.iter_mut() {
            let now = stamp(path);
            has_changed |= now != *known;
            *known = now;
        }
        has_changed
    }
}

impl TokenFile {
    fn open(path: &Path) -> Result<Self, ClientError> {
        Ok(Self { path: path.to_owned(), stamp: stamp(path), token: read_token(path)?, is_unread: false })
    }

    fn refresh(&mut self) {
        let now = stamp(&self.path);
        let has_changed = now != self.stamp;
        if !has_changed && !self.is_unread {
            return;
        }
        self.stamp = now;
        let read = read_token(&self.path);
        self.is_unread = read.is_err();
        match read {
            Ok(token) => {
                tracing::info!(path = %self.path.display(), "Consul token file changed and was read again");
                self.token = token;
            }
            Err(error) if has_changed => {
                tracing::warn!(%error, "Consul token file changed and cannot be used; the last token stays in use")
            }
            Err(_) => {}
        }
    }
}

fn read_token(path: &Path) -> Result<SecretText, ClientError> {
    let fail = |reason: String| ClientError::TokenFile { path: path.display().to_string(), reason };
    let text = fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    match text.trim() {
        "" => Err(fail("it is empty".into())),
        token => Ok(SecretText::from(token)),
    }
}

fn basic_header(pair: &SecretText) -> SecretText {
    SecretText::from(format!("Basic {}", STANDARD.encode(pair.expose())))
}

fn stamp(path: &Path) -> Stamp {
    let data = fs::metadata(path).ok()?;
    Some((data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_could_not_be_read_is_read_once_it_can_be_though_it_looks_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "old").unwrap();
        let mut file = TokenFile::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        file.refresh();
        assert!(file.is_unread && file.token.expose() == "old", "the last token stays");
        fs::write(&path, "new").unwrap();
        file.stamp = stamp(&path);
        file.refresh();
        assert!(!file.is_unread && file.token.expose() == "new");
        file.token = "kept".into();
        file.refresh();
        assert_eq!(file.token.expose(), "kept", "what was read and did not change is not read again");
    }
}

//! Reads folders of certificates and keys. Chooses nothing: what is in them is judged in `x509`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::tls::{
    owner::Owner,
    x509::{
        pem::Contents,
        set::{FileFacts, FolderFacts},
    },
};

/// Endings of files that may hold certificates or keys.
const ENDINGS: &[&str] = &["pem", "crt", "cer", "cert", "key"];
/// A bundle of all public CAs has a quarter of this.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A folder or file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read {}: {reason}; check the path and that this user may read it", path.display())]
pub struct ReadError {
    /// The folder or file.
    pub path: PathBuf,
    /// What the system says.
    pub reason: io::Error,
}

impl ReadError {
    fn of(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |reason| Self { path: path.to_owned(), reason }
    }
}

/// Reads a folder, not those below it. Files with other endings, hidden ones, and readable ones without certificate
/// and key are left out; a file that cannot be read is in, with the reason.
pub fn read(folder: &Path) -> Result<FolderFacts, ReadError> {
    let about = fs::metadata(folder).map_err(ReadError::of(folder))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(ReadError::of(folder))? {
        let path = entry.map_err(ReadError::of(folder))?.path();
        if !is_candidate(&path) {
            continue;
        }
        match file(&path) {
            Ok(facts) if facts.read().is_some_and(Contents::is_empty) => {}
            Ok(facts) => files.push(facts),
            // Gone between the listing and the look, as the files of a renewal are.
            Err(error) if error.reason.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    files.sort_by(|a: &FileFacts, b| a.path.cmp(&b.path));
    let is_sticky = about.mode() & 0o1000 != 0;
    let is_open = about.mode() & 0o002 != 0 && !is_sticky;
    Ok(FolderFacts { path: folder.to_owned(), is_open, files })
}

/// Reads one file, and where it leads if it is a link: from then on the link counts no more. An error is only for one
/// that cannot be found; one that cannot be read says so in its facts.
pub fn file(path: &Path) -> Result<FileFacts, ReadError> {
    let real = path.canonicalize().map_err(ReadError::of(path))?;
    let about = fs::symlink_metadata(&real).map_err(ReadError::of(path))?;
    Ok(FileFacts {
        path: path.to_owned(),
        mode: about.mode() & 0o7777,
        uid: about.uid(),
        owner: Owner { uid: about.uid(), gid: about.gid() }.to_string(),
        contents: contents(&real),
        real,
    })
}

fn is_candidate(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let has_ending = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
    !is_hidden && has_ending && !path.is_dir()
}

/// What is in a file that is no link, or why that is not known.
pub fn contents(path: &Path) -> Result<Contents, String> {
    // Opening a pipe would wait for its other end.
    let open = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path);
    let open = open.map_err(|error| error.to_string())?;
    if !open.metadata().is_ok_and(|about| about.is_file()) {
        return Err("it is no regular file".into());
    }
    let mut text = Vec::new();
    open.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} bytes, which no certificate has"));
    }
    Ok(Contents::read(&text))
}

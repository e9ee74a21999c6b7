//! Writes certificates and keys: new files that never replace one, and a pair that replaces one at once. Key files
//! are never readable by others, not even for a moment.
//!
//! A pair is replaced in this order: both new files are written beside the old ones under hidden names, synced, with
//! the old ones' mode and owner; then the key is renamed into place, then the certificate. Between the two renames,
//! microseconds, a reader may find the new key with the old certificate; one that finds the new certificate finds the
//! new key. If that moment is cut short, the certificate waits under its hidden name, and [`finish`] completes it.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use crate::tls::{owner::Owner, x509::pem::Contents};

/// Keys are for their owner alone.
pub const KEY_MODE: u32 = 0o600;
/// Certificates are public; the process's umask takes its share.
pub const CERTIFICATE_MODE: u32 = 0o644;

/// A file that is not written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is there already.
    #[error("{} exists and is not replaced; move it away or name another folder", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be given away.
    #[error(
        "give {} to {owner}: {reason}; only root may give files away: run this as root, or as {user} in a folder \
         that {user} may write", path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// To whom.
        owner: String,
        /// The user alone.
        user: String,
        /// What the system says.
        reason: io::Error,
    },
    /// Somebody else is at it.
    #[error("another `causeway tls renew` is at work in {}; wait for it", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// Only the first of two renames came about.
    #[error(
        "rename {} to {}: {reason}; the new key is in place and its certificate is not: rename it by hand, or run \
         `causeway tls renew` again, which does that first", from.display(), to.display()
    )]
    Half {
        /// Where the certificate waits.
        from: PathBuf,
        /// Where it belongs.
        to: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// Anything else.
    #[error("{act} {}: {reason}; check that this user may write there and that the disk has room", path.display())]
    File {
        /// What was to be done.
        act: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
}

fn failed(act: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |reason| StoreError::File { act, path: path.to_owned(), reason }
}

/// Writes a file that is not there yet. It belongs to `owner`, without one to whoever runs this. Nothing stays of it
/// when it cannot be written whole.
pub fn create(path: &Path, text: &str, mode: u32, owner: Option<Owner>) -> Result<(), StoreError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => StoreError::Exists { path: path.to_owned() },
        _ => failed("create", path)(error),
    })?;
    fill(file, path, text, owner).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

fn fill(mut file: File, path: &Path, text: &str, owner: Option<Owner>) -> Result<(), StoreError> {
    if let Some(owner) = owner {
        give(&file, path, owner)?;
    }
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write", path))
}

/// Giving a file to whom it belongs already is nobody's privilege.
fn give(file: &File, path: &Path, owner: Owner) -> Result<(), StoreError> {
    let about = file.metadata().map_err(failed("look at", path))?;
    if (about.uid(), about.gid()) == (owner.uid, owner.gid) {
        return Ok(());
    }
    fchown(file, Some(owner.uid), Some(owner.gid)).map_err(|reason| StoreError::Owner {
        path: path.to_owned(),
        owner: owner.to_string(),
        user: owner.user(),
        reason,
    })
}

/// A folder's lock against a second renewal; dropping it gives it back.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] File);

/// Takes the folder for a renewal.
pub fn lock(folder: &Path) -> Result<Lock, StoreError> {
    let file = File::open(folder).map_err(failed("open", folder))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(StoreError::Busy { path: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed("lock", folder)(error)),
    }
}

/// What replaces a certificate and its key. Both may be in one file.
#[derive(Debug)]
pub struct Pair<'a> {
    /// The certificate's file.
    pub certificate: &'a Path,
    /// Its new text, the rest of its chain included.
    pub certificate_text: &'a str,
    /// The key's file.
    pub key: &'a Path,
    /// Its new text.
    pub key_text: &'a str,
}

/// Replaces both, as the head of this file says. Links are followed, so that they stay links.
pub fn replace(pair: &Pair<'_>) -> Result<(), StoreError> {
    let certificate = real(pair.certificate)?;
    let key = real(pair.key)?;
    if certificate == key {
        let staged = stage(&key, &format!("{}{}", pair.certificate_text, pair.key_text))?;
        return settle(&staged, &key);
    }
    let staged_key = stage(&key, pair.key_text)?;
    let staged_certificate = stage(&certificate, pair.certificate_text).inspect_err(|_| {
        let _ = fs::remove_file(&staged_key);
    })?;
    settle(&staged_key, &key).inspect_err(|_| {
        let _ = fs::remove_file(&staged_certificate);
    })?;
    fs::rename(&staged_certificate, &certificate).map_err(|reason| StoreError::Half {
        from: staged_certificate.clone(),
        to: certificate.clone(),
        reason,
    })?;
    sync_folder(&key)?;
    sync_folder(&certificate)
}

/// Completes what an interrupted [`replace`] left beside a certificate, or clears it away. Says whether it put the
/// new certificate in place. Only under [`lock`].
pub fn finish(certificate: &Path, key: &Path) -> Result<bool, StoreError> {
    let (certificate, key) = (real(certificate)?, real(key)?);
    let staged = staged(&certificate);
    let staged_key = self::staged(&key);
    if certificate != key && staged_key.exists() {
        // A key that never came into use.
        fs::remove_file(&staged_key).map_err(failed("remove", &staged_key))?;
    }
    if !staged.exists() {
        return Ok(false);
    }
    let read = |path: &Path| fs::read(path).map(|text| Contents::read(&text)).map_err(failed("read", path));
    let (new, old, key) = (read(&staged)?, read(&certificate)?, read(&key)?);
    let fits = |file: &Contents| {
        file.certificates.first().is_some_and(|one| key.keys.iter().any(|key| key.public() == one.public_key))
    };
    if fits(&new) && !fits(&old) {
        settle(&staged, &certificate)?;
        return Ok(true);
    }
    fs::remove_file(&staged).map_err(failed("remove", &staged))?;
    Ok(false)
}

fn real(path: &Path) -> Result<PathBuf, StoreError> {
    path.canonicalize().map_err(failed("find", path))
}

/// Where a file's successor is written.
fn staged(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Writes the successor of a file beside it, with its mode and owner.
fn stage(path: &Path, text: &str) -> Result<PathBuf, StoreError> {
    let about = fs::metadata(path).map_err(failed("look at", path))?;
    let staged = staged(path);
    if staged.exists() {
        fs::remove_file(&staged).map_err(failed("remove", &staged))?;
    }
    create(&staged, text, KEY_MODE, Some(Owner { uid: about.uid(), gid: about.gid() }))?;
    let mode = Permissions::from_mode(about.mode() & 0o777);
    fs::set_permissions(&staged, mode).map_err(failed("set the mode of", &staged)).inspect_err(|_| {
        let _ = fs::remove_file(&staged);
    })?;
    Ok(staged)
}

fn settle(staged: &Path, path: &Path) -> Result<(), StoreError> {
    fs::rename(staged, path).map_err(failed("replace", path)).inspect_err(|_| {
        let _ = fs::remove_file(staged);
    })?;
    sync_folder(path)
}

/// A rename lasts once its folder is on the disk.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

#[cfg(test)]
mod tests;

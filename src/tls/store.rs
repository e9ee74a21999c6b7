//! Writes certificates and keys: new files that never replace one, and pairs that replace one at once. Key files are
//! never readable by others, not even for a moment.
//!
//! A pair is replaced in this order: all new files are written beside the old ones under hidden names, synced, with the
//! old ones' mode and owner; then the key is renamed into place, then the certificate and its copies. Between the
//! renames, microseconds, a reader may find the new key with the old certificate; one that finds the new certificate
//! finds the new key. From the key's rename on nothing is removed: if that moment is cut short, the certificate waits
//! under its hidden name, and [`finish`] completes it.
//!
//! Whoever may write a folder may put links into it at any moment. Where files lead was found out when they were read;
//! here no link is followed.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use crate::{
    model::secret::SecretText,
    tls::{
        folder,
        owner::Owner,
        x509::set::{FileFacts, FolderFacts, KeyBeside},
    },
};

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
    fill(file, path, text, owner, None).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// Only the open file is changed, never what its path has become; `path` is for errors. With `mode` it ends with just
/// that one.
fn fill(
    mut file: File,
    path: &Path,
    text: &str,
    owner: Option<Owner>,
    mode: Option<u32>,
) -> Result<(), StoreError> {
    if let Some(owner) = owner {
        give(&file, path, owner)?;
    }
    file.write_all(text.as_bytes()).map_err(failed("write", path))?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed("set the mode of", path))?;
    }
    file.sync_all().map_err(failed("write", path))
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

/// What replaces a file.
#[derive(Clone, Debug)]
pub struct Successor<'a> {
    /// The file's real place, as it was when it was read.
    pub place: &'a Path,
    /// The new text.
    pub text: SecretText,
}

/// Files are in place, and yet a power failure may undo that.
#[derive(Debug, thiserror::Error)]
#[error(
    "sync {}: {reason}; the new files are in place, but not surely on the disk: look into the disk's health, and check \
     with `causeway tls verify` after a power failure", folder.display()
)]
pub struct Unsynced {
    /// The folder.
    pub folder: PathBuf,
    /// What the system says.
    pub reason: io::Error,
}

/// Replaces a key and the certificates that belong to it, as the head of this file says. A file that holds both is the
/// key's.
pub fn replace(key: &Successor<'_>, certificates: &[Successor<'_>]) -> Result<Vec<Unsynced>, StoreError> {
    replace_and(key, certificates, sync)
}

fn replace_and(
    key: &Successor<'_>,
    certificates: &[Successor<'_>],
    sync: impl Fn(&Path) -> io::Result<()>,
) -> Result<Vec<Unsynced>, StoreError> {
    let mut all = Vec::new();
    let prepared =
        [key].into_iter().chain(certificates).try_for_each(|one| stage(one).map(|()| all.push(one.place)));
    let clear = || all.iter().for_each(|place| drop(fs::remove_file(staged(place))));
    prepared.inspect_err(|_| clear())?;
    fs::rename(staged(key.place), key.place)
        .map_err(failed("replace", key.place))
        .inspect_err(|_| clear())?;
    // The key is in use from here on: each certificate gets to its place, or waits beside it.
    let settled: Vec<_> = certificates.iter().map(|one| settle(one.place)).collect();
    let unsynced = sync_folders(&all, sync);
    settled.into_iter().collect::<Result<(), _>>()?;
    Ok(unsynced)
}

/// What [`finish`] did.
#[derive(Debug, Default)]
pub struct Finished {
    /// Whether a certificate came to its place.
    pub has_changed: bool,
    /// What may not last.
    pub unsynced: Vec<Unsynced>,
}

/// Completes what an interrupted [`replace`] left in a folder, and clears away what never came into use. A certificate
/// whose key is not known to be in place, neither the old nor the new, stays where it waits. Only under [`lock`].
pub fn finish(folder: &FolderFacts) -> Result<Finished, StoreError> {
    finish_and(folder, sync)
}

fn finish_and(folder: &FolderFacts, sync: impl Fn(&Path) -> io::Result<()>) -> Result<Finished, StoreError> {
    let mut settled = Vec::new();
    for leaf in folder.leaves() {
        let place = leaf.file.real.as_path();
        let waiting = staged(place);
        if !is_there(&waiting) {
            continue;
        }
        let new = folder::contents(&waiting).unwrap_or_default();
        if new.certificates.first().is_some_and(|one| folder.key_of(one).is_some()) {
            settle(place)?;
            settled.push(place);
        } else if matches!(leaf.key, KeyBeside::Fits(_)) {
            fs::remove_file(&waiting).map_err(failed("remove", &waiting))?;
        }
    }
    // A key that waits never came into use.
    let is_key = |file: &&FileFacts| !file.keys().is_empty() && file.certificates().is_empty();
    for waiting in folder.files.iter().filter(is_key).map(|file| staged(&file.real)) {
        if is_there(&waiting) {
            fs::remove_file(&waiting).map_err(failed("remove", &waiting))?;
        }
    }
    Ok(Finished { has_changed: !settled.is_empty(), unsynced: sync_folders(&settled, sync) })
}

/// Where a file's successor is written.
fn staged(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// A link that leads nowhere is there as well.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Writes the successor of a file beside it, with its mode and owner. Nothing stays of one that cannot be written.
fn stage(successor: &Successor<'_>) -> Result<(), StoreError> {
    let path = successor.place;
    let about = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    if !about.is_file() {
        return Err(failed("replace", path)(io::Error::other("it became something else than a file")));
    }
    let staged = staged(path);
    if is_there(&staged) {
        fs::remove_file(&staged).map_err(failed("remove", &staged))?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(KEY_MODE).open(&staged);
    let file = file.map_err(failed("create", &staged))?;
    let owner = Owner { uid: about.uid(), gid: about.gid() };
    fill(file, &staged, successor.text.expose(), Some(owner), Some(about.mode() & 0o777)).inspect_err(|_| {
        let _ = fs::remove_file(&staged);
    })
}

/// Renames a certificate into place whose key is in use. It stays where it waits if that fails.
fn settle(path: &Path) -> Result<(), StoreError> {
    let from = staged(path);
    fs::rename(&from, path).map_err(|reason| StoreError::Half { from, to: path.to_owned(), reason })
}

/// A rename lasts once its folder is on the disk.
fn sync_folders(files: &[&Path], sync: impl Fn(&Path) -> io::Result<()>) -> Vec<Unsynced> {
    let folders: BTreeSet<&Path> = files.iter().filter_map(|path| path.parent()).collect();
    let unsynced = |folder: &Path| {
        let reason = sync(folder).err()?;
        Some(Unsynced { folder: folder.to_owned(), reason })
    };
    folders.into_iter().filter_map(unsynced).collect()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;

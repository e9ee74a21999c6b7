//! The kept files on disk: read with suspicion, replaced as a whole. Decides nothing of what is in them.
//!
//! A file is written beside the good one, synced, and renamed over it; then the directory is synced. So whatever
//! happens, the name leads to a whole file. What cannot be used is moved aside, or removed if it holds private keys; it
//! is never fatal.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    unistd::{Uid, geteuid},
};
use tracing::{info, warn};

use crate::{
    model::catalog::Topics,
    state::{
        format::{self, Kind, MAX_BYTES, Unusable},
        record::{self, Skipped},
        tokens::Tokens,
    },
};

/// Files of one kind that were moved aside and are kept; the oldest go first.
const ASIDE: usize = 3;

/// Only the agent's user.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// Bits of a mode that let others write.
const OTHERS_WRITE: u32 = 0o022;

/// Why something could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refused.
    #[error("{act} {}: {source}; {}", path.display(), remedy(source))]
    Io {
        /// What was tried.
        act: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is too much of it.
    #[error("write {}: it would have {bytes} bytes, and the limit is {MAX_BYTES}; there is no such file until it fits", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Others could put something in its place.
    #[error("use {}: {why}; give it to the agent's user with mode 0700 (StateDirectory= in its unit does), or give [state] dir another place", path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// How.
        why: String,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "make room there, or give [state] dir another place"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "let the agent's user write there (StateDirectory= in its unit does), or give [state] dir another place"
        }
        _ => "check the directory, or give [state] dir another place",
    }
}

/// The directory of kept files.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Who the agent is: nobody else's files are believed.
    user: Uid,
    /// Checksums of the bodies that are there, so that nothing is written twice.
    written: BTreeMap<Kind, blake3::Hash>,
}

/// What was found.
#[derive(Default)]
pub struct Loaded {
    /// Topics and leaves, marked as from disk.
    pub topics: Topics,
    /// Tokens that passed.
    pub tokens: Option<Tokens>,
    /// What replication wrote of its positions.
    pub positions: String,
}

/// Why a file is moved aside; part of its new name.
enum Reason {
    Damaged,
    Newer,
    /// Another user wrote it, or could have.
    Foreign,
    Unreadable,
}

impl Reason {
    const ALL: [Self; 4] = [Self::Damaged, Self::Newer, Self::Foreign, Self::Unreadable];

    fn word(&self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Newer => "newer",
            Self::Foreign => "foreign",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Store {
    /// Of this directory, which is made when something is written.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), user: geteuid(), written: BTreeMap::new() }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads what there is. Whatever cannot be used is told, taken away, and counts as not there; without `keys` private
    /// keys that an earlier run kept are removed.
    pub fn load(&mut self, keys: bool, now_s: u64) -> Loaded {
        let mut loaded = Loaded::default();
        match self.check_dir() {
            Ok(true) => {}
            Ok(false) => return loaded,
            Err(error) => {
                warn!(%error, "last known good not read; the agent goes on without it");
                return loaded;
            }
        }
        for kind in Kind::ALL {
            self.remove_leftovers(kind);
            if kind == Kind::Keys && !keys {
                self.remove(kind);
                continue;
            }
            let Some(bytes) = self.read(kind, now_s) else { continue };
            match format::open(kind, &bytes) {
                Ok(opened) => {
                    let skipped = loaded.take(kind, opened.body, now_s);
                    if skipped.count == 0 {
                        self.written.insert(kind, blake3::hash(opened.body.as_bytes()));
                    } else {
                        warn!(file = kind.file_name(), what = %skipped, "parts of a kept file cannot be used and are left out");
                    }
                    let age_s = now_s.saturating_sub(opened.written_at_s);
                    info!(file = kind.file_name(), bytes = bytes.len(), age_s, "last known good read");
                }
                Err(unusable) => {
                    let reason = match unusable {
                        Unusable::Damaged(_) => Reason::Damaged,
                        Unusable::Newer(_) => Reason::Newer,
                    };
                    self.set_aside(kind, &reason, &unusable.to_string(), now_s);
                }
            }
        }
        loaded
    }

    /// Whether there is such a file.
    pub fn has(&self, kind: Kind) -> bool {
        self.path(kind).exists()
    }

    /// Puts `body` in the place of what is there, unless it is the same. Gives how many bytes were written.
    ///
    /// # Errors
    /// It could not be written. What was there still is, unless this is too long: then nothing is, since it would only
    /// grow older.
    pub fn write(&mut self, kind: Kind, now_s: u64, body: &str) -> Result<u64, StateError> {
        let path = self.path(kind);
        let sum = blake3::hash(body.as_bytes());
        if self.written.get(&kind) == Some(&sum) && path.is_file() {
            return Ok(0);
        }
        let bytes = format::seal(kind, now_s, body);
        if bytes.len() > MAX_BYTES {
            self.written.remove(&kind);
            return match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(StateError::Io { act: "remove", path, source })
                }
                _ => Err(StateError::TooLong { path, bytes: bytes.len() }),
            };
        }
        self.replace(kind, &bytes)?;
        self.written.insert(kind, sum);
        Ok(bytes.len() as u64)
    }

    fn replace(&self, kind: Kind, bytes: &[u8]) -> Result<(), StateError> {
        let (path, new) = (self.path(kind), self.new_path(kind));
        let failed = |act, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { act, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(&self.dir)
            .map_err(failed("make the directory", &self.dir))?;
        self.check_dir()?;
        // What a killed agent left is not written into: its owner and mode are unknown.
        let _ = fs::remove_file(&new);
        let written = write_new(&new, bytes).map_err(failed("write", &new));
        let renamed = written.and_then(|()| fs::rename(&new, &path).map_err(failed("replace", &path)));
        if renamed.is_err() {
            let _ = fs::remove_file(&new);
        }
        renamed?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", &self.dir))
    }

    /// Whether the directory is there; an error if it cannot be used.
    fn check_dir(&self) -> Result<bool, StateError> {
        let path = self.dir.clone();
        // It may be reached by a link: systemd makes one for units with DynamicUser=.
        let meta = match fs::metadata(&path).and_then(|meta| fs::read_dir(&path).map(|_| meta)) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(StateError::Io { act: "read", path, source }),
        };
        self.judge(&meta).map_or(Ok(true), |why| Err(StateError::Exposed { path, why }))
    }

    /// Why somebody else may have written this, if that may be.
    fn judge(&self, meta: &Metadata) -> Option<String> {
        if meta.uid() != self.user.as_raw() {
            return Some(format!("it belongs to user {}, and the agent is {}", meta.uid(), self.user));
        }
        (meta.mode() & OTHERS_WRITE != 0).then(|| "others than the agent may write it".to_owned())
    }

    /// Removes what nobody will use: what a killed agent had begun to write, and private keys that were once moved aside.
    fn remove_leftovers(&self, kind: Kind) {
        let aside = if kind == Kind::Keys { self.aside(kind) } else { BTreeMap::new() };
        for path in std::iter::once(self.new_path(kind)).chain(aside.into_values()) {
            match fs::remove_file(&path) {
                Ok(()) => info!(path = %path.display(), "leftover of a kept file removed"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => warn!(path = %path.display(), %error, "leftover of a kept file not removed"),
            }
        }
    }

    /// Removes a file, and what of its kind was left.
    fn remove(&mut self, kind: Kind) {
        self.written.remove(&kind);
        let left = [self.path(kind), self.new_path(kind)];
        for path in left.into_iter().chain(self.aside(kind).into_values()) {
            match fs::remove_file(&path) {
                Ok(()) => info!(path = %path.display(), "removed: [state] persist_keys is off"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    warn!(path = %path.display(), %error, "not removed, although [state] persist_keys is off")
                }
            }
        }
    }

    /// The bytes of a file, if there is one that may be read.
    fn read(&self, kind: Kind, now_s: u64) -> Option<Vec<u8>> {
        match self.try_read(kind) {
            Ok(bytes) => Some(bytes),
            Err((_, why)) if why.kind() == io::ErrorKind::NotFound => None,
            Err((reason, why)) => {
                self.set_aside(kind, &reason, &why.to_string(), now_s);
                None
            }
        }
    }

    fn try_read(&self, kind: Kind) -> Result<Vec<u8>, (Reason, io::Error)> {
        let unreadable = |error| (Reason::Unreadable, error);
        let foreign = |why: String| (Reason::Foreign, io::Error::other(why));
        let no_file = || foreign("it is no plain file".to_owned());
        // A link could lead anywhere, and a pipe would be waited for.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(self.path(kind));
        let file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP) => no_file(),
            _ => unreadable(error),
        })?;
        let meta = file.metadata().map_err(unreadable)?;
        if !meta.is_file() {
            return Err(no_file());
        }
        if let Some(why) = self.judge(&meta) {
            return Err(foreign(why));
        }
        let mut bytes = Vec::new();
        let limit = MAX_BYTES as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > MAX_BYTES {
            return Err((Reason::Damaged, io::Error::other("it is longer than any that was written")));
        }
        Ok(bytes)
    }

    /// Moves a file out of the way, for somebody to look at; private keys are for nobody, and would stay beyond their time.
    fn set_aside(&self, kind: Kind, reason: &Reason, why: &str, now_s: u64) {
        let path = self.path(kind);
        let file = path.display();
        let to = self.dir.join(format!("{}.{}-{now_s}", kind.file_name(), reason.word()));
        let taken_away = match kind {
            Kind::Keys => fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)),
            Kind::Catalog | Kind::Tokens | Kind::Positions => fs::rename(&path, &to),
        };
        match taken_away {
            Ok(()) if kind == Kind::Keys => {
                warn!(%file, reason = why, "kept private keys cannot be used and were removed; the agent goes on without them");
            }
            Ok(()) => {
                let to = to.display();
                warn!(%file, %to, reason = why, "kept file cannot be used and was moved aside; the agent goes on without it");
            }
            Err(error) => {
                warn!(%file, reason = why, %error, "kept file cannot be used, nor taken away; the agent goes on without it");
            }
        }
        let aside = self.aside(kind);
        for old in aside.values().take(aside.len().saturating_sub(ASIDE)) {
            let _ = fs::remove_file(old).or_else(|_| fs::remove_dir(old));
        }
    }

    /// What of this kind was moved aside, the oldest first.
    fn aside(&self, kind: Kind) -> BTreeMap<(u64, String), PathBuf> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return BTreeMap::new() };
        let of_kind = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (reason, at) = name.strip_prefix(kind.file_name())?.strip_prefix('.')?.split_once('-')?;
            let is_ours = Reason::ALL.iter().any(|known| known.word() == reason);
            let at: u64 = at.parse().ok().filter(|_| is_ours)?;
            Some(((at, name.clone()), entry.path()))
        });
        of_kind.collect()
    }

    /// Where a file is written before it is whole.
    fn new_path(&self, kind: Kind) -> PathBuf {
        self.dir.join(format!(".{}.new", kind.file_name()))
    }

    fn path(&self, kind: Kind) -> PathBuf {
        self.dir.join(kind.file_name())
    }
}

impl Loaded {
    fn take(&mut self, kind: Kind, body: &str, now_s: u64) -> Skipped {
        let (topics, skipped) = match kind {
            Kind::Catalog => record::read_topics(body),
            Kind::Keys => record::read_leaves(body, now_s),
            Kind::Tokens => {
                let (tokens, skipped) = record::read_tokens(body);
                self.tokens = tokens;
                return skipped;
            }
            Kind::Positions => {
                body.clone_into(&mut self.positions);
                return Skipped::default();
            }
        };
        self.topics.extend(topics);
        skipped
    }
}

/// A whole new file, on the disk when this returns.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;

//! What every open stream looks like right now, for status pages.
//!
//! Nothing is worked out until somebody looks: a status names every resource of its stream, and streams step far more
//! often than people look at them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::xds::status::StreamStatus;

/// The status of each open stream. Clones share it; a stream's entry vanishes with the stream.
#[derive(Clone)]
pub struct StatusBoard {
    streams: Arc<Mutex<BTreeMap<u64, Arc<dyn Shown>>>>,
    /// Counts the changes.
    changes: Arc<watch::Sender<u64>>,
}

/// What a stream lets the board see.
pub(super) trait Shown: Send + Sync {
    /// The proxy it is of.
    fn proxy(&self) -> &str;

    /// What it looks like now.
    fn status(&self) -> StreamStatus;
}

impl StatusBoard {
    /// An empty board.
    pub fn new() -> Self {
        Self { streams: Arc::default(), changes: Arc::new(watch::Sender::new(0)) }
    }

    /// The open streams, oldest first, each as it is at this moment. A stream appears with its first request.
    pub fn streams(&self) -> Vec<Arc<StreamStatus>> {
        self.streams_of(|_| true)
    }

    /// The same of those proxies alone.
    pub(super) fn streams_of(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Arc<StreamStatus>> {
        // Streams come and go while each is looked at.
        let open: Vec<Arc<dyn Shown>> = self.open().values().cloned().collect();
        let wanted = open.into_iter().filter(|stream| is_wanted(stream.proxy()));
        wanted.map(|stream| Arc::new(stream.status())).collect()
    }

    /// Wakes on every change of any stream; the value says nothing but that there was one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A place for one stream, taken off the board when dropped.
    pub(super) fn place(&self, stream: u64, shown: Arc<dyn Shown>) -> Place {
        Place { board: self.clone(), stream, hidden: Some(shown) }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<dyn Shown>>> {
        // Nothing that holds the lock can leave the map half changed.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_change(&self) {
        // Most of the time nobody waits, and then all streams would only get in each other's way.
        if !self.changes.is_closed() {
            self.changes.send_modify(|count| *count += 1);
        }
    }
}

impl Default for StatusBoard {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for StatusBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusBoard").field("streams", &self.open().len()).finish_non_exhaustive()
    }
}

pub(super) struct Place {
    board: StatusBoard,
    stream: u64,
    /// Until it is shown for the first time.
    hidden: Option<Arc<dyn Shown>>,
}

impl Place {
    /// The stream has changed; the first time, it appears.
    pub(super) fn show(&mut self) {
        if let Some(shown) = self.hidden.take() {
            self.board.open().insert(self.stream, shown);
        }
        self.board.note_change();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = self.board.open().remove(&self.stream);
        if gone.is_some() {
            self.board.note_change();
        }
    }
}

//! What every open stream looks like right now, for status pages.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use crate::xds::status::StreamStatus;

/// The latest status of each open stream. Clones share it; a stream's entry vanishes with the stream.
#[derive(Clone, Debug)]
pub struct StatusBoard {
    streams: Arc<watch::Sender<BTreeMap<u64, Arc<StreamStatus>>>>,
}

impl StatusBoard {
    /// An empty board.
    pub fn new() -> Self {
        Self { streams: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }

    /// The open streams, oldest first. A stream appears with its first request.
    pub fn streams(&self) -> Vec<Arc<StreamStatus>> {
        self.streams.borrow().values().cloned().collect()
    }

    /// Wakes on every change of any stream.
    pub fn changes(&self) -> watch::Receiver<BTreeMap<u64, Arc<StreamStatus>>> {
        self.streams.subscribe()
    }

    /// A place for one stream, taken off the board when dropped.
    pub(super) fn place(&self, stream: u64) -> Place {
        Place { board: self.clone(), stream }
    }
}

impl Default for StatusBoard {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) struct Place {
    board: StatusBoard,
    stream: u64,
}

impl Place {
    pub(super) fn show(&self, status: StreamStatus) {
        self.board.streams.send_modify(|streams| {
            streams.insert(self.stream, Arc::new(status));
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.board.streams.send_if_modified(|streams| streams.remove(&self.stream).is_some());
    }
}

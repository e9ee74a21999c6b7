//! What all streams share: where offers come from, what is counted and shown, and how many there may be.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tracing::warn;

use crate::xds::{
    metrics::XdsMetrics,
    server::{AgentId, Limits, StatusBoard, entrance::Entrance, source::ProxySource},
};

/// What all streams use.
pub(super) struct Shared {
    pub(super) id: AgentId,
    pub(super) board: StatusBoard,
    pub(super) source: Arc<dyn ProxySource>,
    pub(super) metrics: XdsMetrics,
    pub(super) entrance: Entrance,
    streams: AtomicU64,
    room: Arc<Semaphore>,
    /// Streams are being refused, and the log says so already.
    is_full: AtomicBool,
    max_streams: usize,
}

impl Shared {
    pub(super) fn new(
        id: AgentId,
        source: Arc<dyn ProxySource>,
        board: StatusBoard,
        metrics: XdsMetrics,
        limits: &Limits,
    ) -> Self {
        let max_streams = limits.max_streams.min(Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(max_streams));
        let is_full = AtomicBool::new(false);
        let entrance = Entrance::new(limits.new_streams_per_second);
        let streams = AtomicU64::new(0);
        Self { id, board, source, metrics, entrance, streams, room, is_full, max_streams }
    }

    /// A stream's number, unlike that of any other of this process.
    pub(super) fn number(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A place among the streams; given back when it is dropped, with the stream.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = self.room.clone().try_acquire_owned();
        // Refused clients come back every other second: one line is enough.
        let was_full = self.is_full.swap(place.is_err(), Ordering::Relaxed);
        place.map_err(|_| {
            if !was_full {
                warn!(max_streams = self.max_streams, "streams are refused: this agent serves as many as it may");
            }
            self.metrics.refused();
            Status::resource_exhausted(format!(
                "this agent serves {} discovery streams, as many as it may: raise [xds] max_streams, or let fewer \
                 Envoys connect to it (one over ADS needs one stream)",
                self.max_streams
            ))
        })
    }
}

//! Counters of the keeper.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// `causeway_state_writes_total`
const WRITES: &str = "causeway_state_writes";
/// `causeway_state_written_bytes_total`
const WRITTEN_BYTES: &str = "causeway_state_written_bytes";
/// `causeway_state_pending`
const PENDING: &str = "causeway_state_pending";
/// `causeway_state_failing`
const FAILING: &str = "causeway_state_failing";

/// What can come of a writing.
const OUTCOMES: [&str; 2] = ["written", "failed"];

/// The keeper's metrics. Clones count into the same ones.
#[derive(Clone, Debug, Default)]
pub struct StateMetrics {
    writes: Family<WriteLabels, Counter>,
    written_bytes: Counter,
    pub(crate) pending: Gauge,
    pub(crate) failing: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    outcome: &'static str,
}

impl StateMetrics {
    /// Registers the metrics under their names.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let writes = "Writings of the last known good to disk by outcome (written, failed)";
        registry.register(WRITES, writes, metrics.writes.clone());
        let bytes = "Bytes of the last known good that were written to disk";
        registry.register(WRITTEN_BYTES, bytes, metrics.written_bytes.clone());
        let pending = "1 while something that changed is about to be written to disk";
        registry.register(PENDING, pending, metrics.pending.clone());
        let failing = "1 while the last known good cannot be written to disk";
        registry.register(FAILING, failing, metrics.failing.clone());
        for outcome in OUTCOMES {
            drop(metrics.writes.get_or_create(&WriteLabels { outcome }));
        }
        metrics
    }

    pub(crate) fn wrote(&self, bytes: u64) {
        self.written_bytes.inc_by(bytes);
        self.writes.get_or_create(&WriteLabels { outcome: "written" }).inc();
        self.failing.set(0);
    }

    pub(crate) fn failed(&self) {
        self.writes.get_or_create(&WriteLabels { outcome: "failed" }).inc();
        self.failing.set(1);
    }
}

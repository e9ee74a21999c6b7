//! Figures of the xDS server. Labels are types of resource, never proxies.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::xds::resource::Kind;

const STREAMS: &str = "causeway_xds_streams";
// The registry appends `_total` to counters.
const RESPONSES: &str = "causeway_xds_responses";
const RESOURCES: &str = "causeway_xds_resources_sent";
const ACKS: &str = "causeway_xds_acks";
const NACKS: &str = "causeway_xds_nacks";
const REFUSED: &str = "causeway_xds_streams_refused";
const ACK_DELAY: &str = "causeway_xds_ack_delay_seconds";

/// From one millisecond, in which Envoy applies an update, to the 15 seconds for which it holds an ACK back while a
/// cluster cannot warm.
const ACK_DELAY_BUCKETS: [f64; 11] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 5.0, 16.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByType {
    r#type: &'static str,
}

/// The metrics of `causeway_xds_*`. Clones share them.
#[derive(Clone, Debug)]
pub struct XdsMetrics {
    streams: Gauge,
    refused: Counter,
    responses: Family<ByType, Counter>,
    resources: Family<ByType, Counter>,
    acks: Family<ByType, Counter>,
    nacks: Family<ByType, Counter>,
    ack_delay: Family<ByType, Histogram, fn() -> Histogram>,
}

impl XdsMetrics {
    /// Registers them; call once for each registry.
    pub fn register(registry: &mut Registry) -> Self {
        let delay: fn() -> Histogram = || Histogram::new(ACK_DELAY_BUCKETS);
        let metrics = Self {
            streams: Gauge::default(),
            refused: Counter::default(),
            responses: Family::default(),
            resources: Family::default(),
            acks: Family::default(),
            nacks: Family::default(),
            ack_delay: Family::new_with_constructor(delay),
        };
        registry.register(STREAMS, "Open discovery streams", metrics.streams.clone());
        registry.register(
            REFUSED,
            "Discovery streams ended with an error told to the client",
            metrics.refused.clone(),
        );
        registry.register(RESPONSES, "Discovery responses sent, by type", metrics.responses.clone());
        registry.register(RESOURCES, "Resources sent in them, by type", metrics.resources.clone());
        registry.register(ACKS, "Responses acknowledged, by type", metrics.acks.clone());
        registry.register(NACKS, "Responses refused, by type", metrics.nacks.clone());
        registry.register(
            ACK_DELAY,
            "From sending a response to its ACK, by type",
            metrics.ack_delay.clone(),
        );
        metrics.start_at_zero();
        metrics
    }

    /// Every series is there from the start: a rate over its first increment is then one.
    fn start_at_zero(&self) {
        for kind in Kind::ALL.iter().copied().map(label) {
            drop(self.responses.get_or_create(&kind));
            drop(self.resources.get_or_create(&kind));
            drop(self.acks.get_or_create(&kind));
            drop(self.nacks.get_or_create(&kind));
            drop(self.ack_delay.get_or_create(&kind));
        }
    }

    /// Counts a stream for as long as the returned value lives.
    pub(crate) fn stream_open(&self) -> StreamGauge {
        self.streams.inc();
        StreamGauge(self.streams.clone())
    }

    /// A stream was not let in, or was ended with an error.
    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn sent(&self, kind: Kind, resources: usize) {
        self.responses.get_or_create(&label(kind)).inc();
        self.resources.get_or_create(&label(kind)).inc_by(u64::try_from(resources).unwrap_or(u64::MAX));
    }

    pub(crate) fn acked(&self, kind: Kind, after: Duration) {
        self.acks.get_or_create(&label(kind)).inc();
        self.ack_delay.get_or_create(&label(kind)).observe(after.as_secs_f64());
    }

    pub(crate) fn nacked(&self, kind: Kind) {
        self.nacks.get_or_create(&label(kind)).inc();
    }
}

/// One open stream in the gauge.
#[derive(Debug)]
pub(crate) struct StreamGauge(Gauge);

impl Drop for StreamGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn label(kind: Kind) -> ByType {
    ByType { r#type: kind.short() }
}

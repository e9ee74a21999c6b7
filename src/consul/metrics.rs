//! Counters of the watches. Knows no topic by name: labels are the topic's kind.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::consul::topic::KINDS;

/// `causeway_consul_requests_total`
const REQUESTS: &str = "causeway_consul_requests";
/// `causeway_consul_publications_total`
const PUBLICATIONS: &str = "causeway_consul_publications";
/// `causeway_consul_topics`
const TOPICS: &str = "causeway_consul_topics";
/// `causeway_consul_topics_from_disk`
const TOPICS_FROM_DISK: &str = "causeway_consul_topics_from_disk";
/// `causeway_consul_topics_silent`
const TOPICS_SILENT: &str = "causeway_consul_topics_silent";

/// The metrics of the watches. Clones count into the same ones.
#[derive(Clone, Debug, Default)]
pub struct ConsulMetrics {
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) publications: Counter,
    pub(crate) topics: Gauge,
    pub(crate) topics_silent: Gauge,
    pub(crate) topics_from_disk: Gauge,
}

/// What can come of a request: a new value, the same one, none.
const OUTCOMES: [&str; 3] = ["changed", "same", "failed"];

/// What a request was for and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) topic: &'static str,
    pub(crate) outcome: &'static str,
}

impl ConsulMetrics {
    /// Registers the metrics under their names.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let requests = "Requests of the watches to Consul by topic and outcome (changed, same, failed)";
        registry.register(REQUESTS, requests, metrics.requests.clone());
        registry.register(
            PUBLICATIONS,
            "New values of the catalog that were published",
            metrics.publications.clone(),
        );
        registry.register(TOPICS, "Topics that are watched", metrics.topics.clone());
        registry.register(
            TOPICS_SILENT,
            "Watched topics whose source does not answer: never heard of, or stale",
            metrics.topics_silent.clone(),
        );
        registry.register(
            TOPICS_FROM_DISK,
            "Watched topics of which an earlier run of the agent kept a value on disk that Consul has not replaced yet",
            metrics.topics_from_disk.clone(),
        );
        // Every series is there from the start: a rate over its first increment is then one.
        for topic in KINDS {
            for outcome in OUTCOMES {
                drop(metrics.requests.get_or_create(&RequestLabels { topic, outcome }));
            }
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_promised() {
        let mut registry = Registry::default();
        let metrics = ConsulMetrics::register(&mut registry);
        metrics.requests.get_or_create(&RequestLabels { topic: "health", outcome: "same" }).inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(
            text.contains("causeway_consul_requests_total{topic=\"health\",outcome=\"same\"} 1"),
            "{text}"
        );
        assert!(text.contains("causeway_consul_publications_total 0"), "{text}");
        assert!(text.contains("causeway_consul_topics_silent 0"), "{text}");
    }
}

//! Calls of other agents, counted on the way out: [`Metered`] is [`Peers`] that count and otherwise are those inside.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use tokio::sync::{mpsc, watch};

use crate::{
    lifecycle,
    model::{name::Datacenter, sync::Position},
    sync::peer::{
        Absent, FollowItem, FollowStart, Forward, Forwarded, Hello, HelloReply, PeerError, Peers, Target,
    },
};

/// From a turn inside a datacenter to the 10 minutes that a request may wait for a lock.
const FORWARD_BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 2.0, 10.0, 600.0];

/// What agents ask each other.
const CALLS: [&str; 4] = ["absent", "follow", "forward", "hello"];
/// What comes of it.
const OUTCOMES: [&str; 5] = ["ok", "misfit", "refused", "unknown", "unreached"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCall {
    dc: String,
    call: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDatacenter {
    dc: String,
}

/// The metrics of calls. Clones count into the same ones.
#[derive(Clone, Debug)]
pub struct CallMetrics {
    calls: Family<ByCall, Counter>,
    forwards: Family<ByDatacenter, Histogram, fn() -> Histogram>,
}

impl Default for CallMetrics {
    fn default() -> Self {
        let forwards: fn() -> Histogram = || Histogram::new(FORWARD_BUCKETS);
        Self { calls: Family::default(), forwards: Family::new_with_constructor(forwards) }
    }
}

impl CallMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Calls of other sync agents by datacenter, call (absent, follow, forward, hello) and outcome (ok, misfit, refused, \
                    unknown, unreached)";
        registry.register("causeway_sync_peer_calls", help, self.calls.clone());
        let help =
            "From passing a client's request on to its answer, by the datacenter that it was passed on to";
        registry.register("causeway_sync_forward_seconds", help, self.forwards.clone());
    }

    /// Shows all series of these datacenters from the start: a rate over a first increment is then one.
    pub fn start_at_zero<'a>(&self, datacenters: impl Iterator<Item = &'a Datacenter>) {
        for dc in datacenters {
            drop(self.forwards.get_or_create(&ByDatacenter { dc: dc.to_string() }));
            for call in CALLS {
                for outcome in OUTCOMES {
                    drop(self.calls.get_or_create(&ByCall { dc: dc.to_string(), call, outcome }));
                }
            }
        }
    }

    fn count<T>(&self, dc: &Datacenter, call: &'static str, answer: &Result<T, PeerError>) {
        let outcome = match answer {
            Ok(_) => "ok",
            Err(PeerError::Misfit(_)) => "misfit",
            Err(PeerError::Refused(_)) => "refused",
            Err(PeerError::Unknown(_)) => "unknown",
            Err(PeerError::Unreached(_)) => "unreached",
        };
        self.calls.get_or_create(&ByCall { dc: dc.to_string(), call, outcome }).inc();
    }
}

/// Ways to other agents whose calls are counted.
#[derive(Clone, Debug)]
pub struct Metered<P> {
    inner: P,
    own: Datacenter,
    metrics: CallMetrics,
}

impl<P> Metered<P> {
    /// Those of an agent in this datacenter.
    pub fn new(inner: P, own: Datacenter, metrics: CallMetrics) -> Self {
        Self { inner, own, metrics }
    }

    fn datacenter<'a>(&'a self, to: &'a Target) -> &'a Datacenter {
        match to {
            Target::Datacenter(dc) => dc,
            Target::Doer(_) => &self.own,
        }
    }
}

impl<P: Peers> Peers for Metered<P> {
    async fn hello(&self, to: &Target, hello: Hello) -> Result<HelloReply, PeerError> {
        let answer = self.inner.hello(to, hello).await;
        self.metrics.count(self.datacenter(to), "hello", &answer);
        answer
    }

    async fn forward(
        &self,
        to: &Target,
        request: Forward,
        deadline: Duration,
    ) -> Result<Forwarded, PeerError> {
        let began = lifecycle::now();
        let answer = self.inner.forward(to, request, deadline).await;
        let dc = self.datacenter(to);
        self.metrics.count(dc, "forward", &answer);
        let seconds = began.elapsed().as_secs_f64();
        self.metrics.forwards.get_or_create(&ByDatacenter { dc: dc.to_string() }).observe(seconds);
        answer
    }

    async fn follow(
        &self,
        to: &Target,
        start: FollowStart,
        acks: watch::Receiver<Position>,
    ) -> Result<mpsc::Receiver<Result<FollowItem, PeerError>>, PeerError> {
        let answer = self.inner.follow(to, start, acks).await;
        self.metrics.count(self.datacenter(to), "follow", &answer);
        answer
    }

    async fn absent(&self, to: &Target, absent: Absent, deadline: Duration) -> Result<(), PeerError> {
        let answer = self.inner.absent(to, absent, deadline).await;
        self.metrics.count(self.datacenter(to), "absent", &answer);
        answer
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{sync::record::Doer, telemetry::metrics::Metrics};

    /// Answers one call and no other.
    #[derive(Clone)]
    struct Half;

    impl Peers for Half {
        async fn hello(&self, _: &Target, _: Hello) -> Result<HelloReply, PeerError> {
            Err(PeerError::Unreached("cut".into()))
        }

        async fn forward(&self, _: &Target, _: Forward, _: Duration) -> Result<Forwarded, PeerError> {
            Ok(Forwarded { status: 200, headers: Vec::new(), body: Bytes::new() })
        }

        async fn follow(
            &self,
            _: &Target,
            _: FollowStart,
            _: watch::Receiver<Position>,
        ) -> Result<mpsc::Receiver<Result<FollowItem, PeerError>>, PeerError> {
            Err(PeerError::Misfit("of another release".into()))
        }

        async fn absent(&self, _: &Target, _: Absent, _: Duration) -> Result<(), PeerError> {
            Err(PeerError::Refused("a key is there".into()))
        }
    }

    #[tokio::test]
    async fn each_call_counts_where_it_went_and_as_what_came_of_it() {
        let mut registry = Metrics::new();
        let metrics = CallMetrics::default();
        metrics.register(registry.registry_mut());
        let own = Datacenter::from("a");
        metrics.start_at_zero([&own].into_iter());
        let peers = Metered::new(Half, own, metrics);
        let forward = Forward {
            request_id: "1".into(),
            method: "GET".into(),
            path_and_query: "/v1/kv/a".into(),
            headers: Vec::new(),
            body: Bytes::new(),
            token: None,
            origin: "a".into(),
            hops: 1,
        };
        let doer = Target::Doer(Doer { node: "n".into(), address: "127.0.0.1:1".into() });
        assert!(peers.forward(&doer, forward, Duration::ZERO).await.is_ok());
        let start = FollowStart { prefix: "a/".into(), at: None, compare: false, origin: None };
        let (_acks, acked) = watch::channel(Position::default());
        assert!(peers.follow(&Target::Datacenter("b".into()), start, acked).await.is_err());
        let text = registry.encode();
        for line in [
            r#"causeway_sync_peer_calls_total{dc="a",call="forward",outcome="ok"} 1"#,
            r#"causeway_sync_peer_calls_total{dc="a",call="forward",outcome="unknown"} 0"#,
            r#"causeway_sync_peer_calls_total{dc="b",call="follow",outcome="misfit"} 1"#,
            r#"causeway_sync_forward_seconds_count{dc="a"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}

//! What the HTTP interface shows: latest values of the other tasks, put into its documents.

mod redacted;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::sync::watch;

use crate::{
    api::{
        Sources,
        wire::{IntendedResource, ProxyConfig, ProxyStatus, Readiness, Status, TopicStatus},
    },
    app::{
        publish::{Report, Reports},
        sync::{self, LocalEngine},
    },
    lifecycle,
    model::{
        catalog::{Catalog, Heard, Topic},
        name::ProxyId,
    },
    sync::metrics::SyncMetrics,
    telemetry::{logs::Telemetry, metrics::Metrics},
    xds::{server::StatusBoard, snapshot::Entry, status::StreamStatus},
};

/// The agent's latest values.
pub(super) struct AgentSources {
    pub(super) started_at: SystemTime,
    pub(super) catalog: watch::Receiver<Arc<Catalog>>,
    pub(super) reports: watch::Receiver<Reports>,
    pub(super) board: StatusBoard,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) metrics: Metrics,
    pub(super) sync: SyncMetrics,
    /// While replication runs.
    pub(super) engine: watch::Receiver<Option<LocalEngine>>,
}

impl Sources for AgentSources {
    fn readiness(&self) -> Readiness {
        readiness(&self.catalog.borrow())
    }

    fn status(&self) -> Status {
        let catalog = self.catalog.borrow().clone();
        let agent = catalog.agent().known();
        let streams = self.board.streams();
        let reports = self.reports.borrow().clone();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            datacenter: agent.map(|agent| agent.datacenter.to_string()),
            node: agent.map(|agent| agent.node.to_string()),
            started_at_ms: epoch_ms(self.started_at),
            now_ms: epoch_ms(lifecycle::wall_clock()),
            readiness: readiness(&catalog),
            proxies: reports.iter().map(|(id, report)| proxy(id, report, &streams, &catalog)).collect(),
            topics: topics(&catalog, &reports),
        }
    }

    fn proxy_config(&self, proxy: &str) -> Option<ProxyConfig> {
        let report = self.reports.borrow().get(proxy)?.clone();
        let resources = report.snapshot.iter().map(|entry| intended(entry)).collect();
        Some(ProxyConfig { proxy: proxy.to_owned(), resources })
    }

    fn metrics(&self) -> String {
        if let Some(engine) = &*self.engine.borrow() {
            self.sync.observe(&sync::figures(&engine.status()));
        }
        self.metrics.encode()
    }

    fn log_level(&self) -> String {
        self.telemetry.level()
    }

    fn set_log_level(&self, filter: &str) -> Result<(), String> {
        self.telemetry.set_level(filter)
    }
}

/// Ready means: Consul was heard. The xDS socket is bound before this interface answers at all.
pub(super) fn readiness(catalog: &Catalog) -> Readiness {
    let ready = catalog.agent().known().is_some();
    let waiting_for = match (ready, catalog.trouble(&Topic::Agent)) {
        (true, _) => vec![],
        (false, Some(reason)) => vec![format!("the local Consul agent: {reason}")],
        (false, None) => vec!["the local Consul agent".to_owned()],
    };
    Readiness { ready, waiting_for }
}

fn proxy(id: &ProxyId, report: &Report, streams: &[Arc<StreamStatus>], catalog: &Catalog) -> ProxyStatus {
    let waiting = |topic: &Topic| match catalog.trouble(topic) {
        Some(reason) => format!("{topic}: {reason}"),
        None => topic.to_string(),
    };
    ProxyStatus {
        proxy: id.to_string(),
        complete: report.snapshot.is_complete(),
        waiting_for: report.waiting_for.iter().map(waiting).collect(),
        notes: report.notes.iter().map(ToString::to_string).collect(),
        streams: streams.iter().filter(|s| s.proxy == id.as_str()).map(|s| (**s).clone()).collect(),
    }
}

fn topics(catalog: &Catalog, reports: &Reports) -> Vec<TopicStatus> {
    let needed = reports.values().flat_map(|report| report.needs.iter());
    let all: std::collections::BTreeSet<&Topic> =
        needed.chain(catalog.topics().map(|(topic, _)| topic)).collect();
    all.into_iter()
        .map(|topic| {
            let heard = catalog.heard(topic);
            let stale = heard.and_then(|heard| Some(&heard.stale.as_ref()?.reason));
            TopicStatus {
                topic: topic.to_string(),
                known: heard.is_some(),
                from_disk: heard.is_some_and(Heard::is_from_disk),
                trouble: stale.or_else(|| catalog.trouble(topic)).map(ToString::to_string),
            }
        })
        .collect()
}

/// A resource as Envoy is meant to have it; private keys stay here.
fn intended(entry: &Entry) -> IntendedResource {
    let key = entry.resource.key();
    let any = redacted::encoded(&entry.resource);
    IntendedResource {
        kind: key.kind.short().to_owned(),
        name: key.name,
        version: entry.version.to_string(),
        type_url: key.kind.type_url().to_owned(),
        value: BASE64_STANDARD.encode(&any.value),
    }
}

fn epoch_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

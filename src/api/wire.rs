//! The documents of the agent's HTTP interface, shared by the server and the command line.

use serde::{Deserialize, Serialize};

use crate::xds::status::StreamStatus;

/// `GET /status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Causeway's version.
    pub version: String,
    /// The local datacenter, once known.
    pub datacenter: Option<String>,
    /// The Consul node this agent runs on, once known.
    pub node: Option<String>,
    /// When the agent started, milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// The time at the agent when it answered, milliseconds since the Unix epoch; ages are told from it.
    pub now_ms: u64,
    /// Whether the agent is ready, and what it waits for.
    pub readiness: Readiness,
    /// Every proxy that is connected or was lately.
    pub proxies: Vec<ProxyStatus>,
    /// Every watched topic.
    pub topics: Vec<TopicStatus>,
}

/// Readiness, as `/readyz` tells it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Ready: Consul was heard and the xDS server listens.
    pub ready: bool,
    /// What it still waits for; empty when ready.
    pub waiting_for: Vec<String>,
}

/// One proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Its service id.
    pub proxy: String,
    /// Whether everything it needs is known.
    pub complete: bool,
    /// What is still unknown and holds resources back: topics as text, with the reason if asking failed.
    pub waiting_for: Vec<String>,
    /// What could not be honoured: `about: problem; remedy`.
    pub notes: Vec<String>,
    /// Its streams.
    pub streams: Vec<StreamStatus>,
}

/// One watched topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicStatus {
    /// The topic as text, for example `connect/counting@dc2`.
    pub topic: String,
    /// Whether it was ever answered.
    pub known: bool,
    /// Its value was kept on disk by an earlier run of the agent, and this one has heard none.
    #[serde(default)]
    pub from_disk: bool,
    /// Why nothing newer is known, if the source went silent or never answered.
    pub trouble: Option<String>,
}

/// `GET /status/proxies/{id}/config`: the intended resources of one proxy, as Envoy's protobuf. Private keys are
/// replaced by `[redacted]` before they leave the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyConfig {
    /// Its service id.
    pub proxy: String,
    /// The resources, in sending order and then by name.
    pub resources: Vec<IntendedResource>,
}

/// One intended resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntendedResource {
    /// `CDS`, `EDS`, `LDS`, `RDS` or `SDS`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The type URL of `value`.
    pub type_url: String,
    /// The protobuf message, base64 (standard alphabet, padded).
    pub value: String,
}

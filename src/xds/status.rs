//! What each stream was sent, took and refused: the plain values behind `causeway proxy status`.

use serde::{Deserialize, Serialize};

/// One ADS stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Unique in this agent process.
    pub stream: u64,
    /// `node.id`: the proxy's service id.
    pub proxy: String,
    /// Envoy's version, if it told one.
    pub envoy_version: Option<String>,
    /// When it connected, milliseconds since the Unix epoch.
    pub connected_at_ms: u64,
    /// By type of resource, in sending order; types never asked for are absent.
    pub types: Vec<TypeStatus>,
}

/// One type of resource on a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeStatus {
    /// `CDS`, `EDS`, `LDS`, `RDS` or `SDS`.
    pub kind: String,
    /// Every resource asked for that exists, and every name asked for that does not.
    pub resources: Vec<ResourceStatus>,
    /// When a response was last sent, milliseconds since the Unix epoch.
    pub sent_at_ms: Option<u64>,
    /// When Envoy last acknowledged one.
    pub acked_at_ms: Option<u64>,
    /// Responses acknowledged so far.
    pub acks: u64,
    /// Responses refused so far.
    pub nacks: u64,
    /// The last refusal, kept until a later response of this type is acknowledged.
    pub last_nack: Option<Nack>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    /// Envoy's message.
    pub message: String,
    /// The resources of the refused response.
    pub resources: Vec<String>,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// One resource on a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Its name.
    pub name: String,
    /// The version that is intended; none when the resource does not exist (any more).
    pub intended: Option<String>,
    /// The version last sent on this stream, or that Envoy said it had when it connected.
    pub sent: Option<String>,
    /// How the two compare.
    pub state: ResourceState,
}

/// Where a resource stands on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceState {
    /// Envoy has the intended version.
    Synced,
    /// The intended version was sent and not yet answered.
    Sent,
    /// The intended version waits to be sent (behind a gate, or behind an unanswered response).
    Waiting,
    /// Envoy refused the intended version.
    Rejected,
    /// Asked for by name and not in the catalog.
    Absent,
}

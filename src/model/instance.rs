//! Instances of services, with their addresses and health.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::name::{NodeName, ServiceId, ServiceName};

/// The kind of a catalog service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// An ordinary service.
    #[default]
    Typical,
    /// A sidecar.
    ConnectProxy,
    /// A mesh gateway.
    MeshGateway,
    /// A terminating gateway.
    TerminatingGateway,
    /// An ingress gateway.
    IngressGateway,
    /// A kind that this version does not know.
    Other,
}

impl fmt::Display for ServiceKind {
    /// As Consul spells it; an ordinary service, which Consul leaves blank, is `typical`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Typical => "typical",
            Self::ConnectProxy => "connect-proxy",
            Self::MeshGateway => "mesh-gateway",
            Self::TerminatingGateway => "terminating-gateway",
            Self::IngressGateway => "ingress-gateway",
            Self::Other => "other",
        })
    }
}

/// One instance as a health query gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// The node it runs on.
    pub node: NodeName,
    /// Its service id.
    pub id: ServiceId,
    /// Its service name; for a sidecar the sidecar's own.
    pub service: ServiceName,
    /// Its kind.
    pub kind: ServiceKind,
    /// The service address, else the node's; reachable inside its datacenter.
    pub lan: HostPort,
    /// The address tagged `wan` of the service, else the service address, else the node's `wan` address, else the
    /// node address (Consul's `BestAddress`), as far as they can be dialled.
    pub wan: HostPort,
    /// The worst of its checks and its node's.
    pub health: Health,
    /// Its weights.
    pub weights: Weights,
    /// Its metadata.
    pub meta: BTreeMap<String, String>,
    /// The whole entry as filters see it: an object with `Node`, `Service` and `Checks`, without Raft indexes.
    pub entry: Arc<Value>,
    /// Raft index of its last change, in its own datacenter.
    pub modify_index: u64,
}

/// The worst status of a set of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All pass (or there is none).
    Passing,
    /// At least one warns, none is critical.
    Warning,
    /// At least one is critical, or the instance or node is in maintenance.
    Critical,
}

/// How much traffic an instance takes, by health. Consul's default is 1 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// While its checks pass.
    pub passing: u32,
    /// While a check warns.
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPort {
    /// IP address or DNS name.
    pub host: Host,
    /// TCP port.
    pub port: u16,
}

impl HostPort {
    /// Reads `host` as an IP address if it is one, else as a DNS name.
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: Host::parse(host), port }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Host::Ip(ip) => write!(f, "{ip}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// An IP address or a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name, in Consul's spelling.
    Name(String),
}

impl Host {
    /// An IP address if `text` is one, else a DNS name.
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Ip)
    }
}

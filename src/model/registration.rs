//! A proxy's own registration: what it is and what it wants to reach.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::model::{
    chain::{GatewayMode, Protocol},
    instance::{HostPort, ServiceKind},
    name::{Datacenter, ProxyId, ServiceId, ServiceName},
    note::Note,
    settings::Settings,
};

/// A proxy as registered with the local agent (`/v1/agent/service/:id`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Its service id.
    pub id: ProxyId,
    /// Its own service name, for example `counting-sidecar-proxy`.
    pub service: ServiceName,
    /// What it is.
    pub kind: ServiceKind,
    /// Its service address; empty when it was registered without one.
    pub address: String,
    /// Its service port.
    pub port: u16,
    /// Its tagged addresses (`lan`, `wan`, ...).
    pub tagged: BTreeMap<String, HostPort>,
    /// Its metadata.
    pub meta: BTreeMap<String, String>,
    /// The service a sidecar stands for.
    pub destination: Option<Destination>,
    /// Its own gateway mode, if set.
    pub gateway_mode: Option<GatewayMode>,
    /// Its opaque settings, as registered (not merged with central configuration below Consul 1.9).
    pub settings: Settings,
    /// What it wants to reach, in the order of registration.
    pub upstreams: Vec<Result<Upstream, Unread<UpstreamId>>>,
    /// Paths of its application that are served without TLS and without asking intentions.
    pub exposed: ExposedPaths,
}

/// What stands in the place of something that is asked for and cannot be honoured. It is not as if it were not asked
/// for: whatever it was before stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unread<I> {
    /// Which one it is, if that much can be read.
    pub id: Option<I>,
    /// What is wrong with it.
    pub note: Note,
}

/// The service instance behind a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Its service name.
    pub service: ServiceName,
    /// Its service id, if the registration names one.
    pub id: Option<ServiceId>,
    /// Where it listens; on `127.0.0.1` unless registered otherwise.
    pub local: Option<LocalAddress>,
}

/// What sets an upstream apart from a proxy's others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamId {
    /// What is reached.
    pub destination: UpstreamKind,
    /// In which datacenter; the proxy's own when not given.
    pub datacenter: Option<Datacenter>,
}

/// A service that a sidecar's application reaches on a local port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// What is reached, and in which datacenter.
    pub id: UpstreamId,
    /// Where Envoy listens for the application; on `127.0.0.1` unless registered otherwise.
    pub bind: LocalAddress,
    /// Its own gateway mode, if set; laid over the proxy's.
    pub gateway_mode: Option<GatewayMode>,
    /// Its opaque settings.
    pub settings: Settings,
}

/// Where something listens on the proxy's machine, or is reached from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LocalAddress {
    /// A host and a TCP port.
    Port(HostPort),
    /// A Unix socket.
    Socket(UnixSocket),
}

impl fmt::Display for LocalAddress {
    /// `127.0.0.1:80`, or a Unix socket's path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(at) => at.fmt(f),
            Self::Socket(socket) => f.write_str(&socket.path),
        }
    }
}

/// A Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixSocket {
    /// An absolute path of at most 107 bytes, or `@` and a name in Linux's abstract namespace.
    pub path: String,
    /// Permission bits of the socket's file, if told.
    pub mode: Option<u32>,
}

/// `Expose.Paths`, as listed.
pub type ExposedPaths = Vec<Result<ExposedPath, Unread<ExposedId>>>;

/// What sets an exposed path apart from a proxy's others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposedId {
    /// The path, with its leading slash. No other is served.
    pub path: String,
    /// Where Envoy serves it.
    pub listener_port: u16,
}

/// One path of the application that anybody may fetch: a health check, metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposedPath {
    /// The path, and where Envoy serves it.
    pub id: ExposedId,
    /// Where the application does.
    pub local_port: u16,
    /// What the application speaks.
    pub protocol: Protocol,
}

/// What an upstream names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamKind {
    /// A service.
    Service(ServiceName),
    /// A prepared query, by id or name.
    PreparedQuery(String),
}

/// Central configuration of one scope: `proxy-defaults/global` or `service-defaults/<name>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// `Protocol` (service-defaults) as written.
    pub protocol: Option<String>,
    /// `MeshGateway.Mode`.
    pub gateway_mode: Option<GatewayMode>,
    /// `Config` (proxy-defaults), and the fields of service-defaults under the keys that Consul merges them into.
    pub settings: Settings,
    /// `Expose.Paths`.
    pub exposed: ExposedPaths,
    /// `UpstreamConfig` (service-defaults, 1.9 and later) of the service that the upstreams are of.
    pub upstreams: UpstreamDefaults,
}

/// Settings of the upstreams that a service's sidecars have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamDefaults {
    /// Of all upstreams (`Defaults`).
    pub all: UpstreamConfig,
    /// Of those to one service (`Overrides`); a key here wins.
    pub by_service: BTreeMap<ServiceName, UpstreamConfig>,
}

/// Central settings of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Its gateway mode, if set.
    pub gateway_mode: Option<GatewayMode>,
    /// Its settings, under the keys of an upstream's own `Config`.
    pub settings: Settings,
}

//! A proxy's own registration: what it is and what it wants to reach.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{
    chain::GatewayMode,
    instance::{HostPort, ServiceKind},
    name::{Datacenter, ProxyId, ServiceId, ServiceName},
    settings::Settings,
};

/// A proxy as registered with the local agent (`/v1/agent/service/:id`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    pub upstreams: Vec<Upstream>,
}

/// The service instance behind a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// Its service name.
    pub service: ServiceName,
    /// Its service id, if the registration names one.
    pub id: Option<ServiceId>,
    /// Where it listens; `127.0.0.1` unless registered otherwise.
    pub local: Option<HostPort>,
}

/// A service that a sidecar's application reaches on a local port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Upstream {
    /// What is reached.
    pub destination: UpstreamKind,
    /// In which datacenter; the proxy's own when not given.
    pub datacenter: Option<Datacenter>,
    /// Where Envoy listens for the application; `127.0.0.1` unless registered otherwise.
    pub bind: HostPort,
    /// Its own gateway mode, if set; laid over the proxy's.
    pub gateway_mode: Option<GatewayMode>,
    /// Its opaque settings.
    pub settings: Settings,
}

/// What an upstream names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamKind {
    /// A service.
    Service(ServiceName),
    /// A prepared query, by id or name.
    PreparedQuery(String),
}

/// Central configuration of one scope: `proxy-defaults/global` or `service-defaults/<name>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Defaults {
    /// `Protocol` (service-defaults) as written.
    pub protocol: Option<String>,
    /// `MeshGateway.Mode`.
    pub gateway_mode: Option<GatewayMode>,
    /// `Config` (proxy-defaults).
    pub settings: Settings,
}

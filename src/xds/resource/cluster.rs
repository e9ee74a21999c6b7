//! Clusters.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    model::{
        chain::{Balance, Protocol},
        mesh::TlsParams,
    },
    xds::resource::{Key, Kind, address::Address, endpoints::Endpoint, secret::TlsSecrets},
};

/// `envoy.config.cluster.v3.Cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The name its statistics appear under, when another than `name`.
    pub stat_name: Option<String>,
    /// How long a connection may take to establish.
    pub connect_timeout_ms: u64,
    /// Probes on idle connections; none leaves them silent. Boxed, as few clusters have it.
    pub keepalive: Option<Box<Keepalive>>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How requests spread over the endpoints; `None` is Envoy's default. An aggregate leaves that to its children.
    pub balance: Option<Balance>,
    /// TLS towards the endpoints; none means plain bytes.
    pub tls: Option<UpstreamTls>,
    /// In which version requests go out.
    pub http: HttpVersion,
    /// Ejecting endpoints that fail. None leaves outlier detection off.
    pub outlier: Option<Outlier>,
    /// Limits of connections and requests.
    pub limits: Limits,
}

/// In which version of HTTP requests go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    One,
    /// HTTP/2 with prior knowledge.
    Two,
    /// That in which they came.
    OfCaller,
}

impl HttpVersion {
    /// What one that speaks a protocol is spoken to in. Over TCP there are no requests, but for those of connections from
    /// when it was another protocol, which Envoy drains: what they were is not known. Where requests come all the time, that
    /// is [`Self::settled`].
    pub fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::OfCaller,
            Protocol::Http => Self::One,
            Protocol::Http2 | Protocol::Grpc => Self::Two,
        }
    }

    /// HTTP/1.1 where nobody said otherwise.
    pub fn settled(self) -> Self {
        match self {
            Self::OfCaller => Self::One,
            Self::One | Self::Two => self,
        }
    }
}

/// Where a cluster's endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Discovery {
    /// EDS over ADS, under the cluster's own name.
    Eds,
    /// Fixed.
    Static(Vec<Address>),
    /// Host names that Envoy resolves.
    Dns(Dns),
    /// Other clusters of these names, the first that has a healthy endpoint.
    Aggregate(Vec<String>),
}

/// A cluster whose endpoints are host names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dns {
    /// How many of the resolved addresses are used.
    pub resolution: Resolution,
    /// Time between resolutions, in milliseconds.
    pub refresh_ms: u64,
    /// The hosts, in order; [`Resolution::Logical`] takes just one.
    pub hosts: Vec<DnsHost>,
    /// As in [`crate::xds::resource::endpoints::Endpoints`].
    pub in_aggregate: bool,
}

/// One host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DnsHost {
    /// The DNS name.
    pub name: String,
    /// TCP port.
    pub port: u16,
    /// Weight and health.
    pub endpoint: Endpoint,
}

/// How many of a host name's addresses are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resolution {
    /// `LOGICAL_DNS`: one at a time, another for new connections when it changes.
    #[default]
    Logical,
    /// `STRICT_DNS`: all of them.
    Strict,
}

/// TLS towards a cluster's endpoints; the peer's SAN is always verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UpstreamTls {
    /// The server name sent.
    pub sni: String,
    /// SPIFFE ids of which the peer must present one. Never empty.
    pub sans: BTreeSet<String>,
    /// The SDS names of leaf and roots.
    pub secrets: TlsSecrets,
    /// Versions and ciphers.
    pub params: TlsParams,
}

/// Outlier detection. Envoy's own defaults hold for what is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outlier {
    /// Time between sweeps.
    pub interval_ms: Option<u64>,
    /// Consecutive 5xx or connect failures before ejection.
    pub consecutive_5xx: Option<u32>,
    /// The chance of ejection at that number, in percent.
    pub enforcing_consecutive_5xx: Option<u32>,
    /// How long the first ejection lasts.
    pub base_ejection_time_ms: Option<u64>,
    /// The most of a cluster that may be ejected, in percent.
    pub max_ejection_percent: Option<u32>,
}

/// TCP keepalive. The system's own settings hold for what is not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Keepalive {
    /// How long a connection is idle before the first probe, in seconds.
    pub time_s: Option<u32>,
    /// Time between probes, in seconds.
    pub interval_s: Option<u32>,
    /// Probes without an answer before the connection is given up.
    pub probes: Option<u32>,
}

/// Circuit-breaker thresholds. Envoy's own defaults hold for what is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Connections to all endpoints together.
    pub max_connections: Option<u32>,
    /// Requests waiting for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests under way.
    pub max_requests: Option<u32>,
}

impl Cluster {
    pub(super) fn refers_to(&self, refs: &mut BTreeSet<Key>) {
        match &self.discovery {
            Discovery::Eds => drop(refs.insert(Key::new(Kind::Endpoints, &self.name))),
            Discovery::Aggregate(children) => {
                refs.extend(children.iter().map(|child| Key::new(Kind::Cluster, child)));
            }
            Discovery::Static(_) | Discovery::Dns(_) => {}
        }
        if let Some(tls) = &self.tls {
            tls.secrets.refers_to(refs);
        }
    }
}

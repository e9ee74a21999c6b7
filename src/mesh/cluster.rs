//! Clusters of each purpose.

use std::collections::BTreeSet;

use crate::{
    mesh::name,
    model::{chain::Balance, mesh::TlsParams, name::ServiceName},
    xds::resource::{
        Resource,
        address::Address,
        cluster::{
            Cluster, Discovery, Dns, DnsHost, HttpVersion, Keepalive, Limits, Outlier, Resolution,
            UpstreamTls,
        },
        endpoints::{Endpoint, EndpointHealth},
        secret::TlsSecrets,
    },
};

/// Consul's connect timeout where nothing else is configured.
pub const CONNECT_TIMEOUT_MS: u64 = 5_000;

/// Consul's pace of resolving host names.
const DNS_REFRESH_MS: u64 = 10_000;

/// A day: far beyond any time that is meant, and within what protobuf's durations and Envoy's timers can count.
const LONGEST_MS: u64 = 86_400_000;

/// A time as Envoy takes it, of one that a user wrote: at most a day, and none if it is zero, which Envoy refuses for
/// connect timeouts and for the times of outlier detection.
pub fn time_ms(written: Option<u64>) -> Option<u64> {
    written.filter(|ms| *ms > 0).map(|ms| ms.min(LONGEST_MS))
}

/// Passes TLS of others through: what a mesh gateway needs.
pub fn passthrough(
    name: &str,
    discovery: Discovery,
    connect_timeout_ms: u64,
    keepalive: Option<Keepalive>,
) -> Resource {
    let keepalive = keepalive.map(Box::new);
    Resource::Cluster(Cluster { discovery, keepalive, ..eds(name, connect_timeout_ms) })
}

/// The local application, plain, also under the names of exposed paths. Without an address it answers nobody.
pub fn application(
    name: &str,
    discovery: Discovery,
    connect_timeout_ms: u64,
    http: HttpVersion,
    max_connections: Option<u32>,
) -> Resource {
    let limits = Limits { max_connections, ..Limits::default() };
    Resource::Cluster(Cluster { discovery, outlier: None, http, limits, ..eds(name, connect_timeout_ms) })
}

/// An application at one address.
pub fn at(address: Address) -> Discovery {
    Discovery::Static(vec![address])
}

/// An application at a host name.
pub fn at_name(name: &str, port: u16) -> Discovery {
    let endpoint = Endpoint { weight: 1, health: EndpointHealth::Unknown };
    let host = DnsHost { name: name.to_owned(), port, endpoint };
    Discovery::Dns(Dns {
        resolution: Resolution::Logical,
        refresh_ms: DNS_REFRESH_MS,
        hosts: vec![host],
        in_aggregate: false,
    })
}

/// What all targets of an upstream have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// How long a connection may take to establish.
    pub connect_timeout_ms: u64,
    /// In which version requests go out.
    pub http: HttpVersion,
    /// How requests spread over the endpoints.
    pub balance: Option<Balance>,
}

/// An upstream over mTLS.
pub fn upstream(name: &str, discovery: Discovery, manner: Manner, tls: UpstreamTls) -> Cluster {
    let Manner { connect_timeout_ms, http, balance } = manner;
    Cluster { discovery, tls: Some(tls), http, balance, ..eds(name, connect_timeout_ms) }
}

/// One of an upstream's targets, of which each takes over from the one before when that has no healthy endpoint. Behind
/// the last one there is none: however often it fails, one endpoint of it is tried on.
pub fn successive(cluster: Cluster, is_last: bool) -> Cluster {
    // Envoy ejects at most 10 % of a cluster by default, rounded down: never the last address, nor one of nine. With 99 %
    // it ejects all of up to a hundred but one.
    let most = if is_last { 99 } else { 100 };
    let outlier = cluster.outlier.unwrap_or_default();
    let max_ejection_percent = outlier.max_ejection_percent.or(Some(most));
    Cluster { outlier: Some(Outlier { max_ejection_percent, ..outlier }), ..cluster }
}

/// The first of `children` that has a healthy endpoint. All else is theirs.
pub fn aggregate(name: &str, children: Vec<String>, connect_timeout_ms: u64) -> Resource {
    let discovery = Discovery::Aggregate(children);
    Resource::Cluster(Cluster { discovery, outlier: None, ..eds(name, connect_timeout_ms) })
}

/// The certificates that `service` uses.
pub fn secrets(service: &ServiceName) -> TlsSecrets {
    TlsSecrets { leaf: name::leaf(service), roots: name::ROOTS.to_owned() }
}

/// The peer must present one of these SANs.
pub fn upstream_tls(sni: &str, sans: BTreeSet<String>, secrets: TlsSecrets) -> UpstreamTls {
    UpstreamTls { sni: sni.to_owned(), sans, secrets, params: TlsParams::default() }
}

fn eds(name: &str, connect_timeout_ms: u64) -> Cluster {
    Cluster {
        name: name.to_owned(),
        stat_name: None,
        connect_timeout_ms,
        keepalive: None,
        discovery: Discovery::Eds,
        balance: None,
        tls: None,
        http: HttpVersion::default(),
        // Present with Envoy's defaults, as Consul has it.
        outlier: Some(Outlier::default()),
        limits: Limits::default(),
    }
}

//! Clusters of each purpose.

use std::collections::BTreeSet;

use crate::{
    mesh::name,
    model::{chain::Balance, name::ServiceName},
    xds::resource::{
        Resource,
        address::Address,
        cluster::{Cluster, Discovery, Limits, Outlier, UpstreamTls},
        secret::TlsSecrets,
    },
};

/// Consul's connect timeout where nothing else is configured.
pub const CONNECT_TIMEOUT_MS: u64 = 5_000;

/// Passes TLS of others through: what a mesh gateway needs.
pub fn passthrough(name: &str, discovery: Discovery, connect_timeout_ms: u64) -> Resource {
    Resource::Cluster(Cluster { discovery, ..eds(name, connect_timeout_ms) })
}

/// The local application, plain; without an address it answers nobody.
pub fn local_app(address: Option<Address>, connect_timeout_ms: u64, http2: bool) -> Resource {
    Resource::Cluster(Cluster {
        discovery: Discovery::Static(address.into_iter().collect()),
        outlier: None,
        http2,
        ..eds(name::LOCAL_APP, connect_timeout_ms)
    })
}

/// What all targets of an upstream have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// How long a connection may take to establish.
    pub connect_timeout_ms: u64,
    /// HTTP/2 with prior knowledge.
    pub http2: bool,
    /// How requests spread over the endpoints.
    pub balance: Option<Balance>,
}

/// An upstream over mTLS.
pub fn upstream(name: &str, discovery: Discovery, manner: Manner, tls: UpstreamTls) -> Cluster {
    let Manner { connect_timeout_ms, http2, balance } = manner;
    Cluster { discovery, tls: Some(tls), http2, balance, ..eds(name, connect_timeout_ms) }
}

/// One of an upstream's targets, of which each takes over from the one before when that has no healthy endpoint.
pub fn successive(cluster: Cluster) -> Cluster {
    // Envoy ejects at most 10 % of a cluster by default, rounded down: never the last address, nor one of nine.
    let outlier = cluster.outlier.unwrap_or_default();
    let max_ejection_percent = outlier.max_ejection_percent.or(Some(100));
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
    UpstreamTls { sni: sni.to_owned(), sans, secrets }
}

fn eds(name: &str, connect_timeout_ms: u64) -> Cluster {
    Cluster {
        name: name.to_owned(),
        stat_name: None,
        connect_timeout_ms,
        discovery: Discovery::Eds,
        balance: None,
        tls: None,
        http2: false,
        // Present with Envoy's defaults, as Consul has it.
        outlier: Some(Outlier::default()),
        limits: Limits::default(),
    }
}

//! Clusters of each purpose.

use std::collections::BTreeSet;

use crate::{
    mesh::name,
    model::name::ServiceName,
    xds::resource::{
        Resource,
        address::Address,
        cluster::{Cluster, Discovery, Keepalive, Limits, Outlier, UpstreamTls},
        secret::TlsSecrets,
    },
};

/// Consul's connect timeout where nothing else is configured.
pub const CONNECT_TIMEOUT_MS: u64 = 5_000;

/// Passes TLS of others through: what a mesh gateway needs.
pub fn passthrough(
    name: &str,
    discovery: Discovery,
    connect_timeout_ms: u64,
    keepalive: Option<Keepalive>,
) -> Resource {
    Resource::Cluster(Cluster { discovery, keepalive, ..eds(name, connect_timeout_ms) })
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

/// An upstream over mTLS.
pub fn upstream(
    name: &str,
    discovery: Discovery,
    connect_timeout_ms: u64,
    http2: bool,
    tls: UpstreamTls,
) -> Resource {
    Resource::Cluster(Cluster { discovery, tls: Some(tls), http2, ..eds(name, connect_timeout_ms) })
}

/// The certificates that `service` uses.
pub fn secrets(service: &ServiceName) -> TlsSecrets {
    TlsSecrets { leaf: name::leaf(service), roots: name::ROOTS.to_owned() }
}

/// One SAN that the peer must present.
pub fn upstream_tls(sni: &str, spiffe_id: String, secrets: TlsSecrets) -> UpstreamTls {
    UpstreamTls { sni: sni.to_owned(), sans: BTreeSet::from([spiffe_id]), secrets }
}

fn eds(name: &str, connect_timeout_ms: u64) -> Cluster {
    Cluster {
        name: name.to_owned(),
        stat_name: None,
        connect_timeout_ms,
        keepalive: None,
        discovery: Discovery::Eds,
        tls: None,
        http2: false,
        // Present with Envoy's defaults, as Consul has it.
        outlier: Some(Outlier::default()),
        limits: Limits::default(),
    }
}

//! Listeners.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    model::mesh::TlsParams,
    xds::resource::{Key, address::Address, filter::NetworkFilter, secret::TlsSecrets},
};

/// `envoy.config.listener.v3.Listener`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// The name its statistics appear under, when another than its address.
    pub stat_prefix: Option<String>,
    /// Where it listens.
    pub address: Address,
    /// Whose traffic it takes.
    pub direction: Direction,
    /// Reads the server name of a TLS handshake before choosing a chain.
    pub tls_inspector: bool,
    /// Spreads connections evenly over Envoy's threads, which costs a lock for each: for few, long ones.
    pub exact_balance: bool,
    /// Its chains, in the order in which they are written; which one matches is told by `server_names` alone.
    pub chains: Vec<FilterChain>,
}

/// Whose traffic a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the mesh to the local application.
    Inbound,
    /// From the local application to the mesh.
    Outbound,
    /// A gateway's.
    Unspecified,
}

/// One filter chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilterChain {
    /// Its name, unique in the listener.
    pub name: String,
    /// TLS server names it matches, exact or `*.suffix`; empty matches whatever no other chain does.
    pub server_names: BTreeSet<String>,
    /// TLS termination, with the client's certificate required.
    pub tls: Option<DownstreamTls>,
    /// Its filters, in order; the last one is terminal.
    pub filters: Vec<NetworkFilter>,
}

/// TLS towards clients; a client certificate is always required.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DownstreamTls {
    /// The SDS names of leaf and roots.
    pub secrets: TlsSecrets,
    /// ALPN protocols offered, most wanted first.
    pub alpn: Vec<String>,
    /// Versions and ciphers.
    pub params: TlsParams,
}

impl Listener {
    pub(super) fn refers_to(&self, refs: &mut BTreeSet<Key>) {
        for chain in &self.chains {
            if let Some(tls) = &chain.tls {
                tls.secrets.refers_to(refs);
            }
            for filter in &chain.filters {
                filter.refers_to(refs);
            }
        }
    }
}

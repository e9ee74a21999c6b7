//! What the whole mesh is told at once (Consul's `mesh` entry, 1.12 and later).

use serde::{Deserialize, Serialize};

/// The `mesh/mesh` entry. Its default is what holds without one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshDefaults {
    /// TLS of public listeners (`TLS.Incoming`).
    pub incoming: TlsParams,
    /// TLS towards upstreams (`TLS.Outgoing`).
    pub outgoing: TlsParams,
    /// Applications are not told who called: `x-forwarded-client-cert` is removed
    /// (`HTTP.SanitizeXForwardedClientCert`).
    pub hides_callers: bool,
}

/// Versions and ciphers of TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsParams {
    /// The oldest version.
    pub min: TlsVersion,
    /// The newest version; Envoy's own choice when not given.
    pub max: Option<TlsVersion>,
    /// Ciphers up to TLS 1.2, in Envoy's words, most wanted first; Envoy's own choice when empty.
    pub ciphers: Vec<String>,
}

impl Default for TlsParams {
    /// As Consul has it without an entry: TLS 1.2 or newer.
    fn default() -> Self {
        Self { min: TlsVersion::V1_2, max: None, ciphers: Vec::new() }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    /// 1.0.
    V1_0,
    /// 1.1.
    V1_1,
    /// 1.2.
    V1_2,
    /// 1.3.
    V1_3,
}

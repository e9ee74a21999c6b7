//! Secrets: what travels as SDS, so that a rotated certificate re-warms nothing.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    model::secret::SecretText,
    xds::resource::{Key, Kind},
};

/// `envoy.extensions.transport_sockets.tls.v3.Secret`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub content: SecretContent,
}

/// What a secret holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretContent {
    /// A certificate with its private key. The key serializes redacted; a version is therefore taken from the
    /// certificate alone, which is bound to its key.
    Leaf {
        /// Certificates, leaf first, PEM.
        chain_pem: String,
        /// The private key, PEM.
        key_pem: SecretText,
    },
    /// Trusted roots, PEM. Never empty (Envoy 1.35 refuses an empty `trusted_ca`).
    Roots {
        /// Root certificates.
        pem: String,
    },
}

/// The SDS names that a TLS context uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsSecrets {
    /// The certificate presented.
    pub leaf: String,
    /// The roots trusted.
    pub roots: String,
}

impl TlsSecrets {
    pub(super) fn refers_to(&self, refs: &mut BTreeSet<Key>) {
        refs.insert(Key::new(Kind::Secret, &self.leaf));
        refs.insert(Key::new(Kind::Secret, &self.roots));
    }
}

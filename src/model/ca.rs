//! The mesh's certificates: the roots everybody trusts and the leaf a service presents.

use serde::{Deserialize, Serialize};

use crate::model::{
    name::{ServiceName, TrustDomain},
    secret::SecretText,
};

/// The CA roots (`/v1/agent/connect/ca/roots`). An answer with an empty trust domain is unknown, not empty: it
/// never becomes a value of this type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roots {
    /// The trust domain, lower case.
    pub trust_domain: TrustDomain,
    /// PEM texts of **every** listed root, active or not, and their intermediates, sorted and without duplicates;
    /// all are trusted, so that old and new leaves verify during a rotation. Never empty.
    pub pem: Vec<String>,
}

/// A service's leaf certificate (`/v1/agent/connect/ca/leaf/:service`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// The service it is for.
    pub service: ServiceName,
    /// Leaf and intermediates, PEM, without repeated certificates (Consul 1.8.7 repeats the intermediate in a
    /// secondary datacenter).
    pub chain_pem: String,
    /// Its private key, PEM.
    pub key_pem: SecretText,
    /// The end of its validity, seconds since the Unix epoch.
    pub valid_before_s: i64,
}

//! Versions: a hash of a resource's canonical form, never of its protobuf bytes.
//!
//! Equal resources have equal versions in every process, so a restarted agent, or a second one, re-sends nothing (rule 18).

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::xds::resource::Resource;

/// How much of the hash is kept: 64 bits tell the few versions of one resource apart with room to spare.
const VERSION_BYTES: usize = 8;

/// A resource's version: 16 hexadecimal digits when we made it, whatever a client says it has otherwise.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(Arc<str>);

impl Version {
    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The version of something that hashed to this.
    pub(crate) fn of_hash(hash: &blake3::Hash) -> Self {
        let digits: String = hash.as_bytes().iter().take(VERSION_BYTES).map(|b| format!("{b:02x}")).collect();
        Self(digits.into())
    }
}

impl From<&str> for Version {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Part of every version. To be raised when `encode` gives other bytes for an equal resource: otherwise an Envoy that
/// comes back with the old bytes would be taken for one that has the new ones.
const ENCODING: u8 = 4;

/// The version of a resource. A private key takes no part: its certificate is bound to it.
pub fn version_of(resource: &Resource) -> Version {
    let canonical = serde_json::to_vec(&(ENCODING, resource))
        .expect("resources have string keys only and serialize without failing");
    Version::of_hash(&blake3::hash(&canonical))
}

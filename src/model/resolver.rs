//! `service-resolver` entries, as mesh gateways need them: which subsets of a service there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::chain::Subset;

/// One `service-resolver` entry. Redirects and failover are decided by whoever dials, before a gateway sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceResolver {
    /// The subset that is meant where none is named.
    pub default_subset: Option<String>,
    /// Its subsets by name.
    pub subsets: BTreeMap<String, Subset>,
    /// How long a connection may take, in milliseconds, if it says so.
    pub connect_timeout_ms: Option<u64>,
}

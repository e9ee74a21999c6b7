//! Prepared queries.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::{
    instance::Instance,
    name::{Datacenter, ServiceName},
};

/// What a prepared query found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryResult {
    /// The datacenter of all that was found: another than the one that was asked when the query failed over.
    pub datacenter: Datacenter,
    /// The services in the mesh that the instances stand for, by which they identify themselves.
    pub services: BTreeSet<ServiceName>,
    /// The instances, sorted by node and id: Consul shuffles them.
    pub instances: Vec<Instance>,
}

//! Endpoints.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::xds::resource::address::Address;

/// `envoy.config.endpoint.v3.ClusterLoadAssignment`: one locality group, one priority. Failover is between clusters
/// ([`crate::xds::resource::cluster::Discovery::Aggregate`]), since each has a server name and SANs of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// The cluster they belong to; also the resource's name.
    pub cluster: String,
    /// Endpoints by address, so that none is given twice. Empty means: known to have none.
    pub endpoints: BTreeMap<Address, Endpoint>,
    /// The cluster is one of an aggregate, whose next one takes over only when none of these is healthy. Envoy's own
    /// way would send that one a share as soon as fewer than about 72 % are.
    pub in_aggregate: bool,
}

/// One endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Load-balancing weight, 1 to 128.
    pub weight: u32,
    /// Its health.
    pub health: EndpointHealth,
}

/// Health as EDS tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointHealth {
    /// Not told; counts as healthy.
    Unknown,
    /// Takes traffic.
    Healthy,
    /// Takes none.
    Unhealthy,
}

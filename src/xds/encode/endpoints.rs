//! Endpoints.

use envoy_types::pb::envoy::config::{
    core::v3::{Address as AddressMessage, HealthStatus},
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint as EndpointMessage, LbEndpoint, LocalityLbEndpoints,
        cluster_load_assignment::Policy, lb_endpoint::HostIdentifier,
    },
};

use crate::xds::{
    encode::value::{address, host, number},
    resource::{
        address::Address,
        cluster::Dns,
        endpoints::{Endpoint, EndpointHealth, Endpoints},
    },
};

/// So much that one healthy endpoint among very many still takes all of the load; the value is Consul's.
const OVERPROVISIONING: u32 = 100_000;

pub(super) fn message(endpoints: &Endpoints) -> ClusterLoadAssignment {
    let members = endpoints.endpoints.iter().map(|(at, endpoint)| member(address(at), *endpoint)).collect();
    succeeded(assignment(&endpoints.cluster, members), endpoints.in_aggregate)
}

/// The assignment of a cluster whose endpoints never change.
pub(super) fn fixed(cluster: &str, addresses: &[Address]) -> ClusterLoadAssignment {
    let members = addresses
        .iter()
        .map(|at| LbEndpoint { host_identifier: Some(identifier(address(at))), ..LbEndpoint::default() })
        .collect();
    assignment(cluster, members)
}

/// The assignment of a cluster whose hosts Envoy resolves.
pub(super) fn resolved(cluster: &str, dns: &Dns) -> ClusterLoadAssignment {
    let members = dns.hosts.iter().map(|at| member(host(&at.name, at.port), at.endpoint)).collect();
    succeeded(assignment(cluster, members), dns.in_aggregate)
}

fn succeeded(assignment: ClusterLoadAssignment, in_aggregate: bool) -> ClusterLoadAssignment {
    let policy = || Policy { overprovisioning_factor: Some(number(OVERPROVISIONING)), ..Policy::default() };
    ClusterLoadAssignment { policy: in_aggregate.then(policy), ..assignment }
}

/// One locality group, also when it is empty: an explicit "none" ends the cluster's warming.
fn assignment(cluster: &str, lb_endpoints: Vec<LbEndpoint>) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() }],
        ..ClusterLoadAssignment::default()
    }
}

fn member(at: AddressMessage, endpoint: Endpoint) -> LbEndpoint {
    let health = match endpoint.health {
        EndpointHealth::Unknown => HealthStatus::Unknown,
        EndpointHealth::Healthy => HealthStatus::Healthy,
        EndpointHealth::Unhealthy => HealthStatus::Unhealthy,
    };
    LbEndpoint {
        health_status: health.into(),
        load_balancing_weight: Some(number(endpoint.weight)),
        host_identifier: Some(identifier(at)),
        ..LbEndpoint::default()
    }
}

fn identifier(at: AddressMessage) -> HostIdentifier {
    HostIdentifier::Endpoint(EndpointMessage { address: Some(at), ..EndpointMessage::default() })
}

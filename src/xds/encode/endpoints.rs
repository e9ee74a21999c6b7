//! Endpoints.

use envoy_types::pb::envoy::config::{
    core::v3::{Address as AddressMessage, HealthStatus},
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint as EndpointMessage, LbEndpoint, LocalityLbEndpoints,
        lb_endpoint::HostIdentifier,
    },
};

use crate::xds::{
    encode::value::{address, host, number},
    resource::{
        address::Address,
        cluster::DnsHost,
        endpoints::{Endpoint, EndpointHealth, Endpoints},
    },
};

pub(super) fn message(endpoints: &Endpoints) -> ClusterLoadAssignment {
    let members = endpoints.endpoints.iter().map(|(at, endpoint)| member(address(at), *endpoint)).collect();
    assignment(&endpoints.cluster, members)
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
pub(super) fn resolved(cluster: &str, hosts: &[DnsHost]) -> ClusterLoadAssignment {
    let members = hosts.iter().map(|at| member(host(&at.name, at.port), at.endpoint)).collect();
    assignment(cluster, members)
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

//! Endpoints.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::{
    core::v3::HealthStatus,
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint as EndpointMessage, LbEndpoint, LocalityLbEndpoints,
        lb_endpoint::HostIdentifier,
    },
};

use crate::xds::{
    encode::value::{address, number},
    resource::endpoints::{Endpoint, EndpointHealth, Endpoints},
};

pub(super) fn message(endpoints: &Endpoints) -> ClusterLoadAssignment {
    let members = endpoints.endpoints.iter().map(|(at, endpoint)| member(*at, *endpoint)).collect();
    assignment(&endpoints.cluster, members)
}

/// The assignment of a cluster whose endpoints never change.
pub(super) fn fixed(cluster: &str, addresses: &[SocketAddr]) -> ClusterLoadAssignment {
    let members = addresses
        .iter()
        .map(|at| LbEndpoint { host_identifier: Some(host(*at)), ..LbEndpoint::default() })
        .collect();
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

fn member(at: SocketAddr, endpoint: Endpoint) -> LbEndpoint {
    let health = match endpoint.health {
        EndpointHealth::Unknown => HealthStatus::Unknown,
        EndpointHealth::Healthy => HealthStatus::Healthy,
        EndpointHealth::Unhealthy => HealthStatus::Unhealthy,
    };
    LbEndpoint {
        health_status: health.into(),
        load_balancing_weight: Some(number(endpoint.weight)),
        host_identifier: Some(host(at)),
        ..LbEndpoint::default()
    }
}

fn host(at: SocketAddr) -> HostIdentifier {
    HostIdentifier::Endpoint(EndpointMessage { address: Some(address(at)), ..EndpointMessage::default() })
}

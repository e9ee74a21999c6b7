//! From instances to endpoints: addresses, weights, health.
//!
//! The rules are Consul's, but for gateways: an endpoint through a gateway is unhealthy when the service behind it
//! has no healthy instance, and also when that gateway is critical while another is not (Consul ignores the gateway's
//! own health, hashicorp/consul#15703). When every gateway is critical their checks are likelier to be wrong than all
//! ways to be closed, and their own health is ignored.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    model::{
        instance::{Health, Host, HostPort, Instance},
        note::Note,
    },
    xds::resource::{
        Resource,
        endpoints::{Endpoint, EndpointHealth, Endpoints},
    },
};

/// Envoy's largest endpoint weight that Consul uses.
const WEIGHT_MAX: u32 = 128;

/// Which of an instance's addresses is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From inside its datacenter.
    Lan,
    /// From another datacenter.
    Wan,
}

impl Side {
    fn of(self, instance: &Instance) -> &HostPort {
        match self {
            Self::Lan => &instance.lan,
            Self::Wan => &instance.wan,
        }
    }
}

/// The endpoints of a cluster whose members are the instances themselves.
pub fn of_instances(
    cluster: &str,
    instances: &[Instance],
    side: Side,
    notes: &mut Vec<Note>,
) -> Result<Resource, Note> {
    let rated = instances.iter().map(|instance| (instance, rate(instance)));
    collect(cluster, rated, side, notes)
}

/// The endpoints of a cluster that is reached through gateways. `backend` is the health of what is behind them: the
/// service's instances, or `None` when it is not looked at.
pub fn of_gateways(
    cluster: &str,
    gateways: &[&Instance],
    backend: Option<&[Instance]>,
    side: Side,
    notes: &mut Vec<Note>,
) -> Result<Resource, Note> {
    let backend_alive =
        backend.is_none_or(|all| all.iter().any(|i| rate(i).health == EndpointHealth::Healthy));
    let own_health_counts = gateways.iter().any(|gateway| gateway.health != Health::Critical);
    let rated = gateways.iter().map(|gateway| {
        let is_open = !own_health_counts || gateway.health != Health::Critical;
        let health =
            if backend_alive && is_open { EndpointHealth::Healthy } else { EndpointHealth::Unhealthy };
        (*gateway, Endpoint { weight: 1, health })
    });
    collect(cluster, rated, side, notes)
}

/// The endpoints of the local Consul servers. Their health is not taken from checks: a server that is critical in the
/// catalog may be the very one that has to be reached.
pub fn of_servers<'a>(
    cluster: &str,
    servers: impl Iterator<Item = &'a Instance>,
    notes: &mut Vec<Note>,
) -> Result<Resource, Note> {
    let rated = servers.map(|server| (server, Endpoint { weight: 1, health: EndpointHealth::Unknown }));
    collect(cluster, rated, Side::Lan, notes)
}

/// Weight and health of an instance: passing and warning take their weights; critical, or a weight below 1, takes no
/// traffic; weights end at 128.
fn rate(instance: &Instance) -> Endpoint {
    let weight = match instance.health {
        Health::Passing => instance.weights.passing,
        Health::Warning => instance.weights.warning,
        Health::Critical => 0,
    };
    match weight {
        0 => Endpoint { weight: 1, health: EndpointHealth::Unhealthy },
        weight => Endpoint { weight: weight.min(WEIGHT_MAX), health: EndpointHealth::Healthy },
    }
}

/// An instance whose address cannot be used is noted and left out. When that leaves nothing of something, the last good
/// endpoints are better than none: the note is the outcome.
fn collect<'a>(
    cluster: &str,
    rated: impl Iterator<Item = (&'a Instance, Endpoint)>,
    side: Side,
    notes: &mut Vec<Note>,
) -> Result<Resource, Note> {
    let mut endpoints: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
    let mut left_out = Vec::new();
    for (instance, endpoint) in rated {
        let HostPort { host, port } = side.of(instance);
        match host {
            Host::Ip(ip) => {
                let address = SocketAddr::new(*ip, *port);
                let known = endpoints.entry(address).or_insert(endpoint);
                // Two registrations of one address: the address works if either says so.
                if endpoint.health == EndpointHealth::Healthy {
                    *known = endpoint;
                }
            }
            Host::Name(name) => left_out.push(Note::new(
                format!("instance {} of service {}", instance.id, instance.service),
                format!("has the host name {name:?} for an address, which is not built yet"),
                "register it with an IP address",
            )),
        }
    }
    match left_out.pop() {
        Some(note) if endpoints.is_empty() => {
            notes.extend(left_out);
            Err(note)
        }
        last => {
            notes.extend(left_out.into_iter().chain(last));
            Ok(Resource::Endpoints(Endpoints { cluster: cluster.to_owned(), endpoints }))
        }
    }
}

#[cfg(test)]
mod tests;

//! From instances to endpoints: addresses, weights, health.
//!
//! The rules are Consul's, but for gateways: an endpoint through a gateway is unhealthy when the service behind it
//! has no healthy instance, and also when that gateway is critical while another is not (Consul ignores the gateway's
//! own health, hashicorp/consul#15703). When every gateway is critical their checks are likelier to be wrong than all
//! ways to be closed, and their own health is ignored.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
};

use crate::{
    mesh::cluster,
    model::{
        instance::{Health, Host, HostPort, Instance},
        note::Note,
        settings::Settings,
    },
    xds::resource::{
        Resource,
        address::Address,
        cluster::{Cluster, Discovery, Dns, DnsHost, Resolution},
        endpoints::{Endpoint, EndpointHealth, Endpoints},
    },
};

/// Envoy's largest endpoint weight that Consul uses.
const WEIGHT_MAX: u32 = 128;

/// Consul's pace of resolving host names.
const DNS_REFRESH_MS: u64 = 10_000;

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

/// What a cluster is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// Addresses, which EDS gives. Empty means: known to have none.
    Addresses(BTreeMap<Address, Endpoint>),
    /// Host names, which Envoy resolves.
    Names(Dns),
}

impl Members {
    /// How the cluster finds them.
    pub fn discovery(&self) -> Discovery {
        match self {
            Self::Addresses(_) => Discovery::Eds,
            Self::Names(dns) => Discovery::Dns(dns.clone()),
        }
    }

    /// The endpoints that follow the cluster, if it asks for any.
    pub fn into_resource(self, cluster: &str) -> Option<Resource> {
        self.into_endpoints(cluster).map(Resource::Endpoints)
    }

    /// The cluster of one of several targets with the endpoints that follow it: each takes over from the one before.
    pub fn into_successive(mut self, cluster: Cluster, is_last: bool) -> impl Iterator<Item = Resource> {
        if let Self::Names(dns) = &mut self {
            dns.in_aggregate = true;
        }
        let cluster = cluster::successive(Cluster { discovery: self.discovery(), ..cluster }, is_last);
        let members = if is_last { self.without_unhealthy() } else { self };
        let endpoints = members.into_endpoints(&cluster.name);
        let endpoints = endpoints.map(|endpoints| Endpoints { in_aggregate: true, ..endpoints });
        [Resource::Cluster(cluster)].into_iter().chain(endpoints.map(Resource::Endpoints))
    }

    /// The healthy ones, if there is any. Envoy counts the others too when it limits the share that it ejects, and would
    /// eject the last healthy one.
    fn without_unhealthy(mut self) -> Self {
        if let Self::Addresses(endpoints) = &mut self
            && endpoints.values().any(|endpoint| endpoint.health != EndpointHealth::Unhealthy)
        {
            endpoints.retain(|_, endpoint| endpoint.health != EndpointHealth::Unhealthy);
        }
        self
    }

    fn into_endpoints(self, cluster: &str) -> Option<Endpoints> {
        match self {
            Self::Addresses(endpoints) => {
                Some(Endpoints { cluster: cluster.to_owned(), endpoints, in_aggregate: false })
            }
            Self::Names(_) => None,
        }
    }
}

/// The instances themselves.
pub fn of_instances<'a>(
    instances: impl IntoIterator<Item = &'a Instance>,
    side: Side,
    resolution: Resolution,
    notes: &mut Vec<Note>,
) -> Result<Members, Note> {
    of_strict(instances, false, side, resolution, notes)
}

/// The instances themselves; with `only_passing` one with a warning takes no traffic.
pub fn of_strict<'a>(
    instances: impl IntoIterator<Item = &'a Instance>,
    only_passing: bool,
    side: Side,
    resolution: Resolution,
    notes: &mut Vec<Note>,
) -> Result<Members, Note> {
    let rated = instances.into_iter().map(|instance| (instance, rate(instance, only_passing)));
    collect(rated, side, resolution, notes)
}

/// Gateways on the way. `backend_alive` tells whether what is behind them has a healthy instance, or is not looked at.
pub fn of_gateways(
    gateways: &[&Instance],
    backend_alive: bool,
    side: Side,
    resolution: Resolution,
    notes: &mut Vec<Note>,
) -> Result<Members, Note> {
    let own_health_counts = gateways.iter().any(|gateway| gateway.health != Health::Critical);
    let rated = gateways.iter().map(|gateway| {
        let is_open = !own_health_counts || gateway.health != Health::Critical;
        let health =
            if backend_alive && is_open { EndpointHealth::Healthy } else { EndpointHealth::Unhealthy };
        (*gateway, Endpoint { weight: 1, health })
    });
    collect(rated, side, resolution, notes)
}

/// Whether one of the instances takes traffic.
pub fn is_any_healthy<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> bool {
    is_any_healthy_strictly(instances, false)
}

/// Whether one of the instances takes traffic; with `only_passing` one with a warning does not.
pub fn is_any_healthy_strictly<'a>(
    instances: impl IntoIterator<Item = &'a Instance>,
    only_passing: bool,
) -> bool {
    instances.into_iter().any(|instance| rate(instance, only_passing).health == EndpointHealth::Healthy)
}

/// How many of a host name's addresses are used, by `envoy_dns_discovery_type` (Consul 1.11+). As there, what is not
/// `STRICT_DNS` is `LOGICAL_DNS`.
pub fn resolution(settings: &Settings) -> Resolution {
    match settings.text("envoy_dns_discovery_type") {
        Some(text) if text.eq_ignore_ascii_case("strict_dns") => Resolution::Strict,
        _ => Resolution::Logical,
    }
}

/// The local Consul servers. Their health is not taken from checks: a server that is critical in the catalog may be
/// the very one that has to be reached.
pub fn of_servers<'a>(
    servers: impl Iterator<Item = &'a Instance>,
    notes: &mut Vec<Note>,
) -> Result<Members, Note> {
    let rated = servers.map(|server| (server, Endpoint { weight: 1, health: EndpointHealth::Unknown }));
    collect(rated, Side::Lan, Resolution::default(), notes)
}

/// Weight and health of an instance: passing and warning take their weights; critical, or a weight below 1, takes no
/// traffic; weights end at 128.
fn rate(instance: &Instance, only_passing: bool) -> Endpoint {
    let weight = match instance.health {
        Health::Passing => instance.weights.passing,
        Health::Warning if !only_passing => instance.weights.warning,
        Health::Warning | Health::Critical => 0,
    };
    match weight {
        0 => Endpoint { weight: 1, health: EndpointHealth::Unhealthy },
        weight => Endpoint { weight: weight.min(WEIGHT_MAX), health: EndpointHealth::Healthy },
    }
}

/// Host names win over addresses, as in Consul: one cluster cannot have both, and what registers a host name is
/// usually a load balancer in front of all the others.
fn collect<'a>(
    rated: impl Iterator<Item = (&'a Instance, Endpoint)>,
    side: Side,
    resolution: Resolution,
    notes: &mut Vec<Note>,
) -> Result<Members, Note> {
    let mut addresses: BTreeMap<Address, Endpoint> = BTreeMap::new();
    let mut names: BTreeMap<(&str, u16), Endpoint> = BTreeMap::new();
    let mut passed_over = Vec::new();
    for (instance, endpoint) in rated {
        let HostPort { host, port } = side.of(instance);
        match host {
            Host::Ip(ip) => {
                join(addresses.entry(SocketAddr::new(*ip, *port).into()), endpoint);
                passed_over.push(instance);
            }
            Host::Name(name) => join(names.entry((name, *port)), endpoint),
        }
    }
    if names.is_empty() {
        return Ok(Members::Addresses(addresses));
    }
    notes.extend(passed_over.into_iter().map(|instance| {
        Note::new(
            format!("instance {} of service {}", instance.id, instance.service),
            "has an IP address where others have host names, and is passed over",
            "register all instances with IP addresses, or all with host names",
        )
    }));
    Ok(Members::Names(dns(names, resolution)))
}

/// Two registrations of one address: the address works if either says so.
fn join<K: Ord>(entry: Entry<'_, K, Endpoint>, endpoint: Endpoint) {
    let known = entry.or_insert(endpoint);
    if endpoint.health == EndpointHealth::Healthy {
        *known = endpoint;
    }
}

/// `LOGICAL_DNS` takes one host: the first healthy one, else the last.
fn dns(names: BTreeMap<(&str, u16), Endpoint>, resolution: Resolution) -> Dns {
    let mut hosts: Vec<DnsHost> = names
        .into_iter()
        .map(|((name, port), endpoint)| DnsHost { name: name.to_owned(), port, endpoint })
        .collect();
    if resolution == Resolution::Logical {
        let healthy = hosts.iter().position(|host| host.endpoint.health != EndpointHealth::Unhealthy);
        hosts = vec![hosts.swap_remove(healthy.unwrap_or(hosts.len() - 1))];
    }
    Dns { resolution, refresh_ms: DNS_REFRESH_MS, hosts, in_aggregate: false }
}

#[cfg(test)]
mod tests;

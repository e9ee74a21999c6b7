//! Escape hatches: listeners, clusters and tracing as users write them, in the place of ours. One that cannot be read
//! is told and costs only itself: ours stands, as with Consul.

use std::collections::BTreeSet;

use crate::{
    mesh::{
        built::{Parts, Unit},
        name,
        sidecar::options::Reading,
    },
    model::settings::Settings,
    xds::resource::{
        Resource,
        address::Address,
        cluster::{Cluster, Discovery},
        custom::{CustomCluster, CustomKind, CustomListener, CustomMessage, Guard, Refused},
        filter::{NetworkFilter, Routes},
        listener::Listener,
    },
};

const LOCAL_CLUSTER: &str = "envoy_local_cluster_json";
const PUBLIC_LISTENER: &str = "envoy_public_listener_json";
const TRACING: &str = "envoy_listener_tracing_json";
const UPSTREAM_CLUSTER: &str = "envoy_cluster_json";
const UPSTREAM_LISTENER: &str = "envoy_listener_json";

/// The public listener. Whatever the user wrote, its chains get the mesh's TLS and the decision by intentions.
pub(super) fn public(reading: &mut Reading<'_>, guard: &Guard) -> Option<Resource> {
    if reading.sidecar.without_hatches.contains_key(&Unit::Public) {
        return None;
    }
    let listener = reading.read(PUBLIC_LISTENER, |text| CustomListener::parse(text, Some(guard.clone())))?;
    Some(Resource::CustomListener(Box::new(listener)))
}

/// Where custom listeners listen besides their first address.
pub(super) fn additional_addresses(parts: &Parts) -> impl Iterator<Item = &Address> {
    parts.resources.iter().flat_map(|resource| match resource {
        Resource::CustomListener(listener) => listener.additional_addresses.as_slice(),
        _ => &[],
    })
}

/// The local application's cluster. The public listener leads to it by its name.
pub(super) fn local_app(reading: &mut Reading<'_>) -> Option<Resource> {
    let without = &reading.sidecar.without_hatches;
    if without.contains_key(&Unit::LocalApp) {
        return None;
    }
    let is_ours = !reading.settings.has(PUBLIC_LISTENER) || without.contains_key(&Unit::Public);
    let cluster = reading.read(LOCAL_CLUSTER, |text| {
        let cluster = CustomCluster::parse(text, None)?;
        if is_ours && cluster.name != name::LOCAL_APP {
            return Err(Refused {
                problem: format!(
                    "has the name {:?}, to which the public listener does not lead",
                    cluster.name
                ),
                remedy: format!(
                    "name it {}, or write the listener as well ({PUBLIC_LISTENER})",
                    name::LOCAL_APP
                ),
            });
        }
        if cluster.endpoints_name().is_some() {
            return Err(no_endpoints());
        }
        Ok(cluster)
    })?;
    Some(Resource::CustomCluster(Box::new(cluster)))
}

/// The tracing of the proxy's HTTP listeners.
pub(super) fn tracing(reading: &mut Reading<'_>) -> Option<CustomMessage> {
    reading.read(TRACING, |text| CustomMessage::parse(CustomKind::Tracing, text))
}

/// Has a listener traced.
pub(super) fn trace(listener: &mut Listener, tracing: &CustomMessage) {
    for filter in listener.chains.iter_mut().flat_map(|chain| &mut chain.filters) {
        if let NetworkFilter::Http(manager) = filter {
            manager.tracing = Some(tracing.clone());
        }
    }
}

/// An upstream's listener and cluster, where its chain leads to the service's own instances and nowhere else.
pub(super) fn upstream(
    reading: &mut Reading<'_>,
    is_direct: bool,
    parts: &mut Parts,
    taken: &mut BTreeSet<Address>,
) {
    let wanted = [UPSTREAM_CLUSTER, UPSTREAM_LISTENER];
    if !wanted.iter().any(|key| reading.settings.has(key)) {
        return;
    }
    if !is_direct {
        for key in wanted.into_iter().filter(|key| reading.settings.has(key)) {
            reading.note(
                format!(
                    "has an {key}, which does not count because its discovery chain is not the default one"
                ),
                "remove the setting, or the service-router, -splitter and -resolver entries of the service",
            );
        }
        return;
    }
    replace_cluster(reading, parts);
    replace_listener(reading, parts, taken);
}

fn replace_cluster(reading: &mut Reading<'_>, parts: &mut Parts) {
    let Some(at) = parts.resources.iter().position(|resource| matches!(resource, Resource::Cluster(_)))
    else {
        return;
    };
    let Resource::Cluster(Cluster { name: was, tls, discovery, .. }) = parts.resources[at].clone() else {
        return;
    };
    let custom = reading.read(UPSTREAM_CLUSTER, |text| {
        let cluster = CustomCluster::parse(text, tls)?;
        if cluster.endpoints_name().is_some() && discovery != Discovery::Eds {
            return Err(no_endpoints());
        }
        Ok(cluster)
    });
    let Some(custom) = custom else { return };
    let endpoints = custom.endpoints_name().map(str::to_owned);
    for resource in &mut parts.resources {
        match resource {
            Resource::Endpoints(of) => of.cluster = endpoints.clone().unwrap_or_default(),
            Resource::Listener(listener) => lead(listener, &was, &custom.name),
            Resource::Route(routes) if routes.cluster == was => routes.cluster.clone_from(&custom.name),
            _ => {}
        }
    }
    parts.resources[at] = Resource::CustomCluster(Box::new(custom));
    // A cluster that finds its endpoints by itself asks for none.
    parts.resources.retain(|resource| !matches!(resource, Resource::Endpoints(of) if of.cluster.is_empty()));
}

/// Turns a listener from one cluster to another.
fn lead(listener: &mut Listener, was: &str, is: &str) {
    for filter in listener.chains.iter_mut().flat_map(|chain| &mut chain.filters) {
        let cluster = match filter {
            NetworkFilter::TcpProxy(proxy) => &mut proxy.cluster,
            NetworkFilter::Http(manager) => match &mut manager.routes {
                Routes::Inline(routes) => &mut routes.cluster,
                Routes::Rds(_) => continue,
            },
            _ => continue,
        };
        if cluster == was {
            is.clone_into(cluster);
        }
    }
}

fn replace_listener(reading: &mut Reading<'_>, parts: &mut Parts, taken: &mut BTreeSet<Address>) {
    let Some(custom) = reading.read(UPSTREAM_LISTENER, |text| CustomListener::parse(text, None)) else {
        return;
    };
    for resource in &mut parts.resources {
        let Resource::Listener(ours) = resource else { continue };
        let own = ours.address.place();
        let places: BTreeSet<Address> =
            custom.addresses().map(Address::place).filter(|at| *at != own).collect();
        if let Some(at) = places.intersection(taken).next() {
            let problem = format!("has an {UPSTREAM_LISTENER} on {at}, which another listener has");
            reading.note(problem, "give it an address of its own");
            return;
        }
        taken.extend(places);
        *resource = Resource::CustomListener(Box::new(custom));
        hand_over(parts);
        return;
    }
}

/// The routes were those of the listener that went. The user's own may speak HTTP at any time, whatever Consul is told, and
/// counts on the version in which requests go out where nothing is said.
fn hand_over(parts: &mut Parts) {
    parts.resources.retain(|resource| !matches!(resource, Resource::Route(_)));
    for resource in &mut parts.resources {
        if let Resource::Cluster(cluster) = resource {
            cluster.http = cluster.http.settled();
        }
    }
}

/// Whether the user wrote the public listener.
pub(super) fn has_public_listener(settings: &Settings) -> bool {
    settings.has(PUBLIC_LISTENER)
}

fn no_endpoints() -> Refused {
    Refused {
        problem: "asks the agent for endpoints (type EDS), and there are none of this kind".into(),
        remedy: "give it a load_assignment, with the type STATIC or STRICT_DNS".into(),
    }
}

//! An upstream that names a service: its discovery chain, down to the clusters at the end of it.

use std::collections::BTreeSet;

use crate::{
    mesh::{
        built::Parts,
        cluster::{self, Manner},
        endpoints::Members,
        name,
        reader::Reader,
        sidecar::upstream::{Central, Front, Making, Reached},
    },
    model::{
        ca::Roots,
        catalog::Topic,
        chain::{Chain, ChainRequest, Resolver, Target},
        name::ServiceName,
        note::Note,
    },
    xds::resource::{
        Key, Kind, Resource,
        cluster::{Cluster, HttpVersion},
    },
};

/// How Consul's compiler says that a subset is missing.
const NO_SUBSET: &str = "does not have a subset named";

pub(super) fn build(
    making: &Making<'_>,
    service: &ServiceName,
    reader: &mut Reader<'_>,
    notes: &mut Vec<Note>,
) -> Option<Result<Reached, Note>> {
    let (roots, leaf) = (reader.roots(), reader.leaf(&making.sidecar.destination.service));
    let central = making.central(reader)?;
    let request = request(making, service, &central);
    let chain = reader.chain(&request);
    notes.extend(unknown_subset(making, request, reader));
    let chain = chain?;
    let (resolver, target) = match resolver(making, chain) {
        Ok(found) => found,
        Err(note) => return Some(Err(note)),
    };
    // Asked before anything is given up for lack of certificates: all answers are fetched at once.
    let first = making.members(target, &central, reader, notes);
    let others = successors(making, chain, resolver, &central, reader, notes);
    let (roots, _, first) = (roots?, leaf?, first?);
    let first = match first {
        Ok(members) => members,
        Err(note) => return Some(Err(note)),
    };
    let end = End { making, chain, resolver, roots, name: name::target_cluster(chain, target) };
    let behind = if resolver.failover.is_empty() {
        end.alone(target, first)
    } else {
        end.aggregate((target, first), others)
    };
    let front = Front {
        stat_prefix: &name::upstream_stat_prefix(service, &chain.datacenter),
        protocol: chain.protocol,
        cluster: &end.name,
        timeout_ms: resolver.request_timeout_ms,
    };
    Some(Ok(Reached {
        parts: making.parts(behind, &front),
        is_direct: resolver.failover.is_empty() && is_wanted(making, service, target),
    }))
}

/// Whether a target is just what the upstream names.
fn is_wanted(making: &Making<'_>, service: &ServiceName, target: &Target) -> bool {
    target.service.as_str().eq_ignore_ascii_case(service.as_str())
        && target.subset.is_none()
        && target.datacenter == *making.datacenter()
}

/// The question to Consul's compiler, with the upstream's mode laid over the proxy's.
fn request(making: &Making<'_>, service: &ServiceName, central: &Central) -> ChainRequest {
    ChainRequest {
        service: service.clone(),
        datacenter: making.datacenter().clone(),
        gateway_mode: making.wanted.gateway_mode.or(central.gateway_mode),
        protocol: making.protocol(),
        connect_timeout_ms: making.connect_timeout_ms(),
    }
}

/// Consul does not compile a chain that names an unknown subset; what was last good stays.
fn unknown_subset(making: &Making<'_>, request: ChainRequest, reader: &Reader<'_>) -> Option<Note> {
    let reason = reader.trouble(&Topic::Chain(request)).filter(|reason| reason.contains(NO_SUBSET))?;
    Some(making.note(
        format!("leads to a subset that does not exist, so Consul gives no chain ({reason})"),
        "define the subset in the service-resolver, or correct its name where it is used",
    ))
}

/// The chain's one resolver and its target, or why the chain cannot be expressed.
fn resolver<'c>(making: &Making<'_>, chain: &'c Chain) -> Result<(&'c Resolver, &'c Target), Note> {
    if !chain.nodes.contains_key(&chain.start) {
        return Err(making.note(
            "has a chain that starts or ends where this version cannot follow",
            "correct what another note says of the chain, or reach the service it leads to directly",
        ));
    }
    chain.single().ok_or_else(|| {
        making.note(
            "has a service-router or service-splitter in its chain, which is not built yet",
            "remove the entry, or reach the service it leads to directly",
        )
    })
}

/// A target that takes over, with its members if they are known.
struct Successor<'c> {
    /// Its place, counted from the primary target.
    at: usize,
    target: &'c Target,
    members: Option<Members>,
}

/// The targets that take over, in order. One that cannot be expressed costs only itself: a note tells, and the
/// others keep their places.
fn successors<'c>(
    making: &Making<'_>,
    chain: &'c Chain,
    resolver: &Resolver,
    central: &Central,
    reader: &mut Reader<'_>,
    notes: &mut Vec<Note>,
) -> Vec<Successor<'c>> {
    let mut successors = Vec::new();
    for (at, id) in (1..).zip(&resolver.failover) {
        let Some(target) = chain.targets.get(id) else { continue };
        match making.members(target, central, reader, notes).transpose() {
            Ok(members) => successors.push(Successor { at, target, members }),
            Err(note) => notes.push(note),
        }
    }
    successors
}

/// The end of a chain, ready to become clusters.
struct End<'a> {
    making: &'a Making<'a>,
    chain: &'a Chain,
    resolver: &'a Resolver,
    roots: &'a Roots,
    /// What the listener names.
    name: String,
}

impl End<'_> {
    /// One target: its cluster is the upstream's.
    fn alone(&self, target: &Target, members: Members) -> Parts {
        let cluster = Resource::Cluster(self.cluster(&self.name, target, &members));
        let resources = [cluster].into_iter().chain(members.into_resource(&self.name)).collect();
        Parts { resources, ..Parts::default() }
    }

    /// Several targets, a cluster each, since each has its own server name and ids; the upstream's cluster is the
    /// aggregate of them.
    ///
    /// The first target is all that the upstream waits for. While another is unknown the aggregate goes without it,
    /// which is better than no upstream, and is marked as partial: it is not sent to a client that comes back with a
    /// whole one of an earlier stream. Were the first one unknown and the next one taken instead, that would be a
    /// failover without a failure.
    fn aggregate(&self, (target, first): (&Target, Members), others: Vec<Successor<'_>>) -> Parts {
        let mut parts = Parts::default();
        let mut children = Vec::new();
        let first = Successor { at: 0, target, members: Some(first) };
        let last = others.iter().rfind(|other| other.members.is_some()).map_or(0, |other| other.at);
        for Successor { at, target, members } in [first].into_iter().chain(others) {
            let Some(members) = members else {
                parts.partial.insert(Key::new(Kind::Cluster, &self.name));
                continue;
            };
            let child = name::failover_cluster(at, &self.name);
            let cluster = self.cluster(&child, target, &members);
            parts.resources.extend(members.into_successive(cluster, at == last));
            children.push(child);
        }
        parts.resources.push(cluster::aggregate(&self.name, children, self.resolver.connect_timeout_ms));
        parts
    }

    fn cluster(&self, name: &str, target: &Target, members: &Members) -> Cluster {
        let san = name::spiffe_id(&target.service, &target.datacenter, &self.roots.trust_domain);
        let tls = self.making.tls(&target.sni, BTreeSet::from([san]));
        cluster::upstream(name, members.discovery(), self.manner(), tls)
    }

    fn manner(&self) -> Manner {
        Manner {
            connect_timeout_ms: self.resolver.connect_timeout_ms,
            http: HttpVersion::of(self.chain.protocol),
            balance: self.resolver.balance,
        }
    }
}

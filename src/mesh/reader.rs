//! Reading the catalog while writing down what was read.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    agent::AgentFacts,
    ca::{Leaf, Roots},
    catalog::{Catalog, Topic, View},
    chain::{Chain, ChainRequest},
    instance::{Instance, ServiceKind},
    intention::Intention,
    mesh::MeshDefaults,
    name::{Datacenter, ProxyId, ServiceName},
    note::Note,
    query::QueryResult,
    registration::{Defaults, Registration},
    resolver::ServiceResolver,
};

/// Reads topics and remembers which were asked for and which of them are unknown. Each unit of resources is built
/// with a reader of its own.
#[derive(Debug)]
pub struct Reader<'a> {
    catalog: &'a Catalog,
    asked: BTreeSet<Topic>,
    missing: BTreeSet<Topic>,
    is_unsure: bool,
}

/// What a reader read.
#[derive(Debug)]
pub struct Read {
    /// Every topic asked for.
    pub asked: BTreeSet<Topic>,
    /// Those of them that are unknown and would change what was made.
    pub missing: BTreeSet<Topic>,
    /// What was read may be older than what is about to come: good for a proxy that has nothing.
    pub is_unsure: bool,
}

impl<'a> Reader<'a> {
    /// A reader that has asked for nothing yet.
    pub fn new(catalog: &'a Catalog) -> Self {
        Self { catalog, asked: BTreeSet::new(), missing: BTreeSet::new(), is_unsure: false }
    }

    /// Every topic asked for.
    pub fn into_needs(self) -> BTreeSet<Topic> {
        self.asked
    }

    /// All that was read.
    pub fn into_read(self) -> Read {
        let Self { asked, missing, is_unsure, .. } = self;
        Read { asked, missing, is_unsure }
    }

    fn ask<T>(&mut self, topic: Topic, view: View<T>) -> Option<T> {
        if matches!(view, View::Unknown) {
            self.missing.insert(topic.clone());
        }
        self.asked.insert(topic);
        view.known()
    }

    /// Asks without being held back by the lack of an answer.
    fn ask_gladly<T>(&mut self, topic: Topic, view: View<T>) -> Option<T> {
        self.asked.insert(topic);
        view.known()
    }

    /// [`Topic::Agent`].
    pub fn agent(&mut self) -> Option<&'a AgentFacts> {
        self.ask(Topic::Agent, self.catalog.agent())
    }

    /// [`Topic::Registration`].
    pub fn registration(&mut self, id: &ProxyId) -> Option<&'a Option<Registration>> {
        self.ask(Topic::Registration(id.clone()), self.catalog.registration(id))
    }

    /// [`Topic::Roots`].
    pub fn roots(&mut self) -> Option<&'a Roots> {
        self.ask(Topic::Roots, self.catalog.roots())
    }

    /// [`Topic::Leaf`].
    pub fn leaf(&mut self, service: &ServiceName) -> Option<&'a Leaf> {
        self.ask(Topic::Leaf(service.clone()), self.catalog.leaf(service))
    }

    /// [`Topic::Chain`].
    pub fn chain(&mut self, request: &ChainRequest) -> Option<&'a Chain> {
        self.ask(Topic::Chain(request.clone()), self.catalog.chain(request))
    }

    /// [`Topic::Connect`].
    pub fn connect(&mut self, dc: &Datacenter, service: &ServiceName) -> Option<&'a Vec<Instance>> {
        let topic = Topic::Connect { dc: dc.clone(), service: service.clone() };
        self.ask(topic, self.catalog.connect(dc, service))
    }

    /// [`Topic::Health`].
    pub fn health(&mut self, dc: &Datacenter, service: &ServiceName) -> Option<&'a Vec<Instance>> {
        let topic = Topic::Health { dc: dc.clone(), service: service.clone() };
        self.ask(topic, self.catalog.health(dc, service))
    }

    /// [`Topic::Services`] of every kind.
    pub fn services(&mut self, dc: &Datacenter) -> Option<&'a BTreeMap<ServiceName, ServiceKind>> {
        let topic = Topic::Services { dc: dc.clone(), kind: None };
        self.ask(topic, self.catalog.services(dc, None))
    }

    /// [`Topic::Intentions`] and [`Topic::IntentionEntries`] together.
    pub fn intentions(&mut self) -> Option<(&'a [Intention], &'a [Intention])> {
        let legacy = self.ask(Topic::Intentions, self.catalog.intentions());
        let entries = self.ask(Topic::IntentionEntries, self.catalog.intention_entries());
        Some((legacy?, entries?))
    }

    /// The defaults of all proxies and of one service.
    pub fn defaults(&mut self, service: &ServiceName) -> Option<(&'a Defaults, &'a Defaults)> {
        let global = self.proxy_defaults();
        let own = self.ask(Topic::ServiceDefaults(service.clone()), self.catalog.service_defaults(service));
        Some((global?, own?))
    }

    /// [`Topic::ProxyDefaults`].
    pub fn proxy_defaults(&mut self) -> Option<&'a Defaults> {
        self.ask(Topic::ProxyDefaults, self.catalog.proxy_defaults())
    }

    /// [`Topic::Resolvers`].
    pub fn resolvers(&mut self) -> Option<&'a BTreeMap<ServiceName, Result<ServiceResolver, Note>>> {
        self.ask(Topic::Resolvers, self.catalog.resolvers())
    }

    /// [`Topic::PreparedQuery`].
    pub fn prepared_query(&mut self, dc: &Datacenter, query: &str) -> Option<&'a QueryResult> {
        let topic = Topic::PreparedQuery { dc: dc.clone(), query: query.to_owned() };
        self.ask(topic, self.catalog.prepared_query(dc, query))
    }

    /// Why nothing newer is known of a topic, if asking fails.
    pub fn trouble(&self, topic: &Topic) -> Option<&'a str> {
        let stale = self.catalog.heard(topic).and_then(|heard| Some(&*heard.stale.as_ref()?.reason));
        stale.or_else(|| self.catalog.trouble(topic).map(AsRef::as_ref))
    }

    /// [`Topic::Mesh`].
    pub fn mesh(&mut self) -> Option<&'a MeshDefaults> {
        self.ask(Topic::Mesh, self.catalog.mesh())
    }

    /// [`Topic::ExportedServices`].
    pub fn exported_services(&mut self) -> Option<&'a BTreeSet<ServiceName>> {
        self.ask(Topic::ExportedServices, self.catalog.exported_services())
    }

    /// Every datacenter that the servers list or that has replicated gateways. Given as soon as one of the two is known,
    /// since the list cannot block and comes late; the other stays missing.
    pub fn datacenters(&mut self) -> Option<BTreeSet<&'a Datacenter>> {
        let listed = self.ask(Topic::Datacenters, self.catalog.datacenters());
        let states = self.ask(Topic::FederationStates, self.catalog.federation_states());
        if listed.is_none() && states.is_none() {
            return None;
        }
        Some(listed.into_iter().flatten().chain(states.into_iter().flat_map(BTreeMap::keys)).collect())
    }

    /// The mesh gateways of the local datacenter, from its own catalog.
    pub fn local_gateways(&mut self, dc: &Datacenter) -> Option<Vec<&'a Instance>> {
        let topic = Topic::Services { dc: dc.clone(), kind: Some(ServiceKind::MeshGateway) };
        let names = self.ask(topic, self.catalog.services(dc, Some(ServiceKind::MeshGateway)))?;
        let mut all = Some(Vec::new());
        for name in names.keys() {
            // Every name is asked before giving up, so that all answers are fetched at once.
            match (self.health(dc, name), &mut all) {
                (Some(instances), Some(all)) => all.extend(instances),
                _ => all = None,
            }
        }
        all
    }

    /// The mesh gateways of another datacenter. Two sources name them, the live catalog over there and the replicated
    /// federation states; the one with the newer service wins (always preferring the live one was the bug
    /// hashicorp/consul#11522: it is read through the very gateway whose address changed). Known as soon as one is; unsure
    /// while Consul has not confirmed that one of late and the other is awaited: what an earlier run kept of that may come
    /// in a moment and be newer.
    pub fn remote_gateways(&mut self, dc: &Datacenter) -> Option<Vec<&'a Instance>> {
        let states = self.ask_gladly(Topic::FederationStates, self.catalog.federation_states());
        let replicated = states.map(|states| states.get(dc).into_iter().flatten().collect::<Vec<_>>());
        let live = self.live_gateways(dc);
        let unknown = self.unknown_gateway_topics(dc);
        match (live, replicated) {
            (Some((live, is_fresh)), Some(replicated)) => {
                let (ours, theirs) = (newest(&live), newest(&replicated));
                let is_live = ours > theirs || (ours == theirs && is_fresh);
                Some(if is_live { live } else { replicated })
            }
            (Some((live, is_fresh)), None) if !live.is_empty() => {
                self.doubt_unless(is_fresh, unknown);
                Some(live)
            }
            (None, Some(replicated)) if !replicated.is_empty() => {
                self.doubt_unless(self.is_fresh(&Topic::FederationStates), unknown);
                Some(replicated)
            }
            // What is unknown decides; where the servers replicate no gateway from there, only its own catalog can tell.
            _ => {
                self.missing.extend(unknown);
                None
            }
        }
    }

    /// What is read may be outdone by these topics, if they are still awaited: asked about, and not failed so far.
    fn doubt_unless(&mut self, is_fresh: bool, unknown: Vec<Topic>) {
        let is_awaited = |topic: &Topic| !is_fresh && self.catalog.trouble(topic).is_none();
        let awaited: Vec<Topic> = unknown.into_iter().filter(is_awaited).collect();
        self.is_unsure |= !awaited.is_empty();
        self.missing.extend(awaited);
    }

    /// What was asked about a datacenter's gateways and never answered.
    fn unknown_gateway_topics(&self, dc: &Datacenter) -> Vec<Topic> {
        let is_of_dc = |topic: &&Topic| match topic {
            Topic::Services { dc: of, .. } | Topic::Health { dc: of, .. } => of == dc,
            topic => **topic == Topic::FederationStates,
        };
        let is_unknown = |topic: &&Topic| self.catalog.heard(topic).is_none();
        self.asked.iter().filter(is_of_dc).filter(is_unknown).cloned().collect()
    }

    fn is_fresh(&self, topic: &Topic) -> bool {
        self.catalog.heard(topic).is_some_and(|heard| heard.stale.is_none())
    }

    /// The gateways that the other datacenter's catalog tells of now, and whether that is fresh.
    fn live_gateways(&mut self, dc: &Datacenter) -> Option<(Vec<&'a Instance>, bool)> {
        let kind = Some(ServiceKind::MeshGateway);
        let topic = Topic::Services { dc: dc.clone(), kind };
        let names = self.ask_gladly(topic, self.catalog.services(dc, kind))?;
        let mut all = Some((Vec::new(), true));
        for name in names.keys() {
            let topic = Topic::Health { dc: dc.clone(), service: name.clone() };
            let is_fresh = self.is_fresh(&topic);
            match (self.ask_gladly(topic, self.catalog.health(dc, name)), &mut all) {
                (Some(instances), Some((all, all_fresh))) => {
                    all.extend(instances);
                    *all_fresh &= is_fresh;
                }
                _ => all = None,
            }
        }
        all
    }
}

fn newest(gateways: &[&Instance]) -> u64 {
    gateways.iter().map(|gateway| gateway.modify_index).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;

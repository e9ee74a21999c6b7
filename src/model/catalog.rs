//! The catalog as the agent knows it: topics, and what was last heard of each.
//!
//! Unknown is not empty. A topic never answered is [`View::Unknown`]; a topic whose source went silent keeps its last
//! answer, marked stale.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::model::{
    agent::AgentFacts,
    ca::{Leaf, Roots},
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

/// Something that can be asked of Consul and watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Topic {
    /// The local agent's facts.
    Agent,
    /// A proxy registered with the local agent.
    Registration(ProxyId),
    /// The CA roots.
    Roots,
    /// A service's leaf certificate.
    Leaf(ServiceName),
    /// A compiled discovery chain.
    Chain(ChainRequest),
    /// The mesh-capable instances of a service: its sidecars and Connect-native instances, critical ones included.
    Connect {
        /// In this datacenter.
        dc: Datacenter,
        /// The service that is reached (not the sidecar's own name).
        service: ServiceName,
    },
    /// The instances registered under exactly that name, whatever they are: gateways, servers.
    Health {
        /// In this datacenter.
        dc: Datacenter,
        /// The service.
        service: ServiceName,
    },
    /// All service names of a datacenter with their kinds.
    Services {
        /// In this datacenter.
        dc: Datacenter,
        /// Only services of this kind; all when not given.
        kind: Option<ServiceKind>,
    },
    /// The intentions of the legacy list API, which every Consul version serves.
    Intentions,
    /// The intentions of `service-intentions` entries (Consul 1.9+; known-absent below).
    IntentionEntries,
    /// The known datacenters.
    Datacenters,
    /// Every datacenter's mesh gateways as the servers replicate them.
    FederationStates,
    /// `proxy-defaults/global`.
    ProxyDefaults,
    /// `service-defaults/<name>`.
    ServiceDefaults(ServiceName),
    /// All `service-resolver` entries.
    Resolvers,
    /// The mesh-capable instances that a prepared query finds.
    PreparedQuery {
        /// Executed in this datacenter.
        dc: Datacenter,
        /// Its id or name.
        query: String,
    },
    /// `mesh/mesh` (Consul 1.12+; known-absent below).
    Mesh,
    /// `exported-services/default` (Consul 1.10+; known-absent below, and without the right to read it).
    ExportedServices,
}

/// The answer to a topic; each variant answers the topic of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Topic::Agent`].
    Agent(AgentFacts),
    /// To [`Topic::Registration`]; `None` when the agent has no such service.
    Registration(Option<Registration>),
    /// To [`Topic::Roots`].
    Roots(Roots),
    /// To [`Topic::Leaf`].
    Leaf(Leaf),
    /// To [`Topic::Chain`].
    Chain(Chain),
    /// To [`Topic::Connect`] and [`Topic::Health`]; sorted by node and id.
    Instances(Vec<Instance>),
    /// To [`Topic::Services`].
    Services(BTreeMap<ServiceName, ServiceKind>),
    /// To [`Topic::Intentions`] and [`Topic::IntentionEntries`]; sorted.
    Intentions(Vec<Intention>),
    /// To [`Topic::Datacenters`].
    Datacenters(BTreeSet<Datacenter>),
    /// To [`Topic::FederationStates`].
    FederationStates(BTreeMap<Datacenter, Vec<Instance>>),
    /// To [`Topic::ProxyDefaults`] and [`Topic::ServiceDefaults`]; empty when there is no such entry.
    Defaults(Defaults),
    /// To [`Topic::Resolvers`]; a service without an entry has none, and a note has one that is not understood.
    Resolvers(BTreeMap<ServiceName, Result<ServiceResolver, Note>>),
    /// To [`Topic::PreparedQuery`].
    Query(QueryResult),
    /// To [`Topic::Mesh`]; its default when there is no such entry.
    Mesh(MeshDefaults),
    /// To [`Topic::ExportedServices`]: their names, `*` for all.
    ExportedServices(BTreeSet<ServiceName>),
}

impl Topic {
    /// The datacenter that it names, which may be another than the agent's.
    pub fn datacenter(&self) -> Option<&Datacenter> {
        match self {
            Self::Connect { dc, .. }
            | Self::Health { dc, .. }
            | Self::Services { dc, .. }
            | Self::PreparedQuery { dc, .. } => Some(dc),
            _ => None,
        }
    }
}

impl Answer {
    /// Whether it is a list of what tokens may or may not read, and nothing is in it.
    pub fn is_empty_list(&self) -> bool {
        match self {
            Self::Instances(instances) => instances.is_empty(),
            Self::Services(services) => services.is_empty(),
            Self::Query(result) => result.instances.is_empty(),
            Self::Intentions(intentions) => intentions.is_empty(),
            Self::FederationStates(states) => states.is_empty(),
            _ => false,
        }
    }
}

/// What was last heard of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The last answer.
    pub answer: Arc<Answer>,
    /// Items of the answer that could not be understood.
    pub notes: Arc<[Note]>,
    /// Set when the source went silent, or was not heard yet.
    pub stale: Option<Stale>,
}

/// Nothing newer is known of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Why.
    pub reason: Arc<str>,
    /// The answer was kept on disk by an earlier run of the agent, and this one has heard none.
    pub is_from_disk: bool,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Heard {
    /// A fresh answer without notes.
    pub fn fresh(answer: Answer) -> Self {
        Self { answer: Arc::new(answer), notes: Arc::from([]), stale: None }
    }

    /// Whether an earlier run of the agent heard it, and this one nothing.
    pub fn is_from_disk(&self) -> bool {
        self.stale.as_ref().is_some_and(|stale| stale.is_from_disk)
    }
}

/// Topics with what was last heard of them.
pub type Topics = BTreeMap<Topic, Heard>;

/// Everything heard so far. Cheap to clone; a new value is made for each change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    heard: BTreeMap<Topic, Heard>,
    trouble: BTreeMap<Topic, Arc<str>>,
}

/// What is known of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View<T> {
    /// Never answered: whatever needs it is held back.
    Unknown,
    /// Last answered so.
    Known(T),
}

impl<T> View<T> {
    /// The value, if known.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Unknown => None,
            Self::Known(value) => Some(value),
        }
    }
}

macro_rules! view {
    ($self:ident, $topic:expr, $variant:ident) => {
        match $self.heard.get(&$topic).map(|heard| &*heard.answer) {
            Some(Answer::$variant(value)) => View::Known(value),
            _ => View::Unknown,
        }
    };
}

impl Catalog {
    /// Records an answer. Returns whether anything changed.
    pub fn hear(&mut self, topic: Topic, heard: Heard) -> bool {
        let trouble_ended = self.trouble.remove(&topic).is_some();
        if self.heard.get(&topic) == Some(&heard) {
            return trouble_ended;
        }
        self.heard.insert(topic, heard);
        true
    }

    /// Records that a topic's source does not answer: its last answer stays and is marked stale; without one the
    /// topic stays unknown and the reason is kept to be shown. Returns whether anything changed.
    pub fn lose(&mut self, topic: &Topic, reason: Arc<str>) -> bool {
        match self.heard.get_mut(topic) {
            Some(heard) => {
                let stale = Some(Stale { reason, is_from_disk: heard.is_from_disk() });
                let has_changed = heard.stale != stale;
                heard.stale = stale;
                has_changed
            }
            None => self.trouble.insert(topic.clone(), reason.clone()).as_ref() != Some(&reason),
        }
    }

    /// Drops a topic that nobody needs any more. Returns whether anything was known of it.
    pub fn forget(&mut self, topic: &Topic) -> bool {
        let (heard, trouble) = (self.heard.remove(topic), self.trouble.remove(topic));
        heard.is_some() || trouble.is_some()
    }

    /// What was heard of a topic, with notes and staleness.
    pub fn heard(&self, topic: &Topic) -> Option<&Heard> {
        self.heard.get(topic)
    }

    /// Why a topic was never answered, if asking failed.
    pub fn trouble(&self, topic: &Topic) -> Option<&Arc<str>> {
        self.trouble.get(topic)
    }

    /// All topics heard of, in order.
    pub fn topics(&self) -> impl Iterator<Item = (&Topic, &Heard)> {
        self.heard.iter()
    }

    /// The topics of which this catalog and an older one do not know the same.
    pub fn changed_since<'a>(&'a self, older: &'a Self) -> BTreeSet<&'a Topic> {
        let mut changed = BTreeSet::new();
        differences(&self.heard, &older.heard, &mut changed);
        differences(&self.trouble, &older.trouble, &mut changed);
        changed
    }

    /// [`Topic::Agent`].
    pub fn agent(&self) -> View<&AgentFacts> {
        view!(self, Topic::Agent, Agent)
    }

    /// [`Topic::Registration`].
    pub fn registration(&self, id: &ProxyId) -> View<&Option<Registration>> {
        view!(self, Topic::Registration(id.clone()), Registration)
    }

    /// [`Topic::Roots`].
    pub fn roots(&self) -> View<&Roots> {
        view!(self, Topic::Roots, Roots)
    }

    /// [`Topic::Leaf`].
    pub fn leaf(&self, service: &ServiceName) -> View<&Leaf> {
        view!(self, Topic::Leaf(service.clone()), Leaf)
    }

    /// [`Topic::Chain`].
    pub fn chain(&self, request: &ChainRequest) -> View<&Chain> {
        view!(self, Topic::Chain(request.clone()), Chain)
    }

    /// [`Topic::Connect`].
    pub fn connect(&self, dc: &Datacenter, service: &ServiceName) -> View<&Vec<Instance>> {
        view!(self, Topic::Connect { dc: dc.clone(), service: service.clone() }, Instances)
    }

    /// [`Topic::Health`].
    pub fn health(&self, dc: &Datacenter, service: &ServiceName) -> View<&Vec<Instance>> {
        view!(self, Topic::Health { dc: dc.clone(), service: service.clone() }, Instances)
    }

    /// [`Topic::Services`].
    pub fn services(
        &self,
        dc: &Datacenter,
        kind: Option<ServiceKind>,
    ) -> View<&BTreeMap<ServiceName, ServiceKind>> {
        view!(self, Topic::Services { dc: dc.clone(), kind }, Services)
    }

    /// [`Topic::Intentions`].
    pub fn intentions(&self) -> View<&Vec<Intention>> {
        view!(self, Topic::Intentions, Intentions)
    }

    /// [`Topic::IntentionEntries`].
    pub fn intention_entries(&self) -> View<&Vec<Intention>> {
        view!(self, Topic::IntentionEntries, Intentions)
    }

    /// [`Topic::Datacenters`].
    pub fn datacenters(&self) -> View<&BTreeSet<Datacenter>> {
        view!(self, Topic::Datacenters, Datacenters)
    }

    /// [`Topic::FederationStates`].
    pub fn federation_states(&self) -> View<&BTreeMap<Datacenter, Vec<Instance>>> {
        view!(self, Topic::FederationStates, FederationStates)
    }

    /// [`Topic::ProxyDefaults`].
    pub fn proxy_defaults(&self) -> View<&Defaults> {
        view!(self, Topic::ProxyDefaults, Defaults)
    }

    /// [`Topic::ServiceDefaults`].
    pub fn service_defaults(&self, service: &ServiceName) -> View<&Defaults> {
        view!(self, Topic::ServiceDefaults(service.clone()), Defaults)
    }

    /// [`Topic::Resolvers`].
    pub fn resolvers(&self) -> View<&BTreeMap<ServiceName, Result<ServiceResolver, Note>>> {
        view!(self, Topic::Resolvers, Resolvers)
    }

    /// [`Topic::PreparedQuery`].
    pub fn prepared_query(&self, dc: &Datacenter, query: &str) -> View<&QueryResult> {
        view!(self, Topic::PreparedQuery { dc: dc.clone(), query: query.to_owned() }, Query)
    }

    /// [`Topic::Mesh`].
    pub fn mesh(&self) -> View<&MeshDefaults> {
        view!(self, Topic::Mesh, Mesh)
    }

    /// [`Topic::ExportedServices`].
    pub fn exported_services(&self) -> View<&BTreeSet<ServiceName>> {
        view!(self, Topic::ExportedServices, ExportedServices)
    }
}

/// The keys whose values differ. Most are the same in both and shared, so the two are walked side by side.
fn differences<'a, V: Eq>(
    new: &'a BTreeMap<Topic, V>,
    old: &'a BTreeMap<Topic, V>,
    changed: &mut BTreeSet<&'a Topic>,
) {
    let mut old = old.iter().peekable();
    for (topic, value) in new {
        while let Some((gone, _)) = old.next_if(|(known, _)| *known < topic) {
            changed.insert(gone);
        }
        if old.next_if(|(known, _)| *known == topic).map(|(_, value)| value) != Some(value) {
            changed.insert(topic);
        }
    }
    changed.extend(old.map(|(gone, _)| gone));
}

impl fmt::Display for Topic {
    /// The topic as operators see it in notes, logs and metrics: `connect/counting@dc2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent => f.write_str("agent"),
            Self::Registration(id) => write!(f, "registration/{id}"),
            Self::Roots => f.write_str("roots"),
            Self::Leaf(service) => write!(f, "leaf/{service}"),
            Self::Chain(request) => write!(f, "chain/{}@{}", request.service, request.datacenter),
            Self::Connect { dc, service } => write!(f, "connect/{service}@{dc}"),
            Self::Health { dc, service } => write!(f, "health/{service}@{dc}"),
            Self::Services { dc, kind: None } => write!(f, "services@{dc}"),
            Self::Services { dc, kind: Some(kind) } => write!(f, "services/{kind}@{dc}"),
            Self::Intentions => f.write_str("intentions"),
            Self::IntentionEntries => f.write_str("intention-entries"),
            Self::Datacenters => f.write_str("datacenters"),
            Self::FederationStates => f.write_str("federation-states"),
            Self::ProxyDefaults => f.write_str("proxy-defaults"),
            Self::ServiceDefaults(service) => write!(f, "service-defaults/{service}"),
            Self::Resolvers => f.write_str("service-resolvers"),
            Self::PreparedQuery { dc, query } => write!(f, "prepared-query/{query}@{dc}"),
            Self::Mesh => f.write_str("mesh"),
            Self::ExportedServices => f.write_str("exported-services"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_between_two_catalogs_is_told_by_topic() {
        let defaults = |protocol: &str| {
            Heard::fresh(Answer::Defaults(Defaults {
                protocol: Some(protocol.to_owned()),
                ..Defaults::default()
            }))
        };
        let of = |service: &str| Topic::ServiceDefaults(service.into());
        let mut old = Catalog::default();
        for service in ["changed", "gone", "same", "silent"] {
            old.hear(of(service), defaults("tcp"));
        }
        old.lose(&of("troubled"), "no answer".into());
        let mut new = old.clone();
        assert_eq!(new.changed_since(&old), BTreeSet::new());
        new.hear(of("changed"), defaults("http"));
        new.hear(of("same"), defaults("tcp"));
        new.hear(of("new"), defaults("tcp"));
        new.forget(&of("gone"));
        new.lose(&of("silent"), "no answer".into());
        new.lose(&of("troubled"), "another reason".into());
        let changed = ["changed", "gone", "new", "silent", "troubled"].map(of);
        assert_eq!(new.changed_since(&old), changed.iter().collect());
        assert_eq!(old.changed_since(&new), changed.iter().collect());
    }
}

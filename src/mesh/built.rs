//! What a build gives: units of resources that stand or wait together.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    mesh::reader::{Read, Reader},
    model::{
        catalog::Topic,
        name::{Datacenter, ServiceName},
        note::Note,
    },
    xds::resource::{Key, Resource, address::Address, listener::FilterChain, listener::Listener},
};

/// A part of a proxy's world whose resources stand or wait together: the grain of "unknown is not empty".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// A sidecar's certificates.
    Identity,
    /// A sidecar's local application.
    LocalApp,
    /// A sidecar's public listener. Apart from the application, so that intentions hold whatever becomes of that.
    Public,
    /// A sidecar's upstream, by Consul's id of it.
    Upstream(String),
    /// Which upstreams there are.
    Upstreams,
    /// A path of a sidecar's application that is served without TLS, by its path and port.
    Exposed(String),
    /// Which paths are served so.
    ExposedPaths,
    /// A gateway's listeners; the chains in them come from the other units.
    Listeners,
    /// A gateway's way to the local Consul servers. Federation itself depends on it.
    Servers,
    /// A gateway's way to the Consul servers of another datacenter.
    RemoteServers(Datacenter),
    /// A gateway's way to the services of another datacenter.
    RemoteDatacenter(Datacenter),
    /// Which other datacenters there are.
    RemoteDatacenters,
    /// A gateway's way to a local service.
    LocalService(ServiceName),
    /// Which local services there are.
    LocalServices,
    /// A gateway's way to a subset of a local service.
    LocalSubset(ServiceName, String),
    /// Which subsets of local services there are.
    LocalSubsets,
    /// Which subsets a local service has, where its entry cannot be understood.
    SubsetsOf(ServiceName),
}

impl Unit {
    /// The units whose answers tell whether this one exists at all.
    pub fn lists(&self) -> Vec<Self> {
        match self {
            Self::RemoteServers(_) | Self::RemoteDatacenter(_) => vec![Self::RemoteDatacenters],
            Self::LocalService(_) => vec![Self::LocalServices],
            Self::LocalSubset(service, _) => vec![Self::LocalSubsets, Self::SubsetsOf(service.clone())],
            Self::Upstream(_) => vec![Self::Upstreams],
            Self::Exposed(_) => vec![Self::ExposedPaths],
            _ => Vec::new(),
        }
    }
}

/// The resources of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Whole resources.
    pub resources: Vec<Resource>,
    /// Filter chains for the gateway's listeners.
    pub chains: Vec<FilterChain>,
    /// Listeners whose chains the other units give; their own chains come last.
    pub listeners: Vec<Listener>,
    /// Resources that lack what is still unknown: better than nothing, worse than what a proxy may already hold.
    pub partial: BTreeSet<Key>,
}

impl Parts {
    /// Marks all of it as worse than what a proxy may already hold.
    fn unsure(mut self) -> Self {
        self.partial.extend(self.resources.iter().map(Resource::key));
        self
    }
}

/// What making a unit gave: nothing while topics are missing, a note if it cannot be expressed.
pub type Made = Option<Result<Parts, Note>>;

/// What became of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Made.
    Ready(Parts),
    /// Made from what is known, while these topics may still add to it.
    Partial(Parts, BTreeSet<Topic>),
    /// Held back by topics that were never answered. Its last good parts stay.
    Held(BTreeSet<Topic>),
    /// It asks for something that cannot be expressed; a note tells. Its last good parts stay; these stand in while
    /// there are none.
    Refused(Parts),
}

/// Everything that was built for a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// The service that a sidecar stands for.
    pub subject: Option<ServiceName>,
    /// The topics it needs, given what is known.
    pub needs: BTreeSet<Topic>,
    /// Its units.
    pub units: BTreeMap<Unit, Outcome>,
    /// Where units are about to listen, whatever became of them: what listens there now stays until they do.
    pub claims: BTreeMap<Unit, Address>,
    /// What could not be honoured, sorted.
    pub notes: BTreeSet<Note>,
}

impl Built {
    /// Adds a unit made with `reader`.
    pub fn add(&mut self, unit: Unit, reader: Reader<'_>, made: Made) {
        self.add_or(unit, reader, made, Parts::default());
    }

    /// Adds a unit made with `reader`; `stand_in` serves if it is refused and was never good.
    pub fn add_or(&mut self, unit: Unit, reader: Reader<'_>, made: Made, stand_in: Parts) {
        let Read { asked, missing, is_unsure } = reader.into_read();
        self.needs.extend(asked);
        let outcome = match made.map(|made| made.map(|parts| if is_unsure { parts.unsure() } else { parts }))
        {
            None => Outcome::Held(missing),
            Some(Ok(parts)) if missing.is_empty() => Outcome::Ready(parts),
            Some(Ok(parts)) => Outcome::Partial(parts, missing),
            Some(Err(note)) => {
                self.notes.insert(note);
                Outcome::Refused(stand_in)
            }
        };
        self.units.insert(unit, outcome);
    }
}

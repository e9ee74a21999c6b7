//! A sidecar: its certificates, its public listener, its upstreams.

mod public;
mod upstream;

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    mesh::{
        Options,
        built::{Built, Parts, Unit},
        name,
        reader::Reader,
    },
    model::{
        agent::AgentFacts,
        catalog::Catalog,
        instance::Host,
        name::ServiceName,
        note::Note,
        registration::{Destination, Registration, Upstream},
        settings::Settings,
    },
    xds::resource::{
        Resource,
        address::Address,
        secret::{Secret, SecretContent},
    },
};

/// What all units of one sidecar are built from.
struct Sidecar<'a> {
    agent: &'a AgentFacts,
    registration: &'a Registration,
    destination: &'a Destination,
    options: Options,
}

/// Builds all units of a sidecar.
pub(super) fn build(
    catalog: &Catalog,
    agent: &AgentFacts,
    registration: &Registration,
    destination: &Destination,
    options: Options,
) -> Built {
    let sidecar = Sidecar { agent, registration, destination, options };
    let mut built = Built::default();

    let mut reader = Reader::new(catalog);
    let made = identity(&mut reader, &destination.service);
    built.add(Unit::Identity, reader, made.map(Ok));

    let mut reader = Reader::new(catalog);
    let made = public::local_app(&sidecar, &mut reader);
    built.add_or(Unit::LocalApp, reader, made, public::no_local_app());

    let (mut reader, mut notes) = (Reader::new(catalog), Vec::new());
    let made = public::build(&sidecar, &mut reader, &mut notes);
    built.add(Unit::Public, reader, made);
    built.notes.extend(notes);

    let mut taken: BTreeSet<_> = public::address(registration).into_iter().collect();
    for wanted in &registration.upstreams {
        let id = name::upstream_id(wanted);
        let (mut reader, mut notes) = (Reader::new(catalog), Vec::new());
        let made = upstream::build(&sidecar, wanted, &id, &mut taken, &mut reader, &mut notes);
        let unit = Unit::Upstream(unique(&built, id));
        built.claims.extend(claim(wanted).map(|at| (unit.clone(), at)));
        built.add(unit, reader, made);
        built.notes.extend(notes);
    }
    built
}

/// Where an upstream is about to listen.
fn claim(wanted: &Upstream) -> Option<Address> {
    match wanted.bind.host {
        Host::Ip(ip) => Some(SocketAddr::new(ip, wanted.bind.port).into()),
        Host::Name(_) => None,
    }
}

/// The id of an upstream's unit. The same upstream may be registered twice, on two ports.
fn unique(built: &Built, id: String) -> String {
    let is_taken = |id: &str| built.units.contains_key(&Unit::Upstream(id.to_owned()));
    if !is_taken(&id) {
        return id;
    }
    (2..).map(|n| format!("{id}#{n}")).find(|id| !is_taken(id)).expect("numbers do not end")
}

/// Leaf and roots, as SDS secrets.
fn identity(reader: &mut Reader<'_>, service: &ServiceName) -> Option<Parts> {
    let (roots, leaf) = (reader.roots(), reader.leaf(service));
    let (roots, leaf) = (roots?, leaf?);
    let secrets = [
        Secret {
            name: name::leaf(service),
            content: SecretContent::Leaf { chain_pem: leaf.chain_pem.clone(), key_pem: leaf.key_pem.clone() },
        },
        Secret { name: name::ROOTS.to_owned(), content: SecretContent::Roots { pem: roots.pem.concat() } },
    ];
    Some(Parts { resources: secrets.into_iter().map(Resource::Secret).collect(), ..Parts::default() })
}

/// Proxy settings as Consul 1.9+ merges them: `proxy-defaults`, then the protocol of `service-defaults`, then the
/// registration's own. Merging again what Consul has merged already changes nothing.
fn merged_settings(sidecar: &Sidecar<'_>, reader: &mut Reader<'_>) -> Option<Settings> {
    let (global, own) = reader.defaults(&sidecar.destination.service)?;
    let mut central = global.settings.clone();
    if let Some(protocol) = &own.protocol {
        central.0.insert("protocol".to_owned(), protocol.as_str().into());
    }
    Some(sidecar.registration.settings.over(&central))
}

impl Sidecar<'_> {
    /// A note on those of `unbuilt` that `settings` has: Consul's own proxies honour them.
    fn unbuilt(&self, about: &str, settings: &Settings, unbuilt: &[&str]) -> Option<Note> {
        let found: Vec<&str> = unbuilt.iter().copied().filter(|key| settings.0.contains_key(*key)).collect();
        (!found.is_empty()).then(|| {
            let problem = format!("has settings without effect, not built yet: {}", found.join(", "));
            self.note(about, problem, "remove them, or do not count on them")
        })
    }

    fn note(&self, about: &str, problem: impl Into<String>, remedy: &str) -> Note {
        Note::new(format!("{about} of {}", self.registration.id), problem, remedy)
    }
}

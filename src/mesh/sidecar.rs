//! A sidecar: its certificates, its public listener, its upstreams, its exposed paths.

mod clash;
mod exposed;
mod hatch;
mod options;
mod public;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    envoy::bootstrap::extras::Extras,
    mesh::{
        Options,
        built::{Built, Made, Outcome, Parts, Unit},
        listener, name,
        reader::Reader,
        sidecar::{options::Reading, upstream::Reached},
    },
    model::{
        agent::AgentFacts,
        catalog::Catalog,
        name::ServiceName,
        note::Note,
        registration::{Destination, ExposedPaths, Registration, Unread, Upstream},
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
    /// Units whose escape hatches do not count, and why.
    without_hatches: BTreeMap<Unit, Note>,
}

/// Builds all units of a sidecar.
pub(super) fn build(
    catalog: &Catalog,
    agent: &AgentFacts,
    registration: &Registration,
    destination: &Destination,
    options: Options,
) -> Built {
    let mut sidecar = Sidecar { agent, registration, destination, options, without_hatches: BTreeMap::new() };
    let mut built = units(&sidecar, catalog);
    // Each turn takes the hatches of one more unit away.
    while let Some((unit, note)) = clash::find(&sidecar, &built) {
        sidecar.without_hatches.insert(unit, note);
        built = units(&sidecar, catalog);
    }
    built.notes.extend(sidecar.without_hatches.into_values());
    built
}

fn units(sidecar: &Sidecar<'_>, catalog: &Catalog) -> Built {
    let Sidecar { registration, destination, .. } = *sidecar;
    let mut built = Built { subject: Some(destination.service.clone()), ..Built::default() };

    let mut reader = Reader::new(catalog);
    let made = identity(&mut reader, &destination.service);
    built.add(Unit::Identity, reader, made.map(Ok));

    let (mut reader, mut notes) = (Reader::new(catalog), Vec::new());
    let made = public::local_app(sidecar, &mut reader, &mut notes);
    built.add_or(Unit::LocalApp, reader, made, public::no_local_app());
    built.notes.extend(notes);

    let (mut reader, mut notes) = (Reader::new(catalog), Vec::new());
    let made = public::build(sidecar, &mut reader, &mut notes);
    built.add(Unit::Public, reader, made);
    built.notes.extend(notes);

    let known = sidecar.settings(&mut Reader::new(catalog));
    let known = known.as_ref().unwrap_or(&registration.settings);
    built.notes.extend(Extras::notes(registration.id.as_str(), known));
    let public = public::address(known, registration);
    let mut taken: BTreeSet<Address> = public.map(Address::from).into_iter().collect();
    if let Some(Outcome::Ready(parts)) = built.units.get(&Unit::Public) {
        taken.extend(parts.addresses().map(Address::place));
        taken.extend(hatch::additional_addresses(parts).map(Address::place));
    }
    add_upstreams(sidecar, catalog, &mut taken, &mut built);
    add_exposed(sidecar, catalog, &mut taken, &mut built);
    built
}

fn add_upstreams(sidecar: &Sidecar<'_>, catalog: &Catalog, taken: &mut BTreeSet<Address>, built: &mut Built) {
    let listed = &sidecar.registration.upstreams;
    add_list(Unit::Upstreams, Reader::new(catalog), Some(listed), built);
    for wanted in listed {
        let (mut reader, mut notes) = (Reader::new(catalog), Vec::new());
        let id = match wanted {
            Ok(wanted) => &wanted.id,
            Err(Unread { id: Some(id), .. }) => id,
            Err(Unread { id: None, .. }) => continue,
        };
        let id = name::upstream_id(id);
        let unit = Unit::Upstream(unique(built, id.clone()));
        let made = match wanted {
            Ok(wanted) => {
                built.claims.extend(listener::address(&wanted.bind).map(|at| (unit.clone(), at)));
                upstream(sidecar, wanted, (&id, &unit), taken, &mut reader, &mut notes)
            }
            Err(unread) => Some(Err(unread.note.clone())),
        };
        built.add(unit, reader, made);
        built.notes.extend(notes);
    }
}

/// Adds the unit that tells which of its kind there are. It tells nothing if it is not known which one something
/// unread is: that may be any of those that were there before.
fn add_list<T, I>(
    unit: Unit,
    reader: Reader<'_>,
    listed: Option<&Vec<Result<T, Unread<I>>>>,
    built: &mut Built,
) {
    let unknown = |listed: &Vec<Result<T, Unread<I>>>| {
        let unread = listed.iter().filter_map(|one| one.as_ref().err()).filter(|unread| unread.id.is_none());
        unread.map(|unread| unread.note.clone()).collect::<Vec<_>>()
    };
    let notes = listed.map(unknown);
    built.notes.extend(notes.iter().flatten().cloned());
    let made = notes.map(|notes| notes.into_iter().next().map_or_else(|| Ok(Parts::default()), Err));
    built.add(unit, reader, made);
}

/// One upstream with its options. Its chain is asked for with central settings laid under its own, and not before they
/// are known.
fn upstream(
    sidecar: &Sidecar<'_>,
    wanted: &Upstream,
    (id, unit): (&str, &Unit),
    taken: &mut BTreeSet<Address>,
    reader: &mut Reader<'_>,
    notes: &mut Vec<Note>,
) -> Made {
    let (merged, mesh) = (options::merged(sidecar, wanted, reader), reader.mesh());
    let (merged, settings) = (merged?, sidecar.settings(reader)?);
    let made = upstream::build(sidecar, &merged, id, taken, reader, notes)?;
    let mesh = mesh?;
    Some(made.map(|Reached { mut parts, is_direct }| {
        let about = format!("upstream {id}");
        let mut reading = Reading { sidecar, about: &about, settings: &merged.settings, notes };
        options::apply(&mut reading, mesh, &mut parts);
        // What is wrong with it is the public listener's to tell.
        let mut unheard = Vec::new();
        let mut central = Reading { sidecar, about: &about, settings: &settings, notes: &mut unheard };
        if let Some(tracing) = hatch::tracing(&mut central) {
            for resource in &mut parts.resources {
                if let Resource::Listener(listener) = resource {
                    hatch::trace(listener, &tracing);
                }
            }
        }
        if !sidecar.without_hatches.contains_key(unit) {
            hatch::upstream(&mut reading, is_direct, &mut parts, taken);
        }
        parts
    }))
}

fn add_exposed(sidecar: &Sidecar<'_>, catalog: &Catalog, taken: &mut BTreeSet<Address>, built: &mut Built) {
    let mut reader = Reader::new(catalog);
    let paths = sidecar.exposed_paths(&mut reader);
    add_list(Unit::ExposedPaths, reader, paths, built);
    for path in paths.into_iter().flatten() {
        let id = match path {
            Ok(path) => &path.id,
            Err(Unread { id: Some(id), .. }) => id,
            Err(Unread { id: None, .. }) => continue,
        };
        let unit = Unit::Exposed(exposed::id(id));
        if built.units.contains_key(&unit) {
            built.notes.insert(exposed::twice(sidecar, id));
            continue;
        }
        let mut reader = Reader::new(catalog);
        let made = match path {
            Ok(path) => exposed::build(sidecar, path, taken, &mut reader),
            Err(unread) => Some(Err(unread.note.clone())),
        };
        built.add(unit, reader, made);
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

impl<'a> Sidecar<'a> {
    /// The exposed paths that count: the proxy's own, else those of its service's defaults, else those of all proxies.
    fn exposed_paths(&self, reader: &mut Reader<'a>) -> Option<&'a ExposedPaths> {
        let (global, own) = reader.defaults(&self.destination.service)?;
        let sources = [&self.registration.exposed, &own.exposed, &global.exposed];
        Some(sources.into_iter().find(|paths| !paths.is_empty()).unwrap_or(&self.registration.exposed))
    }

    /// Proxy settings as Consul 1.9+ merges them: `proxy-defaults`, then the fields of `service-defaults`, then the
    /// registration's own. Merging again what Consul has merged already changes nothing.
    fn settings(&self, reader: &mut Reader<'_>) -> Option<Settings> {
        let (global, own) = reader.defaults(&self.destination.service)?;
        let mut central = own.settings.over(&global.settings);
        if let Some(protocol) = &own.protocol {
            central.0.insert("protocol".to_owned(), protocol.as_str().into());
        }
        Some(self.registration.settings.over(&central))
    }

    fn note(&self, about: &str, problem: impl Into<String>, remedy: &str) -> Note {
        Note::new(format!("{about} of {}", self.registration.id), problem, remedy)
    }
}

#[cfg(test)]
mod tests;

//! From units to one whole set of resources, with what was last good in the place of what is held back.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    mesh::built::{Built, Outcome, Parts, Unit},
    model::{catalog::Topic, note::Note},
    xds::resource::{Key, Resource, listener::Listener},
};

/// The last good parts of each unit of a proxy. Held by whoever builds again and again.
#[derive(Clone, Debug, Default)]
pub struct World {
    units: BTreeMap<Unit, Parts>,
}

/// A whole set of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assembled {
    /// The resources by identity.
    pub resources: BTreeMap<Key, Resource>,
    /// Those made from incomplete inputs: they lack parts that are still unknown.
    pub partial: BTreeSet<Key>,
    /// Unknown topics that hold a unit back.
    pub waiting_for: BTreeSet<Topic>,
    /// Whether every unit is there, so that what is absent may be taken as gone.
    pub complete: bool,
    /// What could not be honoured.
    pub notes: BTreeSet<Note>,
    /// The topics that each resource was made from.
    pub sources: BTreeMap<Key, BTreeSet<Topic>>,
}

impl World {
    /// Takes in a build and gives the whole set: units that are held back or refused keep their last good parts,
    /// units that are no longer asked for go.
    pub fn assemble(&mut self, built: Built) -> Assembled {
        let mut whole = Assembled { complete: true, notes: built.notes, ..Assembled::default() };
        let mut previous = std::mem::take(&mut self.units);
        for (unit, outcome) in built.units {
            let last = previous.remove(&unit);
            let parts = match outcome {
                Outcome::Ready(parts) => Some(parts),
                Outcome::Refused => last,
                Outcome::Held(topics) => {
                    whole.complete &= last.is_some();
                    whole.waiting_for.extend(topics);
                    last
                }
            };
            if let Some(parts) = parts {
                self.units.insert(unit, parts);
            }
        }
        for parts in self.units.values() {
            whole.add_resources(parts);
        }
        self.add_listeners(&mut whole);
        whole
    }

    /// Puts the chains of all units into the listeners that wait for them.
    fn add_listeners(&self, whole: &mut Assembled) {
        let mut chains: Vec<_> = self.units.values().flat_map(|parts| &parts.chains).cloned().collect();
        // Sorted, so that equal catalogs give equal listeners (unsorted chains flapped LDS until Consul 1.8.9).
        chains.sort_by(|a, b| a.name.cmp(&b.name));
        let sources: BTreeSet<Topic> =
            self.units.values().filter(|p| !p.chains.is_empty()).flat_map(|p| &p.sources).cloned().collect();
        for parts in self.units.values() {
            for shell in &parts.listeners {
                let own = shell.chains.iter().cloned();
                let listener =
                    Listener { chains: chains.iter().cloned().chain(own).collect(), ..shell.clone() };
                let resource = Resource::Listener(listener);
                if !whole.complete {
                    whole.partial.insert(resource.key());
                }
                whole.add(resource, &sources.union(&parts.sources).cloned().collect());
            }
        }
    }
}

impl Assembled {
    fn add_resources(&mut self, parts: &Parts) {
        for resource in &parts.resources {
            self.add(resource.clone(), &parts.sources);
        }
    }

    /// Adds a resource. Two upstreams may lead to one target: the same cluster comes twice and is kept once.
    fn add(&mut self, resource: Resource, sources: &BTreeSet<Topic>) {
        let key = resource.key();
        self.sources.entry(key.clone()).or_default().extend(sources.iter().cloned());
        match self.resources.get(&key) {
            Some(first) if *first != resource => {
                self.notes.insert(Note::new(
                    key.to_string(),
                    "two upstreams of this proxy ask for the same target with different settings; the first one's hold",
                    "give both upstreams the same protocol, limits and timeouts",
                ));
            }
            Some(_) => {}
            None => {
                self.resources.insert(key, resource);
            }
        }
    }
}

#[cfg(test)]
mod tests;

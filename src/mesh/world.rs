//! From units to one whole set of resources, with what was last good in the place of what is held back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    mesh::built::{Built, Outcome, Parts, Unit},
    model::{catalog::Topic, name::ServiceName, note::Note},
    xds::resource::{Key, Resource, address::Address, listener::Listener},
};

/// The last good parts of each unit of a proxy. Held by whoever builds again and again.
#[derive(Clone, Debug, Default)]
pub struct World {
    subject: Option<ServiceName>,
    units: BTreeMap<Unit, Parts>,
    /// What was assembled last; equal resources are shared with it.
    last: BTreeMap<Key, Arc<Resource>>,
}

/// A whole set of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assembled {
    /// The resources by identity, each shared with the last whole set of the same [`World`] if it is equal.
    pub resources: BTreeMap<Key, Arc<Resource>>,
    /// Those made from incomplete inputs: they lack parts that are still unknown.
    pub partial: BTreeSet<Key>,
    /// Unknown topics that hold a unit back.
    pub waiting_for: BTreeSet<Topic>,
    /// Whether every unit is there, so that what is absent may be taken as gone.
    pub complete: bool,
    /// What could not be honoured.
    pub notes: BTreeSet<Note>,
}

impl World {
    /// Takes in a build and gives the whole set: units that are held back or refused keep their last good parts,
    /// units that are no longer asked for go, and all of them when the proxy stands for another service. While the list
    /// that names a unit is itself held back or refused, the unit stays.
    pub fn assemble(&mut self, built: Built) -> Assembled {
        let notes = built.notes.clone();
        let mut whole = Assembled { complete: true, notes, ..Assembled::default() };
        let mut previous = std::mem::take(&mut self.units);
        // A proxy that is registered for another service is another one: nothing of the old may front the new, least
        // of all its certificate and its intentions.
        if self.subject != built.subject {
            previous.clear();
            self.subject.clone_from(&built.subject);
        }
        let is_untold = |list: &Unit| !matches!(built.units.get(list), None | Some(Outcome::Ready(_)));
        let kept: Vec<Unit> = previous
            .keys()
            .filter(|unit| !built.units.contains_key(unit) && unit.lists().iter().any(is_untold))
            .cloned()
            .chain(awaiting_successors(&previous, &built))
            .collect();
        let mut last_good = BTreeMap::new();
        last_good.extend(kept.into_iter().filter_map(|unit| previous.remove_entry(&unit)));
        for (unit, outcome) in built.units {
            let last = previous.remove(&unit);
            match outcome {
                Outcome::Ready(parts) => drop(self.units.insert(unit, parts)),
                Outcome::Partial(parts, topics) => {
                    whole.wait_for(topics);
                    self.units.insert(unit, parts);
                }
                Outcome::Held(topics) => {
                    whole.complete &= last.as_ref().is_some_and(|parts| parts.partial.is_empty());
                    whole.waiting_for.extend(topics);
                    last_good.extend(last.map(|parts| (unit, parts)));
                }
                Outcome::Refused(stand_in) => {
                    let stand_in = Some(stand_in).filter(|parts| *parts != Parts::default());
                    last_good.extend(last.or(stand_in).map(|parts| (unit, parts)));
                }
            }
        }
        self.keep(last_good, &mut whole);
        for parts in self.units.values() {
            whole.partial.extend(parts.partial.iter().cloned());
            for resource in &parts.resources {
                whole.add(resource, &self.last);
            }
        }
        self.add_listeners(&mut whole);
        self.last.clone_from(&whole.resources);
        whole
    }

    /// Keeps last good parts, but for those whose listener would stand in the way of a newer one.
    fn keep(&mut self, last_good: BTreeMap<Unit, Parts>, whole: &mut Assembled) {
        let taken: BTreeSet<Address> = self.units.values().flat_map(Parts::addresses).cloned().collect();
        for (unit, parts) in last_good {
            let clash = parts.addresses().find(|address| taken.contains(*address)).cloned();
            match clash {
                None => drop(self.units.insert(unit, parts)),
                Some(address) => drop(whole.notes.insert(Note::new(
                    format!("listener on {address}"),
                    "what was last good there gives way to a newer listener on the same address",
                    "give each upstream a port of its own",
                ))),
            }
        }
    }

    /// Puts the chains of all units into the listeners that wait for them.
    fn add_listeners(&self, whole: &mut Assembled) {
        let mut chains: Vec<_> = self.units.values().flat_map(|parts| &parts.chains).cloned().collect();
        // Sorted, so that equal catalogs give equal listeners (unsorted chains flapped LDS until Consul 1.8.9).
        chains.sort_by(|a, b| a.name.cmp(&b.name));
        for shell in self.units.values().flat_map(|parts| &parts.listeners) {
            let own = shell.chains.iter().cloned();
            let listener = Listener { chains: chains.iter().cloned().chain(own).collect(), ..shell.clone() };
            let resource = Resource::Listener(listener);
            if !whole.complete {
                whole.partial.insert(resource.key());
            }
            whole.add(&resource, &self.last);
        }
    }
}

/// Units that are no longer asked for and listen where another one, still held back, is about to: an upstream that is
/// given another datacenter is another unit, and its application must not find the port closed meanwhile.
fn awaiting_successors(previous: &BTreeMap<Unit, Parts>, built: &Built) -> Vec<Unit> {
    let is_new_and_held =
        |unit: &Unit| !previous.contains_key(unit) && matches!(built.units.get(unit), Some(Outcome::Held(_)));
    let claimed: BTreeSet<&Address> =
        built.claims.iter().filter(|(unit, _)| is_new_and_held(unit)).map(|(_, at)| at).collect();
    let gone = previous.iter().filter(|(unit, _)| !built.units.contains_key(unit));
    gone.filter(|(_, parts)| parts.addresses().any(|at| claimed.contains(at)))
        .map(|(unit, _)| unit.clone())
        .collect()
}

impl Parts {
    /// Where its listeners bind.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        let whole = self.resources.iter().filter_map(|resource| match resource {
            Resource::Listener(listener) => Some(&listener.address),
            Resource::CustomListener(listener) => Some(&listener.address),
            _ => None,
        });
        whole.chain(self.listeners.iter().map(|listener| &listener.address))
    }
}

impl Assembled {
    fn wait_for(&mut self, topics: BTreeSet<Topic>) {
        self.complete = false;
        self.waiting_for.extend(topics);
    }

    /// Adds a resource. Two upstreams may lead to one target: the same cluster comes twice and is kept once.
    fn add(&mut self, resource: &Resource, last: &BTreeMap<Key, Arc<Resource>>) {
        let key = resource.key();
        match self.resources.get(&key) {
            Some(first) if **first != *resource => {
                self.notes.insert(Note::new(
                    key.to_string(),
                    "two parts of this proxy give this name to different resources; the first one's hold",
                    "give both upstreams the same protocol, limits and timeouts, or the escape hatch a name of its own",
                ));
            }
            Some(_) => {}
            None => {
                let equal = last.get(&key).filter(|last| ***last == *resource).cloned();
                self.resources.insert(key, equal.unwrap_or_else(|| Arc::new(resource.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests;

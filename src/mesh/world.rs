//! From units to one whole set of resources, with what was last good in the place of what is held back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    mesh::built::{Built, Outcome, Parts, Unit},
    model::{catalog::Topic, name::ServiceName, note::Note},
    xds::resource::{
        Key, Resource,
        address::Address,
        listener::{FilterChain, Listener},
    },
};

/// The last good parts of each unit of a proxy. Held by whoever builds again and again.
#[derive(Clone, Debug, Default)]
pub struct World {
    subject: Option<ServiceName>,
    units: BTreeMap<Unit, Standing>,
}

/// What a unit has, each resource under its identity and shared with the whole sets that have it.
#[derive(Clone, Debug, Default)]
struct Standing {
    resources: Vec<(Key, Arc<Resource>)>,
    chains: Vec<FilterChain>,
    listeners: Vec<Listener>,
    partial: BTreeSet<Key>,
}

/// A whole set of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assembled {
    /// The resources by identity. One that a unit makes is shared with the last whole set of the same [`World`] if that
    /// unit made an equal one: most of thousands are, and need no second look.
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
        let mut whole = Assembled { complete: true, notes: built.notes, ..Assembled::default() };
        let mut previous = std::mem::take(&mut self.units);
        // A proxy that is registered for another service is another one: nothing of the old may front the new, least
        // of all its certificate and its intentions.
        if self.subject != built.subject {
            previous.clear();
            self.subject = built.subject;
        }
        let awaited = awaited_addresses(&previous, &built.units, built.claims);
        let is_untold = |(_, outcome): &(&Unit, &Outcome)| !matches!(outcome, Outcome::Ready(_));
        let untold: BTreeSet<Unit> =
            built.units.iter().filter(is_untold).map(|(unit, _)| unit.clone()).collect();
        let is_kept = |unit: &Unit, last: &Standing| {
            unit.lists().iter().any(|list| untold.contains(list))
                || last.addresses().any(|at| awaited.contains(&at.place()))
        };
        let (mut ready, mut last_good) = (Vec::with_capacity(built.units.len()), Vec::new());
        // Both are sorted, and mostly of the same units: side by side is faster than looking each up.
        let mut previous = previous.into_iter().peekable();
        for (unit, outcome) in built.units {
            while let Some((gone, last)) = previous.next_if(|(known, _)| *known < unit) {
                last_good.extend(is_kept(&gone, &last).then_some((gone, last)));
            }
            let last = previous.next_if(|(known, _)| *known == unit).map(|(_, last)| last);
            match outcome {
                Outcome::Ready(parts) => ready.push((unit, Standing::next(last.as_ref(), parts))),
                Outcome::Partial(parts, topics) => {
                    whole.wait_for(topics);
                    ready.push((unit, Standing::next(last.as_ref(), parts)));
                }
                Outcome::Held(topics) => {
                    whole.complete &= last.as_ref().is_some_and(|last| last.partial.is_empty());
                    whole.waiting_for.extend(topics);
                    last_good.extend(last.map(|last| (unit, last)));
                }
                Outcome::Refused(stand_in) => {
                    let stand_in = Some(stand_in).filter(|parts| *parts != Parts::default());
                    let stand_in = || stand_in.map(|parts| Standing::next(None, parts));
                    last_good.extend(last.or_else(stand_in).map(|stays| (unit, stays)));
                }
            }
        }
        last_good.extend(previous.filter(|(gone, last)| is_kept(gone, last)));
        self.units = ready.into_iter().collect();
        self.keep(last_good, &mut whole);
        self.fill(&mut whole);
        whole
    }

    /// Keeps last good parts, but for those whose listener would stand in the way of a newer one.
    fn keep(&mut self, last_good: Vec<(Unit, Standing)>, whole: &mut Assembled) {
        if last_good.is_empty() {
            return;
        }
        let taken: BTreeSet<Address> =
            self.units.values().flat_map(Standing::addresses).map(Address::place).collect();
        for (unit, stays) in last_good {
            let clash = stays.addresses().find(|address| taken.contains(&address.place())).cloned();
            match clash {
                None => drop(self.units.insert(unit, stays)),
                Some(address) => drop(whole.notes.insert(Note::new(
                    format!("listener on {address}"),
                    "what was last good there gives way to a newer listener on the same address",
                    "give each upstream a port of its own",
                ))),
            }
        }
    }

    /// Puts together what all units have.
    fn fill(&self, whole: &mut Assembled) {
        whole.partial.extend(self.units.values().flat_map(|unit| unit.partial.iter().cloned()));
        let listeners = self.listeners();
        if !whole.complete {
            whole.partial.extend(listeners.iter().map(|(key, _)| key.clone()));
        }
        let of_units = self.units.values().flat_map(|unit| &unit.resources);
        let mut all: Vec<&(Key, Arc<Resource>)> = of_units.chain(&listeners).collect();
        // Stable: of two with one name the first stays before the second.
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        // Two upstreams may lead to one target: the same cluster comes twice and is kept once.
        all.dedup_by(|(key, second), (first_key, first)| {
            let is_again = key == first_key;
            if is_again && second != first {
                whole.notes.insert(clash(key));
            }
            is_again
        });
        whole.resources = all.into_iter().cloned().collect();
    }

    /// The listeners that take the chains of all units.
    fn listeners(&self) -> Vec<(Key, Arc<Resource>)> {
        let mut chains: Vec<_> = self.units.values().flat_map(|unit| &unit.chains).cloned().collect();
        // Sorted, so that equal catalogs give equal listeners (unsorted chains flapped LDS until Consul 1.8.9).
        chains.sort_by(|a, b| a.name.cmp(&b.name));
        let shells = self.units.values().flat_map(|unit| &unit.listeners);
        let with_chains = shells.map(|shell| {
            let chains = chains.iter().chain(&shell.chains).cloned().collect();
            let listener = Resource::Listener(Listener { chains, ..shell.clone() });
            (listener.key(), Arc::new(listener))
        });
        with_chains.collect()
    }
}

fn clash(key: &Key) -> Note {
    Note::new(
        key.to_string(),
        "two parts of this proxy give this name to different resources; the first one's hold",
        "give both upstreams the same protocol, limits and timeouts, or the escape hatch a name of its own",
    )
}

/// Where units that are new and still held back are about to listen. A unit that is no longer asked for and listens there
/// stays: an upstream that is given another datacenter is another unit, and its application must not find the port
/// closed meanwhile.
fn awaited_addresses(
    previous: &BTreeMap<Unit, Standing>,
    units: &BTreeMap<Unit, Outcome>,
    claims: BTreeMap<Unit, Address>,
) -> BTreeSet<Address> {
    let is_new_and_held =
        |unit: &Unit| !previous.contains_key(unit) && matches!(units.get(unit), Some(Outcome::Held(_)));
    claims.into_iter().filter(|(unit, _)| is_new_and_held(unit)).map(|(_, at)| at.place()).collect()
}

impl Standing {
    /// What a unit has now, sharing with what it had last each resource that is equal.
    fn next(last: Option<&Self>, parts: Parts) -> Self {
        let Parts { resources, chains, listeners, partial } = parts;
        let had = last.map_or(&[][..], |last| &last.resources);
        let shared = |(place, resource): (usize, Resource)| {
            // A unit's resources mostly keep their places.
            let equal = had.get(place).filter(|(_, last)| **last == resource);
            equal
                .or_else(|| had.iter().find(|(_, last)| **last == resource))
                .cloned()
                .unwrap_or_else(|| (resource.key(), Arc::new(resource)))
        };
        Self {
            resources: resources.into_iter().enumerate().map(shared).collect(),
            chains,
            listeners,
            partial,
        }
    }

    fn addresses(&self) -> impl Iterator<Item = &Address> {
        bound(self.resources.iter().map(|(_, resource)| &**resource), &self.listeners)
    }
}

impl Parts {
    /// Where its listeners bind.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        bound(self.resources.iter(), &self.listeners)
    }
}

/// Where listeners bind: those that are whole resources, and those that wait for chains.
fn bound<'a>(
    resources: impl Iterator<Item = &'a Resource>,
    listeners: &'a [Listener],
) -> impl Iterator<Item = &'a Address> {
    let whole = resources.filter_map(|resource| match resource {
        Resource::Listener(listener) => Some(&listener.address),
        Resource::CustomListener(listener) => Some(&listener.address),
        _ => None,
    });
    whole.chain(listeners.iter().map(|listener| &listener.address))
}

impl Assembled {
    fn wait_for(&mut self, topics: BTreeSet<Topic>) {
        self.complete = false;
        self.waiting_for.extend(topics);
    }
}

#[cfg(test)]
mod tests;

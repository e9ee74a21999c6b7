//! What resources name: nothing is sent that names what its client could not have.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    check::{Done, ensure},
    client::Client,
};
use crate::xds::{
    resource::{Key, Kind},
    snapshot::Entry,
};

impl Client {
    /// What a resource names, a cluster, endpoints, a route or a secret, is offered with it, or the client has it. Only
    /// while not everything is known may something be named that nobody has yet.
    pub(super) fn check_offered(&self, entry: &Entry) -> Done {
        let could_have = |key: &Key| {
            let held = self.types[&key.kind].cache.contains_key(&key.name);
            held || !self.snapshot.is_complete() || self.snapshot.get(key).is_some()
        };
        let missing = entry.refers_to.iter().find(|key| !could_have(key));
        ensure(missing.is_none(), || format!("{:?} names {missing:?}, which is not to be had", entry.key))
    }

    /// What the client holds just as it is offered, of what it asks for.
    fn current(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let held = self.types.values().filter(|of| of.known).flat_map(|of| of.cache.values());
        held.filter(|entry| self.snapshot.get(&entry.key).is_some_and(|now| now.version == entry.version))
    }

    /// Asks for all that is named by what it holds, as an Envoy does.
    pub(super) fn follow_references(&mut self) -> Done {
        let named: BTreeSet<Key> = self.current().flat_map(|entry| entry.refers_to.clone()).collect();
        let is_fetched = |key: &Key| matches!(key.kind, Kind::Endpoints | Kind::Route | Kind::Secret);
        for key in named.iter().filter(|key| is_fetched(key)) {
            let of = &self.types[&key.kind];
            if !of.known || !of.wants(&key.name) {
                self.subscribe(key.kind, &key.name, String::new())?;
            }
        }
        Ok(())
    }

    /// All that it asked for so has come.
    pub(super) fn check_followed(&self) -> Done {
        for entry in self.current() {
            let lacks = |key: &&Key| {
                let of = &self.types[&key.kind];
                let is_wanted = of.known && of.wants(&key.name);
                is_wanted && !of.cache.contains_key(&key.name) && !self.has_refused_current(key)
            };
            let missing = entry.refers_to.iter().find(lacks);
            ensure(missing.is_none(), || format!("{:?} names {missing:?}, which never came", entry.key))?;
        }
        Ok(())
    }
}

//! Responses that carry everything: clusters and listeners in state of the world, where absence means deletion
//! (rule 19). What the client must not lose yet is carried along, although it is refused, gated, or gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use crate::xds::{
    resource::{Key, Kind},
    snapshot::Entry,
    subscription::{
        Subscription,
        split::Due,
        state::{Given, Held},
    },
    version::Version,
};

/// Which of the two passes over a type: what is gone goes in the second, after everything else (rule 42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Add,
    Remove,
}

/// What a response would carry.
#[derive(Debug, Default)]
struct World {
    news: BTreeMap<String, Arc<Entry>>,
    carried: BTreeMap<String, Arc<Entry>>,
    any_gated: bool,
    /// Something has to wait that the client would take for deleted or unknown: then everything waits.
    lacks_awaited: bool,
    has_removals: bool,
}

impl World {
    fn carry(&mut self, entry: Option<Arc<Entry>>) {
        if let Some(entry) = entry {
            self.carried.insert(entry.key.name.clone(), entry);
        }
    }

    fn has(&self, name: &str) -> bool {
        self.news.contains_key(name) || self.carried.contains_key(name)
    }
}

impl Subscription {
    pub(super) fn due_world(
        &mut self,
        kind: Kind,
        pass: Pass,
        now: Instant,
        gated: &mut BTreeSet<Key>,
    ) -> Option<Due> {
        if self.knows_too_little(kind) {
            return None;
        }
        let mut world = World::default();
        for entry in self.acceptable_or_refused(kind) {
            self.place(entry, now, gated, &mut world);
        }
        self.place_gone(kind, pass, now, gated, &mut world);
        let absent = self.due_absences(kind);
        if !self.is_world_due(kind, &world, &absent) {
            return None;
        }
        let state = self.state(kind);
        let held = state.records.keys().filter(|name| state.may_hold(name) && !world.has(name));
        let removed: BTreeSet<String> = held.map(ToString::to_string).chain(absent).collect();
        Some(Due {
            resources: world.news.into_values().collect(),
            carried: world.carried.into_values().collect(),
            removed: removed.into_iter().collect(),
        })
    }

    /// Unknown is not absent, and here what a response lacks is deleted: a client that may have something from before
    /// waits until everything is known, and a name asked for until it is.
    fn knows_too_little(&self, kind: Kind) -> bool {
        let state = self.state(kind);
        let is_unknown = |name: &Arc<str>| {
            !state.records.contains_key(name) && self.snapshot.get(&Key::new(kind, &**name)).is_none()
        };
        !self.snapshot.is_complete() && (state.is_returning || state.names.iter().any(is_unknown))
    }

    fn acceptable_or_refused(&self, kind: Kind) -> Vec<Arc<Entry>> {
        let state = self.state(kind);
        self.snapshot.of_kind(kind).filter(|entry| state.is_subscribed(&entry.key.name)).cloned().collect()
    }

    /// What the client should have of a type, but for what it refused.
    pub(super) fn acceptable_entries(&self, kind: Kind) -> Vec<Arc<Entry>> {
        let state = self.state(kind);
        let mut entries = self.acceptable_or_refused(kind);
        entries.retain(|entry| !state.is_rejected(&entry.key.name, &entry.version));
        entries
    }

    fn place(&mut self, entry: Arc<Entry>, now: Instant, gated: &mut BTreeSet<Key>, world: &mut World) {
        let Key { kind, name } = &entry.key;
        let state = self.state(*kind);
        if state.is_rejected(name, &entry.version) {
            // Rule 6: the last good version stays, and the others move on.
            return world.carry(self.last_good(*kind, name));
        }
        if !state.is_due(&entry) {
            return world.carry(Some(entry));
        }
        if *kind == Kind::Listener && self.awaits_clusters(&entry) {
            gated.insert(entry.key.clone());
            if self.is_gated(&entry.key, now) {
                world.any_gated = true;
                let last = self.last_good(*kind, name);
                world.lacks_awaited |= last.is_none() && self.is_awaited(*kind, name);
                return world.carry(last);
            }
        }
        world.news.insert(name.clone(), entry);
    }

    /// Clusters stay until nothing at the client names them (rule 44). Of listeners one may take the address of
    /// another, so that they go and come together.
    fn place_gone(
        &mut self,
        kind: Kind,
        pass: Pass,
        now: Instant,
        gated: &mut BTreeSet<Key>,
        world: &mut World,
    ) {
        let gone: Vec<String> = self.gone(kind).collect();
        let has_gone = !gone.is_empty();
        let all_stay = world.any_gated || (kind == Kind::Cluster && pass == Pass::Add);
        let unnamed = if all_stay { BTreeSet::new() } else { self.unnamed(kind, &gone) };
        for name in &gone {
            let last = self.last_good(kind, name);
            if last.is_none() && self.state(kind).has_more {
                let waits =
                    world.any_gated || !unnamed.contains(&**name) && self.waits(kind, name, now, gated);
                world.lacks_awaited |= waits;
                world.has_removals |= !waits;
            } else if all_stay || !unnamed.contains(&**name) && self.keeps(kind, name, now, gated) {
                world.carry(last);
            } else {
                world.has_removals = true;
            }
        }
        if world.any_gated && has_gone {
            let state = self.state(kind);
            let held_up = |name: &String| !state.may_hold(name);
            world.lacks_awaited |= world.news.keys().any(|name| held_up(name) && self.is_awaited(kind, name));
            world.news.retain(|name, _| !held_up(name));
        }
    }

    /// What a client has from an earlier stream cannot be carried along: the response waits until nothing names that any
    /// more, up to the limit.
    fn waits(&mut self, kind: Kind, name: &str, now: Instant, gated: &mut BTreeSet<Key>) -> bool {
        let key = Key::new(kind, name);
        self.keeps(kind, name, now, gated) && {
            gated.insert(key.clone());
            self.is_gated(&key, now)
        }
    }

    fn is_awaited(&self, kind: Kind, name: &str) -> bool {
        let state = self.state(kind);
        state.is_returning || state.names.contains(name)
    }

    /// At most one response to a changed snapshot is under way for each type; requests are answered regardless
    /// (rule 25).
    fn is_world_due(&self, kind: Kind, world: &World, absent: &[String]) -> bool {
        let state = self.state(kind);
        let answers = !absent.is_empty()
            || world.news.keys().any(|name| state.asked.contains(name))
            || (state.owes_first_answer && self.snapshot.is_complete());
        let has_changed = !world.news.is_empty() || world.has_removals;
        !world.lacks_awaited && (answers || (has_changed && state.outstanding.is_empty()))
    }

    /// What the client has under a name, unless it is to be replaced: what it was sent last, or what it took last.
    fn last_good(&self, kind: Kind, name: &str) -> Option<Arc<Entry>> {
        let state = self.state(kind);
        let record = state.records.get(name)?;
        let held = match &record.held {
            Held::Entry(entry) => Some(entry),
            Held::Nothing | Held::Inherited(_) => None,
        };
        let last = match &record.given {
            Given::Removed => None,
            Given::Uncertain | Given::Inherited(_) => {
                // Whatever an earlier response has, the last one under way decides.
                state.outstanding.last().and_then(|last| last.entries_of(name).next()).or(held)
            }
            Given::Sent(version) => {
                let under_way = state.outstanding.iter().flat_map(|o| o.entries_of(name));
                under_way.chain(held).find(|entry| entry.version == *version)
            }
        };
        last.filter(|entry| !state.is_rejected(name, &entry.version)).cloned()
    }
}

/// One version for many resources: equal for equal names and versions.
pub(super) fn world_version(entries: &[Arc<Entry>]) -> Version {
    let mut hasher = blake3::Hasher::new();
    for entry in entries {
        hasher.update(entry.key.name.as_bytes()).update(&[0]);
        hasher.update(entry.version.as_str().as_bytes()).update(&[0]);
    }
    Version::of_hash(&hasher.finalize())
}

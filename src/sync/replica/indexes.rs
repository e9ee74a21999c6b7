//! What an applier remembers of each key: which of the home's indexes belongs to which of the local ones. Pure.
//!
//! Consul gives a key another `ModifyIndex` only when a write changes it, at home as here, so that the result of a
//! transaction here tells whether the home's index moved. An index that is not known for certain is none: whoever
//! asks is sent home. A million keys take about 120 MB.

use std::{collections::BTreeMap, ops::Bound};

use crate::model::kv::{Pair, UNKNOWN_INDEX as UNKNOWN, UNKNOWN_LOCK};

/// The home's indexes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexes {
    /// What a client at home would see.
    Known {
        /// `CreateIndex`
        create: u64,
        /// `ModifyIndex`
        modify: u64,
        /// `LockIndex`
        lock: u64,
    },
    /// Not known, or not of what the local Consul holds now. The home has to be asked.
    Unknown,
}

/// 64 bits of the hash of a key's value and flags: enough to tell an edit from none, too few to prove equality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print(u64);

impl Print {
    /// Of this value with these flags.
    pub fn of(value: &[u8], flags: u64) -> Self {
        Self::of_hash(blake3::hash(value).as_bytes(), flags)
    }

    /// Of the value with this BLAKE3 hash.
    pub fn of_hash(hash: &[u8; 32], flags: u64) -> Self {
        let first: [u8; 8] = std::array::from_fn(|at| hash[at]);
        Self(u64::from_le_bytes(first) ^ flags.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// A key's index here, and what it holds.
pub type Here = (u64, Print);

/// What a key holds here.
pub fn here(pair: &Pair) -> Here {
    (pair.modify_index, Print::of(&pair.value, pair.flags))
}

/// What is remembered of a key that holds data here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its `ModifyIndex` here.
    pub local: u64,
    /// What it held then.
    pub print: Print,
    create: u64,
    modify: u64,
}

/// What a batch of entries did to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It holds data.
    Written(Written),
    /// It became a lock, by the entry with this index if it did not exist before.
    Held {
        /// The home's index of its creation, when that is in the batch.
        created: Option<u64>,
        /// The home's index of the first entry of the batch that names it.
        first: u64,
    },
    /// It does not exist any more.
    Gone,
}

/// How a batch wrote a key that holds data after it. Indexes are the home's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// What it holds.
    pub print: Print,
    /// The first entry of the batch that names it.
    pub first: u64,
    /// The last entry that changed it for certain. Without one, all writes of the batch were equal, and whether the
    /// first of them changed something shows only here.
    pub changed: Option<Change>,
    /// The entry that created it anew after a delete in the batch.
    pub created: Option<u64>,
    /// It was a lock before its last change, so that its `LockIndex` is only known at home.
    pub was_held: bool,
}

/// A change that does not depend on what was there before the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// By the entry with this index.
    At(u64),
    /// By one of several.
    Unclear,
}

/// The memory of one prefix.
#[derive(Debug, Default)]
pub struct Memory {
    records: BTreeMap<Box<str>, Record>,
    /// `LockIndex` at home where it is not 0: few keys were ever locks.
    locks: BTreeMap<Box<str>, u64>,
    /// Keys that live at home only, with their `CreateIndex` there.
    held: BTreeMap<Box<str>, u64>,
    /// Keys that a batch under way takes away from here, since they became locks: it may be in already.
    leaving: BTreeMap<Box<str>, ()>,
}

impl Memory {
    /// How many keys hold data.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no key holds data.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What is remembered of a key.
    pub fn record(&self, key: &str) -> Option<&Record> {
        self.records.get(key)
    }

    /// The records behind this key, in the order of their keys.
    pub fn records<'m>(&'m self, after: Option<&'m str>) -> impl Iterator<Item = (&'m str, &'m Record)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.records.range::<str, _>((from, Bound::Unbounded)).map(|(key, record)| (&**key, record))
    }

    /// The home's indexes of what the local Consul holds under this `ModifyIndex`.
    pub fn indexes(&self, key: &str, local_modify_index: u64) -> Indexes {
        match (self.records.get(key), self.lock(key)) {
            (Some(&Record { local, create, modify, .. }), lock)
                if local == local_modify_index
                    && create != UNKNOWN
                    && modify != UNKNOWN
                    && lock != UNKNOWN_LOCK =>
            {
                Indexes::Known { create, modify, lock }
            }
            _ => Indexes::Unknown,
        }
    }

    /// Notes that the key holds here what it holds at home under the indexes of `home`.
    pub fn know(&mut self, home: &Pair, local: u64, print: Print) {
        let Pair { create_index: create, modify_index: modify, lock_index: lock, .. } = *home;
        self.put(&home.key, Record { local, print, create, modify }, lock);
    }

    /// Notes what the key holds here, which is not what it holds at home. Entries to come tell when home changed it, but
    /// not when it was created, unless they do that as well.
    pub fn see(&mut self, home: &Pair, local: u64, print: Print) {
        let record = Record { local, print, create: home.create_index, modify: UNKNOWN };
        self.put(&home.key, record, UNKNOWN_LOCK);
    }

    /// Notes that an edit was undone: the key holds what it held, under another local index.
    pub fn heal(&mut self, key: &str, local: u64) {
        if let Some(record) = self.records.get_mut(key) {
            record.local = local;
        }
    }

    /// Notes that the key does not exist.
    pub fn drop_key(&mut self, key: &str) {
        self.records.remove(key);
        self.locks.remove(key);
        self.held.remove(key);
    }

    /// Notes that the key is a lock. `created` is its `CreateIndex` at home, where that is known.
    pub fn hold(&mut self, key: &str, created: Option<u64>) {
        self.records.remove(key);
        self.locks.remove(key);
        self.held.insert(key.into(), created.unwrap_or(UNKNOWN));
    }

    /// Notes that these keys are about to live at home only, until the next batch is noted.
    pub fn begin_hold<'k>(&mut self, keys: impl IntoIterator<Item = &'k str>) {
        self.leaving.extend(keys.into_iter().map(|key| (key.into(), ())));
    }

    /// Whether the key lives at home only, or may by now.
    pub fn may_be_held(&self, key: &str) -> bool {
        self.is_held(key) || self.leaving.contains_key(key)
    }

    /// Whether a key that begins so lives at home only, or may by now.
    pub fn may_hold_below(&self, tree: &str) -> bool {
        self.has_held_below(tree) || below(&self.leaving, tree).next().is_some()
    }

    /// Whether the key lives at home only.
    pub fn is_held(&self, key: &str) -> bool {
        self.held.contains_key(key)
    }

    /// Whether a key that begins so lives at home only.
    pub fn has_held_below(&self, tree: &str) -> bool {
        below(&self.held, tree).next().is_some()
    }

    /// The keys that live at home only.
    pub fn held(&self) -> impl Iterator<Item = &str> {
        self.held_behind(None)
    }

    /// Those of them behind this key, in their order.
    pub fn held_behind<'m>(&'m self, after: Option<&'m str>) -> impl Iterator<Item = &'m str> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.held.range::<str, _>((from, Bound::Unbounded)).map(|(key, _)| &**key)
    }

    /// Forgets all keys strictly between these two.
    pub fn forget_between(&mut self, after: Option<&str>, before: Option<&str>) {
        let range = (
            after.map_or(Bound::Unbounded, Bound::Excluded),
            before.map_or(Bound::Unbounded, Bound::Excluded),
        );
        drop_range(&mut self.records, range);
        drop_range(&mut self.locks, range);
        drop_range(&mut self.held, range);
    }

    /// Forgets the home's indexes: the home counts anew, or another history of it is taken over.
    pub fn forget_home(&mut self) {
        for record in self.records.values_mut() {
            (record.create, record.modify) = (UNKNOWN, UNKNOWN);
        }
    }

    /// Notes what a committed batch did: which trees it deleted, what became of each key it named, and their indexes
    /// here.
    pub fn apply<'k>(
        &mut self,
        trees: &[String],
        fates: impl IntoIterator<Item = (&'k str, Fate, Option<u64>)>,
    ) {
        self.leaving.clear();
        let after: Vec<_> =
            fates.into_iter().map(|(key, fate, local)| (key, self.outcome(key, fate, local))).collect();
        for tree in trees {
            drop_below(&mut self.records, tree);
            drop_below(&mut self.locks, tree);
            drop_below(&mut self.held, tree);
        }
        for (key, outcome) in after {
            match outcome {
                Outcome::Data(record, lock) => self.put(key, record, lock),
                Outcome::Held(created) => self.hold(key, Some(created)),
                Outcome::Gone => self.drop_key(key),
            }
        }
    }

    fn outcome(&self, key: &str, fate: Fate, local: Option<u64>) -> Outcome {
        let created = |created: Option<u64>, first: u64| {
            let before = self.records.get(key).map(|record| record.create).or(self.held.get(key).copied());
            created.or(before).unwrap_or(first)
        };
        match fate {
            Fate::Gone => Outcome::Gone,
            Fate::Held { created: known, first } => Outcome::Held(created(known, first)),
            Fate::Written(written) => {
                // There is none when Consul's answer is not understood, or when somebody else wrote the key since.
                let local = local.unwrap_or(UNKNOWN);
                let modify = self.modify(key, &written, local);
                let create = created(written.created, written.first);
                let lock = if written.was_held { UNKNOWN_LOCK } else { 0 };
                Outcome::Data(Record { local, print: written.print, create, modify }, lock)
            }
        }
    }

    /// The home's `ModifyIndex` of a key after a batch.
    fn modify(&self, key: &str, written: &Written, local: u64) -> u64 {
        match (written.changed, self.records.get(key)) {
            (Some(Change::At(index)), _) => index,
            (Some(Change::Unclear), _) => UNKNOWN,
            (None, None) => written.first,
            // Whether the first of the equal writes changed something is not known then.
            (None, Some(_)) if local == UNKNOWN => UNKNOWN,
            (None, Some(before)) if before.local != local => written.first,
            // A plain write of what was a lock sets its `LockIndex` to 0, which is a change at home only.
            (None, Some(before)) => match self.lock(key) {
                0 => before.modify,
                UNKNOWN_LOCK => UNKNOWN,
                _ => written.first,
            },
        }
    }

    fn put(&mut self, key: &str, record: Record, lock: u64) {
        self.held.remove(key);
        match lock {
            0 => self.locks.remove(key),
            _ => self.locks.insert(key.into(), lock),
        };
        match self.records.get_mut(key) {
            Some(before) => *before = record,
            None => {
                self.records.insert(key.into(), record);
            }
        }
    }

    fn lock(&self, key: &str) -> u64 {
        self.locks.get(key).copied().unwrap_or(0)
    }
}

enum Outcome {
    Data(Record, u64),
    Held(u64),
    Gone,
}

fn below<'m, V>(map: &'m BTreeMap<Box<str>, V>, tree: &'m str) -> impl Iterator<Item = &'m str> {
    map.range::<str, _>((Bound::Included(tree), Bound::Unbounded))
        .map(|(key, _)| &**key)
        .take_while(move |key| key.starts_with(tree))
}

fn drop_range<V>(map: &mut BTreeMap<Box<str>, V>, range: (Bound<&str>, Bound<&str>)) {
    let keys: Vec<Box<str>> = map.range::<str, _>(range).map(|(key, _)| key.clone()).collect();
    for key in keys {
        map.remove(&key);
    }
}

fn drop_below<V>(map: &mut BTreeMap<Box<str>, V>, tree: &str) {
    let keys: Vec<Box<str>> = below(map, tree).map(Into::into).collect();
    for key in keys {
        map.remove(&key);
    }
}

#[cfg(test)]
mod tests;

//! I3, I4, I8, I9: what Consul holds at home and at replicas, looked at after every change. The journal is read as any
//! follower reads it and folded here once more; each replica must be what that gave at its position.

mod sampled;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use causeway::{
    model::{
        kv::Pair,
        name::Datacenter,
        sync::{Position, PrefixId},
    },
    sync::{
        layout::Layout,
        record::{self, Change, Entry, Hash, Head, Phase, State, Value},
    },
};

use super::Violation;

/// The data of a prefix: flags and value of each key.
type Data = BTreeMap<String, (u64, Bytes)>;

/// All keys of a Consul.
type Pairs = BTreeMap<String, Pair>;

/// Which side of a prefix a datacenter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Home,
    Replica,
}

/// A place in one history.
type Place = (Position, Hash);

/// What the journal gave up to some position.
#[derive(Clone, Default)]
struct Folded {
    data: Arc<Data>,
    held: Arc<BTreeSet<String>>,
}

/// What a replica was found to be.
#[derive(Default)]
struct Seen {
    place: Option<Place>,
    keys: BTreeSet<String>,
}

/// Watches one prefix in all datacenters.
pub(crate) struct Witness {
    prefix: String,
    layout: Layout,
    at: Option<Place>,
    /// Home was restored, and not looked at since: no other home loses its head.
    may_begin: bool,
    /// By position and hash: a restored home may come to a position again.
    folds: BTreeMap<Place, Folded>,
    /// What each key held at each of its indexes, at home.
    indexes: BTreeMap<(String, u64), Bytes>,
    /// What each key held at home while no session held it.
    free: BTreeSet<(String, u64, Bytes)>,
    replicas: BTreeMap<Datacenter, Seen>,
    found: Vec<Violation>,
}

impl Witness {
    /// Of this prefix.
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            layout: Layout::new(&PrefixId::of(prefix)),
            at: None,
            may_begin: false,
            folds: BTreeMap::new(),
            indexes: BTreeMap::new(),
            free: BTreeSet::new(),
            replicas: BTreeMap::new(),
            found: Vec::new(),
        }
    }

    /// What was found so far.
    pub(crate) fn found(&self) -> &[Violation] {
        &self.found
    }

    /// Looks at all keys of a datacenter.
    pub(crate) fn look(&mut self, datacenter: &Datacenter, side: Side, pairs: &Pairs) {
        match side {
            Side::Home => self.look_home(pairs),
            Side::Replica => self.look_replica(datacenter, pairs),
        }
    }

    /// Where the journal ends.
    pub(crate) fn end(&self) -> Option<Position> {
        self.at.as_ref().map(|(position, _)| *position)
    }

    /// How far a replica is.
    pub(crate) fn position(&self, datacenter: &Datacenter) -> Option<Position> {
        self.replicas.get(datacenter)?.place.as_ref().map(|(position, _)| *position)
    }

    /// Whether a replica is where the journal ends. A new epoch without an entry changes nothing.
    pub(crate) fn is_equal(&self, datacenter: &Datacenter) -> bool {
        let place = self.replicas.get(datacenter).and_then(|seen| seen.place.as_ref());
        let bare = |(position, hash): &Place| (position.seq, hash.clone());
        self.at.is_some() && place.map(bare) == self.at.as_ref().map(bare)
    }

    /// A datacenter's Consul was restored: what its replica was is forgotten, and its journal may not have begun yet.
    pub(crate) fn forget(&mut self, datacenter: &Datacenter, side: Side) {
        match side {
            Side::Home => self.may_begin = true,
            Side::Replica => drop(self.replicas.remove(datacenter)),
        }
    }

    /// Whether home ever showed this value of this key at this index.
    pub(crate) fn check_index(&mut self, key: &str, index: u64, value: &[u8]) {
        if self.indexes.get(&(key.to_owned(), index)).is_none_or(|held| held != value) {
            self.tell(format!(
                "index: {key} was shown with index {index} and `{}`, which home never had",
                String::from_utf8_lossy(value)
            ));
        }
    }

    fn tell(&mut self, text: String) {
        let violation = Violation(text);
        if !self.found.contains(&violation) {
            self.found.push(violation);
        }
    }

    fn data(&self, pairs: &Pairs) -> Data {
        pairs
            .range(self.prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&self.prefix))
            .map(|(key, pair)| (key.clone(), (pair.flags, pair.value.clone())))
            .collect()
    }

    fn look_home(&mut self, pairs: &Pairs) {
        for (key, pair) in pairs.iter().filter(|(key, _)| key.starts_with(&self.prefix)) {
            self.indexes.insert((key.clone(), pair.modify_index), pair.value.clone());
            if pair.session.is_none() {
                self.free.insert((key.clone(), pair.flags, pair.value.clone()));
            }
        }
        let head = read::<Head>(pairs, &self.layout.head());
        if std::mem::take(&mut self.may_begin) && head.is_none() {
            self.at = None;
        }
        let Some(head) = head else { return };
        let place = (head.position, head.hash);
        if self.at.as_ref() != Some(&place) {
            self.follow(place.clone(), pairs);
        }
        let Some(folded) = self.folds.get(&place).cloned() else { return };
        let mut data = self.data(pairs);
        data.retain(|key, _| !folded.held.contains(key));
        if data != *folded.data {
            let text = difference(&folded.data, &data);
            self.tell(format!("I3: home is not what its journal says at {}: {text}", head.position));
        }
    }

    fn follow(&mut self, place: Place, pairs: &Pairs) {
        let from = self.at.replace(place.clone());
        if self.folds.contains_key(&place) {
            return; // restored
        }
        let base = from.as_ref().and_then(|from| self.folds.get(from)).cloned();
        let (to, from) = (place.0, from.map(|(position, _)| position));
        let folded = match (base, from) {
            (Some(base), Some(from)) if to.seq == from.seq => base,
            (Some(base), Some(from)) if to.seq == from.seq + 1 => self.step(&base, to, pairs),
            (None, None) => Folded { data: Arc::new(self.data(pairs)), held: Arc::default() },
            _ => return self.tell(format!("I3: the journal jumped from {from:?} to {to}")),
        };
        self.folds.insert(place, folded);
    }

    fn step(&mut self, base: &Folded, to: Position, pairs: &Pairs) -> Folded {
        let mut folded = base.clone();
        let Some(entry) = read::<Entry>(pairs, &self.layout.entry(to.seq)) else {
            self.tell(format!("I3: the journal lacks {to}"));
            return folded;
        };
        if entry.position != to {
            self.tell(format!("I3: the entry of {to} says {}", entry.position));
        }
        let (data, held) = (Arc::make_mut(&mut folded.data), Arc::make_mut(&mut folded.held));
        for change in &entry.ops {
            match change {
                Change::Set { k, flags, value } => {
                    let value = match value {
                        Value::Val(bytes) => bytes.clone(),
                        Value::Blob(hash) => pairs
                            .get(&self.layout.blob(&hash.0))
                            .map(|pair| pair.value.clone())
                            .unwrap_or_default(),
                    };
                    held.remove(k);
                    data.insert(k.clone(), (*flags, value));
                }
                Change::Held { k } => {
                    data.remove(k);
                    held.insert(k.clone());
                }
                Change::Del { k } => {
                    data.remove(k);
                    held.remove(k);
                }
                Change::DelTree { k } => {
                    data.retain(|key, _| !key.starts_with(k.as_str()));
                    held.retain(|key| !key.starts_with(k.as_str()));
                }
            }
        }
        folded
    }

    fn look_replica(&mut self, datacenter: &Datacenter, pairs: &Pairs) {
        let data = self.data(pairs);
        let state = read::<State>(pairs, &self.layout.state());
        let mut seen = self.replicas.remove(datacenter).unwrap_or_default();
        let keys: BTreeSet<String> = data.keys().cloned().collect();
        for gone in seen.keys.difference(&keys) {
            self.check_gone(datacenter, gone, seen.place.as_ref());
        }
        seen.keys = keys;
        if let Some(state) = state {
            let before = seen.place.as_ref().map(|(position, _)| *position);
            if let Some(before) = before.filter(|before| *before > state.position) {
                self.tell(format!("I4: {datacenter} went back from {before} to {}", state.position));
            }
            let place = (state.position, state.hash);
            seen.place = Some(place.clone());
            if state.phase == Phase::Stream {
                self.check_data(datacenter, &place, &data);
            }
        }
        self.replicas.insert(datacenter.clone(), seen);
    }

    /// A lock whose session ended is free without an entry in the journal: then a replica may hold what it held at
    /// home, or nothing.
    fn check_data(&mut self, datacenter: &Datacenter, place: &Place, data: &Data) {
        let at = place.0;
        let Some(folded) = self.folds.get(place).cloned() else {
            return self.tell(format!("I3: {datacenter} is at {at}, where home never was"));
        };
        let mut data = data.clone();
        data.retain(|key, (flags, value)| {
            !(folded.held.contains(key) && self.free.contains(&(key.clone(), *flags, value.clone())))
        });
        if *folded.data != data {
            let text = difference(&folded.data, &data);
            self.tell(format!("I3: {datacenter} at {at} is not what home was: {text}"));
        }
    }

    /// I8: some state of the journal from the replica's position on lacks the key.
    fn check_gone(&mut self, datacenter: &Datacenter, key: &str, from: Option<&Place>) {
        let lacks = |folded: &Folded| !folded.data.contains_key(key);
        if !self.folds.range(from.cloned().unwrap_or_default()..).any(|(_, folded)| lacks(folded)) {
            self.tell(format!("I8: {datacenter} lost {key}, which home never deleted"));
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(pairs: &Pairs, key: &str) -> Option<T> {
    let pair = pairs.get(key)?;
    Some(record::decode(key, &pair.value).unwrap_or_else(|error| panic!("{error}")))
}

fn difference(want: &Data, have: &Data) -> String {
    let keys: BTreeSet<&String> = want.keys().chain(have.keys()).collect();
    let differs = keys.into_iter().filter(|key| want.get(*key) != have.get(*key)).take(3);
    let line = |key: &String| format!("{key} is {:?} and must be {:?}", have.get(key), want.get(key));
    differs.map(line).collect::<Vec<_>>().join("; ")
}

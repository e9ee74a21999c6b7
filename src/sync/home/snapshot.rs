//! All data of a prefix at one position, made from a list that was read a moment before. Pure.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use crate::{
    model::kv::{Pair, UNKNOWN_INDEX, UNKNOWN_LOCK},
    sync::{
        home::{history::Logged, memory::is_lock},
        peer::SnapshotPair,
        record::{Change, Hash, Value},
    },
};

/// How much goes into one message, so that a window of flow control takes it.
const MESSAGE_BYTES: usize = 512 * 1024;
/// What a key costs beside its name and value.
const PAIR_BYTES: usize = 64;

/// A key as followers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shot {
    /// Data.
    Data(Pair),
    /// A lock.
    Held(String),
}

impl Shot {
    fn of(pair: Pair) -> Self {
        if pair.session.is_some() || is_lock(pair.flags) { Self::Held(pair.key) } else { Self::Data(pair) }
    }
}

/// The list as it is.
pub fn as_listed(pairs: Vec<Pair>) -> Vec<Shot> {
    pairs.into_iter().map(Shot::of).collect()
}

/// The data after these entries: all those committed between the head that was read before the list and the one that was
/// read after it. Some of them the list already shows; that shows by its indexes.
pub fn brought_forward(
    pairs: Vec<Pair>,
    entries: &[Logged],
    blobs: &BTreeMap<Hash, Bytes>,
) -> Option<Vec<Shot>> {
    let mut keys: BTreeMap<String, Slot> = BTreeMap::new();
    for pair in pairs {
        let (created, modified) = (pair.create_index, pair.modify_index);
        keys.insert(pair.key.clone(), Slot { created, modified, is_listed: true, shot: Shot::of(pair) });
    }
    for Logged { entry, index, .. } in entries {
        for change in &entry.ops {
            bring(&mut keys, change, *index, blobs)?;
        }
    }
    Some(keys.into_values().map(|slot| slot.shot).collect())
}

struct Slot {
    created: u64,
    modified: u64,
    /// It is as the list shows it, after all of the entry that changed it last.
    is_listed: bool,
    shot: Shot,
}

fn bring(
    keys: &mut BTreeMap<String, Slot>,
    change: &Change,
    index: u64,
    blobs: &BTreeMap<Hash, Bytes>,
) -> Option<()> {
    let seen = |slot: &Slot| slot.modified > index || slot.is_listed && slot.modified == index;
    match change {
        Change::DelTree { k } => {
            let from = (Bound::Included(k.as_str()), Bound::Unbounded);
            let below = keys.range::<str, _>(from).take_while(|(key, _)| key.starts_with(k.as_str()));
            let gone: Vec<String> =
                below.filter(|(_, slot)| !seen(slot)).map(|(key, _)| key.clone()).collect();
            gone.iter().for_each(|key| drop(keys.remove(key)));
        }
        change if keys.get(change.key()).is_some_and(seen) => {}
        Change::Del { k } => drop(keys.remove(k)),
        Change::Held { k } => {
            let created = keys.get(k).map_or(index, |slot| slot.created);
            let shot = Shot::Held(k.clone());
            keys.insert(k.clone(), Slot { created, modified: index, is_listed: false, shot });
        }
        Change::Set { k, flags, value } => {
            let value = match value {
                Value::Val(value) => value.clone(),
                Value::Blob(hash) => blobs.get(hash)?.clone(),
            };
            set(keys, k, *flags, value, index);
        }
    }
    Some(())
}

fn set(keys: &mut BTreeMap<String, Slot>, key: &str, flags: u64, value: Bytes, index: u64) {
    let before = keys.get(key);
    let mut modify_index = index;
    if let Some(Slot { shot: Shot::Data(pair), .. }) = before
        && pair.value == value
        && pair.flags == flags
    {
        // An equal write changes nothing, and not the index; unless it sets the `LockIndex` to 0.
        match pair.lock_index {
            0 => return,
            UNKNOWN_LOCK => modify_index = UNKNOWN_INDEX,
            _ => {}
        }
    }
    let created = before.map_or(index, |slot| slot.created);
    // A release keeps it, a plain write of a lock that nobody holds does not, and the entry does not tell which it was.
    let was_lock = before.is_some_and(|slot| matches!(slot.shot, Shot::Held(_)));
    let lock_index = if was_lock { UNKNOWN_LOCK } else { 0 };
    let pair = Pair {
        key: key.to_owned(),
        value,
        flags,
        session: None,
        lock_index,
        create_index: created,
        modify_index,
    };
    let shot = Shot::Data(pair);
    keys.insert(key.to_owned(), Slot { created, modified: index, is_listed: false, shot });
}

/// In messages of bounded size. With `compare`, hashes stand in place of values.
pub fn messages(shots: Vec<Shot>, compare: bool) -> impl Iterator<Item = Vec<SnapshotPair>> {
    let mut shots = shots.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut message = Vec::new();
        let mut bytes = 0;
        while let Some(shot) =
            shots.next_if(|shot| message.is_empty() || bytes + size(shot, compare) <= MESSAGE_BYTES)
        {
            bytes += size(&shot, compare);
            message.push(as_sent(shot, compare));
        }
        (!message.is_empty()).then_some(message)
    })
}

fn size(shot: &Shot, compare: bool) -> usize {
    PAIR_BYTES
        + match shot {
            Shot::Data(pair) if compare => pair.key.len() + 32,
            Shot::Data(pair) => pair.key.len() + pair.value.len(),
            Shot::Held(key) => key.len(),
        }
}

fn as_sent(shot: Shot, compare: bool) -> SnapshotPair {
    match shot {
        Shot::Held(key) => SnapshotPair::Held(key),
        Shot::Data(pair) if compare => {
            let hash = *blake3::hash(&pair.value).as_bytes();
            SnapshotPair::Hashed { pair: Pair { value: Bytes::new(), ..pair }, hash }
        }
        Shot::Data(pair) => SnapshotPair::Data(pair),
    }
}

#[cfg(test)]
mod tests;

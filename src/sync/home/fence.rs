//! Whether the history that is found here is the one that others know. Pure.
//!
//! A Consul that was restored from a snapshot has forgotten what it acknowledged after it. Whoever still knows of that
//! (another datacenter, this agent, which keeps it on disk) shows it by a later position, or by another hash at one of ours. Then a new epoch begins:
//! tokens go on growing, and followers of the lost part see that theirs is no longer the home's history.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    model::{
        name::Datacenter,
        sync::{Position, Prefix},
    },
    sync::{
        peer::Known,
        record::{Epochs, Fork, Hash, Head},
    },
};

/// The first entry's number.
const FIRST: u64 = 1;

/// The key that is always there, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sentinel {
    /// The prefix.
    pub prefix: String,
    /// Its home.
    pub home: Datacenter,
}

/// What stands in the reserved keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// `epoch`
    pub epochs: Option<Epochs>,
    /// `head`
    pub head: Option<Head>,
    /// `sentinel`
    pub sentinel: Option<Sentinel>,
    /// The entry that `head` names: its position and the hash of its bytes.
    pub last: Option<(Position, Hash)>,
    /// Hashes of the entries that [`compared`] names, by their numbers.
    pub entries: BTreeMap<u64, Hash>,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is what others know: go on.
    Serve,
    /// Nothing was here: write these, then serve.
    Begin {
        /// The histories.
        epochs: Epochs,
        /// An empty journal.
        head: Head,
    },
    /// Others know more or something else: write these, then serve.
    NewEpoch {
        /// The histories, with the new one.
        epochs: Epochs,
        /// Our journal's end, in the new epoch.
        head: Head,
        /// For people.
        reason: String,
    },
    /// The records do not fit together, and nothing is written over them.
    Refuse(String),
}

/// Compares what is here with what others know of this prefix. `contested` is the epoch of a follower whose entry is
/// not the one that we have at its place.
pub fn decide(found: &Found, known: &[Known], contested: Option<u32>, prefix: &Prefix) -> Decision {
    let known: Vec<&Known> = known.iter().filter(|known| known.position != Position::default()).collect();
    let (epochs, head) = match (&found.epochs, &found.head, &found.sentinel) {
        (None, None, None) => return begin(&known),
        (Some(epochs), Some(head), Some(sentinel)) => {
            if let Some(problem) = problem(found, epochs, head, sentinel, prefix) {
                return Decision::Refuse(problem);
            }
            (epochs, head)
        }
        (epochs, head, _) => {
            let missing = match (epochs, head) {
                (None, _) => "epoch",
                (_, None) => "head",
                _ => "sentinel",
            };
            return Decision::Refuse(format!(
                "the record {missing} of {} is missing while others are there; restore it from a snapshot, or take the \
                 prefix out and in again as docs/sync.md tells",
                prefix.text
            ));
        }
    };
    let reason = known.iter().find_map(|known| doubt(known, head, &found.entries)).or_else(|| {
        let epoch = contested.filter(|epoch| *epoch >= head.position.epoch)?;
        Some(format!("a follower has another entry of epoch {epoch}"))
    });
    let Some(reason) = reason else { return Decision::Serve };
    let highest = known.iter().map(|known| known.position.epoch).chain(contested).max().unwrap_or(0);
    let Some(epoch) = highest.max(head.position.epoch).checked_add(1) else {
        return Decision::Refuse(format!("there is no epoch after {highest}"));
    };
    let fork = Fork { epoch, seq: head.position.seq, hash: head.hash.clone() };
    let mut epochs = epochs.clone();
    epochs.epoch = epoch;
    epochs.forks.push(fork);
    let mut head = head.clone();
    head.position.epoch = epoch;
    Decision::NewEpoch { epochs, head, reason }
}

/// The entry of ours to hold against what is known elsewhere: one of the present epoch, before the last. What is known of
/// an epoch that is over says nothing about this one, whose tokens are greater anyway.
pub fn compared(found: &Found, known: &Known) -> Option<u64> {
    let head = found.head.as_ref()?;
    let Position { epoch, seq } = known.position;
    let is_kept = (head.first.max(FIRST)..head.position.seq).contains(&seq);
    (epoch == head.position.epoch && is_kept).then_some(seq)
}

fn doubt(known: &Known, head: &Head, entries: &BTreeMap<u64, Hash>) -> Option<String> {
    let Known { position, hash, .. } = known;
    if *position > head.position {
        return Some(format!(
            "{position} is known elsewhere, and the journal here ends at {}",
            head.position
        ));
    }
    let ours = if *position == head.position {
        Some(&head.hash)
    } else {
        entries.get(&position.seq).filter(|_| position.epoch == head.position.epoch)
    };
    ours.is_some_and(|ours| ours != hash)
        .then(|| format!("another entry {position} is known elsewhere than the one here"))
}

/// Nothing was ever here, or all of it was lost: then others still know some epoch, and ours comes after it.
fn begin(known: &[&Known]) -> Decision {
    let highest = known.iter().map(|known| known.position.epoch).max().unwrap_or(0);
    let Some(epoch) = highest.checked_add(1) else {
        return Decision::Refuse(format!("there is no epoch after {highest}"));
    };
    let fork = Fork { epoch, seq: 0, hash: Hash::default() };
    let forks = if highest > 0 { vec![fork] } else { Vec::new() };
    let head = Head { position: Position { epoch, seq: 0 }, hash: Hash::default(), first: FIRST };
    Decision::Begin { epochs: Epochs { epoch, forks }, head }
}

fn problem(
    found: &Found,
    epochs: &Epochs,
    head: &Head,
    sentinel: &Sentinel,
    prefix: &Prefix,
) -> Option<String> {
    let Position { epoch, seq } = head.position;
    if sentinel.prefix != prefix.text || sentinel.home != prefix.home {
        return Some(format!(
            "the records of {} here are those of {} with its home in {}; give both the same home",
            prefix.text, sentinel.prefix, sentinel.home
        ));
    }
    if epochs.epoch != epoch {
        return Some(format!(
            "the journal of {} ends in epoch {epoch} while the present epoch is {}; restore both from one snapshot",
            prefix.text, epochs.epoch
        ));
    }
    let last = found.last.as_ref();
    let fits = if seq == 0 {
        head.hash == Hash::default()
    } else {
        last.is_some_and(|(position, hash)| {
            position.seq == seq && position.epoch <= epoch && *hash == head.hash
        })
    };
    (!fits).then(|| {
        format!(
            "the journal of {} should end with entry {seq}, which is {}; restore it from a snapshot, or take the prefix \
             out and in again as docs/sync.md tells",
            prefix.text,
            if last.is_some() { "another one" } else { "missing" }
        )
    })
}

#[cfg(test)]
mod tests;

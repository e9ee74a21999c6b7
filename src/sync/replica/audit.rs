//! Edits of a replica by others than its applier, found by their index: whoever writes a key moves its `ModifyIndex`
//! beyond the one that was recorded. Pure.

use std::iter::Peekable;

use crate::{
    model::kv::Pair,
    sync::replica::indexes::{Memory, Print, Record},
};

/// So many suspects are looked at in one audit. A replica with more is taken anew after the first that proves true.
pub const MOST_SUSPECTS: usize = 64;

/// What a second look at a suspect tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as recorded: it was applied meanwhile.
    Fine,
    /// It was edited and edited back: it holds what it should, under this index.
    Restored(u64),
    /// It was edited, made or deleted here.
    Edited,
}

/// Keys of which a local list, in the order of keys, does not show what is remembered. `since` is the greatest local
/// index that was remembered when the list was asked for: what was applied after that is no suspect.
pub fn suspects(list: &[Pair], memory: &Memory, since: u64) -> Vec<String> {
    let mut found = Vec::new();
    let mut records = memory.records().peekable();
    for pair in list {
        missing(&mut records, Some(&pair.key), since, &mut found);
        match records.next_if(|(key, _)| **key == *pair.key) {
            Some((_, record)) if record.local == pair.modify_index || record.local > since => {}
            _ => found.push(pair.key.clone()),
        }
        if found.len() >= MOST_SUSPECTS {
            return found;
        }
    }
    missing(&mut records, None, since, &mut found);
    found
}

/// Records before this key, which the list lacks.
fn missing<'m>(
    records: &mut Peekable<impl Iterator<Item = (&'m str, &'m Record)>>,
    before: Option<&str>,
    since: u64,
    found: &mut Vec<String>,
) {
    while let Some((key, record)) = records.next_if(|(key, _)| before.is_none_or(|before| *key < before)) {
        if record.local <= since && found.len() < MOST_SUSPECTS {
            found.push(key.to_owned());
        }
    }
}

/// What a key proves to be, by what it holds now, while nothing is being applied.
pub fn verdict(key: &str, now: Option<&Pair>, memory: &Memory) -> Verdict {
    match (now, memory.record(key)) {
        (None, None) => Verdict::Fine,
        (Some(pair), Some(record)) if pair.modify_index == record.local => Verdict::Fine,
        (Some(pair), Some(record)) if Print::of(&pair.value, pair.flags) == record.print => {
            Verdict::Restored(pair.modify_index)
        }
        _ => Verdict::Edited,
    }
}

#[cfg(test)]
mod tests;

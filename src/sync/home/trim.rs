//! How much of the journal stays, and which of the values beside it. Pure.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    model::{
        kv::{Op, Pair},
        name::Datacenter,
        sync::Position,
    },
    sync::{home::history::Logged, layout::Layout, record::Head},
};

/// Entries go by tens: their keys begin alike, so that one verb deletes them.
pub const TEN: u64 = 10;
/// Tens that go in one transaction: few enough that nobody's write waits long behind it.
const TENS: u64 = 20;
/// A value may be named by an entry so much later than it was put: it is put again before that grows larger.
pub const BLOB_LEEWAY: u64 = 500;

/// How much of the journal stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// So many newest entries in any case: requests that are sent again are answered from them.
    pub always: u64,
    /// No more than so many, whoever still needs them: he gets all data instead.
    pub max_entries: u64,
    /// Nor any that are older.
    pub max_age: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        Self { always: 1024, max_entries: 1_000_000, max_age: Duration::from_secs(24 * 3600) }
    }
}

/// The last entry that all other datacenters have; none while one of them has never said how far it is.
pub fn acked(all: &[Datacenter], own: &Datacenter, acks: &BTreeMap<Datacenter, Position>) -> Option<u64> {
    let mut least = u64::MAX;
    for other in all.iter().filter(|other| *other != own) {
        least = least.min(acks.get(other)?.seq);
    }
    Some(least)
}

/// The last entry that may go for its number. 0 for none.
pub fn by_number(head: &Head, acked: Option<u64>, keep: &Keep) -> u64 {
    let last = head.position.seq;
    acked.unwrap_or(0).max(last.saturating_sub(keep.max_entries)).min(last.saturating_sub(keep.always))
}

/// The last of these entries that may go for its age. 0 for none.
pub fn by_age(oldest: &[Logged], head: &Head, now_ms: u64, keep: &Keep) -> u64 {
    let max_age_ms = u64::try_from(keep.max_age.as_millis()).unwrap_or(u64::MAX);
    let is_old = |logged: &&Logged| now_ms.saturating_sub(logged.entry.ts_ms) > max_age_ms;
    let last = oldest.iter().take_while(is_old).last().map_or(0, |logged| logged.entry.position.seq);
    last.min(head.position.seq.saturating_sub(keep.always))
}

/// The verbs that delete whole tens up to this entry, and the first entry that stays. None when no ten is whole.
pub fn tens(layout: &Layout, first: u64, last: u64) -> Option<(Vec<Op>, u64)> {
    let from = first / TEN;
    let until = (last.saturating_add(1) / TEN).min(from + TENS);
    if until <= from {
        return None;
    }
    let ops = (from..until).map(|ten| Op::DeleteTree { prefix: ten_prefix(layout, ten) }).collect();
    Some((ops, until * TEN))
}

/// What the keys of the entries from `ten * 10` to `ten * 10 + 9` begin with.
pub fn ten_prefix(layout: &Layout, ten: u64) -> String {
    let mut key = layout.entry(ten.saturating_mul(TEN));
    key.pop();
    key
}

/// The verbs that delete values which no entry names any more. Each was put with the number of the entry that names it
/// last.
pub fn orphans(blobs: &[Pair], first: u64) -> Vec<Op> {
    let is_orphan = |pair: &&Pair| pair.flags.saturating_add(BLOB_LEEWAY) < first;
    let delete = |pair: &Pair| Op::DeleteCas { key: pair.key.clone(), index: pair.modify_index };
    blobs.iter().filter(is_orphan).map(delete).collect()
}

#[cfg(test)]
mod tests;

//! A home that was restored from a snapshot has two histories with one beginning: what was until the restore, and what was
//! until the snapshot and goes on after the restore. Each is judged as any other. What was acknowledged between the two
//! may be gone, or be there if it was sent again; tokens grow through both.

use super::{Act, Call, Moment, Outcome, Violation, judge, locks};

/// That it happened.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub(crate) datacenter: String,
    /// Prefixes with their home there.
    pub(crate) prefixes: Vec<String>,
    /// When the snapshot was taken.
    pub(crate) saved: Moment,
    /// When it was put in the place of what was there.
    pub(crate) restored: Moment,
}

/// Everything that must hold, though these restores took something back. One of each prefix at most.
pub(crate) fn judge_restored(calls: &[Call], restores: &[Restored]) -> Vec<Violation> {
    let is_hit = |restore: &Restored, call: &Call| {
        restore.prefixes.iter().any(|prefix| key(&call.act).starts_with(prefix.as_str()))
    };
    let part = |keep: &dyn Fn(&Call) -> bool| -> Vec<Call> {
        calls.iter().filter(|call| keep(call)).cloned().collect()
    };
    let mut found = judge(&part(&|call| !restores.iter().any(|restore| is_hit(restore, call))));
    for restore in restores {
        let hit = part(&|call| is_hit(restore, call));
        let grants: Vec<Call> =
            hit.iter().filter(|call| matches!(call.act, Act::Grant { .. })).cloned().collect();
        found.extend(locks(&grants));
        found.extend(judge(&until(&hit, restore.restored)));
        found.extend(judge(&beside(&hit, restore)));
    }
    found
}

/// The history that the restore ended.
fn until(calls: &[Call], end: Moment) -> Vec<Call> {
    let begun = calls.iter().filter(|call| call.began < end);
    begun.filter_map(|call| if call.ended < end { Some(call.clone()) } else { open(call) }).collect()
}

/// The history that goes on from the snapshot.
fn beside(calls: &[Call], restore: &Restored) -> Vec<Call> {
    let is_whole = |call: &Call| call.ended < restore.saved || call.began > restore.restored;
    calls.iter().filter_map(|call| if is_whole(call) { Some(call.clone()) } else { open(call) }).collect()
}

/// What may have been carried out in this history or not; nothing for what changes nothing.
fn open(call: &Call) -> Option<Call> {
    match call.act {
        Act::Read { .. } | Act::Lists { .. } | Act::Grant { .. } | Act::Cas { is_done: false, .. }
            if call.outcome == Outcome::Done =>
        {
            None
        }
        // Refused is refused in both.
        _ if call.outcome == Outcome::Refused => Some(call.clone()),
        _ => Some(Call { outcome: Outcome::Open, ended: Moment::MAX, ..call.clone() }),
    }
}

fn key(act: &Act) -> &str {
    match act {
        Act::Read { key, .. } | Act::Write { key, .. } | Act::Cas { key, .. } => key,
        Act::DeleteTree { prefix, .. } => prefix,
        Act::Append { lists, .. } | Act::Lists { seen: lists } => {
            lists.first().map_or("", |(key, _)| key.as_str())
        }
        Act::Grant { lock, .. } | Act::Count { lock, .. } => lock,
    }
}

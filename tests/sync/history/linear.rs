//! I1: each key is a linearizable register. The search is Wing and Gong's with Lowe's memory of what was tried.

use std::collections::{BTreeMap, BTreeSet};

use super::{Act, Call, Moment, Number, Outcome, Violation, shown};

/// Steps of the search for one key, far beyond what our histories take: beyond it nothing was shown.
const MAX_TRIED: usize = 400_000;

/// What a call does to one key.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read(Option<Number>),
    Write(Option<Number>),
    Cas {
        from: Option<Number>,
        to: Number,
    },
    /// A compare-and-set that did not find what it compared with.
    Missed {
        from: Option<Number>,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    began: Moment,
    ended: Moment,
    is_open: bool,
    step: Step,
    call: usize,
}

/// All keys.
pub(crate) fn registers(calls: &[Call]) -> Vec<Violation> {
    let mut keys: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
    for (at, call) in calls.iter().enumerate().filter(|(_, call)| call.outcome != Outcome::Refused) {
        for (key, step) in steps(call) {
            let is_open = call.outcome == Outcome::Open;
            let ended = if is_open { Moment::MAX } else { call.ended };
            keys.entry(key).or_default().push(Entry { began: call.began, ended, is_open, step, call: at });
        }
    }
    keys.into_iter().filter_map(|(key, entries)| key_problem(key, entries, calls)).collect()
}

fn steps(call: &Call) -> Vec<(&str, Step)> {
    let is_open = call.outcome == Outcome::Open;
    match &call.act {
        // A read that nobody saw the answer of says nothing.
        Act::Read { key, seen } if !is_open => vec![(key, Step::Read(*seen))],
        Act::Write { key, value } => vec![(key, Step::Write(*value))],
        Act::Cas { key, from, to, is_done } if *is_done || is_open => {
            vec![(key, Step::Cas { from: *from, to: *to })]
        }
        Act::Cas { key, from, .. } => vec![(key, Step::Missed { from: *from })],
        Act::DeleteTree { keys, .. } => keys.iter().map(|key| (key.as_str(), Step::Write(None))).collect(),
        _ => Vec::new(),
    }
}

fn key_problem(key: &str, mut entries: Vec<Entry>, calls: &[Call]) -> Option<Violation> {
    entries.sort_by_key(|entry| (entry.began, entry.ended));
    // What cannot have been noticed by anybody needs no place: an open write of a number that no read and no comparison
    // names, unless something missed what it compared with.
    let has_missed = entries.iter().any(|entry| matches!(entry.step, Step::Missed { .. }));
    let named: BTreeSet<Option<Number>> = entries.iter().flat_map(|entry| named(entry.step)).collect();
    let is_named = |entry: &Entry| written(entry.step).is_some_and(|value| named.contains(&value));
    entries.retain(|entry| !entry.is_open || has_missed || is_named(entry));
    let told = |reason: &str, entries: &[Entry]| {
        let calls: Vec<Call> = entries.iter().map(|entry| calls[entry.call].clone()).collect();
        Some(Violation(format!("I1: key {key} {reason}:\n{}", shown(&calls))))
    };
    match has_order(&entries) {
        Some(true) => None,
        Some(false) => told("has no order in which its calls can have happened", &shortest(entries.clone())),
        None => told("has too many calls at once to be judged; make the program smaller", &entries),
    }
}

fn named(step: Step) -> Vec<Option<Number>> {
    match step {
        Step::Read(value) | Step::Missed { from: value } | Step::Cas { from: value, .. } => vec![value],
        Step::Write(_) => Vec::new(),
    }
}

fn written(step: Step) -> Option<Option<Number>> {
    match step {
        Step::Write(value) => Some(value),
        Step::Cas { to, .. } => Some(Some(to)),
        _ => None,
    }
}

/// The shortest beginning that already has no order, without the calls that do not matter to it.
fn shortest(mut entries: Vec<Entry>) -> Vec<Entry> {
    let mut at = entries.len();
    while at > 0 {
        at -= 1;
        // What was read must have been written by something that is still there.
        let mut fewer = entries.clone();
        fewer.remove(at);
        let wrote: BTreeSet<_> = fewer.iter().filter_map(|entry| written(entry.step)).collect();
        let is_whole = fewer
            .iter()
            .flat_map(|entry| named(entry.step))
            .all(|value| value.is_none() || wrote.contains(&value));
        if is_whole && has_order(&fewer) == Some(false) {
            entries = fewer;
        }
    }
    entries
}

/// Whether there is an order; none when the search is too long. Entries are in the order of their beginnings.
fn has_order(entries: &[Entry]) -> Option<bool> {
    let words = entries.len().div_ceil(64);
    let mut tried: BTreeSet<(Vec<u64>, Option<Number>)> = BTreeSet::new();
    let mut stack = vec![(vec![0_u64; words], None)];
    while let Some((done, state)) = stack.pop() {
        let is_done = |at: usize| done[at / 64] & (1 << (at % 64)) != 0;
        let left = || (0..entries.len()).filter(|at| !is_done(*at));
        let deadline = left().filter(|at| !entries[*at].is_open).map(|at| entries[at].ended).min();
        let Some(deadline) = deadline else { return Some(true) };
        for at in left().filter(|at| entries[*at].began <= deadline) {
            let Some(next) = after(state, entries[at].step) else { continue };
            let mut with = done.clone();
            with[at / 64] |= 1 << (at % 64);
            if tried.insert((with.clone(), next)) {
                stack.push((with, next));
            }
        }
        if tried.len() > MAX_TRIED {
            return None;
        }
    }
    Some(false)
}

/// The state after a step that is possible in this one.
fn after(state: Option<Number>, step: Step) -> Option<Option<Number>> {
    match step {
        Step::Read(seen) => (seen == state).then_some(state),
        Step::Write(value) => Some(value),
        Step::Cas { from, to } => (from == state).then_some(Some(to)),
        Step::Missed { from } => (from != state).then_some(state),
    }
}

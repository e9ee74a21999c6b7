//! I2: transactions that append to several lists happened in one order, which is that of real time too; what was
//! acknowledged is there once, what was refused is not, and none is there by half.

use std::collections::{BTreeMap, BTreeSet};

use super::{Act, Call, Number, Outcome, Violation, shown};

/// All lists. The longest version that anybody read of each is taken as its order.
pub(crate) fn lists(calls: &[Call]) -> Vec<Violation> {
    let mut found = Vec::new();
    let longest = versions(calls, &mut found);
    let appends: Vec<&Call> = calls.iter().filter(|call| matches!(call.act, Act::Append { .. })).collect();
    for call in &appends {
        presence(call, &longest, calls, &mut found);
    }
    if found.is_empty() {
        found.extend(cycle(&appends, &longest));
    }
    found
}

fn seen(call: &Call) -> Vec<(&String, &Vec<Number>)> {
    match &call.act {
        Act::Lists { seen } if call.outcome == Outcome::Done => seen.iter().map(|(k, v)| (k, v)).collect(),
        Act::Append { lists, .. } if call.outcome == Outcome::Done => {
            lists.iter().map(|(k, v)| (k, v)).collect()
        }
        _ => Vec::new(),
    }
}

fn versions<'c>(calls: &'c [Call], found: &mut Vec<Violation>) -> BTreeMap<&'c str, &'c [Number]> {
    let mut longest: BTreeMap<&str, (&[Number], &Call)> = BTreeMap::new();
    for call in calls {
        for (key, items) in seen(call) {
            let (known, by) = *longest.entry(key).or_insert((items, call));
            let (short, long) =
                if known.len() < items.len() { (known, items.as_slice()) } else { (items.as_slice(), known) };
            if !long.starts_with(short) {
                let both = [by.clone(), call.clone()];
                found.push(Violation(format!(
                    "I2: two versions of {key} do not continue each other:\n{}",
                    shown(&both)
                )));
            }
            if items.len() > known.len() {
                longest.insert(key, (items, call));
            }
        }
    }
    longest.into_iter().map(|(key, (items, _))| (key, items)).collect()
}

fn presence(call: &Call, longest: &BTreeMap<&str, &[Number]>, calls: &[Call], found: &mut Vec<Violation>) {
    let Act::Append { item, lists } = &call.act else { return };
    let mut tell = |what: &str| {
        found.push(Violation(format!("I2: {item} {what}:\n{}", shown(std::slice::from_ref(call)))));
    };
    let count = |key: &str| longest.get(key).map_or(0, |items| items.iter().filter(|at| *at == item).count());
    let counts: Vec<usize> = lists.iter().map(|(key, _)| count(key)).collect();
    if counts.iter().any(|count| *count > 1) {
        return tell("was appended more than once");
    }
    let is_somewhere = counts.contains(&1);
    // Only what was read after it ended must show it.
    let is_read_after = |key: &String| {
        calls.iter().any(|later| call.is_before(later) && seen(later).iter().any(|(seen, _)| *seen == key))
    };
    match call.outcome {
        Outcome::Refused if is_somewhere => tell("was refused and is there"),
        Outcome::Done if lists.iter().zip(&counts).any(|((key, _), n)| *n == 0 && is_read_after(key)) => {
            tell("was acknowledged and is lost");
        }
        Outcome::Done => {
            let continues = |key: &str, before: &[Number]| {
                longest.get(key).is_none_or(|items| {
                    items.iter().position(|at| at == item).is_none_or(|at| items[..at] == *before)
                })
            };
            if !lists.iter().all(|(key, before)| continues(key, before)) {
                tell("does not follow what its transaction had read");
            }
        }
        _ => {}
    }
    let last_reads = |key: &String| longest.contains_key(key.as_str());
    let is_half = is_somewhere
        && lists.iter().zip(&counts).any(|((key, _), n)| *n == 0 && is_read_after(key) && last_reads(key));
    if is_half && call.outcome == Outcome::Open {
        found.push(Violation(format!("I2: {item} is there by half:\n{}", shown(std::slice::from_ref(call)))));
    }
}

/// A cycle in: before in a list, ended before it began.
fn cycle(appends: &[&Call], longest: &BTreeMap<&str, &[Number]>) -> Option<Violation> {
    let item = |call: &Call| match call.act {
        Act::Append { item, .. } => item,
        _ => 0,
    };
    let by_item: BTreeMap<Number, &Call> = appends.iter().map(|call| (item(call), *call)).collect();
    let mut next: BTreeMap<Number, BTreeSet<Number>> = BTreeMap::new();
    for items in longest.values() {
        for pair in items.windows(2) {
            next.entry(pair[0]).or_default().insert(pair[1]);
        }
    }
    let done = || appends.iter().filter(|call| call.outcome == Outcome::Done);
    for call in done() {
        let later = done().filter(|other| call.is_before(other)).map(|other| item(other));
        next.entry(item(call)).or_default().extend(later);
    }
    let on_cycle: Vec<Number> = next.keys().copied().filter(|from| is_reached(&next, *from)).collect();
    let calls: Vec<Call> =
        on_cycle.iter().filter_map(|item| by_item.get(item)).map(|call| (*call).clone()).collect();
    (!on_cycle.is_empty())
        .then(|| Violation(format!("I2: each of these was before the others:\n{}", shown(&calls))))
}

/// Whether a way leads from here back to here.
fn is_reached(next: &BTreeMap<Number, BTreeSet<Number>>, from: Number) -> bool {
    let mut seen = BTreeSet::new();
    let mut stack: Vec<Number> = next.get(&from).into_iter().flatten().copied().collect();
    while let Some(at) = stack.pop() {
        if at == from {
            return true;
        }
        if seen.insert(at) {
            stack.extend(next.get(&at).into_iter().flatten());
        }
    }
    false
}

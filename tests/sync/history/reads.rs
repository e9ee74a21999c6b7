//! I4 as readers see it: who reads at one agent again and again is never shown that the replica went back.

use std::collections::BTreeMap;

use causeway::model::sync::Position;

use super::{Moment, Violation};

/// What an answer said of how far the replica is (`X-Sync-Seq`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// One client at one agent: what it asks there, it asks one after the other.
    pub(crate) reader: String,
    pub(crate) prefix: String,
    /// When it was asked.
    pub(crate) began: Moment,
    pub(crate) position: Position,
}

/// All readers.
pub(crate) fn reads(shown: &[Shown]) -> Vec<Violation> {
    let mut readers: BTreeMap<(&str, &str), Vec<&Shown>> = BTreeMap::new();
    for one in shown {
        readers.entry((&one.reader, &one.prefix)).or_default().push(one);
    }
    readers.into_values().flat_map(reader).collect()
}

fn reader(mut shown: Vec<&Shown>) -> Vec<Violation> {
    shown.sort_by_key(|one| one.began);
    let goes_back = |pair: &&[&Shown]| pair[1].position < pair[0].position;
    let told = |pair: &[&Shown]| {
        let (Shown { reader, prefix, position: before, .. }, then) = (pair[0], pair[1].position);
        Violation(format!("I4: {reader} was shown {prefix} at {before} and then at {then}"))
    };
    shown.windows(2).filter(goes_back).map(told).collect()
}

//! From entries of the journal to transactions of the local Consul. Pure.
//!
//! A batch is one or more whole entries. Its changes run in the order of the journal; which keys are marked as held is
//! settled once for the whole batch. An entry is never split: its data, together with the progress, is one transaction.
//! Only marks may need transactions of their own, set before the data and taken away after it: a mark sends readers
//! home, which is right at any time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
};

use bytes::Bytes;

use crate::{
    model::{
        kv::{Op, Pair},
        session::SessionId,
        sync::Position,
    },
    sync::{
        layout::Layout,
        record::Hash,
        replica::{
            chain::{Change, Link},
            indexes::{self, Fate, Print, Written},
        },
    },
};

/// What goes around a verb in a transaction's JSON, at most.
const VERB_BYTES: usize = 120;

/// What fits into one transaction beside its check and its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Verbs.
    pub ops: usize,
    /// Bytes of the JSON body.
    pub bytes: usize,
}

/// Whole entries that are applied together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The last of them.
    pub to: Position,
    /// Its hash.
    pub hash: Hash,
    /// When it was committed, in ms since 1970 by the home agent's clock.
    pub ts_ms: u64,
    /// How many they are.
    pub entries: usize,
    /// Marks to set.
    pub marks: Vec<Op>,
    /// The data.
    pub data: Vec<Op>,
    /// Marks to take away.
    pub unmarks: Vec<Op>,
    /// Trees that were deleted.
    pub trees: Vec<String>,
    /// What became of each key.
    pub fates: BTreeMap<String, Fate>,
}

impl Batch {
    /// One without entries, for progress that moves by itself.
    pub fn empty(to: Position, hash: Hash) -> Self {
        let (marks, data, unmarks) = (Vec::new(), Vec::new(), Vec::new());
        let (trees, fates) = (Vec::new(), BTreeMap::new());
        Self { to, hash, ts_ms: 0, entries: 0, marks, data, unmarks, trees, fates }
    }

    /// Whether all of it fits into one transaction.
    pub fn is_whole(&self, budget: Budget) -> bool {
        self.marks.len() + self.data.len() + self.unmarks.len() <= budget.ops
    }
}

/// Plans batches. It knows which keys are marked once all it planned is applied.
#[derive(Debug)]
pub struct Planner {
    layout: Layout,
    budget: Budget,
    held: BTreeSet<Box<str>>,
}

impl Planner {
    /// Begins with these keys marked.
    pub fn new<'k>(layout: Layout, budget: Budget, held: impl Iterator<Item = &'k str>) -> Self {
        Self { layout, budget, held: held.map(Into::into).collect() }
    }

    /// Takes as many entries from the front as fit into a transaction, and one at least.
    pub fn plan(&mut self, queue: &mut VecDeque<Link>) -> Option<Batch> {
        let mut draft = Draft::default();
        let (mut ops, mut bytes, mut last, mut entries) = (0, 0, None, 0);
        while let Some(link) = queue.front() {
            let cost = self.cost(link);
            if entries > 0 && (ops + cost.ops > self.budget.ops || bytes + cost.bytes > self.budget.bytes) {
                break;
            }
            (ops, bytes, entries) = (ops + cost.ops, bytes + cost.bytes, entries + 1);
            let mut link = queue.pop_front()?;
            for change in std::mem::take(&mut link.changes) {
                self.take(&mut draft, change, link.modify_index);
            }
            last = Some(link);
        }
        last.map(|last| self.batch(draft, last, entries))
    }

    fn batch(&self, draft: Draft, last: Link, entries: usize) -> Batch {
        let (mut marks, mut unmarks) = (Vec::new(), Vec::new());
        for (key, was_held) in &draft.touched {
            match (*was_held, self.held.contains(key.as_str())) {
                (false, true) => marks.push(mark(&self.layout, key)),
                (true, false) => unmarks.push(unmark(&self.layout, key)),
                _ => {}
            }
        }
        let fates = draft.folds.into_iter().map(|(key, fold)| (key, fold.fate())).collect();
        let Link { position: to, hash, ts_ms, .. } = last;
        Batch { to, hash, ts_ms, entries, marks, data: draft.data, unmarks, trees: draft.trees, fates }
    }

    /// An upper bound.
    fn cost(&self, link: &Link) -> Budget {
        let mut cost = Budget { ops: 0, bytes: 0 };
        for change in &link.changes {
            let (ops, value) = match change {
                Change::Set { key, value, .. } => (1 + usize::from(self.held.contains(&**key)), value.len()),
                Change::Held { .. } => (2, 0),
                Change::Del { key } => (1 + usize::from(self.held.contains(&**key)), 0),
                Change::DelTree { tree } => (1 + self.held_below(tree).count(), 0),
            };
            cost.ops += ops;
            cost.bytes += ops * (VERB_BYTES + self.layout.root().len() + json_len(change.key()))
                + value.div_ceil(3) * 4;
        }
        cost
    }

    fn take(&mut self, draft: &mut Draft, change: Change, index: u64) {
        match change {
            Change::Set { key, value, flags } => {
                let was_held = self.held.remove(&*key);
                let fold = draft.fold(&key, was_held);
                fold.set(&value, flags, index);
                draft.data.push(Op::Set { key, value, flags });
            }
            Change::Held { key } => {
                let was_held = !self.held.insert(key.as_str().into());
                draft.fold(&key, was_held).hold(index);
                if !was_held {
                    draft.data.push(Op::Delete { key });
                }
            }
            Change::Del { key } => {
                let was_held = self.held.remove(&*key);
                *draft.fold(&key, was_held) = Fold::Gone;
                draft.data.push(Op::Delete { key });
            }
            Change::DelTree { tree } => {
                let held: Vec<Box<str>> = self.held_below(&tree).map(Into::into).collect();
                for key in held {
                    self.held.remove(&key);
                    draft.fold(&key, true);
                }
                draft.drop_below(&tree);
                draft.data.push(Op::DeleteTree { prefix: tree });
            }
        }
    }

    fn held_below<'s>(&'s self, tree: &'s str) -> impl Iterator<Item = &'s str> {
        self.held
            .range::<str, _>((Bound::Included(tree), Bound::Unbounded))
            .map(|key| &**key)
            .take_while(move |key| key.starts_with(tree))
    }
}

/// A key of the same length as it stands in JSON, at most.
fn json_len(key: &str) -> usize {
    key.bytes()
        .map(|byte| if byte < 0x20 || matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&') { 6 } else { 1 })
        .sum()
}

/// About how many bytes a verb takes in a transaction's JSON.
pub fn bytes(op: &Op) -> usize {
    let value = match op {
        Op::Set { value, .. } | Op::Cas { value, .. } => value.len().div_ceil(3) * 4,
        _ => 0,
    };
    VERB_BYTES + json_len(op.key()) + value
}

/// Says that a key lives at home only.
pub fn mark(layout: &Layout, key: &str) -> Op {
    Op::Set { key: layout.held(key), value: Bytes::new(), flags: 0 }
}

/// Says so no longer.
pub fn unmark(layout: &Layout, key: &str) -> Op {
    Op::Delete { key: layout.held(key) }
}

#[derive(Default)]
struct Draft {
    data: Vec<Op>,
    trees: Vec<String>,
    folds: BTreeMap<String, Fold>,
    /// Whether each key was held before the batch.
    touched: BTreeMap<String, bool>,
}

impl Draft {
    fn fold(&mut self, key: &str, is_held: bool) -> &mut Fold {
        if !self.folds.contains_key(key) {
            let is_gone = self.trees.iter().any(|tree| key.starts_with(tree.as_str()));
            let start = match (is_gone, is_held) {
                (true, _) => Fold::Gone,
                (false, true) => Fold::Held { created: None, first: None },
                (false, false) => Fold::Untouched,
            };
            self.touched.insert(key.to_owned(), is_held);
            self.folds.insert(key.to_owned(), start);
        }
        self.folds.get_mut(key).expect("put there by the lines above")
    }

    fn drop_below(&mut self, tree: &str) {
        for (key, fold) in self.folds.range_mut::<str, _>((Bound::Included(tree), Bound::Unbounded)) {
            if !key.starts_with(tree) {
                break;
            }
            *fold = Fold::Gone;
        }
        self.trees.push(tree.to_owned());
    }
}

/// What a batch has done to a key so far.
enum Fold {
    Untouched,
    Data { value: Bytes, flags: u64, written: Written },
    Held { created: Option<u64>, first: Option<u64> },
    Gone,
}

impl Fold {
    fn set(&mut self, value: &Bytes, flags: u64, index: u64) {
        let print = Print::of(value, flags);
        let mut written = Written { print, first: index, changed: None, created: None, was_held: false };
        match self {
            Self::Untouched => {}
            Self::Gone => {
                written.changed = Some(indexes::Change::At(index));
                written.created = Some(index);
            }
            Self::Held { created, first } => {
                written.first = first.unwrap_or(index);
                written.changed = Some(indexes::Change::At(index));
                written.created = *created;
                written.was_held = true;
            }
            Self::Data { value: before, flags: flags_before, written: earlier } => {
                written = Written { print, was_held: false, ..*earlier };
                if before != value || *flags_before != flags {
                    written.changed = Some(indexes::Change::At(index));
                } else if earlier.was_held {
                    // The home's LockIndex falls to 0 if it was not 0, which alone decides.
                    written.changed = Some(indexes::Change::Unclear);
                }
            }
        }
        *self = Self::Data { value: value.clone(), flags, written };
    }

    fn hold(&mut self, index: u64) {
        let (created, first) = match self {
            Self::Untouched => (None, Some(index)),
            Self::Gone => (Some(index), Some(index)),
            Self::Held { created, first } => (*created, first.or(Some(index))),
            Self::Data { written, .. } => (written.created, Some(written.first)),
        };
        *self = Self::Held { created, first };
    }

    fn fate(self) -> Fate {
        match self {
            Self::Data { written, .. } => Fate::Written(written),
            Self::Held { created, first } => Fate::Held { created, first: first.unwrap_or(0) },
            Self::Gone | Self::Untouched => Fate::Gone,
        }
    }
}

/// What stands before the verbs of every transaction of an applier, so that only the one that has the duty, and knows
/// the progress, changes anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// The duty's key.
    pub duty: String,
    /// The session that holds it.
    pub session: SessionId,
    /// The state's key.
    pub state: String,
}

impl Guarded {
    /// Replaces the progress, which stands under `index`, and executes the verbs.
    pub fn replace(&self, index: u64, state: Bytes, ops: impl IntoIterator<Item = Op>) -> Vec<Op> {
        let cas = Op::Cas { key: self.state.clone(), value: state, flags: 0, index };
        [self.check(), cas].into_iter().chain(ops).collect()
    }

    /// Executes the verbs while the progress still stands under `index`.
    pub fn keep(&self, index: u64, ops: impl IntoIterator<Item = Op>) -> Vec<Op> {
        let check = Op::CheckIndex { key: self.state.clone(), index };
        [self.check(), check].into_iter().chain(ops).collect()
    }

    fn check(&self) -> Op {
        Op::CheckSession { key: self.duty.clone(), session: self.session.clone() }
    }
}

/// The `ModifyIndex` of each key that the transaction wrote, of the last write where there are several. None when the
/// results are not those of these verbs.
pub fn written<'o>(ops: &'o [Op], results: &[Pair]) -> Option<BTreeMap<&'o str, u64>> {
    let mut results = results.iter().peekable();
    let mut indexes = BTreeMap::new();
    for op in ops {
        match op {
            Op::Set { key, .. } | Op::Cas { key, .. } => {
                let pair = results.next().filter(|pair| pair.key == *key)?;
                indexes.insert(key.as_str(), pair.modify_index);
            }
            Op::Delete { .. } | Op::DeleteTree { .. } | Op::DeleteCas { .. } => {}
            // Releases of Consul may differ in whether a check has a result.
            _ => drop(results.next_if(|pair| pair.key == op.key())),
        }
    }
    results.next().is_none().then_some(indexes)
}

#[cfg(test)]
mod tests;

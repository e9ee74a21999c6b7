//! Consul's answer to a transaction of many requests, taken apart into an answer for each. Pure.

use std::collections::BTreeSet;

use crate::{
    model::kv::{Op, Pair, TxnError},
    sync::home::{
        batch::{Part, Transaction},
        prepare::{Prepared, Span},
    },
};

/// The pairs of each request's own verbs. None when there are more or fewer pairs than verbs that give one.
pub fn committed(transaction: &Transaction, pairs: Vec<Pair>) -> Option<Vec<Vec<Pair>>> {
    let known = |ops: &[Op]| ops.iter().filter(|op| gives_a_pair(op)).count();
    let trees = transaction.ops.iter().any(|op| matches!(op, Op::GetTree { .. }));
    // A request with a tree is alone: what the others do not account for is the tree's.
    let surplus = pairs.len().checked_sub(known(&transaction.ops))?;
    if surplus > 0 && !trees {
        return None;
    }
    let mut pairs = pairs.into_iter();
    let mut at = 0;
    let mut answers = Vec::with_capacity(transaction.parts.len());
    for Part { own, .. } in &transaction.parts {
        let before = known(&transaction.ops[at..own.start]);
        pairs.by_ref().take(before).for_each(drop);
        let count = known(&transaction.ops[own.clone()]) + surplus;
        answers.push(pairs.by_ref().take(count).collect());
        at = own.end;
    }
    Some(answers)
}

/// Consul 1.8.7 gives the key for what sets, gets and checks it, and nothing for what deletes it or wants it absent.
fn gives_a_pair(op: &Op) -> bool {
    match op {
        Op::Set { .. }
        | Op::Cas { .. }
        | Op::Lock { .. }
        | Op::Unlock { .. }
        | Op::Get { .. }
        | Op::CheckIndex { .. }
        | Op::CheckSession { .. } => true,
        Op::GetTree { .. }
        | Op::CheckNotExists { .. }
        | Op::Delete { .. }
        | Op::DeleteTree { .. }
        | Op::DeleteCas { .. } => false,
    }
}

/// Why a transaction was rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolledBack {
    /// This agent no longer has the duty.
    DutyLost,
    /// The journal's head is not the one that we know.
    HeadMoved,
    /// For its requests: one verdict for each.
    ByRequests(Vec<Verdict>),
}

/// What becomes of a request when its transaction was rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes again, into the next transaction.
    Again,
    /// It goes again, into a transaction after that of those that go again: it failed for what they do.
    After,
    /// Something of ours did not hold: it is prepared anew.
    Anew,
    /// It was rolled back: this is its answer, with verbs counted from its own first.
    Failed(Vec<TxnError>),
}

/// Takes the errors apart. Consul goes on behind a verb that failed, so that there may be several, of which the later ones
/// may come from what a failed request did before it failed.
pub fn rolled_back(transaction: &Transaction, prepared: &[&Prepared], errors: &[TxnError]) -> RolledBack {
    let failed: BTreeSet<usize> = errors.iter().map(|error| error.op_index).collect();
    let is_part = |index: &usize| transaction.parts.iter().any(|part| part.all.contains(index));
    if failed.contains(&0) {
        return RolledBack::DutyLost;
    }
    if failed.is_empty() || failed.iter().any(|index| !is_part(index)) {
        return RolledBack::HeadMoved;
    }
    let mut sound = Span::default();
    let mut undone = Span::default();
    let mut verdicts = Vec::with_capacity(transaction.parts.len());
    for (part, prepared) in transaction.parts.iter().zip(prepared) {
        let own: Vec<TxnError> =
            errors.iter().filter(|error| part.all.contains(&error.op_index)).cloned().collect();
        if own.is_empty() {
            sound.extend(&prepared.writes);
            verdicts.push(Verdict::Again);
            continue;
        }
        let ops = &transaction.ops[part.own.clone()];
        let mut names = Span::default();
        ops.iter().for_each(|op| names.add(op));
        verdicts.push(verdict(part, own, names.touches(&sound) || names.touches(&undone)));
        for (index, op) in part.own.clone().zip(ops) {
            if op.is_write() && !failed.contains(&index) {
                undone.add(op);
            }
        }
    }
    RolledBack::ByRequests(verdicts)
}

fn verdict(part: &Part, errors: Vec<TxnError>, has_seen_others: bool) -> Verdict {
    if errors.iter().any(|error| !part.own.contains(&error.op_index)) {
        return Verdict::Anew;
    }
    if has_seen_others {
        return Verdict::After;
    }
    let relative = |error: TxnError| TxnError { op_index: error.op_index - part.own.start, what: error.what };
    Verdict::Failed(errors.into_iter().map(relative).collect())
}

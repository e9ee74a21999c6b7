//! Many requests in one transaction, with the journal entry that tells what it does. Pure.
//!
//! `[check-session duty] [guards, client's verbs, fences of each request ...] [set log/<seq>] [cas head]`: Consul executes
//! all of it or nothing, only while this agent has the duty, and only behind the entry that we believe to be the last.

use std::ops::Range;

use bytes::Bytes;

use crate::{
    model::{kv::Op, session::SessionId, sync::Position},
    sync::{
        home::{
            cost,
            prepare::{Prepared, Span},
            request::Request,
        },
        layout::{Duty, Layout, is_reserved},
        record::{self, Entry, Hash, Head, Requested},
        refusal::Refusal,
    },
};

/// What Consul takes as the body of a transaction.
const MAX_BODY_BYTES: usize = 512 * 1024;
/// Verbs that are ours: the duty's check, the entry, the head.
const OWN_OPS: usize = 3;
/// Verbs that are a replica's: its duty's check and its state.
const REPLICA_OPS: usize = 2;
/// Bytes of our own verbs beside their keys: two hashes, a session, the entry's frame, numbers.
const OWN_BYTES: usize = 2048;
/// How many of our own verbs' keys begin with the layout's root, with room for what follows it.
const OWN_KEYS: usize = 3;

/// What one transaction may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Verbs, the smallest limit of all datacenters.
    pub ops: usize,
    /// Bytes of its body.
    pub bytes: usize,
    /// Bytes of one value, the smallest limit of all datacenters.
    pub value_bytes: usize,
}

impl Budget {
    /// With this limit of verbs.
    pub fn new(ops: usize) -> Self {
        Self { ops, bytes: MAX_BODY_BYTES, value_bytes: usize::MAX }
    }

    fn home_ops(&self) -> usize {
        self.ops.saturating_sub(OWN_OPS)
    }

    fn replica_ops(&self) -> usize {
        self.ops.saturating_sub(REPLICA_OPS)
    }

    fn request_bytes(&self, layout: &Layout) -> usize {
        self.bytes.saturating_sub(OWN_BYTES + OWN_KEYS * layout.root().len())
    }
}

/// Whether a request can be executed here at all, before anything is read for it: its size in memory.
///
/// # Errors
/// It cannot.
pub fn admit(
    request: &Request,
    prefix: &str,
    max_value_bytes: usize,
    budget: &Budget,
) -> Result<usize, Refusal> {
    let mut size = 0;
    for op in &request.ops {
        if is_reserved(op) {
            return Err(Refusal::Reserved(op.key().to_owned()));
        }
        if !op.key().starts_with(prefix) {
            return Err(Refusal::Bad(format!("{} does not begin with {prefix}", op.key())));
        }
        let value = value_of(op).map_or(0, Bytes::len);
        if value > max_value_bytes {
            return Err(Refusal::TooLarge {
                what: format!("the value of {}", op.key()),
                bytes: value,
                limit: max_value_bytes,
                remedy: "store it elsewhere and its place here",
            });
        }
        size += op.key().len() + value + size_of::<Op>();
    }
    if request.ops.is_empty() {
        return Err(Refusal::Bad("the transaction has no operations".into()));
    }
    if request.ops.len() > budget.home_ops() {
        return Err(Refusal::TooManyOps { ops: request.ops.len(), limit: budget.home_ops() });
    }
    Ok(size)
}

fn value_of(op: &Op) -> Option<&Bytes> {
    match op {
        Op::Set { value, .. } | Op::Cas { value, .. } | Op::Lock { value, .. } | Op::Unlock { value, .. } => {
            Some(value)
        }
        _ => None,
    }
}

/// Whether a request goes into the transaction that is being filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It does.
    Yes,
    /// Not into this one.
    Later,
    /// Into none.
    Never(Refusal),
}

/// A transaction being filled.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    ops: usize,
    replica_ops: usize,
    bytes: usize,
    len: usize,
    written: Span,
    rested: Span,
    is_alone: bool,
}

impl Batch {
    /// Takes this request in behind those before it, if it goes.
    pub fn add(&mut self, request: &Request, prepared: &Prepared, budget: &Budget, layout: &Layout) -> Fit {
        if let Some(refusal) = never(request, prepared, budget, layout) {
            return Fit::Never(refusal);
        }
        // How many results a tree gives is not known: with others' beside it nobody could tell them apart.
        let is_alone = request.ops.iter().any(|op| matches!(op, Op::GetTree { .. }));
        let fits = self.ops + prepared.ops <= budget.home_ops()
            && self.replica_ops + prepared.replica_ops <= budget.replica_ops()
            && self.bytes + prepared.bytes <= budget.request_bytes(layout);
        let has_room = self.len == 0 || !(is_alone || self.is_alone);
        let sees_what_it_rests_on = prepared
            .rests_on
            .as_ref()
            .is_none_or(|span| !span.touches(&self.written) && !span.touches(&self.rested));
        if !(fits && has_room && sees_what_it_rests_on && !prepared.writes.touches(&self.rested)) {
            return Fit::Later;
        }
        self.ops += prepared.ops;
        self.replica_ops += prepared.replica_ops;
        self.bytes += prepared.bytes;
        self.len += 1;
        self.is_alone = is_alone;
        self.written.extend(&prepared.writes);
        if let Some(span) = &prepared.rests_on {
            self.rested.extend(span);
        }
        Fit::Yes
    }

    /// Whether not even a small request would go in.
    pub fn is_full(&self, budget: &Budget) -> bool {
        self.ops >= budget.home_ops()
    }
}

fn never(request: &Request, prepared: &Prepared, budget: &Budget, layout: &Layout) -> Option<Refusal> {
    let ops = request.ops.len();
    if prepared.ops > budget.home_ops() {
        let own = prepared.ops - ops;
        return Some(Refusal::TooManyOps { ops, limit: budget.home_ops().saturating_sub(own) });
    }
    if prepared.replica_ops > budget.replica_ops() {
        // Where a lock is written, a replica needs two verbs for one of the client's.
        return Some(Refusal::TooManyOps { ops, limit: budget.replica_ops() / 2 });
    }
    (prepared.bytes > budget.request_bytes(layout)).then(|| Refusal::TooLarge {
        what: "the transaction with its share of the journal".into(),
        bytes: prepared.bytes,
        limit: budget.request_bytes(layout),
        remedy: "split it, or make its values smaller",
    })
}

/// A transaction to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its verbs.
    pub ops: Vec<Op>,
    /// Where each request's verbs are.
    pub parts: Vec<Part>,
    /// The entry that it writes; none when it only reads.
    pub written: Option<Journaled>,
}

/// The verbs of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Those of the client.
    pub own: Range<usize>,
    /// Those and ours that belong to it.
    pub all: Range<usize>,
}

/// An entry as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journaled {
    /// What it says.
    pub entry: Entry,
    /// Its bytes.
    pub bytes: Bytes,
    /// Their hash.
    pub hash: Hash,
}

/// Where a transaction goes.
#[derive(Clone, Copy, Debug)]
pub struct Behind<'a> {
    /// Our reserved keys.
    pub layout: &'a Layout,
    /// The session that holds the duty's lock.
    pub session: &'a SessionId,
    /// The last entry.
    pub head: &'a Head,
    /// The `ModifyIndex` of that record.
    pub head_index: u64,
    /// Now, in ms since 1970.
    pub ts_ms: u64,
}

/// The transaction of these requests. Requests that change nothing are in no entry.
pub fn compose<'a>(
    requests: impl Iterator<Item = (&'a Request, &'a Prepared)>,
    behind: &Behind<'_>,
) -> Transaction {
    let mut entry = next_entry(behind);
    let mut ops = vec![check(behind)];
    let mut parts = Vec::new();
    for (request, prepared) in requests {
        let start = ops.len();
        ops.extend(prepared.guards.iter().cloned());
        let own = ops.len();
        ops.extend(request.ops.iter().cloned());
        let end = ops.len();
        ops.extend(prepared.fences.iter().cloned());
        parts.push(Part { own: own..end, all: start..ops.len() });
        if !prepared.changes.is_empty() {
            entry.ops.extend(prepared.changes.iter().cloned());
            entry.requests.push(Requested {
                id: request.id.clone(),
                from: request.origin.clone(),
                ops: prepared.changes.len(),
                token: prepared.tokens.first().map(|(_, token)| *token),
                digest: Some(request.digest()),
            });
        }
    }
    let written = (!entry.ops.is_empty()).then(|| journal(entry, behind, &mut ops));
    Transaction { ops, parts, written }
}

/// A transaction that does nothing but move the head: none that was sent before it can be executed after it.
pub fn barrier(behind: &Behind<'_>) -> Transaction {
    let mut ops = vec![check(behind)];
    let written = Some(journal(next_entry(behind), behind, &mut ops));
    Transaction { ops, parts: Vec::new(), written }
}

/// The transactions that put these values beside the journal, each with their `flags` set to the entry that will name
/// them, so that trimming knows what is still needed.
pub fn put_blobs(blobs: &[(Hash, Bytes)], budget: &Budget, behind: &Behind<'_>) -> Vec<Vec<Op>> {
    let flags = behind.head.position.seq + 1;
    let mut all = Vec::new();
    let mut ops = vec![check(behind)];
    let mut bytes = OWN_BYTES;
    for (hash, value) in blobs {
        let op = Op::Set { key: behind.layout.blob(&hash.0), value: value.clone(), flags };
        let size = cost::op(&op);
        if ops.len() > 1 && (ops.len() >= budget.ops || bytes + size > budget.bytes) {
            all.push(std::mem::replace(&mut ops, vec![check(behind)]));
            bytes = OWN_BYTES;
        }
        bytes += size;
        ops.push(op);
    }
    if ops.len() > 1 {
        all.push(ops);
    }
    all
}

/// The first verb of every transaction: that this agent has the duty.
pub fn check(behind: &Behind<'_>) -> Op {
    Op::CheckSession { key: behind.layout.duty(Duty::Home), session: behind.session.clone() }
}

fn next_entry(behind: &Behind<'_>) -> Entry {
    let Position { epoch, seq } = behind.head.position;
    Entry {
        position: Position { epoch, seq: seq + 1 },
        prev_hash: behind.head.hash.clone(),
        ts_ms: behind.ts_ms,
        requests: Vec::new(),
        ops: Vec::new(),
    }
}

fn journal(entry: Entry, behind: &Behind<'_>, ops: &mut Vec<Op>) -> Journaled {
    let bytes = record::encode(&entry);
    let hash = Hash::of(&bytes);
    let head = Head { position: entry.position, hash: hash.clone(), first: behind.head.first };
    ops.push(Op::Set { key: behind.layout.entry(entry.position.seq), value: bytes.clone(), flags: 0 });
    ops.push(Op::Cas {
        key: behind.layout.head(),
        value: record::encode(&head),
        flags: 0,
        index: behind.head_index,
    });
    Journaled { entry, bytes, hash }
}

#[cfg(test)]
mod tests;

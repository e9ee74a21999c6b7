//! What a home remembers: answers to requests, locks, grants. Pure, and bounded.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use bytes::Bytes;

use crate::{
    model::{
        kv::{Op, Pair, TxnReply},
        session::SessionId,
        sync::Token,
    },
    sync::{
        home::request::{Outcome, Written, another},
        record::{Change, Digest, Entry},
        refusal::Refusal,
    },
};

/// What `consul lock` and Consul's client libraries set on lock keys.
pub const LOCK_FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// The same on the keys of semaphores.
pub const SEMAPHORE_FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;

/// Requests that are remembered: at 1,500 in a second those of the last 20 s, longer than anybody repeats one.
const MAX_SEEN: usize = 32 * 1024;
/// How large their answers may be together.
const MAX_SEEN_BYTES: usize = 16 * 1024 * 1024;
/// Grants that are remembered; of the others the record is read.
const MAX_FENCES: usize = 16 * 1024;

/// Whether a key with these flags is a lock's.
pub fn is_lock(flags: u64) -> bool {
    matches!(flags, LOCK_FLAGS | SEMAPHORE_FLAGS)
}

/// Answers by request id: the newest ones.
#[derive(Debug, Default)]
pub struct Seen {
    answers: BTreeMap<String, (Option<Digest>, Outcome)>,
    /// Oldest first, with their sizes.
    order: VecDeque<(String, usize)>,
    bytes: usize,
}

impl Seen {
    /// What was answered to the request that asks for this.
    ///
    /// # Errors
    /// The id stands for another request. Where the journal does not tell what was asked for, the id alone counts.
    pub fn get(&self, id: &str, digest: Digest) -> Result<Option<&Outcome>, Refusal> {
        match self.answers.get(id) {
            Some((Some(known), _)) if *known != digest => Err(another()),
            Some((_, outcome)) => Ok(Some(outcome)),
            None => Ok(None),
        }
    }

    /// Remembers an answer that is final. The first one stays.
    pub fn insert(&mut self, id: &str, digest: Option<Digest>, outcome: Outcome) {
        if self.answers.contains_key(id) {
            return;
        }
        let size = id.len() * 2 + 128 + outcome.as_ref().map_or(0, size);
        self.answers.insert(id.to_owned(), (digest, outcome));
        self.order.push_back((id.to_owned(), size));
        self.bytes += size;
        while self.order.len() > MAX_SEEN || self.bytes > MAX_SEEN_BYTES {
            let Some((id, size)) = self.order.pop_front() else { break };
            self.answers.remove(&id);
            self.bytes -= size;
        }
    }

    /// Remembers the requests of an entry that another agent, or an earlier run, has committed.
    pub fn learn(&mut self, entry: &Entry, index: u64) {
        let mut changes = &entry.ops[..];
        for requested in &entry.requests {
            let (own, rest) = changes.split_at(requested.ops.min(changes.len()));
            changes = rest;
            let lock = own.iter().find(|change| matches!(change, Change::Held { .. }));
            let tokens = requested.token.zip(lock).map(|(token, lock)| (lock.key().to_owned(), token));
            let reply = TxnReply::Committed(shown(own, index));
            let written = Written { reply, at: entry.position, index, tokens: tokens.into_iter().collect() };
            self.insert(&requested.id, requested.digest, Ok(written));
        }
    }

    /// Forgets all: what was answered in a history that a restore has undone holds no more.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

fn size(written: &Written) -> usize {
    let TxnReply::Committed(pairs) = &written.reply else { return 256 };
    pairs.iter().map(|pair| 128 + pair.key.len() + pair.value.len()).sum()
}

/// What a transaction would have shown of these changes, without what only Consul's own answer has: values, sessions,
/// `CreateIndex` and `LockIndex`.
pub fn shown(changes: &[Change], index: u64) -> Vec<Pair> {
    let pair = |key: &str, flags| Pair {
        key: key.to_owned(),
        value: Bytes::new(),
        flags,
        session: None,
        lock_index: 0,
        create_index: 0,
        modify_index: index,
    };
    let one = |change: &Change| match change {
        Change::Set { k, flags, .. } => Some(pair(k, *flags)),
        Change::Held { k } => Some(pair(k, 0)),
        Change::Del { .. } | Change::DelTree { .. } => None,
    };
    changes.iter().filter_map(one).collect()
}

/// Keys that are locks, and by whom each was acquired last without being released.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locks(BTreeMap<String, Option<SessionId>>);

impl Locks {
    /// Takes in what a listing shows.
    pub fn learn(&mut self, pair: &Pair) {
        if pair.session.is_some() || is_lock(pair.flags) {
            self.0.insert(pair.key.clone(), pair.session.clone());
        }
    }

    /// Takes in what was committed: the writes of a request and what each of them changed.
    pub fn apply(&mut self, ops: &[Op], changes: &[Change]) {
        for (op, change) in ops.iter().filter(|op| op.is_write()).zip(changes) {
            match (op, change) {
                (Op::Lock { key, session, .. }, _) => drop(self.0.insert(key.clone(), Some(session.clone()))),
                (Op::Unlock { key, .. }, Change::Held { .. }) => drop(self.0.insert(key.clone(), None)),
                (_, Change::Held { k }) => drop(self.0.entry(k.clone()).or_insert(None)),
                (_, Change::Set { k, .. } | Change::Del { k }) => drop(self.0.remove(k)),
                (_, Change::DelTree { k }) => {
                    let below: Vec<String> = self.below(k).map(|(key, _)| key.to_owned()).collect();
                    for key in below {
                        self.0.remove(&key);
                    }
                }
            }
        }
    }

    /// Who acquired it last and did not release it; its session may have ended since.
    pub fn holder(&self, key: &str) -> Option<&SessionId> {
        self.0.get(key)?.as_ref()
    }

    /// Whether it is one.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Those whose keys begin so.
    pub fn below<'a>(&'a self, tree: &'a str) -> impl Iterator<Item = (&'a str, Option<&'a SessionId>)> {
        let from = (Bound::Included(tree), Bound::Unbounded);
        self.0
            .range::<str, _>(from)
            .take_while(move |(key, _)| key.starts_with(tree))
            .map(|(key, holder)| (key.as_str(), holder.as_ref()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The present token of locks, with the index of its record. Only this agent writes those records.
#[derive(Debug, Default)]
pub struct Fences(BTreeMap<String, (Token, u64)>);

impl Fences {
    /// That of a lock, if it is remembered.
    pub fn get(&self, lock: &str) -> Option<(Token, u64)> {
        self.0.get(lock).copied()
    }

    /// Remembers a grant.
    pub fn insert(&mut self, lock: &str, token: Token, index: u64) {
        if self.0.len() >= MAX_FENCES && !self.0.contains_key(lock) {
            self.0.clear();
        }
        self.0.insert(lock.to_owned(), (token, index));
    }

    /// Forgets one, to be read again.
    pub fn forget(&mut self, lock: &str) {
        self.0.remove(lock);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests;

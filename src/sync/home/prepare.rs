//! What a request turns into: the verbs of its transaction, the changes that the journal tells, and whether it may be done
//! at all beside locks that are held. Pure; what must be read for that is named by [`wanted`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    model::{
        kv::{Op, Pair},
        name::Datacenter,
        session::SessionId,
        sync::{PrefixId, PrefixTable, Token},
    },
    sync::{
        home::{
            cost,
            memory::{Fences, Locks, SEMAPHORE_FLAGS, is_lock},
            request::{Guard, Request},
        },
        layout::Layout,
        record::{self, Change, Epochs, Hash, MAX_INLINE_BYTES, Value},
        refusal::Refusal,
    },
};

/// What a home stands on.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// Where we are.
    pub datacenter: &'a Datacenter,
    /// Our prefix.
    pub prefix: &'a str,
    /// All prefixes.
    pub prefixes: &'a PrefixTable,
    /// Our reserved keys.
    pub layout: &'a Layout,
    /// The present epoch.
    pub epoch: u32,
    /// The locks that are known.
    pub locks: &'a Locks,
    /// The grants that are remembered.
    pub fences: &'a Fences,
}

/// Keys as they were read, each after everything that was committed before.
pub type Facts = BTreeMap<String, Option<Pair>>;

/// A request ready for a transaction. Its verbs are `guards`, then the client's own, then `fences`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// What must hold.
    pub guards: Vec<Op>,
    /// What counts the grants.
    pub fences: Vec<Op>,
    /// One for each write of the client, in their order.
    pub changes: Vec<Change>,
    /// Values that stand beside the journal.
    pub blobs: Vec<(Hash, Bytes)>,
    /// Of each lock that it acquires.
    pub tokens: Vec<(String, Token)>,
    /// Keys and trees that it writes.
    pub writes: Span,
    /// What it rests on, if it must see everything committed before: then none of this may be written, nor anything that
    /// it names be touched, by another request of the same transaction.
    pub rests_on: Option<Span>,
    /// Verbs of the transaction.
    pub ops: usize,
    /// Verbs that a replica needs, which keeps a mark in place of a lock's key.
    pub replica_ops: usize,
    /// Bytes in the transaction's body, its share of the entry included.
    pub bytes: usize,
}

/// Keys, and trees of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    keys: BTreeSet<String>,
    trees: BTreeSet<String>,
}

impl Span {
    /// Takes in what a verb names.
    pub fn add(&mut self, op: &Op) {
        let names = if op.is_tree() { &mut self.trees } else { &mut self.keys };
        names.insert(op.key().to_owned());
    }

    /// Takes in a key.
    pub fn add_key(&mut self, key: &str) {
        self.keys.insert(key.to_owned());
    }

    /// Takes in another.
    pub fn extend(&mut self, other: &Self) {
        self.keys.extend(other.keys.iter().cloned());
        self.trees.extend(other.trees.iter().cloned());
    }

    /// Whether both name one key.
    pub fn touches(&self, other: &Self) -> bool {
        let holds = |tree: &String, of: &Self| {
            of.keys.range(tree.clone()..).next().is_some_and(|key| key.starts_with(tree.as_str()))
        };
        self.keys.iter().any(|key| other.keys.contains(key))
            || self.trees.iter().any(|tree| holds(tree, other))
            || other.trees.iter().any(|tree| holds(tree, self))
            || self
                .trees
                .iter()
                .any(|a| other.trees.iter().any(|b| a.starts_with(b.as_str()) || b.starts_with(a.as_str())))
    }
}

/// The keys that must be read before this request can be prepared.
pub fn wanted(request: &Request, ground: &Ground<'_>) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for op in &request.ops {
        match op {
            Op::Lock { key, session, flags, .. }
                if !is_contender(key, session, *flags) && ground.fences.get(key).is_none() =>
            {
                keys.insert(ground.layout.fence(key));
            }
            Op::Set { key, .. } | Op::Cas { key, .. } | Op::Delete { key } | Op::DeleteCas { key, .. }
                if ground.locks.holder(key).is_some() =>
            {
                keys.insert(key.clone());
            }
            Op::DeleteTree { prefix } => {
                let held = ground.locks.below(prefix).filter(|(_, holder)| holder.is_some());
                keys.extend(held.map(|(key, _)| key.to_owned()));
            }
            _ => {}
        }
    }
    // A lock with another home is not looked at: such a guard is refused.
    if let Some(guard) = &request.guard
        && let Some(layout) = layout_of(&guard.lock, ground)
    {
        keys.insert(guard.lock.clone());
        keys.insert(layout.fence(&guard.lock));
        if layout != *ground.layout {
            keys.insert(layout.epoch());
        }
    }
    keys
}

/// Works out what the request does.
///
/// # Errors
/// It may not be done, for what was read.
pub fn prepare(request: &Request, facts: &Facts, ground: &Ground<'_>) -> Result<Prepared, Refusal> {
    let mut prepared = Prepared::default();
    if let Some(guard) = &request.guard {
        prepared.guards = guards(guard, facts, ground)?;
    }
    let mut holders = Holders { facts, ground, own: BTreeMap::new() };
    for op in &request.ops {
        let Some(change) = holders.change(op)? else { continue };
        prepared.writes.add(op);
        if let Op::Lock { key, session, flags, .. } = op
            && !is_contender(key, session, *flags)
        {
            grant(key, facts, ground, &mut prepared)?;
        }
        let is_lock = matches!(change, Change::Held { .. } | Change::DelTree { .. });
        prepared.replica_ops += if is_lock || ground.locks.contains(change.key()) { 2 } else { 1 };
        if let (
            Op::Set { value, .. } | Op::Cas { value, .. } | Op::Unlock { value, .. },
            Change::Set { value: Value::Blob(hash), .. },
        ) = (op, &change)
        {
            prepared.blobs.push((hash.clone(), value.clone()));
        }
        prepared.changes.push(change);
    }
    prepared.rests_on = rests_on(request, ground);
    let ops = prepared.guards.iter().chain(&request.ops).chain(&prepared.fences);
    let (count, bytes) = ops.fold((0, 0), |(count, bytes), op| (count + 1, bytes + cost::op(op)));
    let told: usize = prepared.changes.iter().map(cost::change).sum();
    prepared.ops = count;
    prepared.bytes = bytes + told + cost::requested(request);
    Ok(prepared)
}

/// A request that looks at locks rests on all that it names.
fn rests_on(request: &Request, ground: &Ground<'_>) -> Option<Span> {
    let looks = |op: &Op| match op {
        Op::Lock { .. } | Op::Unlock { .. } | Op::DeleteTree { .. } => true,
        op => op.is_write() && ground.locks.contains(op.key()),
    };
    if request.guard.is_none() && !request.ops.iter().any(looks) {
        return None;
    }
    let mut span = Span::default();
    for op in &request.ops {
        span.add(op);
    }
    if let Some(guard) = &request.guard {
        span.add_key(&guard.lock);
    }
    Some(span)
}

fn layout_of(lock: &str, ground: &Ground<'_>) -> Option<Layout> {
    let prefix = ground.prefixes.of_key(lock)?;
    (prefix.home == *ground.datacenter).then(|| Layout::new(&PrefixId::of(&prefix.text)))
}

fn fact<'a>(facts: &'a Facts, key: &str) -> Option<&'a Pair> {
    facts.get(key)?.as_ref()
}

fn damaged(error: &record::RecordError) -> Refusal {
    Refusal::NotServing(error.to_string())
}

/// The token of a lock's last grant, and the index of its record.
fn granted(layout: &Layout, lock: &str, facts: &Facts) -> Result<Option<(Token, u64)>, Refusal> {
    let key = layout.fence(lock);
    let Some(pair) = fact(facts, &key) else { return Ok(None) };
    let token = record::decode::<Token>(&key, &pair.value).map_err(|error| damaged(&error))?;
    Ok(Some((token, pair.modify_index)))
}

/// Counts a grant: the token that this request gets when its lock verb succeeds.
fn grant(lock: &str, facts: &Facts, ground: &Ground<'_>, prepared: &mut Prepared) -> Result<(), Refusal> {
    if prepared.tokens.iter().any(|(key, _)| key == lock) {
        return Ok(());
    }
    let last = match ground.fences.get(lock) {
        Some(known) => Some(known),
        None => granted(ground.layout, lock, facts)?,
    };
    let (n, index) = last.map_or((0, 0), |(token, index)| (token.n, index));
    let token = Token { epoch: ground.epoch, n: n + 1 };
    let key = ground.layout.fence(lock);
    prepared.fences.push(Op::Cas { key, value: record::encode(&token), flags: 0, index });
    prepared.tokens.push((lock.to_owned(), token));
    Ok(())
}

/// The verbs that hold only while the guard's token is the present one.
fn guards(guard: &Guard, facts: &Facts, ground: &Ground<'_>) -> Result<Vec<Op>, Refusal> {
    let Guard { lock, token: given } = guard;
    let elsewhere = || {
        Refusal::Bad(format!(
            "the lock {lock} has another home than {}; guard the write with a lock of {}",
            ground.prefix, ground.datacenter
        ))
    };
    let layout = layout_of(lock, ground).ok_or_else(elsewhere)?;
    let stale = |current| Refusal::StaleToken { lock: lock.clone(), given: *given, current };
    // A contender excludes nobody, whatever was granted on its key before.
    let holder =
        fact(facts, lock).filter(|pair| !holds_as_contender(pair)).and_then(|pair| pair.session.clone());
    let granted = granted(&layout, lock, facts)?;
    let (Some(session), Some((current, index))) = (holder, granted) else { return Err(stale(None)) };
    let mut guards = vec![
        Op::CheckSession { key: lock.clone(), session },
        Op::CheckIndex { key: layout.fence(lock), index },
    ];
    let mut epoch = ground.epoch;
    if layout != *ground.layout {
        let key = layout.epoch();
        let pair = fact(facts, &key).ok_or_else(|| stale(None))?;
        epoch = record::decode::<Epochs>(&key, &pair.value).map_err(|error| damaged(&error))?.epoch;
        guards.push(Op::CheckIndex { key, index: pair.modify_index });
    }
    // A grant of an earlier epoch may have been followed by others in a history that a restore has undone.
    if current != *given || given.epoch != epoch {
        return Err(stale((current.epoch == epoch).then_some(current)));
    }
    Ok(guards)
}

/// Who holds a key while the verbs of a request go by.
struct Holders<'a> {
    facts: &'a Facts,
    ground: &'a Ground<'a>,
    /// What the request itself did to locks.
    own: BTreeMap<String, Option<SessionId>>,
}

impl Holders<'_> {
    fn before(&self, key: &str) -> Option<&SessionId> {
        fact(self.facts, key)?.session.as_ref()
    }

    fn now(&self, key: &str) -> Option<&SessionId> {
        match self.own.get(key) {
            Some(own) => own.as_ref(),
            None => self.before(key),
        }
    }

    /// What a write changes.
    fn change(&mut self, op: &Op) -> Result<Option<Change>, Refusal> {
        Ok(Some(match op {
            Op::Set { key, value, flags } => {
                self.must_be_free(key)?;
                self.post_image(key, value, *flags)
            }
            Op::Cas { key, value, flags, .. } => self.post_image(key, value, *flags),
            Op::Lock { key, session, .. } => {
                self.own.insert(key.clone(), Some(session.clone()));
                Change::Held { k: key.clone() }
            }
            Op::Unlock { key, value, flags, .. } => {
                self.own.insert(key.clone(), None);
                self.post_image(key, value, *flags)
            }
            Op::Delete { key } => {
                if !self.is_own_contender(key) {
                    self.must_be_free(key)?;
                }
                self.deleted(key)
            }
            Op::DeleteCas { key, .. } => self.deleted(key),
            Op::DeleteTree { prefix } => {
                for (key, _) in self.ground.locks.below(prefix) {
                    self.must_be_free(key)?;
                }
                Change::DelTree { k: prefix.clone() }
            }
            Op::Get { .. }
            | Op::GetTree { .. }
            | Op::CheckIndex { .. }
            | Op::CheckSession { .. }
            | Op::CheckNotExists { .. } => return Ok(None),
        }))
    }

    fn deleted(&mut self, key: &str) -> Change {
        self.own.insert(key.to_owned(), None);
        Change::Del { k: key.to_owned() }
    }

    fn post_image(&self, key: &str, value: &Bytes, flags: u64) -> Change {
        if is_lock(flags) || self.now(key).is_some() {
            return Change::Held { k: key.to_owned() };
        }
        let value = if value.len() > MAX_INLINE_BYTES {
            Value::Blob(Hash::of(value))
        } else {
            Value::Val(value.clone())
        };
        Change::Set { k: key.to_owned(), flags, value }
    }

    /// What somebody else holds as a lock is not written past them: Consul would allow it, and the lock exclude nobody.
    fn must_be_free(&self, key: &str) -> Result<(), Refusal> {
        match self.before(key) {
            Some(session) if !self.own.contains_key(key) => {
                Err(Refusal::Held { key: key.to_owned(), session: session.clone() })
            }
            _ => Ok(()),
        }
    }

    /// A contender's key that its own session holds: `consul lock -n` deletes its own.
    fn is_own_contender(&self, key: &str) -> bool {
        fact(self.facts, key).is_some_and(holds_as_contender)
    }
}

/// Whether the key is `<semaphore>/<session>`, by which that session takes part in a semaphore of `consul lock -n`. It
/// excludes nobody, so that it has no token: each session has a key of its own, whose record would stay for ever.
fn is_contender(key: &str, session: &SessionId, flags: u64) -> bool {
    flags == SEMAPHORE_FLAGS && key.rsplit('/').next() == Some(session.as_str())
}

fn holds_as_contender(pair: &Pair) -> bool {
    pair.session.as_ref().is_some_and(|session| is_contender(&pair.key, session, pair.flags))
}

#[cfg(test)]
mod tests;

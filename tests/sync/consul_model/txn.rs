//! How verbs act: what they change, what they answer, and what takes a transaction back.

use causeway::{
    model::{
        kv::{Op, Pair, TxnError, TxnReply},
        session::SessionId,
    },
    sync::store::StoreError,
};

use super::{MAX_BODY_BYTES, Model, under};

/// What a transaction changed, to take it back.
#[derive(Default)]
struct Undo {
    pairs: Vec<(String, Option<Pair>)>,
    graves: Vec<(String, Option<u64>)>,
}

/// Whether the verbs are more than a Consul takes, by its own words.
fn too_large(ops: &[Op], max_ops: usize) -> Option<StoreError> {
    let refused = |reason: String| Some(StoreError::Refused { status: 413, reason });
    if ops.len() > max_ops {
        return refused(format!("Transaction contains too many operations ({} > {max_ops})", ops.len()));
    }
    let bytes: usize = ops.iter().map(|op| 120 + op.key().len() + value_bytes(op).div_ceil(3) * 4).sum();
    if bytes > MAX_BODY_BYTES {
        return refused(format!("Request body too large, max allowed is {MAX_BODY_BYTES}"));
    }
    None
}

fn value_bytes(op: &Op) -> usize {
    match op {
        Op::Set { value, .. } | Op::Cas { value, .. } | Op::Lock { value, .. } | Op::Unlock { value, .. } => {
            value.len()
        }
        _ => 0,
    }
}

impl Model {
    /// All of it or nothing. A failed verb does not keep those behind it from being tried: each is told.
    ///
    /// # Errors
    /// It is larger than Consul takes.
    pub(crate) fn txn(&mut self, ops: &[Op]) -> Result<TxnReply, StoreError> {
        if let Some(refused) = too_large(ops, self.max_ops) {
            return Err(refused);
        }
        // The leader looks before raft does: no key at all, or a lock that must rest.
        let early: Vec<TxnError> =
            ops.iter().enumerate().filter_map(|(at, op)| self.refused_early(op).map(error_at(at))).collect();
        if !early.is_empty() {
            return Ok(TxnReply::RolledBack(early));
        }
        if !ops.iter().any(Op::is_write) {
            let (pairs, errors) = self.apply(ops, self.data.raft, &mut Undo::default());
            return Ok(if errors.is_empty() {
                TxnReply::Committed(pairs)
            } else {
                TxnReply::RolledBack(errors)
            });
        }
        let (index, graveyard) = (self.data.index, self.data.graveyard);
        let raft = self.next_index();
        let mut undo = Undo::default();
        let (pairs, errors) = self.apply(ops, raft, &mut undo);
        if !errors.is_empty() {
            self.take_back(undo);
            (self.data.index, self.data.graveyard) = (index, graveyard);
            return Ok(TxnReply::RolledBack(errors));
        }
        self.changed();
        Ok(TxnReply::Committed(pairs))
    }

    /// Whether a lock of this key must rest, because a session that held it ended.
    pub(crate) fn is_delayed(&self, key: &str) -> bool {
        self.delays.get(key).is_some_and(|until| *until > self.now)
    }

    fn refused_early(&self, op: &Op) -> Option<String> {
        if op.key().is_empty() && op.is_write() && !op.is_tree() {
            return Some("Must provide key".to_owned());
        }
        match op {
            Op::Lock { key, .. } if self.is_delayed(key) => {
                Some(format!("failed to lock key \"{key}\" due to lock delay"))
            }
            _ => None,
        }
    }

    fn apply(&mut self, ops: &[Op], raft: u64, undo: &mut Undo) -> (Vec<Pair>, Vec<TxnError>) {
        let (mut pairs, mut errors) = (Vec::new(), Vec::new());
        for (at, op) in ops.iter().enumerate() {
            match self.verb(op, raft, undo) {
                Ok(results) => pairs.extend(results),
                Err(what) => errors.push(error_at(at)(what)),
            }
        }
        (pairs, errors)
    }

    /// One verb. Only reads show values.
    fn verb(&mut self, op: &Op, raft: u64, undo: &mut Undo) -> Result<Vec<Pair>, String> {
        match op {
            Op::Get { key } => {
                self.existing(key).map(|pair| vec![pair]).ok_or(format!("key \"{key}\" doesn't exist"))
            }
            Op::GetTree { prefix } => Ok(under(&self.data.pairs, prefix).map(|(_, p)| p.clone()).collect()),
            Op::CheckIndex { key, index } => self.check_index(key, *index).map(bare),
            Op::CheckSession { key, session } => self.check_session(key, session).map(bare),
            Op::CheckNotExists { key } => match self.existing(key) {
                Some(_) => Err(format!("key \"{key}\" exists")),
                None => Ok(Vec::new()),
            },
            Op::Set { key, value, flags } => {
                Ok(bare(self.set(pair(key, value, *flags), Holder::Kept, raft, undo)))
            }
            Op::Cas { key, value, flags, index } => {
                let is_as_seen = self.existing(key).map_or(*index == 0, |old| old.modify_index == *index);
                let stale = || format!("failed to set key \"{key}\", index is stale");
                is_as_seen.then_some(()).ok_or_else(stale)?;
                Ok(bare(self.set(pair(key, value, *flags), Holder::Kept, raft, undo)))
            }
            Op::Lock { key, value, flags, session } => {
                self.lock(pair(key, value, *flags), session, raft, undo).map(bare)
            }
            Op::Unlock { key, value, flags, session } => {
                self.unlock(pair(key, value, *flags), session, raft, undo).map(bare)
            }
            Op::Delete { key } => {
                self.remove(key, raft, undo);
                Ok(Vec::new())
            }
            Op::DeleteCas { key, index } => match self.existing(key) {
                Some(old) if old.modify_index != *index => {
                    Err(format!("failed to delete key \"{key}\", index is stale"))
                }
                _ => {
                    self.remove(key, raft, undo);
                    Ok(Vec::new())
                }
            },
            Op::DeleteTree { prefix } => {
                self.remove_tree(prefix, raft, undo);
                Ok(Vec::new())
            }
        }
    }

    fn existing(&self, key: &str) -> Option<Pair> {
        self.data.pairs.get(key).cloned()
    }

    fn check_index(&self, key: &str, index: u64) -> Result<Pair, String> {
        let Some(old) = self.existing(key) else {
            return Err(format!("failed to check index, key \"{key}\" doesn't exist"));
        };
        if old.modify_index != index {
            let now = old.modify_index;
            return Err(format!(
                "failed index check for key \"{key}\", current modify index {now} != {index}"
            ));
        }
        Ok(old)
    }

    fn check_session(&self, key: &str, session: &SessionId) -> Result<Pair, String> {
        let Some(old) = self.existing(key) else {
            return Err(format!("failed to check session, key \"{key}\" doesn't exist"));
        };
        if old.session.as_ref() != Some(session) {
            let now = old.session.as_ref().map_or("", SessionId::as_str);
            return Err(format!(
                "failed session check for key \"{key}\", current session \"{now}\" != \"{session}\""
            ));
        }
        Ok(old)
    }

    fn lock(
        &mut self,
        mut new: Pair,
        session: &SessionId,
        raft: u64,
        undo: &mut Undo,
    ) -> Result<Pair, String> {
        if session.as_str().is_empty() {
            return Err("missing session".to_owned());
        }
        if !self.data.sessions.contains_key(session) {
            return Err(format!("invalid session \"{session}\""));
        }
        let old = self.existing(&new.key);
        let held_by = old.as_ref().and_then(|old| old.session.as_ref());
        if held_by.is_some_and(|holder| holder != session) {
            return Err(format!("failed to lock key \"{}\", lock is already held", new.key));
        }
        let held_before = u64::from(held_by.is_none());
        new.lock_index = old.as_ref().map_or(0, |old| old.lock_index) + held_before;
        Ok(self.set(new, Holder::Is(Some(session.clone())), raft, undo))
    }

    fn unlock(
        &mut self,
        mut new: Pair,
        session: &SessionId,
        raft: u64,
        undo: &mut Undo,
    ) -> Result<Pair, String> {
        if session.as_str().is_empty() {
            return Err("missing session".to_owned());
        }
        match self.existing(&new.key) {
            Some(old) if old.session.as_ref() == Some(session) => {
                new.lock_index = old.lock_index;
                Ok(self.set(new, Holder::Is(None), raft, undo))
            }
            _ => Err(format!(
                "failed to unlock key \"{}\", lock isn't held, or is held by another session",
                new.key
            )),
        }
    }

    /// An equal pair changes nothing, and no index. A plain write takes over who holds the key, and not how often it
    /// was held.
    fn set(&mut self, mut new: Pair, holder: Holder, raft: u64, undo: &mut Undo) -> Pair {
        let old = self.existing(&new.key);
        new.create_index = old.as_ref().map_or(raft, |old| old.create_index);
        new.session = match holder {
            Holder::Kept => old.as_ref().and_then(|old| old.session.clone()),
            Holder::Is(session) => session,
        };
        new.modify_index = old.as_ref().map_or(raft, |old| old.modify_index);
        if old.as_ref() == Some(&new) {
            return new;
        }
        new.modify_index = raft;
        self.data.index = raft;
        undo.pairs.push((new.key.clone(), old));
        self.data.pairs.insert(new.key.clone(), new.clone());
        new
    }

    fn remove(&mut self, key: &str, raft: u64, undo: &mut Undo) {
        if let Some(old) = self.data.pairs.remove(key) {
            undo.pairs.push((key.to_owned(), Some(old)));
            self.bury(key, raft, undo);
        }
    }

    fn remove_tree(&mut self, prefix: &str, raft: u64, undo: &mut Undo) {
        let keys: Vec<String> = under(&self.data.pairs, prefix).map(|(key, _)| key.clone()).collect();
        if keys.is_empty() {
            return;
        }
        for key in keys {
            let old = self.data.pairs.remove(&key);
            undo.pairs.push((key, old));
        }
        self.data.index = raft;
        // One grave for all of them; none when nothing is left, where the index of the table says enough.
        if !prefix.is_empty() {
            self.bury(prefix, raft, undo);
        }
    }

    fn bury(&mut self, key: &str, raft: u64, undo: &mut Undo) {
        let old = self.data.tombstones.insert(key.to_owned(), raft);
        undo.graves.push((key.to_owned(), old));
        (self.data.index, self.data.graveyard) = (raft, raft);
    }

    fn take_back(&mut self, undo: Undo) {
        for (key, old) in undo.pairs.into_iter().rev() {
            put_back(&mut self.data.pairs, key, old);
        }
        for (key, old) in undo.graves.into_iter().rev() {
            put_back(&mut self.data.tombstones, key, old);
        }
    }

    /// What the end of a session does to a key that it holds.
    pub(crate) fn free(&mut self, key: &str, is_deleted: bool, raft: u64) {
        let mut undo = Undo::default();
        if is_deleted {
            self.remove(key, raft, &mut undo);
        } else if let Some(old) = self.existing(key) {
            self.set(old, Holder::Is(None), raft, &mut undo);
        }
    }
}

/// Who holds a key after a write.
enum Holder {
    Kept,
    Is(Option<SessionId>),
}

fn pair(key: &str, value: &bytes::Bytes, flags: u64) -> Pair {
    Pair {
        key: key.to_owned(),
        value: value.clone(),
        flags,
        session: None,
        lock_index: 0,
        create_index: 0,
        modify_index: 0,
    }
}

fn bare(pair: Pair) -> Vec<Pair> {
    vec![Pair { value: bytes::Bytes::new(), ..pair }]
}

fn error_at(at: usize) -> impl Fn(String) -> TxnError {
    move |what| TxnError { op_index: at, what }
}

fn put_back<T>(map: &mut std::collections::BTreeMap<String, T>, key: String, old: Option<T>) {
    match old {
        Some(old) => drop(map.insert(key, old)),
        None => drop(map.remove(&key)),
    }
}

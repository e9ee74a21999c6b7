//! A Consul in memory for the tests of duties and locks: keys, sessions with TTL and lock-delay, transactions, blocking
//! reads. It can be frozen, and answers nothing then.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    lifecycle,
    model::{
        kv::{Op, Pair, TxnError, TxnReply},
        secret::SecretText,
        session::{Behavior, SessionId, SessionSpec},
    },
    sync::store::{Answer, Read, Right, Store, StoreError},
};

#[derive(Clone)]
pub(in crate::sync) struct FakeConsul {
    state: Arc<Mutex<State>>,
    index: Arc<watch::Sender<u64>>,
    frozen: Arc<watch::Sender<bool>>,
}

#[derive(Clone, Default)]
struct State {
    index: u64,
    pairs: BTreeMap<String, Pair>,
    sessions: BTreeMap<SessionId, Live>,
    closed: BTreeMap<String, Instant>,
    made: u64,
}

#[derive(Clone)]
struct Live {
    spec: SessionSpec,
    ends: Instant,
}

impl FakeConsul {
    pub(in crate::sync) fn new() -> Self {
        Self {
            state: Arc::default(),
            index: Arc::new(watch::channel(0).0),
            frozen: Arc::new(watch::channel(false).0),
        }
    }

    /// From now on nothing is answered, or all of it again.
    pub(in crate::sync) fn freeze(&self, is_frozen: bool) {
        self.frozen.send_replace(is_frozen);
    }

    pub(in crate::sync) fn pair(&self, key: &str) -> Option<Pair> {
        self.look(|state| state.pairs.get(key).cloned())
    }

    pub(in crate::sync) fn holder(&self, key: &str) -> Option<SessionId> {
        self.pair(key).and_then(|pair| pair.session)
    }

    pub(in crate::sync) fn sessions(&self) -> Vec<SessionId> {
        self.look(|state| state.sessions.keys().cloned().collect())
    }

    /// Ends a session as an operator does, with its lock-delay.
    pub(in crate::sync) fn end(&self, id: &SessionId) {
        self.look(|state| state.end(id));
    }

    /// Executes verbs as somebody else would.
    pub(in crate::sync) fn run(&self, ops: &[Op]) -> TxnReply {
        self.look(|state| state.txn(ops))
    }

    /// Waits until it is so.
    pub(in crate::sync) async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        let mut index = self.index.subscribe();
        while !holds(self) {
            let end = self.next_end();
            tokio::select! {
                _ = index.changed() => {}
                () = tokio::time::sleep_until(end) => {}
            }
        }
    }

    fn look<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        state.expire(lifecycle::now());
        let done = act(&mut state);
        let index = state.index;
        self.index.send_if_modified(|told| std::mem::replace(told, index) != index);
        done
    }

    fn next_end(&self) -> Instant {
        let far = lifecycle::now() + Duration::from_secs(3600);
        self.look(|state| state.sessions.values().map(|live| live.ends).min()).unwrap_or(far)
    }

    async fn answers(&self) {
        let _ = self.frozen.subscribe().wait_for(|frozen| !*frozen).await;
    }
}

impl State {
    /// Consul ends a session after once to twice its TTL: here after one and a half.
    fn expire(&mut self, now: Instant) {
        let over = |(id, live): (&SessionId, &Live)| (live.ends <= now).then(|| id.clone());
        for id in self.sessions.iter().filter_map(over).collect::<Vec<_>>() {
            self.end(&id);
        }
    }

    fn end(&mut self, id: &SessionId) {
        let Some(live) = self.sessions.remove(id) else { return };
        self.index += 1;
        let index = self.index;
        let of = |pair: &&mut Pair| pair.session.as_ref() == Some(id);
        let until = lifecycle::now() + live.spec.lock_delay;
        for pair in self.pairs.values_mut().filter(of) {
            (pair.session, pair.modify_index) = (None, index);
            if !live.spec.lock_delay.is_zero() {
                self.closed.insert(pair.key.clone(), until);
            }
        }
        if live.spec.behavior == Behavior::Delete {
            self.pairs.retain(|_, pair| pair.modify_index != index);
        }
    }

    fn txn(&mut self, ops: &[Op]) -> TxnReply {
        let mut next = self.clone();
        next.index += 1;
        let mut pairs = Vec::new();
        for (op_index, op) in ops.iter().enumerate() {
            match next.apply(op) {
                Ok(pair) => pairs.extend(pair),
                Err(what) => return TxnReply::RolledBack(vec![TxnError { op_index, what: what.into() }]),
            }
        }
        if ops.iter().any(Op::is_write) {
            *self = next;
        }
        TxnReply::Committed(pairs)
    }

    fn apply(&mut self, op: &Op) -> Result<Option<Pair>, &'static str> {
        let index = self.index;
        let present = self.pairs.get(op.key()).cloned();
        let now_is = present.as_ref().map_or(0, |pair| pair.modify_index);
        match op {
            Op::Set { key, value, flags } => Ok(Some(self.put(key, value, *flags, |_| {}))),
            Op::Cas { index: wanted, .. } if now_is != *wanted => Err("index is stale"),
            Op::Cas { key, value, flags, .. } => Ok(Some(self.put(key, value, *flags, |_| {}))),
            Op::Lock { session, .. } if !self.sessions.contains_key(session) => Err("invalid session"),
            Op::Lock { key, .. } if self.closed.get(key).is_some_and(|end| *end > lifecycle::now()) => {
                Err("lock is in its lock-delay")
            }
            Op::Lock { key, value, flags, session } => {
                match present.and_then(|pair| pair.session) {
                    Some(holder) if holder != *session => return Err("lock is already held"),
                    _ => {}
                }
                Ok(Some(self.put(key, value, *flags, |pair| {
                    pair.lock_index += u64::from(pair.session.is_none());
                    pair.session = Some(session.clone());
                })))
            }
            Op::Unlock { key, value, flags, session } => {
                if present.and_then(|pair| pair.session).as_ref() != Some(session) {
                    return Err("lock isn't held, or is held by another session");
                }
                Ok(Some(self.put(key, value, *flags, |pair| pair.session = None)))
            }
            Op::Get { .. } => present.map(Some).ok_or("key doesn't exist"),
            Op::CheckIndex { index: wanted, .. } => {
                if now_is == *wanted {
                    Ok(present)
                } else {
                    Err("current modify index is another")
                }
            }
            Op::CheckSession { session, .. } => match present {
                Some(pair) if pair.session.as_ref() == Some(session) => Ok(Some(pair)),
                _ => Err("lock is not held by this session"),
            },
            Op::CheckNotExists { .. } => present.map_or(Ok(None), |_| Err("key exists")),
            Op::Delete { key } => {
                self.pairs.remove(key);
                Ok(None)
            }
            Op::DeleteCas { key, index: wanted } => {
                if present.is_some() && now_is != *wanted {
                    return Err("index is stale");
                }
                self.pairs.remove(key);
                Ok(None)
            }
            Op::DeleteTree { prefix } => {
                self.pairs.retain(|key, _| !key.starts_with(prefix.as_str()));
                Ok(None)
            }
            Op::GetTree { .. } => unreachable!("index {index}: no test here asks for trees"),
        }
    }

    fn put(&mut self, key: &str, value: &bytes::Bytes, flags: u64, change: impl FnOnce(&mut Pair)) -> Pair {
        let index = self.index;
        let fresh = || Pair {
            key: key.to_owned(),
            value: bytes::Bytes::new(),
            flags: 0,
            session: None,
            lock_index: 0,
            create_index: index,
            modify_index: index,
        };
        let pair = self.pairs.entry(key.to_owned()).or_insert_with(fresh);
        (pair.value, pair.flags, pair.modify_index) = (value.clone(), flags, index);
        change(pair);
        pair.clone()
    }
}

impl Store for FakeConsul {
    async fn txn(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        self.answers().await;
        Ok(self.run(&ops))
    }

    async fn get(&self, key: &str, read: Read) -> Result<Answer<Option<Pair>>, StoreError> {
        self.answers().await;
        let answer = |consul: &Self| {
            let value = consul.pair(key);
            let index = value.as_ref().map_or_else(|| *consul.index.borrow(), |pair| pair.modify_index);
            Answer { value, index: index.max(1) }
        };
        if let Read::Wait { index, wait } = read {
            let beyond = self.until(|consul| answer(consul).index > index);
            let _ = tokio::time::timeout(wait, beyond).await;
        }
        self.answers().await;
        Ok(answer(self))
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Answer<Vec<Pair>>, StoreError> {
        self.answers().await;
        if let Read::Wait { index, wait } = read {
            let beyond = self.until(|consul| *consul.index.borrow() > index);
            let _ = tokio::time::timeout(wait, beyond).await;
        }
        let begins = |(key, pair): (&String, &Pair)| key.starts_with(prefix).then(|| pair.clone());
        let value = self.look(|state| state.pairs.iter().filter_map(begins).collect());
        Ok(Answer { value, index: *self.index.borrow() })
    }

    async fn create_session(&self, spec: &SessionSpec) -> Result<SessionId, StoreError> {
        self.answers().await;
        Ok(self.look(|state| {
            state.made += 1;
            let id = SessionId::from(format!("session-{}", state.made));
            let ends = lifecycle::now() + spec.ttl * 3 / 2;
            state.sessions.insert(id.clone(), Live { spec: spec.clone(), ends });
            state.index += 1;
            id
        }))
    }

    async fn renew_session(&self, id: &SessionId) -> Result<bool, StoreError> {
        self.answers().await;
        Ok(self.look(|state| {
            let Some(live) = state.sessions.get_mut(id) else { return false };
            live.ends = lifecycle::now() + live.spec.ttl * 3 / 2;
            true
        }))
    }

    async fn destroy_session(&self, id: &SessionId) -> Result<(), StoreError> {
        self.answers().await;
        self.end(id);
        Ok(())
    }

    async fn authorize(&self, _: Option<&SecretText>, rights: &[Right]) -> Result<Vec<bool>, StoreError> {
        self.answers().await;
        Ok(vec![true; rights.len()])
    }
}

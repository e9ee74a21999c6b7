//! A small Consul in memory: keys, locks, transactions with 1.8.7's limits, and faults on order.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use crate::{
    model::{
        kv::{Op, Pair, TxnError, TxnReply},
        secret::SecretText,
        session::{SessionId, SessionSpec},
    },
    sync::store::{Answer, Read, Right, Store, StoreError},
};

/// What goes wrong with one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is executed, and the answer is lost.
    AnswerLost,
    /// It is lost itself.
    RequestLost,
    /// It is lost, and arrives so much later.
    Late(Duration),
    /// It never leaves.
    NotSent,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) keys: BTreeMap<String, Pair>,
    pub(crate) index: u64,
    pub(crate) sessions: BTreeSet<String>,
    /// One for each of the next transactions.
    pub(crate) faults: VecDeque<Fault>,
    /// How many verbs each executed transaction had.
    pub(crate) transactions: Vec<usize>,
    /// Reads fail so.
    pub(crate) unreadable: Option<StoreError>,
    /// Reads of this key are refused.
    pub(crate) refused: Option<String>,
    /// Lists of keys come back empty.
    pub(crate) lists_nothing: bool,
    /// Reads of keys that are under way, and the most there were at a time.
    pub(crate) reading: usize,
    pub(crate) most_reading: usize,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

impl Fake {
    pub(crate) fn new(sessions: &[&str]) -> Self {
        let fake = Self::default();
        fake.state().sessions = sessions.iter().map(|id| (*id).to_owned()).collect();
        fake.state().index = 10;
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn pair(&self, key: &str) -> Option<Pair> {
        self.state().keys.get(key).cloned()
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        self.pair(key).map(|pair| String::from_utf8(pair.value.to_vec()).unwrap())
    }

    /// Executes at once, as a foreign client would.
    pub(crate) fn execute(&self, ops: &[Op]) -> TxnReply {
        self.state().execute(ops)
    }

    /// Ends a session: its locks are released.
    pub(crate) fn end_session(&self, id: &str) {
        let mut state = self.state();
        state.sessions.remove(id);
        state.index += 1;
        let index = state.index;
        for pair in state.keys.values_mut() {
            if pair.session.as_ref().is_some_and(|session| session.as_str() == id) {
                pair.session = None;
                pair.modify_index = index;
            }
        }
    }

    /// Goes back to an earlier state, as `consul snapshot restore` does: the index goes on.
    pub(crate) fn restore(&self, to: &State) {
        let mut state = self.state();
        state.keys = to.keys.clone();
        state.sessions = to.sessions.clone();
        state.index += 5;
    }
}

impl State {
    fn execute(&mut self, ops: &[Op]) -> TxnReply {
        self.transactions.push(ops.len());
        let mut next = self.clone();
        next.index += 1;
        let mut pairs = Vec::new();
        let mut errors = Vec::new();
        for (op_index, op) in ops.iter().enumerate() {
            match next.one(op) {
                Ok(some) => pairs.extend(some),
                Err(what) => errors.push(TxnError { op_index, what }),
            }
        }
        if !errors.is_empty() {
            return TxnReply::RolledBack(errors);
        }
        if ops.iter().any(Op::is_write) {
            *self = next;
        }
        TxnReply::Committed(pairs)
    }

    fn one(&mut self, op: &Op) -> Result<Vec<Pair>, String> {
        let held = |pair: Option<&Pair>, session: &SessionId| {
            pair.is_some_and(|pair| pair.session.as_ref() == Some(session))
        };
        let found = self.keys.get(op.key()).cloned();
        let is_at = |index: u64| found.as_ref().map_or(0, |pair| pair.modify_index) == index;
        match op {
            Op::Set { key, value, flags } => Ok(vec![self.set(key, value, *flags, None)]),
            Op::Cas { key, value, flags, index } if is_at(*index) => {
                Ok(vec![self.set(key, value, *flags, None)])
            }
            Op::Cas { key, .. } => Err(format!("failed to set key \"{key}\", index is stale")),
            Op::Lock { session, .. } if !self.sessions.contains(session.as_str()) => {
                Err(format!("invalid session \"{session}\""))
            }
            Op::Lock { key, value, flags, session }
                if found.as_ref().is_none_or(|pair| pair.session.is_none())
                    || held(found.as_ref(), session) =>
            {
                Ok(vec![self.set(key, value, *flags, Some(Some(session.clone())))])
            }
            Op::Lock { key, .. } => Err(format!("failed to lock key \"{key}\", lock is already held")),
            Op::Unlock { key, value, flags, session } if held(found.as_ref(), session) => {
                Ok(vec![self.set(key, value, *flags, Some(None))])
            }
            Op::Unlock { key, .. } => {
                Err(format!("failed to unlock key \"{key}\", lock isn't held, or is held by another session"))
            }
            Op::Get { key } => found.map(|pair| vec![pair]).ok_or(format!("key \"{key}\" doesn't exist")),
            Op::GetTree { prefix } => Ok(self.below(prefix)),
            Op::CheckIndex { index, .. } if found.is_some() && is_at(*index) => {
                Ok(found.into_iter().collect())
            }
            Op::CheckIndex { key, .. } => {
                Err(format!("current modify index for key \"{key}\" is another one"))
            }
            Op::CheckSession { session, .. } if held(found.as_ref(), session) => {
                Ok(found.into_iter().collect())
            }
            Op::CheckSession { key, .. } => Err(format!("failed session check for key \"{key}\"")),
            Op::CheckNotExists { .. } if found.is_none() => Ok(Vec::new()),
            Op::CheckNotExists { key } => Err(format!("key \"{key}\" exists")),
            Op::DeleteCas { key, index } if found.is_some() && !is_at(*index) => {
                Err(format!("failed to delete key \"{key}\", index is stale"))
            }
            Op::Delete { key } | Op::DeleteCas { key, .. } => {
                self.keys.remove(key);
                Ok(Vec::new())
            }
            Op::DeleteTree { prefix } => {
                self.keys.retain(|key, _| !key.starts_with(prefix));
                Ok(Vec::new())
            }
        }
    }

    fn below(&self, prefix: &str) -> Vec<Pair> {
        self.keys.values().filter(|pair| pair.key.starts_with(prefix)).cloned().collect()
    }

    fn set(&mut self, key: &str, value: &bytes::Bytes, flags: u64, lock: Option<Option<SessionId>>) -> Pair {
        let index = self.index;
        let fresh = Pair {
            key: key.to_owned(),
            value: bytes::Bytes::new(),
            flags: 0,
            session: None,
            lock_index: 0,
            create_index: index,
            modify_index: index,
        };
        let is_new = !self.keys.contains_key(key);
        let pair = self.keys.entry(key.to_owned()).or_insert(fresh);
        let session = lock.unwrap_or_else(|| pair.session.clone());
        if is_new || pair.value != *value || pair.flags != flags || pair.session != session {
            if session.is_some() && pair.session != session {
                pair.lock_index += 1;
            }
            pair.value = value.clone();
            pair.flags = flags;
            pair.session = session;
            pair.modify_index = index;
        }
        Pair { value: bytes::Bytes::new(), ..pair.clone() }
    }
}

/// The body that `/v1/txn` would be sent.
pub(crate) fn body(ops: &[Op]) -> usize {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let verbs = ops.iter().map(|op| {
        let (verb, value, flags, index, session) = match op {
            Op::Set { value, flags, .. } => ("set", Some(value), *flags, 0, None),
            Op::Cas { value, flags, index, .. } => ("cas", Some(value), *flags, *index, None),
            Op::Lock { value, flags, session, .. } => ("lock", Some(value), *flags, 0, Some(session)),
            Op::Unlock { value, flags, session, .. } => ("unlock", Some(value), *flags, 0, Some(session)),
            Op::CheckIndex { index, .. } => ("check-index", None, 0, *index, None),
            Op::DeleteCas { index, .. } => ("delete-cas", None, 0, *index, None),
            Op::CheckSession { session, .. } => ("check-session", None, 0, 0, Some(session)),
            _ => ("check-not-exists", None, 0, 0, None),
        };
        serde_json::json!({"KV": {"Verb": verb, "Key": op.key(), "Value": value.map(|value| BASE64_STANDARD.encode(value)),
            "Flags": flags, "Index": index, "Session": session}})
    });
    serde_json::to_vec(&verbs.collect::<Vec<_>>()).unwrap().len()
}

impl Store for Fake {
    async fn txn(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        assert!(ops.len() <= 64, "Consul 1.8.7 takes 64 verbs, not {}", ops.len());
        assert!(body(&ops) <= 512 * 1024, "Consul takes 512 KiB, not {}", body(&ops));
        let fault = self.state().faults.pop_front();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let unknown = || Err(StoreError::Unknown("the connection was cut".into()));
        match fault {
            None => {
                let reply = self.execute(&ops);
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(reply)
            }
            Some(Fault::AnswerLost) => {
                self.execute(&ops);
                unknown()
            }
            Some(Fault::RequestLost) => unknown(),
            Some(Fault::Late(later)) => {
                let fake = self.clone();
                let mut task = crate::lifecycle::spawn("late", async move {
                    tokio::time::sleep(later).await;
                    fake.execute(&ops);
                });
                // Dropping it would end it.
                std::mem::forget(std::mem::replace(&mut task, crate::lifecycle::spawn("nothing", async {})));
                unknown()
            }
            Some(Fault::NotSent) => Err(StoreError::NotSent("connection refused".into())),
        }
    }

    async fn get(&self, key: &str, _: Read) -> Result<Answer<Option<Pair>>, StoreError> {
        {
            let mut state = self.state();
            state.reading += 1;
            state.most_reading = state.most_reading.max(state.reading);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut state = self.state();
        // A test may have put an earlier state back meanwhile.
        state.reading = state.reading.saturating_sub(1);
        match &state.unreadable {
            Some(error) => Err(error.clone()),
            None if state.refused.as_deref() == Some(key) => {
                Err(StoreError::Refused { status: 400, reason: "Bad request".into() })
            }
            None => Ok(Answer { value: state.keys.get(key).cloned(), index: state.index }),
        }
    }

    async fn list(&self, prefix: &str, _: Read) -> Result<Answer<Vec<Pair>>, StoreError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let state = self.state();
        match &state.unreadable {
            Some(error) => Err(error.clone()),
            None if state.lists_nothing => Ok(Answer { value: Vec::new(), index: state.index }),
            None => Ok(Answer { value: state.below(prefix), index: state.index }),
        }
    }

    async fn create_session(&self, _: &SessionSpec) -> Result<SessionId, StoreError> {
        Err(StoreError::NotSent("a home makes no sessions".into()))
    }

    async fn renew_session(&self, _: &SessionId) -> Result<bool, StoreError> {
        Err(StoreError::NotSent("a home renews no sessions".into()))
    }

    async fn destroy_session(&self, _: &SessionId) -> Result<(), StoreError> {
        Err(StoreError::NotSent("a home ends no sessions".into()))
    }

    async fn authorize(&self, _: Option<&SecretText>, rights: &[Right]) -> Result<Vec<bool>, StoreError> {
        Ok(vec![true; rights.len()])
    }
}

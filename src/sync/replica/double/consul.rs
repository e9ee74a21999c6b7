//! A Consul that a replica writes to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use crate::{
    model::{
        kv::{Op, Pair, TxnError, TxnReply},
        secret::SecretText,
        session::{SessionId, SessionSpec},
    },
    sync::{
        replica::double::MOMENT,
        store::{Answer, Read, Right, Store, StoreError},
    },
};

/// Consul's keys.
#[derive(Clone, Debug, Default)]
pub(in crate::sync::replica) struct Kv {
    pub(in crate::sync::replica) index: u64,
    pub(in crate::sync::replica) pairs: BTreeMap<String, Pair>,
}

impl Kv {
    pub(in crate::sync::replica) fn txn(&mut self, ops: &[Op]) -> TxnReply {
        let before = self.clone();
        self.index += 1;
        let mut results = Vec::new();
        for (op_index, op) in ops.iter().enumerate() {
            match self.execute(op) {
                Ok(pair) => results.extend(pair.map(|pair| Pair { value: Bytes::new(), ..pair })),
                Err(what) => {
                    *self = before;
                    return TxnReply::RolledBack(vec![TxnError { op_index, what: what.to_owned() }]);
                }
            }
        }
        TxnReply::Committed(results)
    }

    fn execute(&mut self, op: &Op) -> Result<Option<Pair>, &'static str> {
        let present = self.pairs.get(op.key()).cloned();
        let index_is = present.as_ref().map_or(0, |pair| pair.modify_index);
        let holder = present.as_ref().and_then(|pair| pair.session.clone());
        let lock_index = present.as_ref().map_or(0, |pair| pair.lock_index);
        match op {
            Op::Cas { index, .. } if *index != index_is => Err("index is stale"),
            Op::CheckIndex { index, .. } if *index != index_is => Err("current modify index is another"),
            Op::CheckSession { session, .. } if holder.as_ref() != Some(session) => Err("not held by it"),
            Op::Lock { session, .. } if holder.as_ref().is_some_and(|holder| holder != session) => {
                Err("lock is already held")
            }
            Op::Unlock { session, .. } if holder.as_ref() != Some(session) => Err("lock isn't held"),
            Op::CheckIndex { .. } | Op::CheckSession { .. } => Ok(present),
            Op::Set { key, value, flags } | Op::Cas { key, value, flags, .. } => {
                Ok(Some(self.put(key, value, *flags, holder, 0)))
            }
            Op::Lock { key, value, flags, session } => {
                let lock_index = lock_index + u64::from(holder.is_none());
                Ok(Some(self.put(key, value, *flags, Some(session.clone()), lock_index)))
            }
            Op::Unlock { key, value, flags, .. } => Ok(Some(self.put(key, value, *flags, None, lock_index))),
            Op::Delete { key } => {
                self.pairs.remove(key);
                Ok(None)
            }
            Op::DeleteTree { prefix } => {
                self.pairs.retain(|key, _| !key.starts_with(prefix.as_str()));
                Ok(None)
            }
            other => panic!("no replica sends {other:?}"),
        }
    }

    fn put(
        &mut self,
        key: &str,
        value: &Bytes,
        flags: u64,
        session: Option<SessionId>,
        lock_index: u64,
    ) -> Pair {
        let index = self.index;
        let create_index = self.pairs.get(key).map_or(index, |pair| pair.create_index);
        let mut pair = Pair {
            key: key.to_owned(),
            value: value.clone(),
            flags,
            session,
            lock_index,
            create_index,
            modify_index: index,
        };
        if let Some(present) = self.pairs.get(key) {
            let same = Pair { modify_index: present.modify_index, ..pair.clone() };
            if same == *present {
                return same;
            }
        }
        self.pairs.insert(key.to_owned(), pair.clone());
        pair.modify_index = index;
        pair
    }

    pub(in crate::sync::replica) fn list(&self, prefix: &str) -> Vec<Pair> {
        self.pairs.values().filter(|pair| pair.key.starts_with(prefix)).cloned().collect()
    }

    /// Keys, values and flags below a prefix.
    pub(in crate::sync::replica) fn data(&self, prefix: &str) -> BTreeMap<String, (Bytes, u64)> {
        self.list(prefix).into_iter().map(|pair| (pair.key, (pair.value, pair.flags))).collect()
    }
}

/// What becomes of the next transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sync::replica) enum Answering {
    #[default]
    Well,
    /// The next one is executed, and nobody hears of it.
    LosesAnswer,
    /// The next one is not executed, and nobody hears of it.
    LosesRequest,
}

/// A Consul. It answers after a moment, as a real one does.
#[derive(Clone, Default)]
pub(in crate::sync::replica) struct FakeConsul {
    pub(in crate::sync::replica) kv: Arc<Mutex<Kv>>,
    pub(in crate::sync::replica) answering: Arc<Mutex<Answering>>,
    /// What lists fail with.
    pub(in crate::sync::replica) unusable: Arc<Mutex<Option<StoreError>>>,
}

impl FakeConsul {
    pub(in crate::sync::replica) fn run(&self, ops: &[Op]) -> TxnReply {
        self.kv.lock().unwrap().txn(ops)
    }

    pub(in crate::sync::replica) fn data(&self, prefix: &str) -> BTreeMap<String, (Bytes, u64)> {
        self.kv.lock().unwrap().data(prefix)
    }

    pub(in crate::sync::replica) fn pair(&self, key: &str) -> Option<Pair> {
        self.kv.lock().unwrap().pairs.get(key).cloned()
    }
}

impl Store for FakeConsul {
    async fn txn(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        tokio::time::sleep(MOMENT).await;
        match std::mem::take(&mut *self.answering.lock().unwrap()) {
            Answering::Well => Ok(self.run(&ops)),
            Answering::LosesAnswer => {
                self.run(&ops);
                Err(StoreError::Unknown("the connection ended".into()))
            }
            Answering::LosesRequest => Err(StoreError::Unknown("the connection ended".into())),
        }
    }

    async fn get(&self, key: &str, _: Read) -> Result<Answer<Option<Pair>>, StoreError> {
        tokio::time::sleep(MOMENT).await;
        Ok(Answer { value: self.pair(key), index: 1 })
    }

    async fn list(&self, prefix: &str, _: Read) -> Result<Answer<Vec<Pair>>, StoreError> {
        tokio::time::sleep(MOMENT).await;
        if let Some(error) = self.unusable.lock().unwrap().clone() {
            return Err(error);
        }
        Ok(Answer { value: self.kv.lock().unwrap().list(prefix), index: 1 })
    }

    async fn create_session(&self, _: &SessionSpec) -> Result<SessionId, StoreError> {
        unreachable!("a replica makes no sessions")
    }

    async fn renew_session(&self, _: &SessionId) -> Result<bool, StoreError> {
        unreachable!("a replica has no sessions")
    }

    async fn destroy_session(&self, _: &SessionId) -> Result<(), StoreError> {
        unreachable!("a replica has no sessions")
    }

    async fn authorize(&self, _: Option<&SecretText>, _: &[Right]) -> Result<Vec<bool>, StoreError> {
        unreachable!("a replica asks for no rights")
    }
}

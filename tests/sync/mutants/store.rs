//! What is changed between an engine and its Consul.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use causeway::{
    model::{
        kv::{Op, Pair, TxnError, TxnReply},
        secret::SecretText,
        session::{SessionId, SessionSpec},
    },
    sync::{
        endpoint::{Raw, Request, Response},
        layout::is_reserved,
        store::{Answer, Read, Right, Store, StoreError},
    },
};
use tokio::time::sleep;

use super::Mutant;

/// A store with a fault.
#[derive(Clone)]
pub(crate) struct MutantStore<S> {
    inner: S,
    mutant: Mutant,
    /// What was written into a lock's key by the session that took it.
    contenders: Arc<Mutex<BTreeMap<SessionId, Bytes>>>,
}

impl<S: Store> MutantStore<S> {
    pub(crate) fn new(inner: S, mutant: Mutant) -> Self {
        Self { inner, mutant, contenders: Arc::default() }
    }

    /// Without these checks of sessions, whose results are made up.
    async fn without(&self, ops: Vec<Op>, is_check: impl Fn(&Op) -> bool) -> Result<TxnReply, StoreError> {
        let kept: Vec<usize> = (0..ops.len()).filter(|at| !is_check(&ops[*at])).collect();
        let rest: Vec<Op> = kept.iter().map(|at| ops[*at].clone()).collect();
        let reply =
            if rest.is_empty() { TxnReply::Committed(Vec::new()) } else { self.inner.txn(rest).await? };
        Ok(match reply {
            TxnReply::Committed(pairs) => {
                let mut pairs = pairs.into_iter();
                let result = |op: &Op| if is_check(op) { Some(made_up(op)) } else { pairs.next() };
                TxnReply::Committed(ops.iter().filter(has_result).filter_map(result).collect())
            }
            TxnReply::RolledBack(mut errors) => {
                errors.iter_mut().for_each(|error| error.op_index = kept[error.op_index]);
                TxnReply::RolledBack(errors)
            }
        })
    }

    /// A lock is whose value its key has. The duties' own locks stay as they are.
    async fn by_value(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        let is_check = |op: &Op| matches!(op, Op::CheckSession { .. }) && !is_reserved(op);
        let mut errors = Vec::new();
        for (op_index, op) in ops.iter().enumerate() {
            match op {
                Op::Lock { value, session, .. } if !is_reserved(op) => {
                    self.contenders.lock().unwrap().insert(session.clone(), value.clone());
                }
                Op::CheckSession { key, session } if is_check(op) => {
                    let expected = self.contenders.lock().unwrap().get(session).cloned();
                    let got = self.inner.get(key, Read::Consistent).await?.value.map(|pair| pair.value);
                    if expected.is_none() || got != expected {
                        let what = format!("object lock value: expected {expected:?}, got {got:?}");
                        errors.push(TxnError { op_index, what });
                    }
                }
                _ => {}
            }
        }
        if errors.is_empty() { self.without(ops, is_check).await } else { Ok(TxnReply::RolledBack(errors)) }
    }

    /// A prefix of which nothing was listed has no keys, whatever Consul says when it is asked once more.
    async fn believed(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        let is_asked_again =
            matches!(ops[..], [Op::Get { .. }, Op::GetTree { .. }]) && ops[0].key().ends_with("/sentinel");
        let mut reply = self.inner.txn(ops).await?;
        if let TxnReply::Committed(pairs) = &mut reply
            && is_asked_again
        {
            pairs.truncate(1);
        }
        Ok(reply)
    }

    /// Data first, progress after that.
    async fn split(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        let is_progress = |op: &Op| matches!(op, Op::Cas { key, .. } if key.ends_with("/state"));
        let Some(at) = ops.iter().position(is_progress).filter(|_| ops.len() > 2) else {
            return self.inner.txn(ops).await;
        };
        let data: Vec<Op> =
            ops.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, op)| op.clone()).collect();
        let progress = vec![ops[0].clone(), ops[at].clone()];
        let first = self.inner.txn(data).await?;
        let TxnReply::Committed(mut pairs) = first else { return Ok(first) };
        match self.inner.txn(progress).await? {
            TxnReply::Committed(more) => {
                pairs.splice(at..at, more.into_iter().skip(at));
                Ok(TxnReply::Committed(pairs))
            }
            rolled_back => Ok(rolled_back),
        }
    }

    /// Answers what will probably be the answer, and then has it done: once, whatever comes of it.
    #[expect(clippy::disallowed_methods, reason = "nobody looks after what was acknowledged too early")]
    async fn early(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        let is_commit = ops.iter().any(|op| matches!(op, Op::Cas { key, .. } if key.ends_with("/head")));
        if !is_commit {
            return self.inner.txn(ops).await;
        }
        let index = self.inner.get("_sync/none", Read::Default).await?.index;
        let guessed = ops.iter().filter(has_result).map(|op| Pair { modify_index: index + 1, ..made_up(op) });
        let reply = TxnReply::Committed(guessed.collect());
        let inner = self.inner.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(20)).await;
            drop(inner.txn(ops).await);
        });
        Ok(reply)
    }
}

/// Whether Consul names a key for it.
fn has_result(op: &&Op) -> bool {
    matches!(
        op,
        Op::Set { .. }
            | Op::Cas { .. }
            | Op::Lock { .. }
            | Op::Unlock { .. }
            | Op::Get { .. }
            | Op::CheckIndex { .. }
            | Op::CheckSession { .. }
    )
}

fn made_up(op: &Op) -> Pair {
    let session = match op {
        Op::CheckSession { session, .. } | Op::Lock { session, .. } => Some(session.clone()),
        _ => None,
    };
    Pair {
        key: op.key().to_owned(),
        value: Bytes::new(),
        flags: 0,
        session,
        lock_index: 1,
        create_index: 1,
        modify_index: 1,
    }
}

impl<S: Store> Store for MutantStore<S> {
    async fn txn(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        match self.mutant {
            Mutant::NoSessionCheck => self.without(ops, |op| matches!(op, Op::CheckSession { .. })).await,
            Mutant::OwnValue => self.by_value(ops).await,
            Mutant::SplitProgress => self.split(ops).await,
            Mutant::EarlyAck => self.early(ops).await,
            Mutant::EmptyList => self.believed(ops).await,
            _ => self.inner.txn(ops).await,
        }
    }

    async fn get(&self, key: &str, read: Read) -> Result<Answer<Option<Pair>>, StoreError> {
        self.inner.get(key, read).await
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Answer<Vec<Pair>>, StoreError> {
        match self.inner.list(prefix, read).await {
            Err(StoreError::Unusable(_)) if self.mutant == Mutant::EmptyList => {
                Ok(Answer { value: Vec::new(), index: 1 })
            }
            answer => answer,
        }
    }

    async fn create_session(&self, spec: &SessionSpec) -> Result<SessionId, StoreError> {
        self.inner.create_session(spec).await
    }

    async fn renew_session(&self, id: &SessionId) -> Result<bool, StoreError> {
        self.inner.renew_session(id).await
    }

    async fn destroy_session(&self, id: &SessionId) -> Result<(), StoreError> {
        self.inner.destroy_session(id).await
    }

    async fn authorize(&self, token: Option<&SecretText>, rights: &[Right]) -> Result<Vec<bool>, StoreError> {
        if self.mutant == Mutant::NoRights {
            return Ok(vec![true; rights.len()]);
        }
        self.inner.authorize(token, rights).await
    }
}

impl<S: Store + Raw> Raw for MutantStore<S> {
    async fn ask(&self, request: &Request) -> Result<Response, StoreError> {
        self.inner.ask(request).await
    }
}

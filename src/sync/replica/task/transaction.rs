//! Transactions of an applier: one that is answered, refused, or open; a batch in one of them or, with many marks, more.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

use crate::{
    model::kv::{Op, TxnReply},
    sync::{
        replica::apply::{self, Batch, Budget, Guarded},
        store::{Store, StoreError},
    },
};

/// Why a transaction did not come out.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nothing was executed.
    Refused(String),
    /// Whether it was executed is open.
    Open(String),
}

impl Fault {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Refused(why) | Self::Open(why) => why,
        }
    }
}

/// The local index of each key that was written.
pub(super) type Indexes = BTreeMap<String, u64>;

/// What a transaction needs beside its verbs.
#[derive(Clone, Debug)]
pub(super) struct Terms<S> {
    pub(super) store: S,
    pub(super) guarded: Guarded,
    pub(super) budget: Budget,
    pub(super) within: Duration,
}

impl<S: Store> Terms<S> {
    /// Executes verbs while the state record stands under `index`.
    pub(super) async fn keep(&self, index: u64, ops: Vec<Op>) -> Result<Indexes, Fault> {
        self.execute(self.guarded.keep(index, ops)).await
    }

    /// Replaces the state record, which stands under `index`, and executes verbs. Its new index comes second.
    pub(super) async fn replace(
        &self,
        index: u64,
        state: Bytes,
        ops: Vec<Op>,
    ) -> Result<(Indexes, u64), Fault> {
        let indexes = self.execute(self.guarded.replace(index, state, ops)).await?;
        let index = indexes.get(&self.guarded.state).copied();
        let missing = || Fault::Open("Consul's answer lacks the state record".to_owned());
        index.map(|index| (indexes, index)).ok_or_else(missing)
    }

    /// Applies a batch.
    pub(super) async fn apply(self, index: u64, state: Bytes, ops: Parts) -> Result<(Indexes, u64), Fault> {
        let Parts { marks, data, unmarks, is_whole } = ops;
        if is_whole {
            return self.replace(index, state, [marks, data, unmarks].concat()).await;
        }
        for chunk in marks.chunks(self.budget.ops) {
            self.keep(index, chunk.to_vec()).await?;
        }
        let (indexes, index) = self.replace(index, state, data).await?;
        for chunk in unmarks.chunks(self.budget.ops) {
            // The data is in: whatever happens now, nobody may believe that nothing was executed.
            self.keep(index, chunk.to_vec()).await.map_err(|fault| Fault::Open(fault.into_text()))?;
        }
        Ok((indexes, index))
    }

    async fn execute(&self, ops: Vec<Op>) -> Result<Indexes, Fault> {
        let reply = match timeout(self.within, self.store.txn(ops.clone())).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(StoreError::Unknown(why) | StoreError::Unusable(why))) => return Err(Fault::Open(why)),
            Ok(Err(StoreError::NotSent(why) | StoreError::Refused { reason: why, .. })) => {
                return Err(Fault::Refused(why));
            }
            Err(_) => return Err(Fault::Open(format!("no answer in {:?}", self.within))),
        };
        match reply {
            TxnReply::Committed(results) => {
                let written = apply::written(&ops, &results);
                let indexes = written
                    .map(|written| written.into_iter().map(|(key, index)| (key.to_owned(), index)).collect());
                indexes.ok_or_else(|| Fault::Open("Consul's results do not fit the transaction".to_owned()))
            }
            TxnReply::RolledBack(errors) => {
                let told: Vec<String> = errors
                    .into_iter()
                    .map(|error| {
                        let at = ops.get(error.op_index).map(Op::key).unwrap_or_default();
                        format!("{at}: {}", error.what)
                    })
                    .collect();
                Err(Fault::Refused(format!("rolled back: {}", told.join("; "))))
            }
        }
    }
}

/// The verbs of a batch.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    marks: Vec<Op>,
    data: Vec<Op>,
    unmarks: Vec<Op>,
    is_whole: bool,
}

impl Parts {
    /// Takes them out of the batch, which keeps what became of each key.
    pub(super) fn of(batch: &mut Batch, budget: Budget) -> Self {
        let is_whole = batch.is_whole(budget);
        let take = std::mem::take::<Vec<Op>>;
        let (marks, data, unmarks) =
            (take(&mut batch.marks), take(&mut batch.data), take(&mut batch.unmarks));
        Self { marks, data, unmarks, is_whole }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.marks.len() + self.data.len() + self.unmarks.len()
    }

    /// Whether one transaction is enough.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }
}

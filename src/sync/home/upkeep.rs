//! Letting go of what nobody needs any more: old entries, and values that no entry names.

use crate::{
    model::kv::{Op, TxnReply},
    sync::{
        home::{
            Others, batch,
            commit::{Commit, End, Reign, now_ms},
            journal, trim,
        },
        record::{self, Head},
        store::{Store, StoreError},
    },
};

/// Values are looked through by the first two digits of their names: 256 parts, one at a time, so that only that much is
/// read at once.
const PARTS: &str = "0123456789abcdef";

/// What a piece of upkeep leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upkeep {
    /// There may be as much again.
    MoreToDo,
    /// Nothing that has no time.
    Done,
}

impl<S: Store, O: Others> Commit<S, O> {
    /// One piece of it: entries if there are any to let go, else values.
    pub(crate) async fn upkeep(&mut self, reign: &mut Reign) -> Result<Upkeep, End> {
        if let Some((ops, first)) = self.old_entries(reign).await {
            return self.trim(reign, ops, first).await;
        }
        self.sweep_values(reign).await.map(|()| Upkeep::Done)
    }

    async fn old_entries(&self, reign: &Reign) -> Option<(Vec<Op>, u64)> {
        let settings = &self.shared.settings;
        let (head, keep) = (&reign.head, &settings.keep);
        let acked = trim::acked(&settings.datacenters, &settings.datacenter, &self.shared.acks.borrow());
        let by_number = trim::by_number(head, acked, keep);
        if let Some(tens) = trim::tens(&self.shared.layout, head.first, by_number) {
            return Some(tens);
        }
        if head.position.seq < head.first.saturating_add(keep.always) {
            return None;
        }
        let (store, layout) = (&self.shared.store, &self.shared.layout);
        let oldest = journal::some_entries(store, layout, head.first, head.position.seq).await.ok()?;
        trim::tens(layout, head.first, trim::by_age(&oldest, head, now_ms(), keep))
    }

    async fn trim(&mut self, reign: &mut Reign, old: Vec<Op>, first: u64) -> Result<Upkeep, End> {
        let head = Head { first, ..reign.head.clone() };
        let mut ops = vec![batch::check(&reign.behind(&self.shared))];
        ops.extend(old);
        let value = record::encode(&head);
        ops.push(Op::Cas { key: self.shared.layout.head(), value, flags: 0, index: reign.head_index });
        let doubt = |reason: &str| Err(End::Doubt(format!("trim the journal: {reason}")));
        match tokio::time::timeout(self.shared.settings.commit_timeout, self.shared.store.txn(ops)).await {
            Ok(Ok(TxnReply::Committed(pairs))) => {
                let Some(written) = pairs.last() else { return doubt("Consul's answer names no head") };
                reign.head_index = written.modify_index;
                reign.head = head;
                self.show(reign);
                Ok(Upkeep::MoreToDo)
            }
            Ok(Ok(TxnReply::RolledBack(errors))) if errors.iter().any(|error| error.op_index == 0) => {
                Err(End::DutyLost)
            }
            Ok(Ok(TxnReply::RolledBack(_))) => doubt("the head was replaced by somebody else"),
            Ok(Err(StoreError::NotSent(_) | StoreError::Refused { .. })) => Ok(Upkeep::Done),
            Ok(Err(error)) => doubt(&error.to_string()),
            Err(_) => doubt("Consul did not answer in time"),
        }
    }

    async fn sweep_values(&mut self, reign: &Reign) -> Result<(), End> {
        let part = usize::from(self.sweep);
        self.sweep = self.sweep.wrapping_add(1);
        let digit = |at: usize| &PARTS[at..=at];
        let prefix = format!("{}{}{}", self.shared.layout.blobs(), digit(part / 16), digit(part % 16));
        // What cannot be read now is looked at the next time round.
        let Ok(blobs) = journal::list(&self.shared.store, &prefix).await else { return Ok(()) };
        let budget = *self.shared.budget.borrow();
        let orphans = trim::orphans(&blobs, reign.head.first);
        let Some(some) = orphans.chunks(budget.ops.saturating_sub(1).max(1)).next() else { return Ok(()) };
        let mut ops = vec![batch::check(&reign.behind(&self.shared))];
        ops.extend_from_slice(some);
        let sent =
            tokio::time::timeout(self.shared.settings.commit_timeout, self.shared.store.txn(ops)).await;
        match sent {
            Ok(Ok(TxnReply::RolledBack(errors))) if errors.iter().any(|error| error.op_index == 0) => {
                Err(End::DutyLost)
            }
            _ => Ok(()),
        }
    }
}

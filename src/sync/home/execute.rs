//! Sending a transaction and making sure of what became of it.
//!
//! When no answer comes, the entry itself tells: it is in the journal, or it is not. If it is not it may still arrive, so
//! a transaction that only moves the head is sent after it: once that is executed, the other never can be.

use std::time::Duration;

use tokio::sync::watch;

use crate::{
    lifecycle::Stop,
    model::kv::{Pair, TxnError, TxnReply},
    sync::{
        duty::Holding,
        home::{
            Shared,
            batch::{self, Behind, Journaled, Transaction},
            journal,
            settle::{self, RolledBack},
        },
        store::{Store, StoreError},
    },
};

/// Between two looks at an outcome that is not known: doubled up to the limit.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// What became of a transaction.
#[derive(Debug)]
pub(crate) enum Executed {
    /// It holds. Consul's pairs, unless the answer was lost; its index.
    Committed { pairs: Option<Vec<Pair>>, index: u64 },
    /// Consul rolled it back.
    RolledBack(Vec<TxnError>),
    /// It was not executed and cannot be any more: this moved the head.
    Undone { barrier: Journaled, index: u64 },
    /// It was not executed.
    Refused(String),
    /// Somebody else's entry stands in its place: it was not executed and cannot be any more.
    Overtaken,
    /// Nobody can say, and we no longer have the say.
    Unknown(String),
}

/// Sends it, and looks for its outcome until that is known or the duty is lost.
pub(crate) async fn execute<S: Store>(
    shared: &Shared<S>,
    transaction: &Transaction,
    behind: &Behind<'_>,
    duty: &watch::Receiver<Holding>,
    stop: &Stop,
) -> Executed {
    match send(shared, transaction).await {
        Sent::Answered(reply) => answered(transaction, reply),
        Sent::Refused(reason) => Executed::Refused(reason),
        Sent::Unknown(reason) => match &transaction.written {
            Some(journaled) => look(shared, journaled, behind, duty, stop, reason).await,
            None => Executed::Refused(reason),
        },
    }
}

enum Sent {
    Answered(TxnReply),
    Refused(String),
    Unknown(String),
}

async fn send<S: Store>(shared: &Shared<S>, transaction: &Transaction) -> Sent {
    match tokio::time::timeout(shared.settings.commit_timeout, shared.store.txn(transaction.ops.clone()))
        .await
    {
        Ok(Ok(reply)) => Sent::Answered(reply),
        Ok(Err(StoreError::NotSent(reason) | StoreError::Refused { reason, .. })) => Sent::Refused(reason),
        Ok(Err(StoreError::Unknown(reason) | StoreError::Unusable(reason))) => Sent::Unknown(reason),
        Err(_) => Sent::Unknown("Consul did not answer in time".into()),
    }
}

fn answered(transaction: &Transaction, reply: TxnReply) -> Executed {
    match reply {
        TxnReply::Committed(pairs) => {
            let index = match &transaction.written {
                Some(_) => pairs.last().map_or(0, |head| head.modify_index),
                None => 0,
            };
            Executed::Committed { pairs: Some(pairs), index }
        }
        TxnReply::RolledBack(errors) => Executed::RolledBack(errors),
    }
}

/// What stands in the entry's place.
enum Place {
    Ours(u64),
    Others,
    Empty,
}

async fn place<S: Store>(shared: &Shared<S>, journaled: &Journaled) -> Result<Place, String> {
    let at = shared.layout.entry(journaled.entry.position.seq);
    let look = tokio::time::timeout(shared.settings.commit_timeout, journal::key(&shared.store, &at));
    match look.await {
        Ok(Ok(Some(pair))) if pair.value == journaled.bytes => Ok(Place::Ours(pair.modify_index)),
        Ok(Ok(Some(_))) => Ok(Place::Others),
        Ok(Ok(None)) => Ok(Place::Empty),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("Consul did not answer in time".into()),
    }
}

async fn look<S: Store>(
    shared: &Shared<S>,
    journaled: &Journaled,
    behind: &Behind<'_>,
    duty: &watch::Receiver<Holding>,
    stop: &Stop,
    mut reason: String,
) -> Executed {
    shared.counts.unknown.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let barrier = batch::barrier(behind);
    let mut pause = FIRST_PAUSE;
    loop {
        let has_duty = !stop.is_set() && duty.borrow().session.as_ref() == Some(behind.session);
        match place(shared, journaled).await {
            Ok(Place::Ours(index)) => return Executed::Committed { pairs: None, index },
            Ok(Place::Others) => return overtaken(shared, &barrier).await,
            Ok(Place::Empty) if has_duty => match send(shared, &barrier).await {
                Sent::Answered(TxnReply::Committed(pairs)) => {
                    let index = pairs.last().map_or(0, |head| head.modify_index);
                    return undone(&barrier, index);
                }
                Sent::Answered(TxnReply::RolledBack(errors)) => {
                    return after_all(shared, journaled, &barrier, &errors, reason).await;
                }
                Sent::Refused(why) | Sent::Unknown(why) => reason = why,
            },
            Ok(Place::Empty) => {}
            Err(why) => reason = why,
        }
        if !has_duty {
            return Executed::Unknown(reason);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// The barrier was rolled back: the entry has come meanwhile, or the head is no longer ours to move.
async fn after_all<S: Store>(
    shared: &Shared<S>,
    journaled: &Journaled,
    barrier: &Transaction,
    errors: &[TxnError],
    reason: String,
) -> Executed {
    match place(shared, journaled).await {
        Ok(Place::Ours(index)) => Executed::Committed { pairs: None, index },
        Ok(Place::Others) => overtaken(shared, barrier).await,
        Ok(Place::Empty) | Err(_) => match settle::rolled_back(barrier, &[], errors) {
            RolledBack::DutyLost => Executed::Unknown(format!("{reason}; then another agent took over")),
            RolledBack::HeadMoved | RolledBack::ByRequests(_) => {
                Executed::Unknown(format!("{reason}; then the journal's head was replaced"))
            }
        },
    }
}

/// An entry that is not the one we look for: an earlier try of our own barrier, or another agent's.
async fn overtaken<S: Store>(shared: &Shared<S>, barrier: &Transaction) -> Executed {
    let Some(journaled) = &barrier.written else { return Executed::Overtaken };
    match place(shared, journaled).await {
        Ok(Place::Ours(index)) => undone(barrier, index),
        _ => Executed::Overtaken,
    }
}

fn undone(barrier: &Transaction, index: u64) -> Executed {
    match barrier.written.clone() {
        Some(barrier) => Executed::Undone { barrier, index },
        None => Executed::Overtaken,
    }
}

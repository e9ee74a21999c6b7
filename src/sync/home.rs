//! The home of a prefix: what is written there, with its journal, and what others are told of it.
//!
//! One task ([`commit`]) executes all writes, one transaction at a time: the journal's head is replaced by
//! compare-and-set, and what waits meanwhile goes together into the next. Every transaction proves by its first verb that
//! this agent still has the duty. Followers are served by the tasks that ask for them ([`follow`]). What decides is pure:
//! `batch` and `settle` what goes into a transaction and what came of it, `prepare` what a request turns into and what must be known for that, `fence`
//! whether the history found here is the one that others know, `history` whether a follower's is.

mod absent;
pub mod batch;
mod commit;
pub mod cost;
mod execute;
mod facts;
pub mod fence;
mod follow;
pub mod history;
mod journal;
mod kept;
pub mod memory;
mod pending;
pub mod prepare;
pub mod request;
mod round;
pub mod settle;
pub mod snapshot;
mod takeover;
pub mod trim;
mod upkeep;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::{
    sync::{Semaphore, broadcast, mpsc, oneshot, watch},
    time::Instant,
};

pub use crate::sync::home::request::{Guard, Written};
use crate::{
    lifecycle::{Stop, Task, spawn},
    model::{
        kv::Op,
        name::Datacenter,
        session::SessionId,
        sync::{Position, Prefix, PrefixId, PrefixTable, Token},
    },
    sync::{
        duty::Holding,
        home::{
            batch::Budget,
            commit::Commit,
            memory::Locks,
            pending::Pending,
            request::{Outcome, Request},
            trim::Keep,
        },
        layout::Layout,
        peer::{FollowItem, FollowStart, Known, PeerError},
        positions::Positions,
        record::{Entry, Epochs, Hash},
        refusal::Refusal,
        store::Store,
    },
};

/// Requests that wait for a transaction. More than Consul carries out within any deadline that clients have.
const QUEUE: usize = 2048;
/// How much they may hold, in KiB: what waits must not be what fills the machine.
const QUEUE_KIB: usize = 64 * 1024;
/// Entries that followers can still be sent without reading them from Consul.
const LIVE: usize = 128;
/// Pieces of evidence against our history that wait; one is enough.
const EVIDENCE: usize = 4;

/// What a home needs to know.
#[derive(Clone, Debug)]
pub struct HomeSettings {
    /// Where we are.
    pub datacenter: Datacenter,
    /// All that take part, this one included.
    pub datacenters: Vec<Datacenter>,
    /// The prefix, whose home is here.
    pub prefix: Prefix,
    /// All prefixes: a guard's lock may lie in another one.
    pub prefixes: PrefixTable,
    /// The most verbs that a transaction of our own Consul takes.
    pub max_txn_ops: usize,
    /// How large a value may be.
    pub max_value_bytes: usize,
    /// How long a transaction may take until its outcome is looked up.
    pub commit_timeout: Duration,
    /// How long a transaction is held open for more, when the one before it had more than one request.
    pub linger: Duration,
    /// How much of the journal is kept.
    pub keep: Keep,
    /// What this agent saw committed, in earlier runs too.
    pub positions: Positions,
}

impl HomeSettings {
    /// The defaults for this prefix.
    pub fn new(datacenters: Vec<Datacenter>, prefix: Prefix, prefixes: PrefixTable) -> Self {
        Self {
            datacenter: prefix.home.clone(),
            datacenters,
            prefix,
            prefixes,
            max_txn_ops: 64,
            max_value_bytes: 256 * 1024,
            commit_timeout: Duration::from_secs(5),
            linger: Duration::from_millis(2),
            keep: Keep::default(),
            positions: Positions::default(),
        }
    }
}

/// What other agents know: those of other datacenters, and the others of our own.
pub trait Others: Clone + Send + Sync + 'static {
    /// How far they know this prefix; those that do not answer within a bounded time are left out.
    fn known(&self, prefix: &str) -> impl Future<Output = Vec<Known>> + Send;

    /// The most verbs that a transaction takes everywhere, as far as is known.
    fn max_txn_ops(&self) -> usize;

    /// The largest value that all of them are configured to take, as far as is known.
    fn max_value_bytes(&self) -> usize {
        usize::MAX
    }
}

/// A request of a client.
#[derive(Clone, Debug)]
pub struct Write {
    /// Stays the same when it is sent again.
    pub request_id: String,
    /// The datacenter where it came in.
    pub origin: Datacenter,
    /// What it does.
    pub ops: Vec<Op>,
    /// What must hold for it to be done.
    pub guard: Option<Guard>,
    /// Until when the client waits.
    pub deadline: Instant,
}

/// A prefix whose home is here. Clones are the same one.
#[derive(Debug)]
pub struct Home<S>(Arc<Shared<S>>);

impl<S> Clone for Home<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What the committing task and those who serve clients and followers see in common.
#[derive(Debug)]
pub(crate) struct Shared<S> {
    pub(crate) settings: HomeSettings,
    pub(crate) layout: Layout,
    pub(crate) store: S,
    queue: mpsc::Sender<Pending>,
    room: Arc<Semaphore>,
    pub(crate) budget: watch::Sender<Budget>,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) tip: watch::Sender<Option<Tip>>,
    pub(crate) known: watch::Sender<Option<Known>>,
    pub(crate) live: broadcast::Sender<Arc<Live>>,
    pub(crate) locks: watch::Sender<Locks>,
    pub(crate) acks: watch::Sender<BTreeMap<Datacenter, Position>>,
    pub(crate) evidence: mpsc::Sender<Known>,
    /// One list of all data in memory at a time.
    pub(crate) snapshots: Semaphore,
    /// One follower's keys are confirmed at a time.
    confirmations: Semaphore,
    pub(crate) counts: Counts,
}

/// What a home is doing.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Another agent has the duty, or nobody known.
    Standby(Holding),
    /// We have it and look at what is there; the reason why that did not work so far.
    TakingOver(Option<String>),
    /// We serve this history.
    Serving(Arc<Epochs>),
}

/// Where the journal ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) position: Position,
    pub(crate) hash: Hash,
    pub(crate) first: u64,
    pub(crate) ts_ms: u64,
}

/// An entry just committed. A large one is named only, and read again by whoever wants it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
    pub(crate) index: u64,
    pub(crate) entry: Option<Entry>,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) entries: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) rolled_back: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) grants: AtomicU64,
    pub(crate) token: Mutex<Option<Token>>,
}

impl Counts {
    /// A lock was granted with this token.
    pub(crate) fn granted(&self, token: Token) {
        self.grants.fetch_add(1, Ordering::Relaxed);
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }
}

/// A home as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HomeStatus {
    /// The prefix.
    pub prefix: String,
    /// `standby`, `taking_over` or `serving`.
    pub state: &'static str,
    /// Why it does not serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The node that has the duty, where another does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// Where the journal ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// The first entry that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// How far each follower is.
    pub followers: BTreeMap<Datacenter, Position>,
    /// Locks that are known, held or free.
    pub locks: usize,
    /// Requests that wait.
    pub queued: usize,
    /// Entries committed by this process.
    pub entries_total: u64,
    /// Requests carried out by this process.
    pub requests_total: u64,
    /// Requests that Consul rolled back.
    pub rolled_back_total: u64,
    /// Requests that were answered from memory.
    pub repeated_total: u64,
    /// Transactions whose outcome had to be looked up.
    pub unknown_total: u64,
    /// Acquires granted by this process.
    pub lock_grants_total: u64,
    /// The token of the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_token: Option<Token>,
}

impl<S: Store> Home<S> {
    /// Starts it. It serves while `duty` says that this agent does.
    pub fn start(
        settings: HomeSettings,
        store: S,
        others: impl Others,
        duty: watch::Receiver<Holding>,
        rng: fastrand::Rng,
        stop: Stop,
    ) -> (Self, Task<()>) {
        let (queue, incoming) = mpsc::channel(QUEUE);
        let (evidence, doubts) = mpsc::channel(EVIDENCE);
        let shared = Arc::new(Shared {
            layout: Layout::new(&PrefixId::of(&settings.prefix.text)),
            budget: watch::channel(Budget::new(settings.max_txn_ops)).0,
            settings,
            store,
            queue,
            room: Arc::new(Semaphore::new(QUEUE_KIB)),
            stage: watch::channel(Stage::Standby(duty.borrow().clone())).0,
            tip: watch::channel(None).0,
            known: watch::channel(None).0,
            live: broadcast::channel(LIVE).0,
            locks: watch::channel(Locks::default()).0,
            acks: watch::channel(BTreeMap::new()).0,
            evidence,
            snapshots: Semaphore::new(1),
            confirmations: Semaphore::new(1),
            counts: Counts::default(),
        });
        let commit = Commit::new(shared.clone(), others, duty, incoming, doubts, rng, stop);
        (Self(shared), spawn("sync.home", commit.run()))
    }

    /// Has a request executed. Safe to repeat with the same id: it is executed once at most.
    ///
    /// # Errors
    /// It was not executed, or ([`Refusal::OutcomeUnknown`]) nothing is known of it.
    pub async fn write(&self, write: Write) -> Outcome {
        let shared = &*self.0;
        if let Some(refusal) = refusal(&shared.settings.prefix.text, &shared.stage.borrow()) {
            return Err(refusal);
        }
        let Write { request_id, origin, ops, guard, deadline } = write;
        let request = Request { id: request_id.clone(), origin, ops, guard };
        let size = {
            let budget = shared.budget.borrow();
            let max_value_bytes = shared.settings.max_value_bytes.min(budget.value_bytes);
            batch::admit(&request, &shared.settings.prefix.text, max_value_bytes, &budget)?
        };
        let busy = || {
            Refusal::Busy(format!(
                "too many writes wait at the home of {}; send fewer at a time",
                shared.settings.prefix.text
            ))
        };
        let kib = u32::try_from(size / 1024 + 1).map_err(|_| busy())?;
        let room = shared.room.clone().try_acquire_many_owned(kib).map_err(|_| busy())?;
        let (answer, answered) = oneshot::channel();
        let (pending, claim) = Pending::new(request, answer, deadline, room);
        shared.queue.try_send(pending).map_err(|_| busy())?;
        let unknown = |reason: &str| {
            Err(Refusal::OutcomeUnknown { request_id: request_id.clone(), reason: reason.into() })
        };
        let durable = async {
            let outcome = answered.await.unwrap_or_else(|_| unknown("the agent stopped"));
            if let Ok(written) = &outcome
                && !written.tokens.is_empty()
            {
                shared.settings.positions.kept(&shared.settings.prefix.text, written.at).await;
            }
            outcome
        };
        tokio::select! { biased;
            outcome = durable => outcome,
            () = tokio::time::sleep_until(deadline) => {
                if claim.cancel() {
                    return Err(Refusal::Deadline("the home had no time for it; nothing was executed, send it again".into()));
                }
                unknown("neither Consul nor the disk was done in time")
            }
        }
    }

    /// Serves a follower in another datacenter until it goes away or this home stops serving.
    pub async fn follow(
        &self,
        from: &Datacenter,
        start: FollowStart,
        acks: watch::Receiver<Position>,
        items: mpsc::Sender<Result<FollowItem, PeerError>>,
    ) {
        follow::follow(&self.0, from, start, acks, items).await;
    }

    /// Confirms that none of these keys was there at this position, whether this agent serves or not.
    ///
    /// # Errors
    /// One of them was, or it is not known.
    pub async fn absent(&self, keys: &[String], at: Position) -> Result<(), PeerError> {
        let turn = self.0.confirmations.acquire().await;
        let _turn = turn.expect("this semaphore is never closed");
        let confirmed = absent::confirm(&self.0, keys, at).await;
        if let Err(error) = &confirmed {
            tracing::warn!(prefix = self.0.settings.prefix.text, %error, "a replica may not delete what a list lacks");
        }
        confirmed
    }

    /// Where the journal ends; none while this agent does not serve.
    pub fn tip(&self) -> watch::Receiver<Option<Known>> {
        self.0.known.subscribe()
    }

    /// The session that acquired a lock last and did not release it. It may have ended since.
    pub fn holder(&self, lock: &str) -> Option<SessionId> {
        self.0.locks.borrow().holder(lock).cloned()
    }

    /// What it is doing.
    pub fn status(&self) -> HomeStatus {
        let shared = &*self.0;
        let (state, reason, active) = match &*shared.stage.borrow() {
            Stage::Standby(holding) => {
                ("standby", None, holding.doer.as_ref().map(|doer| doer.node.to_string()))
            }
            Stage::TakingOver(reason) => ("taking_over", reason.clone(), None),
            Stage::Serving(_) => ("serving", None, None),
        };
        let tip = shared.tip.borrow().clone();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        HomeStatus {
            prefix: shared.settings.prefix.text.clone(),
            state,
            reason,
            active,
            position: tip.as_ref().map(|tip| tip.position),
            first: tip.as_ref().map(|tip| tip.first),
            followers: shared.acks.borrow().clone(),
            locks: shared.locks.borrow().len(),
            queued: QUEUE - shared.queue.capacity(),
            entries_total: count(&shared.counts.entries),
            requests_total: count(&shared.counts.requests),
            rolled_back_total: count(&shared.counts.rolled_back),
            repeated_total: count(&shared.counts.repeated),
            unknown_total: count(&shared.counts.unknown),
            lock_grants_total: count(&shared.counts.grants),
            last_token: *shared.counts.token.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Why nothing is written here now; none when it is, or will be in a moment.
pub(crate) fn refusal(prefix: &str, stage: &Stage) -> Option<Refusal> {
    let why = match stage {
        Stage::Serving(_) | Stage::TakingOver(None) => return None,
        Stage::TakingOver(Some(reason)) => reason.clone(),
        Stage::Standby(Holding { doer: Some(doer), .. }) => format!("{} on {} does", doer.address, doer.node),
        Stage::Standby(Holding { doer: None, .. }) => "no agent has taken it over yet".to_owned(),
    };
    Some(Refusal::NotServing(format!("this agent does not serve writes of {prefix}: {why}; send it again")))
}

#[cfg(test)]
mod tests;

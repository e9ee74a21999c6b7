//! The replica of a prefix whose home is another datacenter: a snapshot of the home's keys, then its journal, entry by entry.
//!
//! Data and progress change in one transaction under the applier's own session, so that the data is always what the home
//! had at one position, and another agent goes on from the `state` record. Deletes come from entries or from a whole list
//! of the home within a guard. What decides is pure (`machine`, `chain`, `apply`, `indexes`, `snapshot`, `compare`, `audit`);
//! `task` speaks with Consul and the home; `shared` is what the rest of the engine sees.

pub mod apply;
pub mod audit;
pub mod chain;
pub mod compare;
#[cfg(test)]
mod double;
pub mod indexes;
pub mod machine;
mod shared;
pub mod snapshot;
mod task;

use std::{marker::PhantomData, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

pub use self::{
    indexes::Indexes,
    shared::{Lag, ReplicaStatus},
};
use self::{
    machine::Stage,
    shared::Shared,
    task::{Command, Worker},
};
use crate::{
    lifecycle::{self, Stop, Task},
    model::{
        name::NodeName,
        sync::{Position, Prefix},
    },
    sync::{
        duty::Holding,
        peer::{Known, Peers},
        refusal::Refusal,
        replica::snapshot::Guard,
        store::Store,
    },
};

/// Orders of people that wait for the task, which takes each at once unless it is busy with another.
const COMMANDS: usize = 4;

/// How a replica works.
#[derive(Clone, Debug)]
pub struct ReplicaSettings {
    /// The prefix; its home is another datacenter.
    pub prefix: Prefix,
    /// This agent's Consul node, for the state record.
    pub node: NodeName,
    /// The most verbs that a transaction of the local Consul takes: 64 before 1.14, then 128.
    pub max_txn_ops: usize,
    /// The most bytes of a transaction's JSON body.
    pub max_txn_bytes: usize,
    /// How often edits are looked for. A list that takes long makes it rarer.
    pub audit: Duration,
    /// After so long without an answer the outcome of a transaction is unknown.
    pub commit: Duration,
    /// A home that says nothing for so long is asked anew.
    pub silence: Duration,
    /// How many deletes at once pass without a person's word.
    pub guard: Guard,
    /// Changes whenever the home answers a greeting: what failed is tried again then, however long its pause. A closed one
    /// never does.
    pub home_answers: watch::Receiver<()>,
}

impl ReplicaSettings {
    /// The defaults, for Consul 1.8.7.
    pub fn new(prefix: Prefix, node: NodeName) -> Self {
        Self {
            prefix,
            node,
            max_txn_ops: 64,
            max_txn_bytes: 512 * 1024,
            audit: Duration::from_secs(30),
            commit: Duration::from_secs(5),
            silence: Duration::from_secs(15),
            guard: Guard::default(),
            home_answers: watch::Sender::new(()).subscribe(),
        }
    }
}

/// The replica of one prefix. Clones are the same one.
pub struct Replica<S, P> {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    parts: PhantomData<fn() -> (S, P)>,
}

impl<S, P> Clone for Replica<S, P> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), commands: self.commands.clone(), parts: PhantomData }
    }
}

impl<S, P> std::fmt::Debug for Replica<S, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").finish_non_exhaustive()
    }
}

impl<S: Store, P: Peers> Replica<S, P> {
    /// Starts to apply whenever this agent holds the duty. The task ends at the stop.
    pub fn start(
        settings: ReplicaSettings,
        store: S,
        peers: P,
        duty: watch::Receiver<Holding>,
        rng: fastrand::Rng,
        stop: Stop,
    ) -> (Self, Task<()>) {
        let (commands, orders) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared::new(&settings.prefix));
        let worker = Worker::new(settings, store, peers, shared.clone(), rng);
        let task = lifecycle::spawn("sync.replica", worker.run(duty, orders, stop));
        (Self { shared, commands, parts: PhantomData }, task)
    }

    /// Waits until this position is applied; false when the deadline comes first. Cancel-safe.
    pub async fn applied(&self, at: Position, deadline: Instant) -> bool {
        let mut applied = self.shared.applied();
        let reached = applied.wait_for(|applied| applied.is_some_and(|applied| applied >= at));
        matches!(timeout_at(deadline, reached).await, Ok(Ok(_)))
    }

    /// The home's indexes of what the local Consul answered for a key with this `ModifyIndex`.
    pub fn indexes(&self, key: &str, local_modify_index: u64) -> Indexes {
        self.shared.indexes(key, local_modify_index)
    }

    /// Whether the key lives at home only, or may do so.
    pub fn is_held(&self, key: &str) -> bool {
        self.shared.is_held(key)
    }

    /// Whether a key that begins so lives at home only, or may do so.
    pub fn has_held_below(&self, tree: &str) -> bool {
        self.shared.has_held_below(tree)
    }

    /// How far this datacenter is, as far as this agent knows.
    pub fn known(&self) -> Option<Known> {
        self.shared.known()
    }

    /// How far the replica is behind.
    pub fn lag(&self) -> Lag {
        self.shared.lag(lifecycle::now())
    }

    /// Ends a hold: the home's data is taken as it is, whatever that deletes here. Returns when the order was taken.
    ///
    /// # Errors
    /// This agent does not apply, or there is no hold.
    pub async fn approve(&self) -> Result<(), Refusal> {
        if self.shared.stage() != Stage::Hold {
            let why = "nothing to approve: the replica is not on hold; look at `causeway sync status`";
            return Err(self.standing_by().unwrap_or_else(|| Refusal::Bad(why.to_owned())));
        }
        self.order(Command::Approve).await
    }

    /// Takes all data from home anew, within the guard. Returns when the order was taken.
    ///
    /// # Errors
    /// This agent does not apply.
    pub async fn resync(&self) -> Result<(), Refusal> {
        match self.standing_by() {
            Some(refusal) => Err(refusal),
            None => self.order(Command::Resync).await,
        }
    }

    /// How it stands.
    pub fn status(&self) -> ReplicaStatus {
        self.shared.status(lifecycle::now())
    }

    fn standing_by(&self) -> Option<Refusal> {
        let why = "this agent does not apply the prefix; ask the one that does";
        (self.shared.stage() == Stage::Standby).then(|| Refusal::NotServing(why.to_owned()))
    }

    async fn order(&self, command: fn(oneshot::Sender<()>) -> Command) -> Result<(), Refusal> {
        let (done, answer) = oneshot::channel();
        let stopped = || Refusal::NotServing("the agent stops; ask another".to_owned());
        self.commands.send(command(done)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }
}

#[cfg(test)]
mod tests;

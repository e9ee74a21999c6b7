//! What a replica's task lets the rest of the engine see. It knows neither Consul nor the home.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::watch, time::Instant};

use crate::{
    model::{
        name::Datacenter,
        sync::{Position, Prefix},
    },
    sync::{
        peer::Known,
        record::Hash,
        replica::{
            indexes::{Indexes, Memory},
            machine::Stage,
        },
    },
};

/// How far a replica is behind its home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// Entries that the home has and this replica does not, by the home's last word.
    pub entries: Option<u64>,
    /// Since when the replica is not known to have all that the home has, in ms: 0 while it follows and has all it heard
    /// of. None when it never had all since this agent applies.
    pub ms: Option<u64>,
    /// Since the home's last word, in ms. None without one.
    pub silent_ms: Option<u64>,
    /// Whether it follows the home now.
    pub is_connected: bool,
}

/// How a replica stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaStatus {
    /// The prefix.
    pub prefix: String,
    /// Its home.
    pub home: Datacenter,
    /// Where the applier is.
    pub stage: Stage,
    /// Why it retries or holds, with the remedy.
    pub reason: Option<String>,
    /// The last entry applied.
    pub position: Option<Position>,
    /// Its hash.
    pub hash: Option<Hash>,
    /// The home's last entry, by its last word.
    pub tip: Option<Position>,
    /// How far it is behind.
    pub lag: Lag,
    /// Keys with data.
    pub keys: usize,
    /// Keys that live at home only.
    pub held: usize,
    /// Keys whose content differs from home's, of which an entry may still tell.
    pub differences: usize,
    /// What this agent did since it started.
    pub counts: Counts,
    /// From an entry's commit at home to its commit here, in ms, by both clocks: the last one applied.
    pub last_delay_ms: Option<u64>,
}

/// What was done since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Entries applied.
    pub entries: u64,
    /// Verbs in the transactions that applied something.
    pub ops: u64,
    /// Transactions.
    pub transactions: u64,
    /// Snapshots taken whole.
    pub snapshots: u64,
    /// How long the last one took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_ms: Option<u64>,
    /// Comparisons done.
    pub compares: u64,
    /// Keys that were edited here by others and were found.
    pub local_edits: u64,
    /// How often each stage was entered.
    pub stages: BTreeMap<String, u64>,
}

#[derive(Debug)]
pub(super) struct View {
    pub(super) stage: Stage,
    pub(super) reason: Option<String>,
    pub(super) at: Option<(Position, Hash)>,
    pub(super) tip: Option<Position>,
    /// When the replica last had all that the home has.
    pub(super) level_at: Option<Instant>,
    pub(super) heard_at: Option<Instant>,
    pub(super) is_connected: bool,
    pub(super) differences: usize,
    pub(super) counts: Counts,
    pub(super) last_delay_ms: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Shared {
    prefix: String,
    home: Datacenter,
    /// None while nothing is known: then every key may be held.
    memory: RwLock<Option<Memory>>,
    view: Mutex<View>,
    applied: watch::Sender<Option<Position>>,
}

impl Shared {
    pub(super) fn new(prefix: &Prefix) -> Self {
        let view = View {
            stage: Stage::Standby,
            reason: None,
            at: None,
            tip: None,
            level_at: None,
            heard_at: None,
            is_connected: false,
            differences: 0,
            counts: Counts::default(),
            last_delay_ms: None,
        };
        Self {
            prefix: prefix.text.clone(),
            home: prefix.home.clone(),
            memory: RwLock::new(None),
            view: Mutex::new(view),
            applied: watch::Sender::new(None),
        }
    }

    pub(super) fn applied(&self) -> watch::Receiver<Option<Position>> {
        self.applied.subscribe()
    }

    /// Tells up to where everything is applied; none while this agent does not know, or while a snapshot goes in.
    pub(super) fn set_applied(&self, at: Option<Position>) {
        self.applied.send_if_modified(|applied| std::mem::replace(applied, at) != at);
    }

    /// The numbers and words. Held for a moment only.
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn memory(&self) -> RwLockReadGuard<'_, Option<Memory>> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn memory_mut(&self) -> RwLockWriteGuard<'_, Option<Memory>> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stage(&self) -> Stage {
        self.view().stage
    }

    /// Whether the local data is of one position, and this agent knows of it.
    fn is_whole(&self) -> bool {
        self.applied.borrow().is_some()
    }

    pub(super) fn indexes(&self, key: &str, local: u64) -> Indexes {
        let memory = self.memory();
        memory
            .as_ref()
            .filter(|_| self.is_whole())
            .map_or(Indexes::Unknown, |memory| memory.indexes(key, local))
    }

    pub(super) fn is_held(&self, key: &str) -> bool {
        !self.is_whole() || self.memory().as_ref().is_none_or(|memory| memory.may_be_held(key))
    }

    pub(super) fn has_held_below(&self, tree: &str) -> bool {
        !self.is_whole() || self.memory().as_ref().is_none_or(|memory| memory.may_hold_below(tree))
    }

    pub(super) fn known(&self) -> Option<Known> {
        let (position, hash) = self.view().at.clone()?;
        Some(Known { prefix: self.prefix.clone(), position, hash })
    }

    pub(super) fn lag(&self, now: Instant) -> Lag {
        self.view().lag(now)
    }

    pub(super) fn status(&self, now: Instant) -> ReplicaStatus {
        let (keys, held) =
            self.memory().as_ref().map_or((0, 0), |memory| (memory.len(), memory.held().count()));
        let view = self.view();
        ReplicaStatus {
            prefix: self.prefix.clone(),
            home: self.home.clone(),
            stage: view.stage,
            reason: view.reason.clone(),
            position: view.at.as_ref().map(|(position, _)| *position),
            hash: view.at.as_ref().map(|(_, hash)| hash.clone()),
            tip: view.tip,
            lag: view.lag(now),
            keys,
            held,
            differences: view.differences,
            counts: view.counts.clone(),
            last_delay_ms: view.last_delay_ms,
        }
    }
}

impl View {
    fn lag(&self, now: Instant) -> Lag {
        let since = |then: Instant| millis(now.saturating_duration_since(then));
        let at = self.at.as_ref().map(|(position, _)| *position);
        let entries = self.tip.map(|tip| tip.seq.saturating_sub(at.unwrap_or_default().seq));
        let is_level = self.is_connected && self.stage == Stage::Stream && at >= self.tip;
        Lag {
            entries,
            ms: if is_level && self.tip.is_some() { Some(0) } else { self.level_at.map(since) },
            silent_ms: self.heard_at.map(since),
            is_connected: self.is_connected,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

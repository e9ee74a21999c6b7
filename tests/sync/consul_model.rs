//! A Consul in memory: keys, sessions, transactions, indexes as 1.8.7 has them. Deterministic: time is an argument and
//! ids are counted. `compare` holds it against the real one; it knows nothing of replication.
//!
//! `txn` is how verbs act, `sessions` what ends a lock, `http` Consul's own answers, `store` the seam of the engine.

mod http;
mod sessions;
mod store;
mod txn;

use std::{collections::BTreeMap, time::Duration};

use causeway::model::{kv::Pair, session::SessionId};

pub(crate) use self::{
    http::{Ask, Told},
    sessions::Session,
    store::{Shared, Waits},
};

/// The most verbs of a transaction before Consul 1.14.
pub(crate) const MAX_OPS: usize = 64;

/// Of the body of a transaction and of a value (`kv_max_value_size`, `txn_max_req_len`).
pub(crate) const MAX_BODY_BYTES: usize = 512 * 1024;

/// What is called after everything that raft would have applied.
type Watcher = Box<dyn FnMut(&Model) + Send>;

/// One Consul.
pub(crate) struct Model {
    data: Snapshot,
    /// In the memory of the leader: lost when another leads.
    delays: BTreeMap<String, Duration>,
    now: Duration,
    max_ops: usize,
    /// How much later than its TTL a session ends, in percent of it: 0 to 100.
    slack: u32,
    made_sessions: u64,
    /// One more whenever waits that began before end.
    dropped_waits: u64,
    watcher: Option<Watcher>,
}

/// What a snapshot keeps.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    raft: u64,
    pairs: BTreeMap<String, Pair>,
    /// The index of the table of keys.
    index: u64,
    tombstones: BTreeMap<String, u64>,
    /// The index of the table of tombstones.
    graveyard: u64,
    sessions: BTreeMap<SessionId, Session>,
}

impl Model {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let data = Snapshot { raft: 10, ..Snapshot::default() };
        Self {
            data,
            delays: BTreeMap::new(),
            now: Duration::ZERO,
            max_ops: MAX_OPS,
            slack: 100,
            made_sessions: 0,
            dropped_waits: 0,
            watcher: None,
        }
    }

    /// Sessions end after their TTL and so many percent of it.
    pub(crate) fn with_slack(mut self, percent: u32) -> Self {
        self.slack = percent;
        self
    }

    /// Calls this after everything that changes something.
    pub(crate) fn observe(&mut self, watcher: Watcher) {
        self.watcher = Some(watcher);
    }

    /// All keys.
    pub(crate) fn pairs(&self) -> &BTreeMap<String, Pair> {
        &self.data.pairs
    }

    /// Lets time pass up to here: sessions end on the way. Time that is past already changes nothing.
    pub(crate) fn advance(&mut self, now: Duration) {
        while let Some((at, id)) = self.next_end().filter(|(at, _)| *at <= now) {
            self.now = self.now.max(at);
            self.end_session(&id);
        }
        self.now = self.now.max(now);
    }

    /// When the next session ends by itself.
    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        self.next_end().map(|(at, _)| at)
    }

    /// One key, with the index to wait on: the key's own, or that of the tables when it is missing.
    pub(crate) fn get(&self, key: &str) -> (u64, Option<Pair>) {
        let pair = self.data.pairs.get(key).cloned();
        (pair.as_ref().map_or(self.table_index(), |pair| pair.modify_index), pair)
    }

    /// All keys that begin so, with the index to wait on: the greatest of theirs and of the graves among them. Without
    /// any it is that of the tables, so that such a wait ends with whatever is written anywhere.
    pub(crate) fn list(&self, prefix: &str) -> (u64, Vec<Pair>) {
        let pairs: Vec<Pair> = under(&self.data.pairs, prefix).map(|(_, pair)| pair.clone()).collect();
        let newest = pairs.iter().map(|pair| pair.modify_index).max();
        let grave = under(&self.data.tombstones, prefix).map(|(_, index)| *index).max();
        let index = newest.max(grave).filter(|_| !prefix.is_empty());
        (index.unwrap_or_else(|| self.table_index()), pairs)
    }

    /// Forgets all graves, as Consul does with each after 15 minutes: the index of a list may go back.
    pub(crate) fn reap(&mut self) {
        self.data.raft += 1;
        self.data.tombstones.clear();
    }

    /// What `consul snapshot save` would write.
    pub(crate) fn save(&self) -> Snapshot {
        self.data.clone()
    }

    /// `consul snapshot restore`: into the same cluster raft's index goes on, into a fresh one it does not.
    pub(crate) fn restore(&mut self, snapshot: Snapshot, is_fresh: bool, waits: Waits) {
        let (raft, dropped_waits) = (self.data.raft, self.dropped_waits);
        self.data = snapshot;
        if !is_fresh {
            self.data.raft = self.data.raft.max(raft);
        }
        self.data.raft += 1;
        self.lead_anew();
        if waits == Waits::Hang {
            self.dropped_waits = dropped_waits;
        }
        self.changed();
    }

    /// Another server leads: every TTL begins anew, lock-delays are forgotten, waits end.
    pub(crate) fn lead_anew(&mut self) {
        self.delays.clear();
        self.dropped_waits += 1;
        let (now, slack) = (self.now, self.slack);
        self.data.sessions.values_mut().for_each(|session| session.renew(now, slack));
    }

    /// Consul never says 0: a client would wait on it for ever without waiting.
    fn table_index(&self) -> u64 {
        self.data.index.max(self.data.graveyard).max(1)
    }

    /// The index of the next entry of raft's log.
    fn next_index(&mut self) -> u64 {
        self.data.raft += 1;
        self.data.raft
    }

    fn changed(&mut self) {
        if let Some(mut watcher) = self.watcher.take() {
            watcher(self);
            self.watcher = Some(watcher);
        }
    }
}

/// What is in a map below a prefix.
pub(crate) fn under<'m, T>(
    map: &'m BTreeMap<String, T>,
    prefix: &'m str,
) -> impl Iterator<Item = (&'m String, &'m T)> {
    map.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
        .take_while(move |(key, _)| key.starts_with(prefix))
}

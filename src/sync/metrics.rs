//! What replication counts, as metrics: written from the status of the engine whenever somebody asks for them.

pub mod calls;

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{
    model::sync::{Position, PrefixId},
    sync::metrics::calls::CallMetrics,
};

/// From a lock that is free to the longest wait in line, which is 10 minutes.
const WAIT_BUCKETS: [f64; 11] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0, 45.0, 120.0, 600.0];

/// What a prefix's metrics are made from. A home has no lag; what this agent does not know is absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// The prefix.
    pub prefix: PrefixId,
    /// Whether its home is here.
    pub is_home: bool,
    /// Whether this agent does the work of the prefix in its datacenter.
    pub is_active: bool,
    /// How far it is.
    pub position: Option<Position>,
    /// How far a replica is behind.
    pub lag_seconds: Option<f64>,
    /// Whether a replica waits for an approval.
    pub is_held: bool,
    /// Keys with data, at a replica.
    pub keys: u64,
    /// Keys that are locks.
    pub locks: u64,
    /// Requests that wait, at home.
    pub queued: u64,
    /// The number in the last token given out.
    pub token: Option<u64>,
    /// How long the last snapshot took.
    pub snapshot_seconds: Option<f64>,
    /// What was counted since the engine started.
    pub counted: Counted,
}

/// Counts since the engine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Entries committed (home) or applied (replica).
    pub entries: u64,
    /// Verbs applied.
    pub ops: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Acquires that were granted.
    pub grants: u64,
    /// Edits past the agents that were found.
    pub local_edits: u64,
    /// Requests carried out.
    pub committed: u64,
    /// Requests that Consul rolled back.
    pub rolled_back: u64,
    /// Requests answered from memory.
    pub repeated: u64,
    /// Transactions whose outcome had to be looked up.
    pub unknown: u64,
}

/// The metrics. Clones count into the same ones.
#[derive(Clone, Debug, Default)]
pub struct SyncMetrics {
    epoch: Family<ByPrefix, Gauge>,
    seq: Family<ByPrefix, Gauge>,
    lag: Family<ByPrefix, Gauge<f64, AtomicU64>>,
    active: Family<ByPrefix, Gauge>,
    hold: Family<ByPrefix, Gauge>,
    keys: Family<ByPrefix, Gauge>,
    locks: Family<ByPrefix, Gauge>,
    queued: Family<ByPrefix, Gauge>,
    entries: Family<ByRole, Counter>,
    ops: Family<ByPrefix, Counter>,
    snapshots: Family<ByPrefix, Counter>,
    local_edits: Family<ByPrefix, Counter>,
    requests: Family<ByOutcome, Counter>,
    grants: Family<ByPrefix, Counter>,
    token: Family<ByPrefix, Gauge>,
    snapshot_seconds: Family<ByPrefix, Gauge<f64, AtomicU64>>,
    pub(crate) restarts: Counter,
    /// How long locks were waited for.
    pub lock_waits: LockWaits,
    /// Calls of other agents.
    pub calls: CallMetrics,
}

/// How long requests of the lock API waited until they had the lock. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct LockWaits(Family<ByPrefix, Histogram, fn() -> Histogram>);

impl Default for LockWaits {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(WAIT_BUCKETS)))
    }
}

impl LockWaits {
    /// Those of a prefix.
    pub fn of(&self, prefix: &PrefixId) -> Histogram {
        self.0.get_or_create(&ByPrefix { prefix: prefix.as_str().to_owned() }).clone()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPrefix {
    prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRole {
    prefix: String,
    role: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    prefix: String,
    outcome: &'static str,
}

impl SyncMetrics {
    /// Registers the metrics under their names.
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        let mut gauge = |name, help, family: &Family<ByPrefix, Gauge>| {
            registry.register(name, help, family.clone());
        };
        gauge(
            "causeway_sync_active",
            "1 while this agent does the work of the prefix in its datacenter",
            &it.active,
        );
        gauge(
            "causeway_sync_epoch",
            "The epoch of the prefix, which counts the histories of its home",
            &it.epoch,
        );
        gauge("causeway_sync_hold", "1 while the replica waits for an approval", &it.hold);
        gauge("causeway_sync_keys", "Keys of the replica", &it.keys);
        gauge(
            "causeway_sync_locks",
            "Keys of the prefix that are locks, as far as this agent knows",
            &it.locks,
        );
        gauge("causeway_sync_queued_requests", "Writes that wait for a transaction at home", &it.queued);
        gauge("causeway_sync_seq", "The last journal entry that this agent knows", &it.seq);
        let help = "Since when the replica is not known to have all that its home has";
        registry.register("causeway_sync_lag_seconds", help, it.lag.clone());
        let help = "Journal entries by role (committed at home, applied at a replica)";
        registry.register("causeway_sync_entries", help, it.entries.clone());
        let mut counter = |name, help, family: &Family<ByPrefix, Counter>| {
            registry.register(name, help, family.clone());
        };
        counter("causeway_sync_apply_ops", "Verbs of the transactions that applied entries", &it.ops);
        counter("causeway_sync_snapshots", "Snapshots that the replica took whole", &it.snapshots);
        let help = "Keys of the replica that somebody else changed, found and taken back";
        counter("causeway_sync_local_edits", help, &it.local_edits);
        counter("causeway_sync_lock_grants", "Acquires of locks that were granted at home", &it.grants);
        let help =
            "Writes at home by outcome (committed, rolled_back, repeated, unknown: looked up afterwards)";
        registry.register("causeway_sync_requests", help, it.requests.clone());
        let help =
            "The number in the last token that was given out for a lock at home; the epoch stands before it";
        registry.register("causeway_sync_lock_token", help, it.token.clone());
        let help = "From a request of the lock API to its grant";
        registry.register("causeway_sync_lock_wait_seconds", help, it.lock_waits.0.clone());
        let help = "How long the replica's last snapshot took, from its first question to its last key";
        registry.register("causeway_sync_snapshot_seconds", help, it.snapshot_seconds.clone());
        it.calls.register(registry);
        let help = "Starts of replication after it had failed";
        registry.register("causeway_sync_restarts", help, it.restarts.clone());
        it
    }

    /// Takes over how all prefixes stand now.
    pub fn observe(&self, prefixes: &[Figures]) {
        prefixes.iter().for_each(|figures| self.observe_one(figures));
    }

    fn observe_one(&self, figures: &Figures) {
        let prefix = || figures.prefix.as_str().to_owned();
        let by_prefix = || ByPrefix { prefix: prefix() };
        let set = |family: &Family<ByPrefix, Gauge>, value: u64| {
            family.get_or_create(&by_prefix()).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.active, figures.is_active.into());
        if let Some(position) = figures.position {
            set(&self.epoch, position.epoch.into());
            set(&self.seq, position.seq);
        }
        let Counted {
            entries,
            ops,
            snapshots,
            grants,
            local_edits,
            committed,
            rolled_back,
            repeated,
            unknown,
        } = figures.counted;
        let role = if figures.is_home { "home" } else { "replica" };
        raise(&self.entries.get_or_create(&ByRole { prefix: prefix(), role }), entries);
        set(&self.locks, figures.locks);
        if figures.is_home {
            set(&self.queued, figures.queued);
            raise(&self.grants.get_or_create(&by_prefix()), grants);
            drop(self.lock_waits.of(&figures.prefix));
            if let Some(token) = figures.token {
                set(&self.token, token);
            }
            for (outcome, count) in [
                ("committed", committed),
                ("rolled_back", rolled_back),
                ("repeated", repeated),
                ("unknown", unknown),
            ] {
                raise(&self.requests.get_or_create(&ByOutcome { prefix: prefix(), outcome }), count);
            }
            return;
        }
        set(&self.hold, figures.is_held.into());
        set(&self.keys, figures.keys);
        for (family, count) in
            [(&self.ops, ops), (&self.snapshots, snapshots), (&self.local_edits, local_edits)]
        {
            raise(&family.get_or_create(&by_prefix()), count);
        }
        if let Some(seconds) = figures.snapshot_seconds {
            self.snapshot_seconds.get_or_create(&by_prefix()).set(seconds);
        }
        match figures.lag_seconds {
            Some(seconds) => drop(self.lag.get_or_create(&by_prefix()).set(seconds)),
            // Not known: no number says so.
            None => drop(self.lag.remove(&by_prefix())),
        }
    }
}

/// Counters of an engine begin anew when it is started again: for Prometheus that is a reset like that of a process.
fn raise(counter: &Counter, count: u64) {
    counter.inner().store(count, Ordering::Relaxed);
}

impl Figures {
    /// One of each kind with a number in every place, from which the page of metrics is written.
    pub fn examples() -> [Self; 2] {
        let home = Self {
            prefix: PrefixId::of("config/"),
            is_home: true,
            is_active: true,
            position: Some(Position { epoch: 1, seq: 1 }),
            lag_seconds: None,
            is_held: false,
            keys: 0,
            locks: 0,
            queued: 0,
            token: Some(1),
            snapshot_seconds: None,
            counted: Counted::default(),
        };
        let replica = Self {
            prefix: PrefixId::of("locks/"),
            is_home: false,
            lag_seconds: Some(0.0),
            token: None,
            snapshot_seconds: Some(0.0),
            ..home.clone()
        };
        [home, replica]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn what_is_not_known_is_absent_and_not_zero() {
        let mut registry = Metrics::new();
        let metrics = SyncMetrics::register(registry.registry_mut());
        let [_, replica] = Figures::examples();
        metrics.observe(std::slice::from_ref(&replica));
        assert!(registry.encode().contains("causeway_sync_lag_seconds{"));
        metrics.observe(&[Figures { lag_seconds: None, ..replica }]);
        assert!(!registry.encode().contains("causeway_sync_lag_seconds{"));
    }
}

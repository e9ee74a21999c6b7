//! The engine's status as figures for its metrics.

use crate::sync::{
    metrics::{Counted, Figures},
    replica::machine::Stage,
    status::{PrefixStatus, SyncStatus},
};

/// Those of all prefixes.
pub(in crate::app) fn figures(status: &SyncStatus) -> Vec<Figures> {
    status.prefixes.iter().map(of_prefix).collect()
}

fn of_prefix(status: &PrefixStatus) -> Figures {
    let mut figures = Figures {
        prefix: status.id.clone(),
        is_home: status.as_home.is_some(),
        is_active: status.is_active,
        position: None,
        lag_seconds: None,
        is_held: false,
        keys: 0,
        locks: 0,
        queued: 0,
        token: None,
        snapshot_seconds: None,
        counted: Counted::default(),
    };
    if let Some(home) = &status.as_home {
        figures.position = home.position;
        figures.locks = count(home.locks);
        figures.queued = count(home.queued);
        figures.token = home.last_token.map(|token| token.n);
        figures.counted = Counted {
            entries: home.entries_total,
            committed: home.requests_total,
            rolled_back: home.rolled_back_total,
            repeated: home.repeated_total,
            unknown: home.unknown_total,
            grants: home.lock_grants_total,
            ..Counted::default()
        };
    }
    if let Some(replica) = &status.as_replica {
        figures.position = replica.position;
        figures.lag_seconds = replica.lag.ms.filter(|_| status.is_active).map(|ms| ms as f64 / 1000.0);
        figures.snapshot_seconds = replica.counts.snapshot_ms.map(|ms| ms as f64 / 1000.0);
        figures.is_held = replica.stage == Stage::Hold;
        figures.keys = count(replica.keys);
        figures.locks = count(replica.held);
        figures.counted = Counted {
            entries: replica.counts.entries,
            ops: replica.counts.ops,
            snapshots: replica.counts.snapshots,
            local_edits: replica.counts.local_edits,
            ..Counted::default()
        };
    }
    figures
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

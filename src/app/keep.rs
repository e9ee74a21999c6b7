//! The last known good at the agent's two ends: read before anything starts, and kept from then on.

use std::{path::Path, sync::Arc};

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tracing::info;

use crate::{
    config::state::StateSettings,
    consul::watch::Watches,
    lifecycle::{self, Stop, supervise::Supervisor},
    model::catalog::Topics,
    state::{
        format::Kind,
        keeper::{Keeper, Sources},
        memory::{TokenMemory, epoch_s},
        metrics::StateMetrics,
        store::{Loaded, Store},
    },
    sync::positions::{Disk, Positions},
};

/// What an earlier run kept, and who keeps it on.
pub(super) struct LastKnownGood {
    /// Topics with their kept answers.
    pub(super) topics: Topics,
    /// Which tokens passed.
    pub(super) memory: TokenMemory,
    /// How far replication saw its prefixes committed.
    pub(super) positions: Positions,
    keeper: Option<Keeper>,
}

impl LastKnownGood {
    /// Reads it. Nothing on disk is a reason not to start.
    pub(super) fn read(settings: &StateSettings, metrics: StateMetrics) -> Self {
        let (loaded, keeper) = match &settings.dir {
            Some(dir) => open(dir, settings.persist_keys, metrics),
            None => {
                info!(
                    "no [state] dir and no STATE_DIRECTORY: nothing is kept for a start while Consul is away"
                );
                (Loaded::default(), None)
            }
        };
        let memory = TokenMemory::new(loaded.tokens, settings.token_max_age);
        let positions = match &settings.dir {
            Some(dir) => Positions::on(PositionsFile::of(dir), &loaded.positions),
            None => Positions::default(),
        };
        Self { topics: loaded.topics, memory, positions, keeper }
    }

    /// Starts the task that keeps it.
    pub(super) fn keep(self, watches: &Watches, supervisor: &mut Supervisor, stop: Stop) {
        if let Some(keeper) = self.keeper {
            let (catalog, shelf, tokens) = (watches.catalog(), watches.shelf(), self.memory);
            supervisor.start("state.keep", keeper.run(Sources { catalog, shelf, tokens }, stop));
        }
    }
}

fn open(dir: &Path, keys: bool, metrics: StateMetrics) -> (Loaded, Option<Keeper>) {
    let mut store = Store::new(dir);
    let loaded = store.load(keys, epoch_s(lifecycle::wall_clock()));
    (loaded, Some(Keeper::new(store, keys, metrics)))
}

/// The file of positions. Replication writes it itself, since some of its answers wait for that.
struct PositionsFile(Arc<Mutex<Store>>);

impl PositionsFile {
    fn of(dir: &Path) -> Self {
        Self(Arc::new(Mutex::new(Store::new(dir))))
    }
}

impl Disk for PositionsFile {
    fn write(&self, body: String) -> BoxFuture<'static, Result<(), String>> {
        let store = self.0.clone();
        Box::pin(async move {
            // The thread has the lock until it is done, whether anybody waits for it or not.
            let mut store = store.lock_owned().await;
            let now_s = epoch_s(lifecycle::wall_clock());
            let write = move || store.write(Kind::Positions, now_s, &body).map(drop);
            let written = tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?;
            written.map_err(|error| error.to_string())
        })
    }
}

//! The last known good at the agent's two ends: read before anything starts, and kept from then on.

use std::path::Path;

use tracing::info;

use crate::{
    config::state::StateSettings,
    consul::watch::Watches,
    lifecycle::{self, Stop, supervise::Supervisor},
    model::catalog::Topics,
    state::{
        keeper::{Keeper, Sources},
        memory::{TokenMemory, epoch_s},
        metrics::StateMetrics,
        store::{Loaded, Store},
    },
};

/// What an earlier run kept, and who keeps it on.
pub(super) struct LastKnownGood {
    /// Topics with their kept answers.
    pub(super) topics: Topics,
    /// Which tokens passed.
    pub(super) memory: TokenMemory,
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
        Self { topics: loaded.topics, memory, keeper }
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

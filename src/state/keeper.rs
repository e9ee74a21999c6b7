//! The task that writes. It looks at the latest values of others, off their way, and is told to stop like any other:
//! then it writes once more.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tracing::{debug, info, warn};

use crate::{
    lifecycle::{self, Stop},
    model::catalog::{Catalog, Topics},
    state::{
        format::Kind,
        keep::Keep,
        memory::{TokenMemory, epoch_s},
        metrics::StateMetrics,
        pace::Pace,
        record,
        store::{StateError, Store},
        tokens::Tokens,
    },
};

/// Keeps the last known good.
pub struct Keeper {
    store: Store,
    keys: bool,
    metrics: StateMetrics,
    is_failing: bool,
    pace: Pace,
    started: Instant,
    expiry: Option<Instant>,
}

/// What is kept, as it changes.
pub struct Sources {
    /// What is in use.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// What an earlier run kept and was not used yet.
    pub shelf: watch::Receiver<Arc<Topics>>,
    /// The tokens that passed.
    pub tokens: TokenMemory,
}

/// One writing, to be done where it may block.
struct Job {
    store: Store,
    catalog: Arc<Catalog>,
    shelf: Arc<Topics>,
    tokens: Tokens,
    keys: bool,
    now_s: u64,
}

/// What came of one.
struct Done {
    store: Store,
    written: Result<u64, StateError>,
    next_expiry_s: Option<u64>,
}

impl Keeper {
    /// A keeper of these files; private keys are written only with `keys`.
    pub fn new(store: Store, keys: bool, metrics: StateMetrics) -> Self {
        let (pace, started) = (Pace::default(), lifecycle::now());
        Self { store, keys, metrics, is_failing: false, pace, started, expiry: None }
    }

    /// Writes what changes, until stopped or until nobody is left who could change anything.
    pub async fn run(mut self, mut sources: Sources, stop: Stop) {
        let mut tokens = sources.tokens.subscribe();
        // What the files lack of the present is to be written, and nothing is if they lack nothing.
        self.pace.changed(self.elapsed());
        loop {
            let due = self.pace.due().map(|at| self.started + at);
            self.metrics.pending.set(i64::from(due.is_some()));
            tokio::select! {
                () = stop.wait() => break,
                changed = sources.catalog.changed() => if changed.is_err() { break },
                changed = sources.shelf.changed() => if changed.is_err() { break },
                changed = tokens.changed() => if changed.is_err() { break },
                () = until(self.expiry) => self.expiry = None,
                () = until(due) => {
                    self.write(&sources).await;
                    continue;
                }
            }
            self.pace.changed(self.elapsed());
        }
        self.write(&sources).await;
        stop.wait().await;
    }

    async fn write(&mut self, sources: &Sources) {
        self.pace.begun();
        let now_s = epoch_s(lifecycle::wall_clock());
        let dir = self.store.dir().to_owned();
        let job = Job {
            store: std::mem::replace(&mut self.store, Store::new(&dir)),
            catalog: sources.catalog.borrow().clone(),
            shelf: sources.shelf.borrow().clone(),
            tokens: sources.tokens.recent(now_s),
            keys: self.keys,
            now_s,
        };
        match tokio::task::spawn_blocking(move || job.run()).await {
            Ok(done) => {
                self.store = done.store;
                let in_s = done.next_expiry_s.map(|at_s| at_s.saturating_sub(now_s).max(1));
                self.expiry = in_s.map(|s| lifecycle::now() + Duration::from_secs(s));
                self.tell(done.written);
            }
            Err(error) => {
                warn!(%error, "last known good not written, which is a fault of this program");
                self.pace.failed(self.elapsed());
            }
        }
    }

    /// Says when it begins to fail, and when that ends; what comes between is counted.
    fn tell(&mut self, written: Result<u64, StateError>) {
        let dir = self.store.dir().display();
        match written {
            Ok(bytes) => {
                if self.is_failing {
                    info!(%dir, "last known good is written again");
                }
                if bytes > 0 {
                    debug!(%dir, bytes, "last known good written");
                }
                if bytes > 0 || self.is_failing {
                    self.metrics.wrote(bytes);
                }
                self.is_failing = false;
                self.pace.wrote(self.started.elapsed(), bytes);
            }
            Err(error) => {
                if !self.is_failing {
                    warn!(%dir, %error, "last known good not written; an agent that starts while Consul is away will serve older values, or none");
                }
                self.is_failing = true;
                self.metrics.failed();
                match error {
                    // To encode all of it again before it has changed would come to the same.
                    StateError::TooLong { .. } => self.pace.gave_up(self.elapsed()),
                    StateError::Io { .. } | StateError::Exposed { .. } => self.pace.failed(self.elapsed()),
                }
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Job {
    fn run(mut self) -> Done {
        let keep = Keep::of(&self.catalog, &self.shelf, self.now_s);
        let next_expiry_s = keep.next_expiry_s().filter(|_| self.keys);
        let mut written = Ok(0);
        // One that fails does not keep the others from being written. The first reason is told, but for one that ends only
        // with a change: the others are worth another try.
        for kind in Kind::ALL {
            let body = match kind {
                // Replication writes them itself, when it must.
                Kind::Positions => continue,
                Kind::Keys if !self.keys => continue,
                Kind::Keys => record::write_leaves(&keep),
                Kind::Catalog => record::write_topics(&keep),
                Kind::Tokens => record::write_tokens(&self.tokens),
            };
            let is_nothing = match kind {
                Kind::Tokens => self.tokens.passed.is_empty(),
                Kind::Keys | Kind::Catalog | Kind::Positions => body.is_empty(),
            };
            if is_nothing && !self.store.has(kind) {
                continue;
            }
            written = match (written, self.store.write(kind, self.now_s, &body)) {
                (Ok(before), Ok(bytes)) => Ok(before + bytes),
                (Ok(_) | Err(StateError::TooLong { .. }), Err(error)) => Err(error),
                (Err(error), _) => Err(error),
            };
        }
        Done { written, next_expiry_s, store: self.store }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

//! How far this agent saw each prefix committed, kept where its next run finds it.
//!
//! A home that was restored from a snapshot while no other datacenter can be asked looks as if it never had more, and would
//! hand out the same tokens again. What stands here says otherwise: at least this was committed. So an answer with
//! a token waits until the position of its grant is on disk; all else is written within a moment, and holds nothing up.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    lifecycle,
    model::sync::Position,
    sync::{peer::Known, record::Hash},
};

/// After a writing that came to nothing: until then answers wait for none.
const RETRY: Duration = Duration::from_secs(10);

/// Where they are written.
pub trait Disk: Send + Sync + 'static {
    /// Puts this in the place of what was there. On the disk when it returns; two at a time come to the later one, also
    /// when whoever waited for the first has gone away.
    fn write(&self, body: String) -> BoxFuture<'static, Result<(), String>>;
}

/// The newest position of each prefix. Clones are the same ones; without a disk they end with the process.
#[derive(Clone, Default)]
pub struct Positions(Arc<Inner>);

#[derive(Default)]
struct Inner {
    known: Mutex<BTreeMap<String, Known>>,
    disk: Option<Box<dyn Disk>>,
    /// Held while it is written, so that those who wait find it done.
    written: tokio::sync::Mutex<Written>,
}

#[derive(Default)]
struct Written {
    positions: BTreeMap<String, Position>,
    failed_at: Option<Instant>,
}

impl fmt::Debug for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Positions").field("on_disk", &self.0.disk.is_some()).finish_non_exhaustive()
    }
}

impl Positions {
    /// Those that an earlier run left on this disk.
    pub fn on(disk: impl Disk, body: &str) -> Self {
        let known = decode(body);
        let positions = known.iter().map(|(prefix, known)| (prefix.clone(), known.position)).collect();
        Self(Arc::new(Inner {
            known: Mutex::new(known),
            disk: Some(Box::new(disk)),
            written: tokio::sync::Mutex::new(Written { positions, failed_at: None }),
        }))
    }

    /// This was committed.
    pub fn learn(&self, known: &Known) {
        let mut all = self.known_now();
        let is_new = all.get(&known.prefix).is_none_or(|old| old.position < known.position);
        if is_new && known.position != Position::default() {
            all.insert(known.prefix.clone(), known.clone());
        }
    }

    /// The newest of a prefix.
    pub fn known(&self, prefix: &str) -> Option<Known> {
        self.known_now().get(prefix).cloned()
    }

    /// Waits until a position that was learned of is on the disk. A disk that refuses, or none, holds nobody up.
    pub async fn kept(&self, prefix: &str, at: Position) {
        let Some(disk) = &self.0.disk else { return };
        let mut written = self.0.written.lock().await;
        if written.positions.get(prefix).is_none_or(|on_disk| *on_disk < at) {
            self.write(disk.as_ref(), &mut written).await;
        }
    }

    /// Writes what is not on the disk yet.
    pub async fn flush(&self) {
        if let Some(disk) = &self.0.disk {
            self.write(disk.as_ref(), &mut *self.0.written.lock().await).await;
        }
    }

    async fn write(&self, disk: &dyn Disk, written: &mut Written) {
        let known = self.known_now().clone();
        let positions: BTreeMap<String, Position> =
            known.iter().map(|(prefix, known)| (prefix.clone(), known.position)).collect();
        let is_too_soon = written.failed_at.is_some_and(|at| at + RETRY > lifecycle::now());
        if positions == written.positions || is_too_soon {
            return;
        }
        match disk.write(encode(&known)).await {
            Ok(()) => {
                written.positions = positions;
                if written.failed_at.take().is_some() {
                    tracing::info!("positions of prefixes are written again");
                }
            }
            Err(reason) => {
                if written.failed_at.replace(lifecycle::now()).is_none() {
                    tracing::warn!(
                        reason,
                        "positions of prefixes not written; a home that is restored while nobody can be asked may not be noticed"
                    );
                }
            }
        }
    }

    fn known_now(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A prefix as it is written, one a line.
#[derive(Serialize, Deserialize)]
struct Line {
    prefix: String,
    #[serde(flatten)]
    position: Position,
    hash: Hash,
}

fn encode(known: &BTreeMap<String, Known>) -> String {
    let line = |known: &Known| {
        let Known { prefix, position, hash } = known.clone();
        let line = Line { prefix, position, hash };
        serde_json::to_string(&line).expect("texts and numbers") + "\n"
    };
    known.values().map(line).collect()
}

/// The positions in a file's body, written again: for whoever checks that nothing read is lost.
pub fn rewritten(body: &str) -> String {
    encode(&decode(body))
}

/// What another release wrote in another way is left out: it would be a guess.
fn decode(body: &str) -> BTreeMap<String, Known> {
    let lines = body.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let known = lines.map(|Line { prefix, position, hash }| Known { prefix, position, hash });
    known.map(|known| (known.prefix.clone(), known)).collect()
}

#[cfg(test)]
pub(crate) mod tests;

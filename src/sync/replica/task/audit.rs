//! The audit: a local list beside the memory while the stream goes on, and a second look at what seems wrong in it.

use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout};
use tracing::info;

use crate::{
    lifecycle,
    model::kv::Pair,
    sync::{
        peer::Peers,
        replica::{
            audit::{self, Verdict},
            task::{End, LIST, Worker, listed, since},
        },
        store::{Read, Store},
    },
};

/// The next audit comes after so many times as long as the list of this one took, at the least: a list of a million keys
/// costs Consul seconds.
const REST: u32 = 20;

/// An audit that is due, or under way.
pub(super) struct Audit {
    /// When the next one is due.
    pub(super) due: Instant,
    began: Instant,
    /// The greatest local index known when the list was asked for.
    known: u64,
    list: Option<BoxFuture<'static, Result<Vec<Pair>, End>>>,
    suspects: Vec<String>,
}

impl Audit {
    /// Whether none is under way.
    pub(super) fn is_resting(&self) -> bool {
        self.list.is_none() && self.suspects.is_empty()
    }

    /// The list. Cancel-safe.
    pub(super) async fn listed(&mut self) -> Result<Vec<Pair>, End> {
        match &mut self.list {
            Some(list) => {
                let answer = list.await;
                self.list = None;
                answer
            }
            None => std::future::pending().await,
        }
    }
}

impl<S: Store, P: Peers> Worker<S, P> {
    pub(super) fn next_audit(&mut self) -> Audit {
        let began = lifecycle::now();
        let due = began + self.settings.audit.max(std::mem::take(&mut self.audit_rest));
        Audit { due, began, known: 0, list: None, suspects: Vec::new() }
    }

    pub(super) fn begin_audit(&self, audit: &mut Audit) -> Result<(), End> {
        (audit.began, audit.known) = (lifecycle::now(), self.progress()?.index);
        let (store, prefix) = (self.store.clone(), self.settings.prefix.text.clone());
        audit.list = Some(Box::pin(async move {
            listed(&prefix, timeout(LIST, store.list(&prefix, Read::Default)).await)
        }));
        Ok(())
    }

    /// A list that failed says nothing about any key.
    pub(super) fn audited(&self, audit: &mut Audit, list: Result<Vec<Pair>, End>) {
        audit.due = lifecycle::now() + self.settings.audit.max(since(audit.began) * REST);
        match list {
            Ok(list) => {
                if let Some(memory) = self.shared.memory().as_ref() {
                    audit.suspects = audit::suspects(&list, memory, audit.known);
                }
            }
            Err(End::Failed(error)) => {
                info!(prefix = self.settings.prefix.text, error, "no audit: the keys cannot be listed now");
            }
            Err(_) => {}
        }
    }

    /// Reads each suspect, while nothing is out.
    pub(super) async fn look_closer(&mut self, audit: &mut Audit) -> Result<(), End> {
        let mut edits = 0;
        for key in std::mem::take(&mut audit.suspects) {
            let pair = self.read(&key).await?;
            let mut memory = self.shared.memory_mut();
            let Some(memory) = memory.as_mut() else { continue };
            match audit::verdict(&key, pair.as_ref(), memory) {
                Verdict::Fine => {}
                Verdict::Restored(local) => memory.heal(&key, local),
                Verdict::Edited => edits += 1,
            }
        }
        if edits > 0 { Err(self.edited(edits)) } else { Ok(()) }
    }
}

//! The audit: a local list beside the memory while the stream goes on, and a second look at what seems wrong in it.

use tokio::time::Instant;
use tracing::info;

use crate::{
    lifecycle,
    model::kv::Pair,
    sync::{
        peer::Peers,
        replica::{
            audit::{self, Look, Verdict},
            task::{End, Worker, scan::Scan, since},
        },
        store::{Read, Store},
    },
};

/// The next audit comes after so many times as long as this one took, at the least: a list of a million keys costs
/// Consul seconds.
const REST: u32 = 20;

/// An audit that is due, or under way.
pub(super) struct Audit {
    /// When the next one is due.
    pub(super) due: Instant,
    began: Instant,
    list: Option<(Scan, Look)>,
    suspects: Vec<String>,
}

impl Audit {
    /// Whether none is under way.
    pub(super) fn is_resting(&self) -> bool {
        self.list.is_none() && self.suspects.is_empty()
    }

    /// The next page of the list; none behind the last. Cancel-safe.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<Pair>>, End> {
        match &mut self.list {
            Some((scan, _)) => scan.next().await,
            None => std::future::pending().await,
        }
    }
}

impl<S: Store, P: Peers> Worker<S, P> {
    pub(super) fn next_audit(&mut self) -> Audit {
        let began = lifecycle::now();
        let due = began + self.settings.audit.max(std::mem::take(&mut self.audit_rest));
        Audit { due, began, list: None, suspects: Vec::new() }
    }

    pub(super) fn begin_audit(&self, audit: &mut Audit) -> Result<(), End> {
        audit.began = lifecycle::now();
        let scan = Scan::begin(&self.store, &self.settings.prefix.text, Read::Default);
        audit.list = Some((scan, Look::new(self.progress()?.index)));
        Ok(())
    }

    /// Takes a page. A list that failed says nothing about any key.
    pub(super) fn audited(&self, audit: &mut Audit, page: Result<Option<Vec<Pair>>, End>) {
        let memory = self.shared.memory();
        let (Some((scan, mut look)), Some(memory)) = (audit.list.take(), memory.as_ref()) else { return };
        match page {
            Ok(Some(page)) => {
                look.take(&page, memory);
                audit.list = Some((scan, look));
                return;
            }
            Ok(None) => audit.suspects = look.end(memory),
            Err(End::Failed(error)) => {
                info!(prefix = self.settings.prefix.text, error, "no audit: the keys cannot be listed now");
            }
            Err(_) => {}
        }
        audit.due = lifecycle::now() + self.settings.audit.max(since(audit.began) * REST);
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

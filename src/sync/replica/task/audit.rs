//! The audit: what stands in Consul beside what this agent wrote last and remembers, while the stream goes on. The state
//! record first, then a list of the data and one of the marks, and a second look at what seems wrong in them.

use std::collections::BTreeSet;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    lifecycle,
    model::kv::Pair,
    sync::{
        peer::Peers,
        replica::{
            audit::{self, Edits, Look, Marks, Verdict},
            indexes::{self, Memory},
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
    step: Step,
    suspects: Vec<String>,
}

/// What is looked at. The first and the last only while nothing is being applied.
enum Step {
    Rest,
    State,
    Data(Scan, Look),
    Marks(Scan, Marks),
    /// These keys' marks, beside the suspects of the data.
    Suspects(Vec<String>),
}

impl Audit {
    /// Whether none is under way.
    pub(super) fn is_resting(&self) -> bool {
        matches!(self.step, Step::Rest)
    }

    /// Begins it.
    pub(super) fn begin(&mut self) {
        (self.began, self.step) = (lifecycle::now(), Step::State);
    }

    /// The next page of a list; none behind the last. Cancel-safe.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<Pair>>, End> {
        match &mut self.step {
            Step::Data(scan, _) | Step::Marks(scan, _) => scan.next().await,
            Step::Rest | Step::State | Step::Suspects(_) => std::future::pending().await,
        }
    }
}

impl<S: Store, P: Peers> Worker<S, P> {
    pub(super) fn next_audit(&mut self) -> Audit {
        let began = lifecycle::now();
        let due = began + self.settings.audit.max(std::mem::take(&mut self.audit_rest));
        Audit { due, began, step: Step::Rest, suspects: Vec::new() }
    }

    /// Takes a page. A list that failed says nothing about any key.
    pub(super) fn audited(&self, audit: &mut Audit, page: Result<Option<Vec<Pair>>, End>) {
        let step = std::mem::replace(&mut audit.step, Step::Rest);
        let memory = self.shared.memory();
        let listed = page.map(|page| match (page, memory.as_ref()) {
            (Some(page), Some(memory)) => self.take_page(step, &page, memory),
            (None, Some(memory)) => self.end_list(audit, step, memory),
            (_, None) => Step::Rest,
        });
        drop(memory);
        match listed {
            Ok(Step::Rest) => self.rest(audit),
            Ok(step) => audit.step = step,
            Err(end) => self.give_up(audit, end),
        }
    }

    fn take_page(&self, mut step: Step, page: &[Pair], memory: &Memory) -> Step {
        match &mut step {
            Step::Data(_, look) => look.take(page, memory),
            Step::Marks(_, marks) => {
                let marked: Vec<&str> =
                    page.iter().filter_map(|pair| self.layout.is_held(&pair.key)).collect();
                marks.take(&marked, memory);
            }
            Step::Rest | Step::State | Step::Suspects(_) => {}
        }
        step
    }

    fn end_list(&self, audit: &mut Audit, step: Step, memory: &Memory) -> Step {
        match step {
            Step::Data(_, look) => {
                audit.suspects = look.end(memory);
                let scan = Scan::begin(&self.store, &self.layout.all_held(), Read::Default);
                Step::Marks(scan, Marks::default())
            }
            Step::Marks(_, marks) => Step::Suspects(marks.end(memory)),
            step => step,
        }
    }

    /// What is to be done while nothing is out.
    pub(super) async fn look_closer(&mut self, audit: &mut Audit) -> Result<(), End> {
        match &mut audit.step {
            Step::State => match self.foreign_state().await {
                Ok(None) => {
                    let scan = Scan::begin(&self.store, &self.settings.prefix.text, Read::Default);
                    audit.step = Step::Data(scan, Look::new(self.progress()?.index));
                }
                // The next attempt begins with the one that is there.
                Ok(Some(why)) => return Err(End::Failed(why)),
                Err(end) => self.give_up(audit, end),
            },
            Step::Suspects(marks) => {
                let (keys, marks) = (std::mem::take(&mut audit.suspects), std::mem::take(marks));
                self.rest(audit);
                match self.edits_among(keys, &marks).await {
                    Ok((keys, 0)) if keys.is_empty() => {}
                    Ok((keys, marks)) => return Err(self.edited(keys, marks)),
                    Err(end) => self.give_up(audit, end),
                }
            }
            Step::Rest | Step::Data(..) | Step::Marks(..) => {}
        }
        Ok(())
    }

    /// What is wrong with the state record, if it is not the one that was written last.
    async fn foreign_state(&self) -> Result<Option<String>, End> {
        let key = self.layout.state();
        let index = self.read(&key).await?.map_or(0, |pair| pair.modify_index);
        if self.progress()?.index == index {
            return Ok(None);
        }
        let what = if index == 0 { "is gone" } else { "is not the one that was written last" };
        Ok(Some(format!(
            "{key} {what}: Consul was restored here, or somebody else wrote it; replication goes on from what is there"
        )))
    }

    /// Which suspects, and how many marks, prove to be edits.
    async fn edits_among(
        &self,
        keys: Vec<String>,
        marks: &[String],
    ) -> Result<(BTreeSet<String>, usize), End> {
        let mut edited = BTreeSet::new();
        for key in keys {
            let now = self.read(&key).await?;
            let mut memory = self.shared.memory_mut();
            let Some(memory) = memory.as_mut() else { continue };
            match audit::verdict(&key, now.as_ref().map(indexes::here), memory) {
                Verdict::Fine => {}
                Verdict::Restored(local) => memory.heal(&key, local),
                Verdict::Edited => drop(edited.insert(key)),
            }
        }
        let mut wrong = 0;
        for key in marks {
            let is_marked = self.read(&self.layout.held(key)).await?.is_some();
            let is_held = self.shared.memory().as_ref().map(|memory| memory.is_held(key));
            wrong += usize::from(is_held.is_some_and(|is_held| is_held != is_marked));
        }
        Ok((edited, wrong))
    }

    /// Keys hold here what home never said, and so many marks are not as they were left.
    pub(super) fn edited(&mut self, keys: BTreeSet<String>, marks: usize) -> End {
        self.tell_edits(keys.len() + marks);
        self.edits = Edits::but(keys);
        End::Anew("keys were edited here")
    }

    pub(super) fn tell_edits(&self, keys: usize) {
        self.shared.view().counts.local_edits += keys as u64;
        let prefix = &self.settings.prefix.text;
        warn!(
            prefix,
            keys, "keys of a replica were edited in its own datacenter; the home's data is restored"
        );
    }

    fn rest(&self, audit: &mut Audit) {
        audit.step = Step::Rest;
        audit.due = lifecycle::now() + self.settings.audit.max(since(audit.began) * REST);
    }

    /// What cannot be read now is looked at the next time.
    fn give_up(&self, audit: &mut Audit, end: End) {
        if let End::Failed(error) = end {
            info!(prefix = self.settings.prefix.text, error, "no audit: Consul cannot be read now");
        }
        self.rest(audit);
    }
}

//! The stream: entries come in and are checked while those before them go out, one transaction after the other.

use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::{
    lifecycle,
    model::{kv::Pair, sync::Position},
    sync::{
        peer::{FollowItem, Peers},
        record::{Phase, State},
        replica::{
            apply::{Batch, Guarded, Planner},
            audit::Edits,
            chain::{Chain, Link},
            indexes::{Fate, Print},
            machine::{Event, Stage},
            task::{
                End, Settling, Worker,
                audit::Audit,
                connection::{Connection, unexpected},
                progress::Progress,
                transaction::{Fault, Indexes, Parts, Terms},
            },
        },
        store::Store,
    },
};

/// Entries that wait while a transaction is out: those of some transactions.
const QUEUE_ENTRIES: usize = 1024;

/// And so many bytes of them.
const QUEUE_BYTES: usize = 4 << 20;

struct Flight {
    batch: Batch,
    phase: Phase,
    ops: usize,
    is_whole: bool,
    done: BoxFuture<'static, Result<(Indexes, u64), Fault>>,
}

/// A stream under way.
pub(super) struct Streaming<S> {
    connection: Connection,
    terms: Terms<S>,
    chain: Chain,
    planner: Planner,
    queue: VecDeque<Link>,
    queue_bytes: usize,
    flight: Option<Flight>,
    heard_at: Instant,
    pub(super) audit: Audit,
}

impl<S> Streaming<S> {
    fn has_room(&self) -> bool {
        self.queue.len() < QUEUE_ENTRIES && self.queue_bytes < QUEUE_BYTES
    }
}

impl<S: Store, P: Peers> Worker<S, P> {
    pub(super) async fn stream(
        &mut self,
        connection: Connection,
        guarded: &Guarded,
    ) -> Result<Infallible, End> {
        let mut work = self.open(connection, guarded)?;
        loop {
            if work.flight.is_none() {
                self.look_closer(&mut work.audit).await?;
                self.advance(&mut work)?;
            }
            let (has_room, silent_at) = (work.has_room(), work.heard_at + self.settings.silence);
            let audit_at = work.audit.due;
            let may_audit = work.audit.is_resting() && self.settling == Settling::Done;
            tokio::select! {
                biased;
                done = landing(&mut work.flight), if work.flight.is_some() => self.landed(&mut work, done)?,
                item = work.connection.items.recv(), if has_room => {
                    work.heard_at = lifecycle::now();
                    let item = self.heard(item)?;
                    self.take(&mut work, item)?;
                }
                page = work.audit.page() => self.audited(&mut work.audit, page),
                () = sleep_until(silent_at), if has_room => return Err(self.silent(self.settings.silence)),
                () = sleep_until(audit_at), if may_audit => work.audit.begin(),
            }
        }
    }

    fn open(&mut self, connection: Connection, guarded: &Guarded) -> Result<Streaming<S>, End> {
        let Progress { position, hash, .. } = self.progress()?.clone();
        let (terms, audit) = (self.terms(guarded), self.next_audit());
        let memory = self.shared.memory();
        let held = memory.iter().flat_map(|memory| memory.held());
        Ok(Streaming {
            planner: Planner::new(self.layout.clone(), terms.budget, held),
            chain: Chain::new(self.settings.prefix.text.clone(), position, hash),
            connection,
            terms,
            queue: VecDeque::new(),
            queue_bytes: 0,
            flight: None,
            heard_at: lifecycle::now(),
            audit,
        })
    }

    fn take(&mut self, work: &mut Streaming<S>, item: FollowItem) -> Result<(), End> {
        match item {
            FollowItem::Entry { entry, hash, modify_index, blobs } => {
                let link = work.chain.take(entry, hash, modify_index, blobs);
                if let Some(link) = link.map_err(|error| End::Held(error.into()))? {
                    work.queue_bytes += link.bytes();
                    work.queue.push_back(link);
                }
            }
            FollowItem::Tip { position, .. } if position.seq < work.chain.at.seq => {
                // Another history, which the next attempt asks about.
                return Err(End::Failed(format!("the home's journal ends at {position}, before ours")));
            }
            FollowItem::Tip { position, .. } => self.tip(position),
            other => return Err(unexpected(&other)),
        }
        Ok(())
    }

    fn tip(&mut self, position: Position) {
        if self.settling == Settling::Unheard {
            self.settling = Settling::At(position);
        }
        self.shared.view().tip = Some(position);
        self.publish();
    }

    /// Does what is next while nothing is out.
    fn advance(&mut self, work: &mut Streaming<S>) -> Result<(), End> {
        let progress = self.progress()?.clone();
        if let Settling::At(tip) = self.settling
            && progress.position >= tip
        {
            if !self.differences.is_empty() {
                let keys = std::mem::take(&mut self.differences).into_keys();
                return Err(self.edited(keys, 0));
            }
            self.settling = Settling::Done;
        }
        let batch = work.planner.plan(&mut work.queue);
        work.queue_bytes = work.queue.iter().map(Link::bytes).sum();
        let is_settled = self.settling == Settling::Done;
        match (batch, is_settled && progress.phase == Phase::Snapshot) {
            (Some(batch), _) => self.launch_batch(work, batch)?,
            (None, true) => self.launch_batch(work, Batch::empty(progress.position, progress.hash))?,
            (None, false) => {}
        }
        if self.machine.stage() != Stage::Stream && progress.phase == Phase::Stream && is_settled {
            self.is_copied = false;
            self.edits = Edits::but(BTreeSet::new());
            self.step(Event::Reached(Stage::Stream));
        }
        Ok(())
    }

    fn launch_batch(&mut self, work: &mut Streaming<S>, mut batch: Batch) -> Result<(), End> {
        let Progress { phase, index, .. } = *self.progress()?;
        let phase = match self.settling {
            Settling::Done => Phase::Stream,
            Settling::At(tip) if batch.to >= tip => Phase::Stream,
            Settling::At(_) | Settling::Unheard => phase,
        };
        let locks = batch.fates.iter().filter(|(_, fate)| matches!(fate, Fate::Held { .. }));
        if let Some(memory) = self.shared.memory_mut().as_mut() {
            // Before Consul has it: a reader that no longer finds the key must know where to ask.
            memory.begin_hold(locks.map(|(key, _)| key.as_str()));
        }
        let state = self.state(batch.to, &batch.hash, phase);
        let parts = Parts::of(&mut batch, work.terms.budget);
        let (ops, is_whole) = (parts.len(), parts.is_whole());
        let done = Box::pin(work.terms.clone().apply(index, state, parts));
        work.flight = Some(Flight { batch, phase, ops, is_whole, done });
        Ok(())
    }

    fn landed(&mut self, work: &mut Streaming<S>, done: Result<(Indexes, u64), Fault>) -> Result<(), End> {
        let Some(Flight { batch, phase, ops, is_whole, .. }) = work.flight.take() else { return Ok(()) };
        let had_room = work.has_room();
        let (indexes, index) = match done {
            Ok(landed) => landed,
            Err(fault) => {
                let to = batch.to;
                if !is_whole {
                    // Some of several transactions may be in, and only a comparison tells which.
                    self.progress = None;
                } else if matches!(fault, Fault::Open(_)) {
                    self.pending = Some(batch);
                }
                return Err(End::Failed(format!("apply entries up to {to}: {}", fault.into_text())));
            }
        };
        self.note(&batch, |key| indexes.get(key).copied());
        self.progress = Some(Progress { position: batch.to, hash: batch.hash, phase, index });
        self.count(ops);
        let mut view = self.shared.view();
        view.counts.entries += batch.entries as u64;
        if batch.entries > 0 {
            view.last_delay_ms = Some(self.last_ts_ms.saturating_sub(batch.ts_ms));
        }
        drop(view);
        self.publish();
        work.connection.acks.send_replace(batch.to);
        if !had_room {
            // Its word may have waited for us.
            work.heard_at = lifecycle::now();
        }
        Ok(())
    }

    /// Notes what a committed batch did.
    fn note(&mut self, batch: &Batch, local: impl Fn(&str) -> Option<u64>) {
        let fates = batch.fates.iter().map(|(key, fate)| (key.as_str(), *fate, local(key)));
        if let Some(memory) = self.shared.memory_mut().as_mut() {
            memory.apply(&batch.trees, fates);
        }
        batch.trees.iter().for_each(|tree| self.differences.settle_below(tree));
        batch.fates.keys().for_each(|key| self.differences.settle(key));
    }

    /// Whether the batch that was not answered is what the state record tells of; its indexes are read then. That of a key
    /// that holds something else by now is another write's, and stays unknown.
    pub(super) async fn settle(&mut self, state: &State, index: u64, batch: Batch) -> Result<bool, End> {
        if (state.position, &state.hash) != (batch.to, &batch.hash) || self.progress.is_none() {
            return Ok(false);
        }
        let mut indexes = Indexes::new();
        for (key, fate) in &batch.fates {
            let Fate::Written(written) = fate else { continue };
            if let Some(Pair { modify_index, value, flags, .. }) = self.read(key).await?
                && Print::of(&value, flags) == written.print
            {
                indexes.insert(key.clone(), modify_index);
            }
        }
        self.note(&batch, |key| indexes.get(key).copied());
        let State { position, hash, phase, .. } = state.clone();
        self.progress = Some(Progress { position, hash, phase, index });
        Ok(true)
    }
}

/// The end of what is out.
async fn landing(flight: &mut Option<Flight>) -> Result<(Indexes, u64), Fault> {
    match flight {
        Some(flight) => (&mut flight.done).await,
        None => std::future::pending().await,
    }
}

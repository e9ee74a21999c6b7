//! The snapshot: the home's keys come in while what differs of them goes out.
//!
//! Begun again after a cut, it writes only what is still different. Its transactions hold on to the state record that this
//! attempt wrote, so that one of an earlier attempt that comes in late changes nothing. No key is in two of them, so that
//! several can be out at once, in any order.

use std::{collections::VecDeque, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};

use crate::{
    lifecycle,
    model::{
        kv::{Op, Pair},
        sync::Position,
    },
    sync::{
        layout::Layout,
        peer::{ABSENT_KEYS, Absent, FollowItem, PeerError, Peers, SnapshotPair, Target},
        record::{Hash, Phase},
        replica::{
            apply::{self, Budget, Guarded},
            audit::Edits,
            compare::Differences,
            indexes::{Memory, Print},
            machine::{self, Event, Stage},
            snapshot::{Alone, Finding, Listed, Merge, Rest},
            task::{
                End, PREPARE, Settling, Worker,
                connection::{Connection, unexpected},
                progress::Progress,
                scan::Scan,
                since,
                transaction::{Fault, Indexes, Terms},
            },
        },
        store::{Read, Store},
    },
};

/// Verbs that wait while transactions are out: enough for the next ones to be full at once.
const QUEUE_OPS: usize = 512;

/// Transactions that are out at once: Consul writes those that wait together to its disk once.
const FLIGHTS: usize = 4;

/// The audits rest for so many times as long as a copy took, so that a replica that others write to gets some work done.
const REST: u32 = 10;

/// Verbs that belong together, and what they make known.
struct Unit {
    ops: Vec<Op>,
    note: Option<Note>,
}

/// A key that is written.
struct Note {
    /// As it is at home, without its value.
    home: Pair,
    print: Print,
    /// It was here and the list lacks it.
    seems_deleted: bool,
}

/// What became of a transaction.
struct Landed {
    notes: Vec<Note>,
    ops: usize,
    outcome: Result<Indexes, Fault>,
}

struct Copying<S> {
    terms: Terms<S>,
    merge: Merge,
    scan: Scan,
    last: Option<String>,
    /// How many of the keys that only the local list has were judged.
    looked: usize,
    queue: VecDeque<Unit>,
    flights: FuturesUnordered<BoxFuture<'static, Landed>>,
}

struct Ended {
    position: Position,
    hash: Hash,
    told: u64,
}

impl<S: Store, P: Peers> Worker<S, P> {
    pub(super) async fn copy(&mut self, connection: &mut Connection, guarded: &Guarded) -> Result<(), End> {
        self.step(Event::Reached(Stage::Snapshot));
        let copied = self.copy_whole(connection, guarded).await;
        // Those that were found are told, whatever became of the copy.
        match self.edits.take() {
            0 => {}
            found => self.tell_edits(found),
        }
        copied
    }

    async fn copy_whole(&mut self, connection: &mut Connection, guarded: &Guarded) -> Result<(), End> {
        let start = lifecycle::now();
        let terms = self.terms(guarded);
        self.enter(&terms).await?;
        let prefix = self.settings.prefix.text.clone();
        let merge = Merge::new(prefix.clone(), self.marks().await?);
        let scan = Scan::begin(&self.store, &prefix, Read::Consistent);
        let (queue, flights) = (VecDeque::new(), FuturesUnordered::new());
        let mut copying = Copying { terms, merge, scan, last: None, looked: 0, queue, flights };
        let ended = self.receive(connection, &mut copying).await?;
        self.launch(&mut copying, true)?;
        while let Some(landed) = copying.flights.next().await {
            self.copied(landed)?;
            self.launch(&mut copying, true)?;
        }
        copying.scan.finish(&mut copying.merge).await?;
        let (terms, last, looked) = (copying.terms, copying.last, copying.looked);
        let rest = copying.merge.end(ended.told).map_err(|error| End::Failed(error.to_string()))?;
        if let Some(memory) = self.shared.memory_mut().as_mut() {
            look(&mut self.edits, rest.deletes.get(looked..).unwrap_or_default(), memory);
            memory.forget_between(last.as_deref(), None);
        }
        self.judge(&ended, &rest)?;
        self.confirm(&ended, &rest).await?;
        self.finish(&terms, ended, rest).await?;
        let took = since(start);
        self.audit_rest = took * REST;
        self.shared.view().counts.snapshot_ms = u64::try_from(took.as_millis()).ok();
        Ok(())
    }

    /// What every transaction of this attempt needs.
    pub(super) fn terms(&self, guarded: &Guarded) -> Terms<S> {
        Terms {
            store: self.store.clone(),
            guarded: guarded.clone(),
            budget: self.budget(),
            within: self.settings.commit,
        }
    }

    /// How long the home may be silent inside a snapshot.
    pub(super) fn patience(&self, has_begun: bool) -> Duration {
        if has_begun { self.settings.silence } else { self.settings.silence.max(PREPARE) }
    }

    /// Says in the state record that the data is of no single position.
    async fn enter(&mut self, terms: &Terms<S>) -> Result<(), End> {
        let Progress { position, hash, index, .. } = self.progress()?.clone();
        let state = self.state(position, &hash, Phase::Snapshot);
        let (_, index) =
            terms.replace(index, state, Vec::new()).await.map_err(|fault| failed(fault, "begin"))?;
        self.progress = Some(Progress { position, hash, phase: Phase::Snapshot, index });
        (self.is_copied, self.differences, self.settling) = (false, Differences::default(), Settling::Done);
        if let (true, Some(memory)) = (self.machine.is_approved(), self.shared.memory_mut().as_mut()) {
            memory.forget_home();
        }
        // Before the first key of the copy goes in, nobody is answered from here any more.
        self.publish();
        Ok(())
    }

    async fn receive(&mut self, connection: &mut Connection, copying: &mut Copying<S>) -> Result<Ended, End> {
        loop {
            self.launch(copying, false)?;
            let has_room = copying.queue.len() < QUEUE_OPS;
            let patience = self.patience(copying.last.is_some());
            let item = tokio::select! {
                biased;
                Some(landed) = copying.flights.next() => {
                    self.copied(landed)?;
                    continue;
                }
                item = self.next_within(connection, patience), if has_room => item?,
            };
            match item {
                FollowItem::SnapshotPairs(pairs) => {
                    if let Some(last) = pairs.last() {
                        copying.scan.feed(&mut copying.merge, key(last)).await?;
                    }
                    self.merge(copying, pairs)?;
                }
                FollowItem::SnapshotEnd { position, hash, pairs: told } => {
                    return Ok(Ended { position, hash, told });
                }
                FollowItem::Tip { .. } => {}
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn merge(&mut self, copying: &mut Copying<S>, pairs: Vec<SnapshotPair>) -> Result<(), End> {
        let mut memory = self.shared.memory_mut();
        let Some(memory) = memory.as_mut() else { return Ok(()) };
        for pair in pairs {
            let listed = match pair {
                SnapshotPair::Data(pair) => Listed::Data(pair),
                SnapshotPair::Held(key) => Listed::Held(key),
                SnapshotPair::Hashed { .. } => {
                    let why =
                        "the home sent hashes where values are due; both agents should be of one release";
                    return Err(End::Failed(why.to_owned()));
                }
            };
            let finding = copying.merge.take(listed).map_err(|error| End::Failed(error.to_string()))?;
            let key = finding.key().to_owned();
            let alone = copying.merge.alone();
            look(&mut self.edits, alone.get(copying.looked..).unwrap_or_default(), memory);
            copying.looked = alone.len();
            let seems_deleted = self.edits.look(&key, finding.here(), memory);
            memory.forget_between(copying.last.as_deref(), Some(&key));
            match &finding {
                Finding::Same { home, local, print, .. } => memory.know(home, *local, *print),
                Finding::Held { key, .. } if !memory.is_held(key) => memory.hold(key, None),
                _ => {}
            }
            copying.queue.extend(unit(&self.layout, finding, seems_deleted));
            copying.last = Some(key);
        }
        Ok(())
    }

    /// Sends transactions for which there is enough, or whatever there is, as many as may be out.
    fn launch(&self, copying: &mut Copying<S>, is_last: bool) -> Result<(), End> {
        let budget = copying.terms.budget;
        let enough = if is_last { 1 } else { budget.ops.min(QUEUE_OPS) };
        while copying.flights.len() < FLIGHTS && copying.queue.len() >= enough {
            let (ops, notes) = filled(&mut copying.queue, budget);
            let (terms, index, count) = (copying.terms.clone(), self.progress()?.index, ops.len());
            let flight = async move { Landed { notes, ops: count, outcome: terms.keep(index, ops).await } };
            copying.flights.push(Box::pin(flight));
        }
        Ok(())
    }

    fn copied(&mut self, landed: Landed) -> Result<(), End> {
        let indexes = landed.outcome.map_err(|fault| failed(fault, "write keys of"))?;
        if let Some(memory) = self.shared.memory_mut().as_mut() {
            for Note { home, print, seems_deleted } in &landed.notes {
                let Some(local) = indexes.get(&home.key) else { continue };
                if *seems_deleted {
                    self.edits.put_back(&home.key, *local, memory);
                }
                memory.know(home, *local, *print);
            }
        }
        self.count(landed.ops);
        Ok(())
    }

    /// Whether what came may be taken.
    fn judge(&self, ended: &Ended, rest: &Rest) -> Result<(), End> {
        let objection =
            machine::objection(self.progress()?.position, ended.position, rest, self.settings.guard);
        objection.filter(|_| !self.machine.is_approved()).map_or(Ok(()), |reason| Err(End::Held(reason)))
    }

    /// Asks the home of each key that its list lacks: a list shows what there is, and proves nothing of the rest.
    async fn confirm(&self, ended: &Ended, rest: &Rest) -> Result<(), End> {
        let home = Target::Datacenter(self.settings.prefix.home.clone());
        let alone = rest.deletes.iter().map(|alone| &alone.key);
        let keys: Vec<String> = alone.chain(&rest.unmarks).cloned().collect();
        for keys in keys.chunks(ABSENT_KEYS) {
            let prefix = self.settings.prefix.text.clone();
            let absent = Absent { prefix, keys: keys.to_vec(), at: ended.position };
            let confirmed = self.peers.absent(&home, absent, self.settings.silence).await;
            confirmed.map_err(|error| match error {
                PeerError::Misfit(why) => End::Failed(format!(
                    "{} cannot confirm that keys are gone: {why}; update its sync agents first",
                    self.settings.prefix.home
                )),
                PeerError::Refused(why) => End::Refused(why),
                error => End::Failed(error.to_string()),
            })?;
        }
        Ok(())
    }

    /// Deletes what the home does not have, and moves the progress with the last of it.
    async fn finish(&mut self, terms: &Terms<S>, ended: Ended, rest: Rest) -> Result<(), End> {
        let deletes = rest.deletes.into_iter().map(|alone| Op::Delete { key: alone.key });
        let unmarks = rest.unmarks.iter().map(|key| apply::unmark(&self.layout, key));
        let mut ops: Vec<Op> = deletes.chain(unmarks).collect();
        let index = self.progress()?.index;
        while ops.len() > terms.budget.ops {
            let chunk: Vec<Op> = ops.drain(..terms.budget.ops).collect();
            let count = chunk.len();
            terms.keep(index, chunk).await.map_err(|fault| failed(fault, "delete keys of"))?;
            self.count(count);
        }
        let count = ops.len();
        let state = self.state(ended.position, &ended.hash, Phase::Snapshot);
        let (_, index) = terms.replace(index, state, ops).await.map_err(|fault| failed(fault, "finish"))?;
        self.count(count);
        let Ended { position, hash, .. } = ended;
        self.progress = Some(Progress { position, hash, phase: Phase::Snapshot, index });
        (self.is_copied, self.settling) = (true, Settling::Unheard);
        self.shared.view().counts.snapshots += 1;
        self.step(Event::Copied);
        self.publish();
        Ok(())
    }

    /// Counts a transaction.
    pub(super) fn count(&self, ops: usize) {
        let mut view = self.shared.view();
        view.counts.transactions += 1;
        view.counts.ops += ops as u64;
    }
}

/// The verbs of the next transaction.
fn filled(queue: &mut VecDeque<Unit>, budget: Budget) -> (Vec<Op>, Vec<Note>) {
    let (mut ops, mut notes, mut bytes) = (Vec::<Op>::new(), Vec::new(), 0);
    while let Some(unit) = queue.pop_front() {
        let more: usize = unit.ops.iter().map(apply::bytes).sum();
        if !ops.is_empty() && (ops.len() + unit.ops.len() > budget.ops || bytes + more > budget.bytes) {
            queue.push_front(unit);
            break;
        }
        bytes += more;
        ops.extend(unit.ops);
        notes.extend(unit.note);
    }
    (ops, notes)
}

/// What a finding has done.
fn unit(layout: &Layout, finding: Finding<Pair>, seems_deleted: bool) -> Option<Unit> {
    let (ops, note) = match finding {
        Finding::Same { home, unmark, .. } => {
            (unmark.then(|| apply::unmark(layout, &home.key)).into_iter().collect(), None)
        }
        Finding::Differs { home, unmark, .. } => {
            let print = Print::of(&home.value, home.flags);
            let unmark = unmark.then(|| apply::unmark(layout, &home.key));
            let value = home.value.clone();
            let set = Op::Set { key: home.key.clone(), value, flags: home.flags };
            let home = Pair { value: bytes::Bytes::new(), ..home };
            let note = Note { home, print, seems_deleted };
            ([Some(set), unmark].into_iter().flatten().collect(), Some(note))
        }
        Finding::Held { key, local, mark } => {
            let mark = mark.then(|| apply::mark(layout, &key));
            let clear = local.map(|_| Op::Delete { key });
            ([mark, clear].into_iter().flatten().collect::<Vec<_>>(), None)
        }
    };
    (!ops.is_empty()).then_some(Unit { ops, note })
}

/// Judges keys that only the local list has.
fn look(edits: &mut Edits, alone: &[Alone], memory: &Memory) {
    for Alone { key, local } in alone {
        edits.look(key, Some(*local), memory);
    }
}

/// The key of a pair of the home's list.
pub(super) fn key(pair: &SnapshotPair) -> &str {
    match pair {
        SnapshotPair::Data(pair) | SnapshotPair::Hashed { pair, .. } => &pair.key,
        SnapshotPair::Held(key) => key,
    }
}

fn failed(fault: Fault, what: &str) -> End {
    End::Failed(format!("{what} the snapshot: {}", fault.into_text()))
}

//! The applier of one prefix: it does what `machine` says, while this agent holds the duty, and keeps `shared` true.

mod audit;
mod compare;
mod copy;
mod scan;
mod stream;
mod transaction;

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    lifecycle::{self, Stop},
    model::{kv::Pair, session::SessionId, sync::Position},
    sync::{
        duty::Holding,
        layout::{Duty, Layout},
        peer::{FollowItem, FollowStart, PeerError, Peers, Target},
        record::{self, Hash, Phase, State},
        replica::{
            ReplicaSettings,
            apply::{Batch, Budget, Guarded},
            compare::Differences,
            indexes::Memory,
            machine::{Event, Machine, Opening, Reason, Stage},
            shared::Shared,
        },
        store::{Read, Store},
    },
};

/// How often an agent without the duty looks how far its datacenter is, so that it can tell others.
const LOOK: Duration = Duration::from_secs(5);

/// A list of a million keys takes some seconds to begin; one that takes longer than this is not coming.
const LIST: Duration = Duration::from_secs(120);

/// Between the announcement of a snapshot and its first keys the home lists them, and says nothing.
const PREPARE: Duration = Duration::from_secs(60);

/// Verbs that every transaction has beside its own.
const OWN_OPS: usize = 2;

/// Bytes of a transaction that are not for keys and values: the check and the state record.
const OWN_BYTES: usize = 4096;

/// What a person orders. The answer says that the order was taken.
#[derive(Debug)]
pub(super) enum Command {
    Approve(oneshot::Sender<()>),
    Resync(oneshot::Sender<()>),
}

/// Why an attempt ended.
#[derive(Debug)]
enum End {
    Failed(String),
    Held(Reason),
    Anew(&'static str),
}

/// The state record that this agent wrote or read last. The memory belongs to it.
#[derive(Clone, Debug)]
struct Progress {
    position: Position,
    hash: Hash,
    phase: Phase,
    /// Its `ModifyIndex`; 0 while there is none.
    index: u64,
}

/// Whether the data is of one position already. The home's list is of several moments: it is whole when the journal was
/// applied up to where it ended after the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settling {
    /// It is.
    Done,
    /// Where that is has not been heard.
    Unheard,
    /// There.
    At(Position),
}

/// A stream from home.
struct Connection {
    items: mpsc::Receiver<Result<FollowItem, PeerError>>,
    acks: watch::Sender<Position>,
}

pub(super) struct Worker<S, P> {
    settings: ReplicaSettings,
    layout: Layout,
    store: S,
    peers: P,
    shared: Arc<Shared>,
    rng: fastrand::Rng,
    machine: Machine,
    progress: Option<Progress>,
    /// A batch that was sent and not answered.
    pending: Option<Batch>,
    settling: Settling,
    /// The data was copied by this agent and only has to settle.
    is_copied: bool,
    differences: Differences,
    last_ts_ms: u64,
    audit_rest: Duration,
}

impl<S: Store, P: Peers> Worker<S, P> {
    pub(super) fn new(
        settings: ReplicaSettings,
        store: S,
        peers: P,
        shared: Arc<Shared>,
        rng: fastrand::Rng,
    ) -> Self {
        let layout = Layout::new(&crate::model::sync::PrefixId::of(&settings.prefix.text));
        Self {
            settings,
            layout,
            store,
            peers,
            shared,
            rng,
            machine: Machine::default(),
            progress: None,
            pending: None,
            settling: Settling::Done,
            is_copied: false,
            differences: Differences::default(),
            last_ts_ms: 0,
            audit_rest: Duration::ZERO,
        }
    }

    pub(super) async fn run(
        mut self,
        mut duty: watch::Receiver<Holding>,
        mut orders: mpsc::Receiver<Command>,
        stop: Stop,
    ) {
        loop {
            let session = duty.borrow_and_update().session.clone();
            tokio::select! {
                biased;
                () = stop.wait() => return,
                changed = duty.wait_for(|holding| holding.session != session) => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.serve(session.clone(), &mut orders) => {}
            }
            self.leave();
        }
    }

    async fn serve(&mut self, session: Option<SessionId>, orders: &mut mpsc::Receiver<Command>) {
        match session {
            Some(session) => {
                let guarded =
                    Guarded { duty: self.layout.duty(Duty::Applier), session, state: self.layout.state() };
                self.tenure(&guarded, orders).await;
            }
            None => self.stand_by().await,
        }
    }

    /// Looks how far the datacenter is, now and then.
    async fn stand_by(&self) {
        loop {
            if let Ok(Ok(answer)) =
                timeout(self.settings.commit, self.store.get(&self.layout.state(), Read::Default)).await
                && let Some(pair) = answer.value
                && let Ok(state) = self.readable(&pair)
            {
                self.shared.view().at = Some((state.position, state.hash));
            }
            sleep(LOOK).await;
        }
    }

    async fn tenure(&mut self, guarded: &Guarded, orders: &mut mpsc::Receiver<Command>) {
        self.step(Event::Taken);
        loop {
            let end = tokio::select! {
                biased;
                Some(order) = orders.recv() => {
                    self.obey(order);
                    continue;
                }
                end = self.attempt(guarded) => end,
            };
            self.shared.view().is_connected = false;
            let Err(end) = end;
            match end {
                End::Anew(why) => self.step(Event::Anew(why)),
                End::Failed(why) => {
                    self.step(Event::Failed(why));
                    let pause = self.machine.pause(self.rng.f64());
                    if let Ok(Some(order)) = timeout(pause, orders.recv()).await {
                        self.obey(order);
                    }
                }
                End::Held(reason) => {
                    self.step(Event::Held(reason));
                    match orders.recv().await {
                        Some(order) => self.obey(order),
                        None => std::future::pending().await,
                    }
                }
            }
        }
    }

    fn obey(&mut self, order: Command) {
        let (event, done) = match order {
            Command::Approve(done) if self.machine.stage() == Stage::Hold => (Event::Approved, done),
            Command::Approve(done) | Command::Resync(done) => (Event::Anew("asked for"), done),
        };
        self.step(event);
        // Whoever asked may be gone by now.
        let _ = done.send(());
    }

    /// The duty is another's: what is remembered may serve if nobody applies meanwhile, and is shown to nobody.
    fn leave(&mut self) {
        self.shared.set_applied(None);
        let mut view = self.shared.view();
        (view.is_connected, view.tip, view.level_at) = (false, None, None);
        drop(view);
        if self.machine.stage() != Stage::Standby {
            self.step(Event::Lost);
        }
    }

    fn step(&mut self, event: Event) {
        let transition = self.machine.step(event, lifecycle::now().into_std());
        let mut view = self.shared.view();
        view.stage = self.machine.stage();
        view.reason = self.machine.why().map(str::to_owned);
        let Some(transition) = transition else { return };
        *view.counts.stages.entry(format!("{:?}", transition.to).to_lowercase()).or_default() += 1;
        drop(view);
        let (prefix, from, why) = (&self.settings.prefix.text, transition.from, transition.why);
        let why = why.unwrap_or_default();
        match transition.to {
            Stage::Hold => warn!(prefix, ?from, why, "replica on hold: nothing is applied"),
            Stage::Retry => warn!(prefix, ?from, why, "replication is interrupted; it is tried again"),
            to => info!(prefix, ?from, ?to, why, "replica changes stage"),
        }
    }

    /// One attempt, from the state record to the end of a stream.
    async fn attempt(&mut self, guarded: &Guarded) -> Result<Infallible, End> {
        let (state, is_known) = self.load().await?;
        let at = match self.machine.opening(state.as_ref(), is_known) {
            Opening::Anew { check } => {
                if let Some(at) = check {
                    self.check(at).await?;
                }
                None
            }
            Opening::Compare(position, hash) => {
                self.compare((position, hash.clone())).await?;
                Some((position, hash))
            }
            Opening::Continue(position, hash) => Some((position, hash)),
        };
        let mut connection = self.follow(at, false).await?;
        loop {
            match self.next(&mut connection).await? {
                FollowItem::Continues => break,
                FollowItem::SnapshotBegin => {
                    self.copy(&mut connection, guarded).await?;
                    break;
                }
                FollowItem::Tip { .. } => {}
                other => return Err(unexpected(&other)),
            }
        }
        self.stream(connection, guarded).await
    }

    /// Reads the progress. The second value says whether the memory belongs to it.
    async fn load(&mut self) -> Result<(Option<State>, bool), End> {
        let key = self.layout.state();
        let pair = self.read(&key).await?;
        let index = pair.as_ref().map_or(0, |pair| pair.modify_index);
        let mut state = match pair.as_ref().map(|pair| self.readable(pair)) {
            Some(Err(reason)) if !self.machine.is_approved() => return Err(End::Held(reason)),
            Some(Err(_)) | None => None,
            Some(Ok(state)) => Some(state),
        };
        let mut is_known = index != 0 && self.progress.as_ref().is_some_and(|own| own.index == index);
        if let (false, Some(state), Some(batch)) = (is_known, &state, self.pending.take()) {
            is_known = self.settle(state, index, batch).await?;
        }
        if !is_known {
            self.begin(state.as_ref(), index).await?;
        }
        self.pending = None;
        // What was copied and cut before it settled needs no second copy.
        if let Some(state) = state.as_mut().filter(|_| is_known && self.is_copied) {
            state.phase = Phase::Stream;
        }
        self.publish();
        Ok((state, is_known))
    }

    /// Begins with an empty memory.
    async fn begin(&mut self, state: Option<&State>, index: u64) -> Result<(), End> {
        (self.is_copied, self.differences) = (false, Differences::default());
        let mut memory = Memory::default();
        for key in self.marks().await? {
            memory.hold(&key, None);
        }
        *self.shared.memory_mut() = Some(memory);
        self.progress = Some(match state {
            Some(State { position, hash, phase, .. }) => {
                Progress { position: *position, hash: hash.clone(), phase: *phase, index }
            }
            None => Progress {
                position: Position::default(),
                hash: Hash::default(),
                phase: Phase::Snapshot,
                index,
            },
        });
        Ok(())
    }

    fn readable(&self, pair: &Pair) -> Result<State, Reason> {
        let state: State = record::decode(&pair.key, &pair.value)?;
        if state.home != self.settings.prefix.home || state.prefix != self.settings.prefix.text {
            return Err(Reason::Moved { prefix: state.prefix, home: state.home.to_string() });
        }
        Ok(state)
    }

    /// The keys that are marked as locks.
    async fn marks(&self) -> Result<BTreeSet<String>, End> {
        let root = self.layout.all_held();
        let list = self.list(&root).await?;
        Ok(list.iter().filter_map(|pair| self.layout.is_held(&pair.key)).map(str::to_owned).collect())
    }

    async fn read(&self, key: &str) -> Result<Option<Pair>, End> {
        match timeout(self.settings.commit, self.store.get(key, Read::Consistent)).await {
            Ok(Ok(answer)) => Ok(answer.value),
            Ok(Err(error)) => Err(End::Failed(format!("read {key}: {error}"))),
            Err(_) => Err(End::Failed(format!("read {key}: no answer in {:?}", self.settings.commit))),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Pair>, End> {
        match timeout(LIST, self.store.list(prefix, Read::Consistent)).await {
            Ok(Ok(answer)) => Ok(answer.value),
            Ok(Err(error)) => Err(End::Failed(format!("list {prefix}: {error}"))),
            Err(_) => Err(End::Failed(format!("list {prefix}: no answer in {LIST:?}"))),
        }
    }

    /// Asks the home whether it knows this position, and takes nothing.
    async fn check(&mut self, at: (Position, Hash)) -> Result<(), End> {
        let mut connection = self.follow(Some(at), true).await?;
        match self.next(&mut connection).await? {
            FollowItem::Continues | FollowItem::SnapshotBegin => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn follow(&self, at: Option<(Position, Hash)>, compare: bool) -> Result<Connection, End> {
        let home = &self.settings.prefix.home;
        let position = at.as_ref().map(|(position, _)| *position).unwrap_or_default();
        let (acks, acked) = watch::channel(position);
        let start = FollowStart { prefix: self.settings.prefix.text.clone(), at, compare };
        let to = Target::Datacenter(home.clone());
        match timeout(self.settings.silence, self.peers.follow(&to, start, acked)).await {
            Ok(Ok(items)) => {
                self.shared.view().is_connected = true;
                Ok(Connection { items, acks })
            }
            Ok(Err(error)) => Err(End::Failed(format!("follow {home}: {error}"))),
            Err(_) => Err(End::Failed(format!("follow {home}: no answer in {:?}", self.settings.silence))),
        }
    }

    /// The next item. A home that does not know our position puts us on hold whenever it says so.
    async fn next(&self, connection: &mut Connection) -> Result<FollowItem, End> {
        self.next_within(connection, self.settings.silence).await
    }

    async fn next_within(&self, connection: &mut Connection, patience: Duration) -> Result<FollowItem, End> {
        match timeout(patience, connection.items.recv()).await {
            Ok(item) => self.heard(item),
            Err(_) => Err(self.silent(patience)),
        }
    }

    fn heard(&self, item: Option<Result<FollowItem, PeerError>>) -> Result<FollowItem, End> {
        let home = &self.settings.prefix.home;
        match item {
            None => Err(End::Failed(format!("the stream from {home} ended"))),
            Some(Err(error)) => Err(End::Failed(format!("the stream from {home} ended: {error}"))),
            Some(Ok(FollowItem::Forked { home, reason })) => {
                // Its indexes count anew: none of those remembered means anything now.
                if let Some(memory) = self.shared.memory_mut().as_mut() {
                    memory.forget_home();
                }
                Err(End::Held(Reason::Forked { home, reason }))
            }
            Some(Ok(item)) => {
                self.shared.view().heard_at = Some(lifecycle::now());
                Ok(item)
            }
        }
    }

    fn silent(&self, patience: Duration) -> End {
        End::Failed(format!("{} has said nothing for {patience:?}", self.settings.prefix.home))
    }

    fn budget(&self) -> Budget {
        Budget {
            ops: self.settings.max_txn_ops.saturating_sub(OWN_OPS).max(1),
            bytes: self.settings.max_txn_bytes.saturating_sub(OWN_BYTES),
        }
    }

    /// The bytes of a state record. No two are equal: an equal one would keep its index, and what was sent under the
    /// one before could still come in.
    fn state(&mut self, position: Position, hash: &Hash, phase: Phase) -> Bytes {
        let since_1970 = lifecycle::wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        self.last_ts_ms = now_ms.max(self.last_ts_ms.saturating_add(1));
        record::encode(&State {
            home: self.settings.prefix.home.clone(),
            prefix: self.settings.prefix.text.clone(),
            position,
            hash: hash.clone(),
            phase,
            node: self.settings.node.clone(),
            ts_ms: self.last_ts_ms,
        })
    }

    fn progress(&self) -> Result<&Progress, End> {
        self.progress.as_ref().ok_or_else(|| End::Failed("the progress is not known".to_owned()))
    }

    /// Tells the rest of the engine how far the data is.
    fn publish(&self) {
        let Some(progress) = &self.progress else { return };
        let is_whole = progress.position != Position::default();
        let mut view = self.shared.view();
        view.at = is_whole.then(|| (progress.position, progress.hash.clone()));
        if view.is_connected && view.tip.is_some_and(|tip| progress.position >= tip) {
            view.level_at = Some(lifecycle::now());
        }
        view.differences = self.differences.len();
        drop(view);
        self.shared.set_applied(is_whole.then_some(progress.position));
    }
}

fn unexpected(item: &FollowItem) -> End {
    let name = match item {
        FollowItem::Continues => "a second `continues`",
        FollowItem::Forked { .. } => "`forked`",
        FollowItem::SnapshotBegin => "a second snapshot",
        FollowItem::SnapshotPairs(_) => "keys",
        FollowItem::SnapshotEnd { .. } => "the end of a snapshot",
        FollowItem::Entry { .. } => "an entry",
        FollowItem::Tip { .. } => "the journal's end",
    };
    End::Failed(format!(
        "the home sent {name} where it does not belong; both agents should be of one release"
    ))
}

/// How long ago that was.
fn since(start: Instant) -> Duration {
    lifecycle::now().saturating_duration_since(start)
}

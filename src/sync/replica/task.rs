//! The applier of one prefix: it does what `machine` says, while this agent holds the duty, and keeps `shared` true.

mod audit;
mod compare;
mod connection;
mod copy;
mod progress;
mod scan;
mod stream;
mod transaction;

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use self::{connection::unexpected, progress::Progress};
use crate::{
    lifecycle::{self, Stop},
    model::{session::SessionId, sync::Position},
    sync::{
        duty::Holding,
        layout::{Duty, Layout},
        peer::{FollowItem, Peers},
        replica::{
            ReplicaSettings,
            apply::{Batch, Budget, Guarded},
            audit::Edits,
            compare::Differences,
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
    /// The home answers, and says no.
    Refused(String),
    Held(Reason),
    Anew(&'static str),
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
    edits: Edits,
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
            edits: Edits::default(),
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
                    self.pause(orders, true).await;
                }
                End::Refused(why) => {
                    self.step(Event::Failed(why));
                    self.pause(orders, false).await;
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

    /// Waits before another attempt: less when somebody orders something, or, if that `is_cut` off so far, when the home
    /// answers others meanwhile.
    async fn pause(&mut self, orders: &mut mpsc::Receiver<Command>, is_cut: bool) {
        let pause = self.machine.pause(self.rng.f64());
        let answers = &mut self.settings.home_answers;
        answers.mark_unchanged();
        let answered = async {
            if !is_cut || answers.changed().await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            biased;
            Some(order) = orders.recv() => self.obey(order),
            () = answered => {}
            () = sleep(pause) => {}
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

    fn budget(&self) -> Budget {
        Budget {
            ops: self.settings.max_txn_ops.saturating_sub(OWN_OPS).max(1),
            bytes: self.settings.max_txn_bytes.saturating_sub(OWN_BYTES),
        }
    }

    fn progress(&self) -> Result<&Progress, End> {
        self.progress.as_ref().ok_or_else(|| End::Failed("the progress is not known".to_owned()))
    }
}

/// How long ago that was.
fn since(start: Instant) -> Duration {
    lifecycle::now().saturating_duration_since(start)
}

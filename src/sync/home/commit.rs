//! The one task that writes: it campaigns for the duty, fences, serves and drains.
//!
//! While it serves, one transaction is on its way at a time. What comes in meanwhile waits and goes together into the
//! next. Nothing is answered before Consul has said that it holds.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};

use crate::{
    lifecycle::{self, Stop},
    model::session::SessionId,
    sync::{
        duty::Holding,
        home::{
            Others, Shared, Stage, Tip,
            batch::{Behind, Budget},
            journal,
            memory::{Fences, Seen},
            pending::Pending,
            refusal,
            takeover::{self, Taken},
            upkeep::Upkeep,
        },
        peer::Known,
        record::{Epochs, Head},
        refusal::Refusal,
        store::Store,
    },
};

/// Between looks at the head while nothing is written: a restored Consul shows by it.
const LOOK: Duration = Duration::from_secs(10);
/// Between pieces of upkeep.
const UPKEEP: Duration = Duration::from_secs(5);
/// The same while there is more to let go.
const SHORT_REST: Duration = Duration::from_millis(500);
/// Between attempts to take over, with full jitter: doubled up to the limit.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The task's state.
pub(crate) struct Commit<S, O> {
    pub(crate) shared: Arc<Shared<S>>,
    others: O,
    pub(crate) duty: watch::Receiver<Holding>,
    pub(crate) incoming: mpsc::Receiver<Pending>,
    doubts: mpsc::Receiver<Known>,
    rng: fastrand::Rng,
    pub(crate) stop: Stop,
    pub(crate) queue: VecDeque<Pending>,
    pub(crate) seen: Seen,
    pub(crate) fences: Fences,
    /// The last entry that this process knows to have been committed.
    known: Option<Known>,
    /// What a follower has shown us.
    contested: Option<Known>,
    /// The next part of the values beside the journal that is looked through.
    pub(crate) sweep: u8,
}

/// What is served.
pub(crate) struct Reign {
    pub(crate) session: SessionId,
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) head: Head,
    pub(crate) head_index: u64,
    pub(crate) ts_ms: u64,
    /// The transaction before had more than one request: more are about to come.
    pub(crate) is_busy: bool,
}

impl Reign {
    pub(crate) fn behind<'a, S>(&'a self, shared: &'a Shared<S>) -> Behind<'a> {
        Behind {
            layout: &shared.layout,
            session: &self.session,
            head: &self.head,
            head_index: self.head_index,
            ts_ms: now_ms(),
        }
    }
}

/// Why serving ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The agent stops.
    Stopped,
    /// Another agent has the duty, or nobody.
    DutyLost,
    /// What stands in Consul is not what we believe: it is looked at anew.
    Doubt(String),
}

/// The wall clock in ms since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = lifecycle::wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl<S: Store, O: Others> Commit<S, O> {
    pub(crate) fn new(
        shared: Arc<Shared<S>>,
        others: O,
        duty: watch::Receiver<Holding>,
        incoming: mpsc::Receiver<Pending>,
        doubts: mpsc::Receiver<Known>,
        rng: fastrand::Rng,
        stop: Stop,
    ) -> Self {
        Self {
            shared,
            others,
            duty,
            incoming,
            doubts,
            rng,
            stop,
            queue: VecDeque::new(),
            seen: Seen::default(),
            fences: Fences::default(),
            known: None,
            contested: None,
            sweep: 0,
        }
    }

    /// Runs until it is stopped.
    pub(crate) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while let Some(session) = self.campaign().await {
            let (end, has_served) = match self.fence(&session).await {
                Ok(taken) => {
                    let reign = self.begin(session.clone(), taken);
                    (self.serve(reign).await, true)
                }
                Err(end) => (end, false),
            };
            if has_served {
                pause = FIRST_PAUSE;
            }
            if end == End::Stopped {
                break;
            }
            self.cease(end, has_served);
            let wait = pause.mul_f64(self.rng.f64());
            pause = (pause * 2).min(LAST_PAUSE);
            tokio::select! { biased;
                () = self.stop.wait() => break,
                () = lost(&mut self.duty, &session) => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        let holding = self.duty.borrow().clone();
        self.shared.stage.send_replace(Stage::Standby(holding));
        self.hide();
        self.drain();
    }

    fn hide(&self) {
        self.shared.tip.send_replace(None);
        self.shared.known.send_replace(None);
    }

    /// Stops serving. What waits is kept only when it can go on at once.
    fn cease(&mut self, end: End, has_served: bool) {
        let prefix = &self.shared.settings.prefix.text;
        let stage = match end {
            End::Stopped | End::DutyLost => {
                tracing::info!(prefix, "duty of home lost");
                Stage::TakingOver(Some("another session holds the duty's lock".into()))
            }
            End::Doubt(reason) => {
                tracing::warn!(prefix, reason, "prefix not served");
                Stage::TakingOver((!has_served).then_some(reason))
            }
        };
        self.shared.stage.send_replace(stage);
        self.hide();
        if matches!(&*self.shared.stage.borrow(), Stage::TakingOver(None)) {
            return;
        }
        self.drain();
    }

    /// Waits for the duty. None when the agent stops.
    async fn campaign(&mut self) -> Option<SessionId> {
        loop {
            let holding = self.duty.borrow_and_update().clone();
            if let Some(session) = holding.session {
                if !matches!(&*self.shared.stage.borrow(), Stage::TakingOver(_)) {
                    self.shared.stage.send_replace(Stage::TakingOver(None));
                }
                return Some(session);
            }
            self.shared.stage.send_replace(Stage::Standby(holding));
            self.drain();
            tokio::select! { biased;
                () = self.stop.wait() => return None,
                changed = self.duty.changed() => changed.ok()?,
                Some(pending) = self.incoming.recv() => self.queue.push_back(pending),
                Some(_) = self.doubts.recv() => {}
            }
        }
    }

    /// Refuses what waits.
    fn drain(&mut self) {
        while let Ok(pending) = self.incoming.try_recv() {
            self.queue.push_back(pending);
        }
        let stage = self.shared.stage.borrow().clone();
        let refusal = refusal(&self.shared.settings.prefix.text, &stage);
        let refusal =
            Err(refusal.unwrap_or_else(|| Refusal::NotServing("this agent stops; send it again".into())));
        for pending in self.queue.drain(..) {
            pending.answer(&refusal);
        }
    }

    async fn fence(&mut self, session: &SessionId) -> Result<Taken, End> {
        let (mut duty, stop, shared) = (self.duty.clone(), self.stop.clone(), self.shared.clone());
        let taking =
            takeover::take_over(&shared, &self.others, session, self.known.as_ref(), self.contested.as_ref());
        tokio::select! { biased;
            () = stop.wait() => Err(End::Stopped),
            () = lost(&mut duty, session) => Err(End::DutyLost),
            taken = taking => taken,
        }
    }

    fn begin(&mut self, session: SessionId, taken: Taken) -> Reign {
        let Taken { epochs, head, head_index, ts_ms, locks, newest } = taken;
        if self.known.as_ref().is_some_and(|known| known.position.epoch != epochs.epoch) {
            // What was answered may be undone: then it is executed when it is sent again.
            self.seen.clear();
        }
        for logged in &newest {
            self.seen.learn(&logged.entry, logged.index);
        }
        // Some of what waits may have been carried out by another agent meanwhile.
        for pending in std::mem::take(&mut self.queue) {
            self.admit(pending);
        }
        self.fences.clear();
        self.contested = None;
        self.shared.locks.send_replace(locks);
        let reign = Reign { session, epochs: Arc::new(epochs), head, head_index, ts_ms, is_busy: false };
        self.show(&reign);
        self.shared.stage.send_replace(Stage::Serving(reign.epochs.clone()));
        tracing::info!(prefix = self.shared.settings.prefix.text, position = %reign.head.position, "prefix served");
        reign
    }

    /// Tells others where the journal ends.
    pub(crate) fn show(&mut self, reign: &Reign) {
        let Head { position, hash, first } = reign.head.clone();
        let known = Known { prefix: self.shared.settings.prefix.text.clone(), position, hash: hash.clone() };
        self.known = Some(known.clone());
        self.shared.settings.positions.learn(&known);
        self.shared.tip.send_replace(Some(Tip { position, hash, first, ts_ms: reign.ts_ms }));
        self.shared.known.send_replace(Some(known));
    }

    async fn serve(&mut self, mut reign: Reign) -> End {
        let mut look_at = lifecycle::now() + LOOK;
        let mut upkeep_at = lifecycle::now() + UPKEEP;
        loop {
            self.set_budget();
            let is_idle = self.queue.is_empty();
            let worked = tokio::select! { biased;
                () = self.stop.wait() => return End::Stopped,
                () = lost(&mut self.duty, &reign.session) => return End::DutyLost,
                Some(known) = self.doubts.recv() => Err(self.contest(known)),
                () = tokio::time::sleep_until(upkeep_at) => {
                    let done = self.upkeep(&mut reign).await;
                    let rest = if matches!(done, Ok(Upkeep::MoreToDo)) { SHORT_REST } else { UPKEEP };
                    upkeep_at = lifecycle::now() + rest;
                    done.map(drop)
                }
                () = tokio::time::sleep_until(look_at) => {
                    look_at = lifecycle::now() + LOOK;
                    self.look(&reign).await
                }
                Some(pending) = self.incoming.recv(), if is_idle => { self.admit(pending); Ok(()) }
                () = std::future::ready(()), if !is_idle => self.round(&mut reign).await,
            };
            if let Err(end) = worked {
                return end;
            }
        }
    }

    /// A follower has an entry that we lack.
    fn contest(&mut self, known: Known) -> End {
        let reason = format!("a follower has entry {} which is not ours", known.position);
        self.contested = Some(known);
        End::Doubt(reason)
    }

    fn set_budget(&mut self) {
        let ops = self.shared.settings.max_txn_ops.min(self.others.max_txn_ops());
        let value_bytes = self.others.max_value_bytes();
        self.shared.budget.send_if_modified(|budget| {
            let new = Budget { value_bytes, ..Budget::new(ops) };
            std::mem::replace(budget, new) != new
        });
    }

    async fn look(&mut self, reign: &Reign) -> Result<(), End> {
        let read = journal::record::<S, Head>(&self.shared.store, &self.shared.layout.head()).await;
        match read {
            Ok(Some(found)) if found.index == reign.head_index && found.record == reign.head => Ok(()),
            Ok(_) => Err(End::Doubt("the journal's head was replaced by somebody else".into())),
            // That nothing can be read now says nothing about what stands there.
            Err(_) => Ok(()),
        }
    }
}

/// Waits until the duty is no longer held with this session.
async fn lost(duty: &mut watch::Receiver<Holding>, session: &SessionId) {
    // A closed channel means that nobody holds duties any more.
    let _ = duty.wait_for(|holding| holding.session.as_ref() != Some(session)).await;
}

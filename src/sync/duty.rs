//! The duties of this agent: of all sync agents of a datacenter one is active per prefix and duty, the one that holds the
//! duty's lock with its session. `machine` decides; this file speaks with Consul and tells the rest of the engine.
//!
//! A [`Holding`] is what this agent believes. The proof is Consul's: every transaction of a duty begins with
//! `check-session` on the duty's key.

mod machine;

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, info};

pub use self::machine::Holding;
use self::machine::{Action, Event, Grant, LOOK_WAIT, Machine, Release, Renewal, Seen};
use crate::{
    lifecycle::{self, Stop, Task},
    model::{
        kv::{Op, Pair, TxnReply},
        session::{Behavior, SessionId, SessionSpec},
        sync::PrefixId,
    },
    sync::{
        layout::{Duty, Layout},
        record::{self, Doer},
        store::{Answer, INVALID_SESSION, Read, Store, StoreError, within},
    },
};

/// The TTL of the session: the least that Consul takes, so that the duties of an agent that died are free soon.
pub const SESSION_TTL: Duration = Duration::from_secs(10);

/// How long one answer is waited for: long enough for a Consul that elects a leader to catch its breath, short enough for
/// several attempts within the lease.
const CALL: Duration = Duration::from_secs(2);

/// Between two attempts to end a session that was lost.
const AGAIN: Duration = Duration::from_secs(1);

/// The duties that this agent wants. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Duties<S> {
    holdings: Arc<BTreeMap<(PrefixId, Duty), watch::Receiver<Holding>>>,
    store: PhantomData<S>,
}

impl<S: Store> Duties<S> {
    /// Starts to seek these duties, as `me`. When `stop` is raised they are given back, so that another agent has them
    /// at once; the task ends after that.
    pub fn start(
        store: S,
        me: Doer,
        wanted: Vec<(PrefixId, Duty)>,
        rng: fastrand::Rng,
        stop: Stop,
    ) -> (Self, Task<()>) {
        let (mut holdings, mut slots) = (BTreeMap::new(), Vec::new());
        for (id, duty) in wanted {
            let (sender, receiver) = watch::channel(Holding::default());
            slots.push(Slot { key: Layout::new(&id).duty(duty), holding: sender });
            holdings.insert((id, duty), receiver);
        }
        let now = lifecycle::now().into_std();
        let machine = Machine::new(me.clone(), SESSION_TTL, slots.len(), rng, now);
        let calls = FuturesUnordered::new();
        let seeker = Seeker { store, me, slots, machine, calls };
        let task = lifecycle::spawn("sync.duty", seeker.run(stop));
        (Self { holdings: Arc::new(holdings), store: PhantomData }, task)
    }

    /// How a duty stands, from now on. One that was not wanted is nobody's, and its channel is closed.
    pub fn watch(&self, id: &PrefixId, duty: Duty) -> watch::Receiver<Holding> {
        match self.holdings.get(&(id.clone(), duty)) {
            Some(holding) => holding.clone(),
            None => watch::channel(Holding::default()).1,
        }
    }
}

struct Slot {
    key: String,
    holding: watch::Sender<Holding>,
}

struct Seeker<S> {
    store: S,
    me: Doer,
    slots: Vec<Slot>,
    machine: Machine,
    calls: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
}

impl<S: Store> Seeker<S> {
    async fn run(mut self, stop: Stop) {
        let mut event = Some(Event::Woke);
        loop {
            if let Some(event) = event.take() {
                let actions = self.machine.step(event, lifecycle::now().into_std());
                // What is lost is told before anything else is begun.
                self.tell();
                actions.into_iter().for_each(|action| self.begin(action));
            }
            let wake_at = self.machine.wake_at().map(Instant::from_std);
            event = tokio::select! {
                biased;
                () = stop.wait() => break,
                Some(event) = self.calls.next() => event,
                () = sleep_until(wake_at.unwrap_or_else(lifecycle::now)), if wake_at.is_some() => Some(Event::Woke),
                else => { stop.wait().await; break }
            };
        }
        let release = self.machine.release(lifecycle::now().into_std());
        self.tell();
        self.calls.clear();
        if let Some(release) = release {
            self.give_back(release).await;
        }
    }

    fn tell(&self) {
        for (number, slot) in self.slots.iter().enumerate() {
            let holding = self.machine.holding(number);
            slot.holding.send_if_modified(|told| {
                if *told == holding {
                    return false;
                }
                if told.session != holding.session {
                    info!(key = slot.key, is_ours = holding.session.is_some(), "duty changed hands");
                }
                *told = holding;
                true
            });
        }
    }

    fn begin(&self, action: Action) {
        let store = self.store.clone();
        let sent = lifecycle::now().into_std();
        let call: BoxFuture<'static, Option<Event>> = match action {
            Action::MakeSession => {
                let spec = session_spec(&self.me);
                Box::pin(async move {
                    let made = within(CALL, store.create_session(&spec)).await;
                    let session = made.inspect_err(|error| debug!(%error, "make the sync session")).ok();
                    Some(Event::Made { sent, session })
                })
            }
            Action::Renew(session) => Box::pin(async move {
                let renewal = match within(CALL, store.renew_session(&session)).await {
                    Ok(true) => Renewal::Kept,
                    Ok(false) => Renewal::Gone,
                    Err(error) => {
                        debug!(%error, "renew the sync session");
                        Renewal::Unknown
                    }
                };
                Some(Event::Renewed { session, sent, renewal })
            }),
            Action::Destroy(session) => Box::pin(async move {
                // Consul that does not answer now begins the session's TTL anew with its next leader: what is not ended
                // then keeps the duties from everybody for twice that long.
                loop {
                    match within(CALL, store.destroy_session(&session)).await {
                        Ok(()) | Err(StoreError::Refused { .. }) => return None,
                        Err(error) => debug!(%error, "end the lost sync session"),
                    }
                    sleep(AGAIN).await;
                }
            }),
            Action::Acquire { slot, session } => {
                let lock = self.lock(slot, &session);
                Box::pin(async move {
                    let grant = grant(&within(CALL, store.txn(vec![lock])).await);
                    Some(Event::Acquired { slot, session, grant })
                })
            }
            Action::Look { slot, after } => {
                let key = self.slots[slot].key.clone();
                Box::pin(async move {
                    let seen = look(&store, &key, after).await;
                    Some(Event::Looked { slot, asked: sent, seen })
                })
            }
        };
        self.calls.push(call);
    }

    fn lock(&self, slot: usize, session: &SessionId) -> Op {
        let (key, value) = (self.slots[slot].key.clone(), record::encode(&self.me));
        Op::Lock { key, value, flags: 0, session: session.clone() }
    }

    /// Unlocks before it ends the session: what is unlocked has no lock-delay.
    async fn give_back(self, release: Release) {
        let Self { store, me, slots, .. } = self;
        let unlock = |slot: &usize| {
            let (key, value) = (slots[*slot].key.clone(), record::encode(&me));
            let session = release.session.clone();
            within(CALL, store.txn(vec![Op::Unlock { key, value, flags: 0, session }]))
        };
        let unlocks: Vec<_> = release.slots.iter().map(unlock).collect();
        for unlocked in join_all(unlocks).await {
            if let Err(error) = unlocked {
                debug!(%error, "give a duty back");
            }
        }
        if let Err(error) = within(CALL, store.destroy_session(&release.session)).await {
            debug!(%error, "end the sync session");
        }
    }
}

fn session_spec(me: &Doer) -> SessionSpec {
    SessionSpec {
        name: format!("causeway sync on {}", me.node),
        ttl: SESSION_TTL,
        // The guard is `check-session` in every transaction; a delay would only keep the next one waiting.
        lock_delay: Duration::ZERO,
        behavior: Behavior::Release,
    }
}

fn grant(reply: &Result<TxnReply, StoreError>) -> Grant {
    match reply {
        Ok(TxnReply::Committed(_)) => Grant::Granted,
        Ok(TxnReply::RolledBack(errors))
            if errors.iter().any(|error| error.what.contains(INVALID_SESSION)) =>
        {
            Grant::NoSession
        }
        Ok(TxnReply::RolledBack(_)) => Grant::Refused,
        Err(error) => {
            debug!(%error, "acquire a duty");
            Grant::Unknown
        }
    }
}

async fn look<S: Store>(store: &S, key: &str, after: Option<u64>) -> Option<Seen> {
    let (read, limit) = match after {
        Some(index) => (Read::Wait { index, wait: LOOK_WAIT }, LOOK_WAIT + LOOK_WAIT / 16 + CALL),
        None => (Read::Default, CALL),
    };
    let Answer { value, index } = match within(limit, store.get(key, read)).await {
        Ok(answer) => answer,
        Err(error) => {
            debug!(%error, key, "look at a duty");
            return None;
        }
    };
    let holder = value.as_ref().and_then(|pair| pair.session.clone());
    Some(Seen { holder, doer: value.as_ref().and_then(doer), index })
}

fn doer(pair: &Pair) -> Option<Doer> {
    record::decode(&pair.key, &pair.value).inspect_err(|error| debug!(%error, "read who does a duty")).ok()
}

#[cfg(test)]
pub(in crate::sync) mod fake;
#[cfg(test)]
mod tests;

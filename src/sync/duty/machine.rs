//! Who does which duty, decided: one session for all duties of this agent, renewed in time, and a lock for each duty that
//! is taken when it comes free. Events in, actions out. Pure.
//!
//! The session counts as lost at [`LEASE_OF_TTL`] of its TTL after the last successful renewal was *sent*, by the
//! monotonic clock: before Consul can end it, whatever the network did. With it all duties are lost at once.

use std::time::{Duration, Instant};

use crate::{model::session::SessionId, sync::record::Doer};

/// Of the TTL, this much is the lease that the holder believes in: per mille. The rest is for clocks that differ.
const LEASE_OF_TTL: u32 = 900;

/// The longest wait of one look at a lock: a look that missed something is repeated that soon.
pub(super) const LOOK_WAIT: Duration = Duration::from_secs(15);

/// Between two looks that show the same, so that a key that wakes its watchers for nothing costs little.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// The first and the longest wait before something that went wrong is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// How a duty stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// We hold it with this session.
    pub session: Option<SessionId>,
    /// Who holds it: a hint whom to ask. None while nobody does, or nobody knows.
    pub doer: Option<Doer>,
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Time has passed.
    Woke,
    /// The answer to [`Action::MakeSession`], if there was one.
    Made { sent: Instant, session: Option<SessionId> },
    /// The answer to [`Action::Renew`].
    Renewed { session: SessionId, sent: Instant, renewal: Renewal },
    /// The answer to [`Action::Acquire`].
    Acquired { slot: usize, session: SessionId, grant: Grant },
    /// The answer to [`Action::Look`], if there was one.
    Looked { slot: usize, asked: Instant, seen: Option<Seen> },
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// The session lives on.
    Kept,
    /// There is none.
    Gone,
    /// No answer.
    Unknown,
}

/// What became of an acquire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// The lock is ours.
    Granted,
    /// It is another's, or still closed.
    Refused,
    /// Our session is gone.
    NoSession,
    /// No answer.
    Unknown,
}

/// What stands in a duty's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) holder: Option<SessionId>,
    pub(super) doer: Option<Doer>,
    pub(super) index: u64,
}

/// What is to be done. Each has one answer; of a kind and slot there is one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Make a session.
    MakeSession,
    /// Renew it.
    Renew(SessionId),
    /// End it, if it is still there. No answer.
    Destroy(SessionId),
    /// Take the lock of this duty.
    Acquire { slot: usize, session: SessionId },
    /// Read the key of this duty, at once or when it is beyond this index.
    Look { slot: usize, after: Option<u64> },
}

/// What is to be given back at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Release {
    pub(super) session: SessionId,
    pub(super) slots: Vec<usize>,
}

/// All duties of this agent.
#[derive(Debug)]
pub(super) struct Machine {
    me: Doer,
    ttl: Duration,
    session: Session,
    session_retry: Retry,
    slots: Vec<Slot>,
    rng: fastrand::Rng,
}

#[derive(Debug)]
enum Session {
    Absent { try_at: Instant },
    Making,
    Alive(Lease),
}

#[derive(Debug)]
struct Lease {
    id: SessionId,
    renewed: Instant,
    renew_at: Instant,
    is_renewing: bool,
}

#[derive(Debug)]
struct Slot {
    holder: Holder,
    /// Since when we know that it is ours.
    held_since: Option<Instant>,
    is_looking: bool,
    look_at: Instant,
    after: Option<u64>,
    is_acquiring: bool,
    acquire_at: Instant,
    look_retry: Retry,
    acquire_retry: Retry,
}

#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Unknown,
    Nobody,
    Somebody(Option<Doer>),
}

/// Waits that double, each cut to a random part of it between half and all.
#[derive(Debug, Default)]
struct Retry(u32);

impl Retry {
    fn next(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let full = RETRY.0.saturating_mul(1 << self.0.min(8)).min(RETRY.1);
        self.0 += 1;
        full / 2 + (full / 2).mul_f64(rng.f64())
    }

    fn reset(&mut self) {
        self.0 = 0;
    }
}

impl Machine {
    /// For so many duties, none of them known.
    pub(super) fn new(me: Doer, ttl: Duration, slots: usize, rng: fastrand::Rng, now: Instant) -> Self {
        let slot = || Slot {
            holder: Holder::Unknown,
            held_since: None,
            is_looking: false,
            look_at: now,
            after: None,
            is_acquiring: false,
            acquire_at: now,
            look_retry: Retry::default(),
            acquire_retry: Retry::default(),
        };
        let slots = std::iter::repeat_with(slot).take(slots).collect();
        let session = Session::Absent { try_at: now };
        Self { me, ttl, session, session_retry: Retry::default(), slots, rng }
    }

    /// How a duty stands.
    pub(super) fn holding(&self, slot: usize) -> Holding {
        let slot = &self.slots[slot];
        match (&self.session, slot.held_since, &slot.holder) {
            (Session::Alive(lease), Some(_), _) => {
                Holding { session: Some(lease.id.clone()), doer: Some(self.me.clone()) }
            }
            (_, _, Holder::Somebody(doer)) => Holding { session: None, doer: doer.clone() },
            _ => Holding::default(),
        }
    }

    /// When [`Event::Woke`] is due.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let session = match &self.session {
            _ if self.slots.is_empty() => None,
            Session::Absent { try_at } => Some(*try_at),
            Session::Making => None,
            Session::Alive(lease) if lease.is_renewing => Some(self.end_of(lease)),
            Session::Alive(lease) => Some(lease.renew_at.min(self.end_of(lease))),
        };
        let looks = self.slots.iter().filter(|slot| !slot.is_looking).map(|slot| slot.look_at);
        let wants = self.slots.iter().filter(|slot| self.wants(slot)).map(|slot| slot.acquire_at);
        session.into_iter().chain(looks).chain(wants).min()
    }

    /// Takes note of an event.
    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        // First: after a pause the session is lost before anything else is believed.
        self.expire(now, &mut actions);
        match event {
            Event::Woke => {}
            Event::Made { sent, session } => self.made(sent, session, now),
            Event::Renewed { session, sent, renewal } => self.renewed(&session, sent, renewal, now),
            Event::Acquired { slot, session, grant } => self.acquired(slot, &session, grant, now),
            Event::Looked { slot, asked, seen } => self.looked(slot, asked, seen, now),
        }
        self.expire(now, &mut actions);
        self.go_on(now, &mut actions);
        actions
    }

    /// Ends everything: what is ours from the next moment on is nothing.
    pub(super) fn release(&mut self, now: Instant) -> Option<Release> {
        let held = |(slot, state): (usize, &Slot)| state.held_since.is_some().then_some(slot);
        let slots = self.slots.iter().enumerate().filter_map(held).collect();
        let session = self.lose(now)?;
        Some(Release { session, slots })
    }

    fn end_of(&self, lease: &Lease) -> Instant {
        lease.renewed + self.ttl * LEASE_OF_TTL / 1000
    }

    fn wants(&self, slot: &Slot) -> bool {
        matches!(self.session, Session::Alive(_))
            && slot.held_since.is_none()
            && slot.holder == Holder::Nobody
            && !slot.is_acquiring
    }

    fn expire(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Session::Alive(lease) = &self.session
            && now >= self.end_of(lease)
        {
            // Consul may keep it for another TTL: ended now, the duties are free for whoever can do them.
            actions.extend(self.lose(now).map(Action::Destroy));
        }
    }

    /// Forgets the session, and with it what was held.
    fn lose(&mut self, now: Instant) -> Option<SessionId> {
        let before = std::mem::replace(&mut self.session, Session::Absent { try_at: now });
        for slot in &mut self.slots {
            slot.is_acquiring = false;
            if slot.held_since.take().is_some() {
                // Perhaps: the next acquire finds out, and costs one refused transaction.
                slot.holder = Holder::Nobody;
            }
        }
        match before {
            Session::Alive(lease) => Some(lease.id),
            Session::Absent { .. } | Session::Making => None,
        }
    }

    fn made(&mut self, sent: Instant, session: Option<SessionId>, now: Instant) {
        if !matches!(self.session, Session::Making) {
            return;
        }
        let Some(id) = session else {
            self.session = Session::Absent { try_at: now + self.session_retry.next(&mut self.rng) };
            return;
        };
        self.session_retry.reset();
        let renew_at = sent + self.ttl / 3;
        self.session = Session::Alive(Lease { id, renewed: sent, renew_at, is_renewing: false });
        self.slots.iter_mut().for_each(|slot| slot.acquire_at = now);
    }

    fn renewed(&mut self, session: &SessionId, sent: Instant, renewal: Renewal, now: Instant) {
        let Session::Alive(lease) = &mut self.session else { return };
        if lease.id != *session {
            return;
        }
        lease.is_renewing = false;
        match renewal {
            Renewal::Kept => {
                self.session_retry.reset();
                (lease.renewed, lease.renew_at) = (sent, sent + self.ttl / 3);
            }
            Renewal::Unknown => lease.renew_at = now + self.session_retry.next(&mut self.rng),
            Renewal::Gone => {
                self.lose(now);
            }
        }
    }

    fn acquired(&mut self, slot: usize, session: &SessionId, grant: Grant, now: Instant) {
        let Session::Alive(lease) = &self.session else { return };
        if lease.id != *session {
            return;
        }
        let state = &mut self.slots[slot];
        state.is_acquiring = false;
        match grant {
            Grant::Granted => {
                state.held_since = Some(now);
                state.acquire_retry.reset();
            }
            Grant::Refused | Grant::Unknown => {
                state.acquire_at = now + state.acquire_retry.next(&mut self.rng);
            }
            Grant::NoSession => {
                self.lose(now);
            }
        }
    }

    fn looked(&mut self, slot: usize, asked: Instant, seen: Option<Seen>, now: Instant) {
        let own = match &self.session {
            Session::Alive(lease) => Some(&lease.id),
            Session::Absent { .. } | Session::Making => None,
        };
        let state = &mut self.slots[slot];
        state.is_looking = false;
        let Some(seen) = seen else {
            state.after = None;
            state.look_at = now + state.look_retry.next(&mut self.rng);
            return;
        };
        state.look_retry.reset();
        let is_ours = seen.holder.is_some() && seen.holder.as_ref() == own;
        if !is_ours && state.held_since.is_some_and(|since| asked < since) {
            // It may be from before we got the lock: look again, at once.
            (state.after, state.look_at) = (None, now);
            return;
        }
        let holder = match seen.holder {
            Some(_) => Holder::Somebody(seen.doer),
            None => Holder::Nobody,
        };
        // An index that goes back is that of a restored Consul: nothing to wait on.
        state.after =
            Some(seen.index).filter(|index| *index > 0 && state.after.is_none_or(|after| *index >= after));
        state.look_at = if holder == state.holder { now + LOOK_PAUSE } else { now };
        state.holder = holder;
        if is_ours {
            state.held_since = state.held_since.or(Some(now));
        } else {
            state.held_since = None;
        }
    }

    fn go_on(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.slots.is_empty() {
            return;
        }
        match &mut self.session {
            Session::Absent { try_at } if *try_at <= now => {
                self.session = Session::Making;
                actions.push(Action::MakeSession);
            }
            Session::Alive(lease) if !lease.is_renewing && lease.renew_at <= now => {
                lease.is_renewing = true;
                actions.push(Action::Renew(lease.id.clone()));
            }
            Session::Absent { .. } | Session::Making | Session::Alive(_) => {}
        }
        for slot in 0..self.slots.len() {
            let wants = self.wants(&self.slots[slot]);
            let state = &mut self.slots[slot];
            if !state.is_looking && state.look_at <= now {
                state.is_looking = true;
                actions.push(Action::Look { slot, after: state.after });
            }
            if let Session::Alive(lease) = &self.session
                && wants
                && state.acquire_at <= now
            {
                state.is_acquiring = true;
                actions.push(Action::Acquire { slot, session: lease.id.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests;

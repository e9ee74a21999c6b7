//! The holder of a lock: asks for it, renews it in time, and knows when it has it no longer. Events in, actions out. Pure.
//!
//! The holder believes in its lease until nine tenths of the TTL after the last successful renewal was *sent*, by the
//! monotonic clock. Consul ends the session no earlier than one TTL after it received that renewal: whatever the network
//! and the clock's speed do, and however long the holder was paused, it stops believing first. What it still sends
//! afterwards carries a token that is no longer valid.

use std::time::{Duration, Instant};

/// How much of the TTL the holder believes in, in thousandths. The rest is for clocks that run at different speeds.
const LEASE_PER_MILLE: u32 = 900;

/// The longest wait that one request asks of the home: proxies between cut what is silent for longer.
pub const WAIT_SLICE: Duration = Duration::from_secs(50);

/// An answer that came sooner than this was not waited for: the next question is asked after a rest.
const PROMPT: Duration = Duration::from_millis(500);

/// The first and the longest rest before something that went wrong is tried again.
const REST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// When a lease ends that was renewed by a request sent then.
pub fn ends(sent: Instant, ttl: Duration) -> Instant {
    sent + ttl * LEASE_PER_MILLE / 1000
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Woke,
    /// The answer to [`Action::Ask`], which was sent then.
    Asked {
        /// When.
        sent: Instant,
        /// What came back.
        answer: Answer,
    },
    /// The answer to [`Action::Renew`], which was sent then.
    Renewed {
        /// When.
        sent: Instant,
        /// What came back.
        renewal: Renewal,
    },
}

/// What came of a request for the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is ours.
    Granted,
    /// It is another's.
    Held,
    /// Nobody could say; asking again may help.
    NotNow,
}

/// What came of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lock is still ours.
    Kept,
    /// It is not.
    Lost,
    /// Nobody could say.
    NotNow,
}

/// What is to be done. There is one request at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for the lock and wait in line for so long.
    Ask {
        /// Zero: not at all.
        wait: Duration,
    },
    /// Renew it.
    Renew,
    /// It is ours from now on.
    Hold,
    /// It was granted, but too long ago to be believed in: give it back.
    GiveBack,
    /// It was ours and is not any more.
    Lost {
        /// How.
        loss: Loss,
        /// Until then nobody else can have had it; its lock-delay comes on top.
        ours_until: Instant,
    },
    /// The time to wait is over.
    GiveUp(Answer),
}

/// How a lock was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The home said so.
    Taken,
    /// It could not be renewed in time.
    Unrenewed,
    /// We learn of it when another may have the lock already: this process was paused.
    Late,
}

/// The holder, or who wants to be.
#[derive(Debug)]
pub struct Holder {
    ttl: Duration,
    /// When to stop waiting; none to wait for ever.
    until: Option<Instant>,
    state: State,
    /// A request had no answer, so that the next one may be told a grant of that one.
    has_unanswered: bool,
    rests: u32,
    rng: fastrand::Rng,
}

#[derive(Debug)]
enum State {
    /// Asks again then.
    Resting(Instant),
    /// A request is on its way.
    Asking,
    /// The grant is confirmed by a first renewal, since it may be an old one.
    Confirming { granted: Instant, next: Next },
    /// It is ours.
    Holding { renewed: Instant, next: Next },
    /// It ended.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    RenewAt(Instant),
    Renewing,
}

impl Holder {
    /// One that waits until then, or for ever.
    pub fn new(ttl: Duration, until: Option<Instant>, rng: fastrand::Rng, now: Instant) -> Self {
        Self { ttl, until, state: State::Resting(now), has_unanswered: false, rests: 0, rng }
    }

    /// Until when the lock is ours, as far as we may believe.
    #[cfg(test)]
    fn holds_until(&self) -> Option<Instant> {
        match self.state {
            State::Holding { renewed, .. } => Some(ends(renewed, self.ttl)),
            _ => None,
        }
    }

    /// When [`Event::Woke`] is due.
    pub fn wake_at(&self) -> Option<Instant> {
        match self.state {
            State::Resting(at) => Some(at),
            State::Asking | State::Over => None,
            State::Confirming { granted: from, next } | State::Holding { renewed: from, next } => {
                let end = ends(from, self.ttl);
                Some(if let Next::RenewAt(at) = next { end.min(at) } else { end })
            }
        }
    }

    /// Takes note of an event.
    pub fn step(&mut self, event: &Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        // First: after a pause the lock is lost before any answer is looked at.
        self.expire(now, &mut actions);
        match event {
            Event::Woke => {}
            Event::Asked { sent, answer } => self.asked(*sent, answer, now, &mut actions),
            Event::Renewed { sent, renewal } => self.renewed(*sent, *renewal, now, &mut actions),
        }
        self.expire(now, &mut actions);
        self.go_on(now, &mut actions);
        actions
    }

    fn expire(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.state {
            State::Confirming { granted, .. } if now >= ends(granted, self.ttl) => {
                actions.push(Action::GiveBack);
                self.state = State::Resting(now);
            }
            State::Holding { renewed, .. } if now >= ends(renewed, self.ttl) => {
                let ours_until = renewed + self.ttl;
                let loss = if now >= ours_until { Loss::Late } else { Loss::Unrenewed };
                actions.push(Action::Lost { loss, ours_until });
                self.state = State::Over;
            }
            _ => {}
        }
    }

    fn asked(&mut self, sent: Instant, answer: &Answer, now: Instant, actions: &mut Vec<Action>) {
        if !matches!(self.state, State::Asking) {
            return;
        }
        self.has_unanswered |= *answer == Answer::NotNow;
        match answer {
            Answer::Granted => {
                self.rests = 0;
                self.granted(sent, now, actions);
            }
            Answer::Held | Answer::NotNow if self.until.is_some_and(|until| now >= until) => {
                actions.push(Action::GiveUp(answer.clone()));
                self.state = State::Over;
            }
            Answer::Held => {
                self.rests = 0;
                let is_prompt = now.saturating_duration_since(sent) < PROMPT;
                let at = if is_prompt { now + self.rest() } else { now };
                self.state = State::Resting(at);
            }
            Answer::NotNow => {
                let at = now + self.rest();
                self.state = State::Resting(self.until.map_or(at, |until| at.min(until)));
            }
        }
    }

    /// The session is as old as the first request at most. One that waited in line, or that was asked again, says little
    /// about that: the first renewal says more.
    fn granted(&mut self, sent: Instant, now: Instant, actions: &mut Vec<Action>) {
        let renew_at = sent + self.ttl / 3;
        if now < renew_at && !self.has_unanswered {
            self.state = State::Holding { renewed: sent, next: Next::RenewAt(renew_at) };
            actions.push(Action::Hold);
        } else {
            self.state = State::Confirming { granted: now, next: Next::RenewAt(now) };
        }
    }

    fn renewed(&mut self, sent: Instant, renewal: Renewal, now: Instant, actions: &mut Vec<Action>) {
        let rest = self.rest().min(self.ttl / 10);
        let (State::Confirming { granted: since, next } | State::Holding { renewed: since, next }) =
            &mut self.state
        else {
            return;
        };
        let ours_until = *since;
        if *next != Next::Renewing {
            return;
        }
        match renewal {
            Renewal::Kept => {
                self.rests = 0;
                if matches!(self.state, State::Confirming { .. }) {
                    actions.push(Action::Hold);
                }
                self.state = State::Holding { renewed: sent, next: Next::RenewAt(sent + self.ttl / 3) };
            }
            Renewal::NotNow => *next = Next::RenewAt(now + rest),
            Renewal::Lost if matches!(self.state, State::Confirming { .. }) => {
                self.state = State::Resting(now);
            }
            Renewal::Lost => {
                actions.push(Action::Lost { loss: Loss::Taken, ours_until });
                self.state = State::Over;
            }
        }
    }

    fn go_on(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match &mut self.state {
            State::Resting(at) if *at <= now => {
                let left = self.until.map_or(WAIT_SLICE, |until| until.saturating_duration_since(now));
                actions.push(Action::Ask { wait: left.min(WAIT_SLICE) });
                self.state = State::Asking;
            }
            State::Confirming { next, .. } | State::Holding { next, .. } => {
                if let Next::RenewAt(at) = next
                    && *at <= now
                {
                    *next = Next::Renewing;
                    actions.push(Action::Renew);
                }
            }
            State::Resting(_) | State::Asking | State::Over => {}
        }
    }

    /// Doubles from one failure to the next; between half of that and all.
    fn rest(&mut self) -> Duration {
        let full = REST.0.saturating_mul(1 << self.rests.min(8)).min(REST.1);
        self.rests += 1;
        full / 2 + (full / 2).mul_f64(self.rng.f64())
    }
}

#[cfg(test)]
mod tests;

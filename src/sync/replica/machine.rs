//! What an applier does next: the stages of a replica and what leads from one to the next. Pure.
//!
//! ```text
//! standby ⇄ init → compare → stream ⇄ retry
//!             └──→ snapshot ──┘  │
//!                  hold ←────────┘   left by a person's word only
//! ```

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::{
    model::sync::Position,
    sync::{
        record::{Hash, Phase, RecordError, State},
        replica::{
            chain::Break,
            snapshot::{Excess, Guard, Rest},
        },
    },
};

/// The longest pause after the first failure; each further one doubles it.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);

/// The longest pause of all.
const BACKOFF_CAP: Duration = Duration::from_secs(30);

/// A stream that lasted so long was healthy: the next failure is a first one.
const HEALTHY: Duration = Duration::from_secs(60);

/// Where a replica is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Another agent of the datacenter applies, or none does.
    #[default]
    Standby,
    /// The progress is read.
    Init,
    /// Both sides are compared, since this agent knows no indexes.
    Compare,
    /// All keys are taken from home: the data is of no single position.
    Snapshot,
    /// The data is the home's at the position.
    Stream,
    /// Something failed, and is tried again.
    Retry,
    /// Nothing is applied before a person approves.
    Hold,
}

/// Why nothing is applied any more. Each text ends with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The home's history does not contain ours.
    #[error(
        "the home's history, now at {home}, does not contain this replica's position ({reason}): the home was restored or wiped; {APPROVE}"
    )]
    Forked {
        /// Where the home is.
        home: Position,
        /// What the home says.
        reason: String,
    },
    /// The home is behind us.
    #[error("the home is at {home}, behind this replica's {at}: it was restored or wiped; {APPROVE}")]
    Behind {
        /// Where the home is.
        home: Position,
        /// Where we are.
        at: Position,
    },
    /// The chain of entries is broken.
    #[error("the journal does not continue: {0}; {APPROVE}")]
    Broken(#[from] Break),
    /// The guard.
    #[error("{} of {} keys would be deleted, which is more than passes unasked; {APPROVE}", .0.deletes, .0.keys)]
    Guard(Excess),
    /// An empty home.
    #[error(
        "the home says at {home} that it is empty, and that proves nothing to a replica at {at}: all {keys} keys would be deleted; \
         look at home, and if they are to go, {APPROVE}"
    )]
    Emptied {
        /// Where the home is.
        home: Position,
        /// Where we are.
        at: Position,
        /// How many keys there are here.
        keys: usize,
    },
    /// Our own record cannot be used.
    #[error("{0}; or {APPROVE}")]
    Record(#[from] RecordError),
    /// Our own record is about something else.
    #[error("the state record is about prefix `{prefix}` of {home}: the configuration changed; {APPROVE}")]
    Moved {
        /// The prefix in the record.
        prefix: String,
        /// The home in the record.
        home: String,
    },
}

/// What a person can do.
const APPROVE: &str = "`causeway sync approve PREFIX` takes the home's data as it is";

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The duty is ours.
    Taken,
    /// It is not ours any more.
    Lost,
    /// The work goes on in this stage.
    Reached(Stage),
    /// Something failed that may go better next time.
    Failed(String),
    /// Something only a person can decide on.
    Held(Reason),
    /// A person decided: the home's data as it is.
    Approved,
    /// All data is to be taken anew, as a person wishes or since keys were edited here.
    Anew(&'static str),
    /// All data was taken.
    Copied,
}

/// A step from one stage to another, which is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: Stage,
    /// After.
    pub to: Stage,
    /// What led to it, unless that is in the stages.
    pub why: Option<String>,
}

/// What keeps a replica at `at` from taking over a whole list of the home, which stands at `home` in a history that
/// contains `at`.
pub fn objection(at: Position, home: Position, rest: &Rest, guard: Guard) -> Option<Reason> {
    if home < at {
        return Some(Reason::Behind { home, at });
    }
    if let Some(excess) = rest.excess(guard) {
        return Some(Reason::Guard(excess));
    }
    // Entries of our own history empty a home as they fill it. Without any behind ours nothing can have been deleted.
    let has_gone_on = home.epoch == at.epoch && home.seq > at.seq;
    (rest.leaves_nothing() && !has_gone_on).then_some(Reason::Emptied { home, at, keys: rest.local })
}

/// How the work begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// With all data, once the home has said that it knows our position, if there is one to ask about.
    Anew {
        /// The position to ask about.
        check: Option<(Position, Hash)>,
    },
    /// With a comparison, and then the journal behind this position.
    Compare(Position, Hash),
    /// With the journal behind this position.
    Continue(Position, Hash),
}

/// The machine.
#[derive(Debug, Default)]
pub struct Machine {
    stage: Stage,
    failures: u32,
    streaming_since: Option<Instant>,
    is_approved: bool,
    is_anew: bool,
    why: Option<String>,
}

impl Machine {
    /// Where it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Why it retries or holds.
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// Whether the home's data is taken as it is, whatever that deletes.
    pub fn is_approved(&self) -> bool {
        self.is_approved
    }

    /// Takes an event. A transition is given once for each change of stage.
    pub fn step(&mut self, event: Event, now: Instant) -> Option<Transition> {
        match event {
            Event::Taken => self.go(Stage::Init, None),
            Event::Lost => {
                (self.is_approved, self.is_anew, self.failures) = (false, false, 0);
                self.go(Stage::Standby, None)
            }
            Event::Reached(stage) => {
                if stage == Stage::Stream {
                    self.streaming_since.get_or_insert(now);
                }
                self.go(stage, None)
            }
            Event::Failed(why) => {
                let since = self.streaming_since.take();
                if since.is_some_and(|since| now.saturating_duration_since(since) >= HEALTHY) {
                    self.failures = 0;
                }
                self.failures = self.failures.saturating_add(1);
                self.go(Stage::Retry, Some(why))
            }
            Event::Held(reason) => {
                self.streaming_since = None;
                self.go(Stage::Hold, Some(reason.to_string()))
            }
            Event::Approved => {
                (self.is_approved, self.is_anew, self.failures) = (true, true, 0);
                self.go(Stage::Init, Some("approved".to_owned()))
            }
            Event::Anew(why) => {
                (self.is_anew, self.streaming_since) = (true, None);
                self.go(Stage::Init, Some(why.to_owned()))
            }
            Event::Copied => {
                (self.is_approved, self.is_anew) = (false, false);
                None
            }
        }
    }

    /// How long to pause before the next attempt. `share` is random, from 0 to 1.
    pub fn pause(&self, share: f64) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_CAP).mul_f64(share.clamp(0.0, 1.0))
    }

    /// How to begin with this progress. `is_known`: the indexes in memory belong to it.
    pub fn opening(&self, state: Option<&State>, is_known: bool) -> Opening {
        let Some(state) = state.filter(|_| !self.is_approved) else { return Opening::Anew { check: None } };
        let (at, hash) = (state.position, state.hash.clone());
        if self.is_anew || state.phase == Phase::Snapshot {
            return Opening::Anew { check: (at != Position::default()).then_some((at, hash)) };
        }
        if is_known { Opening::Continue(at, hash) } else { Opening::Compare(at, hash) }
    }

    fn go(&mut self, to: Stage, why: Option<String>) -> Option<Transition> {
        let from = std::mem::replace(&mut self.stage, to);
        // What failed stays visible until the work goes well again.
        if !matches!(to, Stage::Init | Stage::Compare) {
            self.why.clone_from(&why);
        }
        // A stream may be short and end again and again: each attempt is the same story.
        (from != to).then_some(Transition { from, to, why })
    }
}

#[cfg(test)]
mod tests;

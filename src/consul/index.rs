//! When to ask Consul again, and for what: the rules of blocking queries as a state machine without clock or I/O.
//!
//! One [`Poll`] per topic. It is told what came of the last request and answers with the next one: how long to pause,
//! what to wait on, how long Consul may hold the request, and how long the client has patience. Time and randomness
//! are arguments. It never learns what an answer says.

use std::time::Duration;

/// How long Consul may hold a request about the local agent or datacenter. Longer saves nothing measurable, shorter
/// finds a hung agent sooner.
pub const WAIT: Duration = Duration::from_secs(60);
/// The same for a request that another datacenter may have to answer: a cut link is only noticed by the deadline,
/// since Consul 1.8.7 has no read timeout of its own on the way (hashicorp/consul#8504).
pub const WAIT_REMOTE: Duration = Duration::from_secs(30);
/// Patience beyond the time that Consul may hold a request.
pub const MARGIN: Duration = Duration::from_secs(10);

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// Consul answers, but cannot serve: no leader, no path, rate limit. It gets more air than a closed port.
const BUSY_FIRST: Duration = Duration::from_millis(250);
/// A cut link to another datacenter is answered like this, and its return should be seen soon.
const BUSY_CAP: Duration = Duration::from_secs(10);
/// Each try at a question that another datacenter leaves open holds a turn for as long as the client has patience.
const HUNG_FIRST: Duration = Duration::from_secs(1);
const LIMITED_FIRST: Duration = Duration::from_secs(1);
/// Only a person can mend what Consul denies.
const DENIED_FIRST: Duration = Duration::from_secs(2);
/// A refused connection to the local agent costs nothing, and its return should be seen soon.
const UNREACHABLE_CAP: Duration = Duration::from_secs(5);
/// Consul is starting: its certificate authority is ready within seconds.
const NOT_READY_CAP: Duration = Duration::from_secs(1);
/// An answer that cannot be blocked on (index absent or zero; hash absent) is asked for at this pace.
const UNBLOCKABLE: Duration = Duration::from_secs(1);
/// A service that is not registered has no hash. It may be about to be registered, so it is asked for at that pace at
/// first; but any proxy may name any id, so the pace falls after this many answers.
const ABSENCES: u32 = 10;
/// As far as that.
const UNREGISTERED: Duration = Duration::from_secs(10);
/// A connection that ends after at least this long without an answer was cut by a timeout on the way (early builds of
/// Consul 1.22 cut long polls after 30 s), not by an outage.
const CUT_BY_TIMEOUT: Duration = Duration::from_secs(5);

/// The pace of answers: a bucket of this many, filled at this rate.
const BUCKET: f64 = 100.0;
const FILL_PER_S: f64 = 50.0;
/// A wake-up with identical data (any write of the same table can cause one) costs so much that the pace becomes one
/// a second after the second of them.
const COST_SAME: f64 = 50.0;
const COST_CHANGED: f64 = 1.0;

/// How a topic is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// By blocking on `X-Consul-Index`.
    Index,
    /// By blocking on `X-Consul-ContentHash`; an unknown service has none and is polled.
    Hash,
    /// By polling: Consul cannot block there.
    Every(Duration),
}

/// What a request waits on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Nothing: Consul answers at once.
    Now,
    /// An index beyond this one. Never zero.
    Index(u64),
    /// Another hash than this one.
    Hash(String),
}

/// The next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// How long to pause before it.
    pub pause: Duration,
    /// What it waits on.
    pub cursor: Cursor,
    /// How long Consul may hold it. Sent only with a cursor.
    pub wait: Duration,
    /// When the client gives up, counted from sending.
    pub deadline: Duration,
    /// Whether only a leader that has applied its whole log may answer (`?consistent`).
    pub is_consistent: bool,
}

impl Ask {
    fn new(pause: Duration, cursor: Cursor, wait: Duration, is_consistent: bool) -> Self {
        // Consul adds up to a sixteenth to the wait, to spread its clients.
        let held = if cursor == Cursor::Now { Duration::ZERO } else { wait + wait / 16 };
        Self { pause, cursor, wait, deadline: held + MARGIN, is_consistent }
    }

    /// The same question without waiting on anything, for whoever knows that it is time.
    pub(crate) fn at_once(self) -> Self {
        Self::new(self.pause, Cursor::Now, self.wait, self.is_consistent)
    }

    /// The same question, which Consul may hold for `wait`.
    pub(crate) fn held_for(self, wait: Duration) -> Self {
        Self::new(self.pause, self.cursor, wait, self.is_consistent)
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An answer that can be used.
    Reply {
        /// `X-Consul-Index`.
        index: Option<u64>,
        /// `X-Consul-ContentHash`.
        hash: Option<String>,
        /// Whether it says another thing than the one before.
        changed: bool,
    },
    /// Consul does not have this at all (an unknown kind of configuration entry): an answer that can only change
    /// with another version of Consul.
    Absent,
    /// No answer that can be used.
    Failed(Fault),
}

/// Why there is no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection, or it broke, or the deadline passed.
    Unreachable,
    /// The deadline passed for a question that another datacenter has to answer.
    Hung,
    /// The connection ended this long after the request was sent.
    Cut(Duration),
    /// 429.
    Limited,
    /// 500, 503 and the other 5xx.
    Busy,
    /// 403, 404 and the other 4xx.
    Denied,
    /// An answer that is no Consul answer.
    Garbage,
    /// Consul is not ready to say (an empty trust domain).
    NotReady,
}

/// A topic that is absent is asked for again after this long.
pub const ABSENT_EVERY: Duration = Duration::from_secs(600);

/// A pace: so much at once, so much a second ever after.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    size: f64,
    fill_per_s: f64,
    tokens: f64,
    filled_at: Duration,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(size: f64, fill_per_s: f64) -> Self {
        Self { size, fill_per_s, tokens: size, filled_at: Duration::ZERO }
    }

    /// Takes from it; the debt, if any, is the pause. `now` is the time since any fixed moment.
    pub(crate) fn pay(&mut self, cost: f64, now: Duration) -> Duration {
        let elapsed = now.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * self.fill_per_s).min(self.size) - cost;
        Duration::from_secs_f64((-self.tokens).max(0.0) / self.fill_per_s)
    }
}

/// The state of one topic's queries.
#[derive(Clone, Debug)]
pub struct Poll {
    follow: Follow,
    cursor: Cursor,
    /// The index of the last answer that was believed; zero where it had none.
    believed: Option<u64>,
    failures: u32,
    /// Whether the last one was that nobody answered.
    was_away: bool,
    /// Answers without a hash, one after the other.
    absences: u32,
    bucket: Bucket,
}

impl Poll {
    /// Nothing asked yet.
    pub fn new(follow: Follow) -> Self {
        Self {
            follow,
            cursor: Cursor::Now,
            believed: None,
            failures: 0,
            was_away: false,
            absences: 0,
            bucket: Bucket::new(BUCKET, FILL_PER_S),
        }
    }

    /// The first request; `wait` as in [`Poll::next`].
    pub fn first(&self, wait: Duration) -> Ask {
        self.ask(Duration::ZERO, wait)
    }

    /// Whether an answer with this index to `ask` may come from a leader that has just been elected: those of Consul 1.8
    /// answer before they have applied their log, from empty tables if all servers were restarted. Such an answer is no
    /// [`Event`] until [`Poll::again`] has confirmed it.
    pub fn doubts(&self, index: Option<u64>, ask: &Ask) -> bool {
        let has_index = self.follow == Follow::Index;
        has_index && !ask.is_consistent && self.believed.is_some_and(|believed| index.unwrap_or(0) < believed)
    }

    /// The request that settles a doubt.
    pub fn again(&mut self, wait: Duration) -> Ask {
        self.cursor = Cursor::Now;
        Ask::new(Duration::ZERO, Cursor::Now, wait, true)
    }

    /// What to do after `event`. `now` is the time since any fixed moment, `jitter` a random number from 0 up to 1,
    /// `wait` how long Consul may hold the next request.
    pub fn next(&mut self, event: &Event, now: Duration, jitter: f64, wait: Duration) -> Ask {
        let pause = match event {
            Event::Reply { index, hash, changed } => {
                self.failures = 0;
                self.believed = Some(index.unwrap_or(0));
                self.after_reply(*index, hash.as_deref(), *changed, now, jitter)
            }
            Event::Absent => {
                self.failures = 0;
                self.cursor = Cursor::Now;
                spread(ABSENT_EVERY, jitter)
            }
            Event::Failed(fault) => self.after_fault(*fault, jitter),
        };
        self.ask(pause, wait)
    }

    fn after_reply(
        &mut self,
        index: Option<u64>,
        hash: Option<&str>,
        changed: bool,
        now: Duration,
        jitter: f64,
    ) -> Duration {
        let next = match (self.follow, index, hash) {
            (Follow::Every(pace), ..) => return spread(pace, jitter),
            (Follow::Index, Some(index), _) if index > 0 => Some(Cursor::Index(index)),
            (Follow::Hash, _, Some(hash)) if !hash.is_empty() => Some(Cursor::Hash(hash.to_owned())),
            _ => None,
        };
        let Some(next) = next else {
            self.cursor = Cursor::Now;
            return spread(self.unblockable(), jitter);
        };
        self.absences = 0;
        self.cursor = match (&self.cursor, &next) {
            // Another history (a restored snapshot, another server): what the old index meant is gone.
            (Cursor::Index(old), Cursor::Index(new)) if new < old => Cursor::Now,
            _ => next,
        };
        self.bucket.pay(if changed { COST_CHANGED } else { COST_SAME }, now)
    }

    fn unblockable(&mut self) -> Duration {
        if self.follow != Follow::Hash {
            return UNBLOCKABLE;
        }
        self.absences = self.absences.saturating_add(1);
        UNBLOCKABLE.saturating_mul(1 << self.absences.saturating_sub(ABSENCES).min(16)).min(UNREGISTERED)
    }

    fn after_fault(&mut self, fault: Fault, jitter: f64) -> Duration {
        let (first, cap) = match fault {
            // Asked again with the same cursor, once: the answer was never in doubt.
            Fault::Cut(after) if self.is_first_timeout_cut(after) => {
                self.failures = 1;
                return spread(UNBLOCKABLE, jitter);
            }
            Fault::Unreachable | Fault::Cut(_) => (BACKOFF_FIRST, UNREACHABLE_CAP),
            Fault::Garbage => (BACKOFF_FIRST, BACKOFF_CAP),
            Fault::NotReady => (BACKOFF_FIRST, NOT_READY_CAP),
            Fault::Hung => (HUNG_FIRST, BACKOFF_CAP),
            Fault::Busy => (BUSY_FIRST, BUSY_CAP),
            Fault::Limited => (LIMITED_FIRST, BACKOFF_CAP),
            Fault::Denied => (DENIED_FIRST, BACKOFF_CAP),
        };
        // Who refuses at last was away before, and may only be starting (an ACL that is not loaded yet): soon again.
        let is_away = matches!(fault, Fault::Unreachable | Fault::Cut(_));
        if std::mem::replace(&mut self.was_away, is_away) && !is_away {
            self.failures = 0;
        }
        // Relist without blocking, so that recovery is seen with the first answer and not after a whole wait.
        self.cursor = Cursor::Now;
        let doubled = first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        spread(doubled.min(cap), jitter)
    }

    /// Whether a connection that ended after `after` was only cut by a timeout on the way.
    pub fn is_first_timeout_cut(&self, after: Duration) -> bool {
        self.failures == 0 && self.cursor != Cursor::Now && after >= CUT_BY_TIMEOUT
    }

    fn ask(&self, pause: Duration, wait: Duration) -> Ask {
        // What was never heard has no index to be measured by: what is known of it may be from disk.
        let is_consistent = self.follow == Follow::Index && self.believed.is_none();
        Ask::new(pause, self.cursor.clone(), wait, is_consistent)
    }
}

/// Between half and all of it, so that many topics do not ask in step.
pub(crate) fn spread(pause: Duration, jitter: f64) -> Duration {
    pause.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;

//! What one stream is sent, delta or state of the world: a pure state machine, requests and snapshots in, responses out.
//!
//! Knows neither sockets nor clocks nor protobuf: `server` converts, sends, and tells the time. Numbers in comments
//! (`rule 32`) are those of `docs/xds-rules.md`.
//!
//! Every step first takes in what happened and then sends whatever is due ([`flush`]), so that a slow client
//! coalesces: nothing is queued, the difference between snapshot and client is worked out anew each time.

mod flush;
mod gate;
mod look;
mod refusal;
mod report;
mod request;
mod sotw;
mod split;
mod state;
mod world;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::xds::{
    resource::{Key, Kind, per_kind::PerKind},
    snapshot::{Entry, Snapshot},
    subscription::state::TypeState,
    version::Version,
};

/// How long a listener or route waits for the ACK of clusters it names, and a cluster's removal for the ACK of
/// what stops naming it. Envoy answers in milliseconds, unless some cluster cannot warm: then it withholds the ACK
/// for up to 15 s, and traffic must not stand still for that.
pub const GATE_LIMIT: Duration = Duration::from_secs(2);

/// Which of the two protocols a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Requests add and remove names, responses add and remove resources.
    Delta,
    /// Requests carry all names. Responses carry all clusters or listeners, and of other types what changed.
    StateOfTheWorld,
}

/// A delta discovery request, in our own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The type of resource it is about.
    pub type_url: String,
    /// Names asked for; `*` is everything.
    pub subscribe: Vec<String>,
    /// Names no longer wanted.
    pub unsubscribe: Vec<String>,
    /// What the client has from an earlier stream. Counts only in the first request of a type.
    pub initial_versions: BTreeMap<String, Version>,
    /// The response it answers; empty if none.
    pub nonce: String,
    /// Why the client refused that response.
    pub error: Option<String>,
}

/// A state-of-the-world discovery request, in our own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SotwRequest {
    /// The type of resource it is about.
    pub type_url: String,
    /// All names wanted from now on; `*` is everything.
    pub names: Vec<String>,
    /// The version that the client last took, on this stream or an earlier one; empty if none.
    pub version: String,
    /// The response it answers; empty if none.
    pub nonce: String,
    /// Why the client refused that response.
    pub error: Option<String>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A delta client said something.
    Request(Request),
    /// A state-of-the-world client said something.
    Sotw(SotwRequest),
    /// This is now what the client should have.
    Offer(Arc<Snapshot>),
    /// Time passed; due at [`Subscription::next_deadline`].
    Tick,
}

/// A discovery response, in our own words.
#[derive(Clone, Debug)]
pub struct Response {
    /// The type of its resources.
    pub kind: Kind,
    /// Never empty, unique on this stream, and unlike those of the streams beside it (rule 5).
    pub nonce: String,
    /// One version for all resources of the type: in delta for people who debug, in state of the world the
    /// `version_info`, equal for equal content whoever sends it.
    pub system_version: Version,
    /// What the client should have altogether when this was sent: for people who compare (rule 53).
    pub revision: Version,
    /// Delta: added or changed. State of the world: all that the response carries.
    pub resources: Vec<Arc<Entry>>,
    /// Gone, or never there. Empty in state of the world, which has no words for it.
    pub removed: Vec<String>,
    /// What the client asked for by name and does not exist: told as errors, once, so that a client fails fast.
    pub not_found: Vec<String>,
}

/// What to do, in this order; everything but `Send` is for logs and metrics.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send this response.
    Send(Response),
    /// The client took a response.
    Acked {
        /// The type.
        kind: Kind,
        /// The response.
        nonce: String,
        /// Since it was sent.
        after: Duration,
    },
    /// The client refused a response.
    Nacked {
        /// The type.
        kind: Kind,
        /// The response.
        nonce: String,
        /// The client's words.
        error: String,
        /// The resources in that response.
        resources: Vec<String>,
    },
    /// The client asked for a type that is not served; told once for each type.
    UnknownType(String),
}

/// One stream's state: names and versions, and shared entries while the client may hold them.
#[derive(Debug)]
pub struct Subscription {
    stream: u64,
    variant: Variant,
    source_bytes: usize,
    sent: u64,
    snapshot: Arc<Snapshot>,
    types: PerKind<TypeState>,
    unknown_types: BTreeSet<String>,
    /// Since when each gated resource waits.
    waiting: BTreeMap<Key, Instant>,
    /// When it was last looked at; a wait that had ended by then holds nothing up any more.
    looked_at: Option<Instant>,
}

impl Subscription {
    /// A new stream's state. `stream` goes into the nonces: unique in this process, so that an answer meant for
    /// another stream is not taken for one of this.
    pub fn new(stream: u64, variant: Variant) -> Self {
        Self {
            stream,
            variant,
            source_bytes: 0,
            sent: 0,
            snapshot: Arc::new(Snapshot::empty()),
            types: PerKind::default(),
            unknown_types: BTreeSet::new(),
            waiting: BTreeMap::new(),
            looked_at: None,
        }
    }

    /// For a client to which each place to fetch from is told in so many bytes more than over ADS: its responses are split
    /// by what they will be.
    pub fn with_sources_of(self, source_bytes: usize) -> Self {
        Self { source_bytes, ..self }
    }

    /// Takes in what happened and says what to do about it. `now` never goes back. What is sent is worked out last and kept
    /// nowhere: a response for a subscription that is no longer can not be under way (rule 45).
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Request(request) => self.take_request(request, now, &mut actions),
            Event::Sotw(request) => self.take_sotw(request, now, &mut actions),
            Event::Offer(snapshot) => self.take_offer(snapshot),
            Event::Tick => {}
        }
        self.flush(now, &mut actions);
        self.looked_at = Some(now);
        actions
    }

    /// When a [`Event::Tick`] is due, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let ends = self.waiting.values().map(|since| *since + GATE_LIMIT);
        ends.filter(|end| self.looked_at.is_none_or(|at| *end > at)).min()
    }

    /// Whether responses of that type carry everything, so that what they lack is deleted (rule 19).
    fn carries_all(&self, kind: Kind) -> bool {
        self.variant == Variant::StateOfTheWorld && matches!(kind, Kind::Cluster | Kind::Listener)
    }

    /// Whether a resource of that type can be removed only by removing what names it (rule 20).
    fn cannot_remove(&self, kind: Kind) -> bool {
        self.variant == Variant::StateOfTheWorld && !self.carries_all(kind)
    }

    fn state(&self, kind: Kind) -> &TypeState {
        &self.types[kind]
    }

    fn state_mut(&mut self, kind: Kind) -> &mut TypeState {
        &mut self.types[kind]
    }
}

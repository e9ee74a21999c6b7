//! Other sync agents, as the engine sees them. `proto/causeway/sync/v1` is what is said on the wire.
//!
//! [`Peers`] is the seam: real agents are reached over gRPC, simulated ones over a simulated network. What an
//! agent answers is [`Served`], whoever carries it.

pub mod convert;
pub mod facts;
pub mod grpc;
pub mod identity;
pub mod intentions;
pub mod leaf;
mod limits;
pub mod register;
pub mod route;
pub mod serve;
mod status;
pub mod wire;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::{
    model::{
        kv::Pair,
        name::{Datacenter, NodeName},
        secret::SecretText,
        sync::{Position, Prefix},
    },
    sync::record::{Doer, Entry, Hash},
};

/// The service's name in Consul: in the catalog, in certificates, in intentions.
pub const SERVICE: &str = "causeway-sync";

/// Its port, unless configured.
pub const PORT: u16 = 18443;

/// The newest version of the protocol that this build speaks.
pub const VERSION: u32 = 1;
/// The oldest.
pub const MIN_VERSION: u32 = 1;

/// More than so many agents pass no request on: they disagree on who is active.
pub const MAX_HOPS: u32 = 3;

/// Messages of a stream that wait between its two tasks: enough to hide a turn of the runtime, few enough that a slow
/// follower costs a few messages of memory.
pub const FOLLOW_QUEUE: usize = 16;

/// Who is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any sync agent of a datacenter.
    Datacenter(Datacenter),
    /// This agent of the own datacenter.
    Doer(Doer),
}

/// Ways to other agents. Clones are the same ones.
pub trait Peers: Clone + Send + Sync + 'static {
    /// Asks who the other is.
    fn hello(&self, to: &Target, hello: Hello) -> impl Future<Output = Result<HelloReply, PeerError>> + Send;

    /// Has a client's request executed.
    fn forward(
        &self,
        to: &Target,
        request: Forward,
        deadline: Duration,
    ) -> impl Future<Output = Result<Forwarded, PeerError>> + Send;

    /// Follows a prefix. The stream ends when it is dropped, and by an error in it; `acks` tells the home how far the
    /// follower is.
    fn follow(
        &self,
        to: &Target,
        start: FollowStart,
        acks: watch::Receiver<Position>,
    ) -> impl Future<Output = Result<mpsc::Receiver<Result<FollowItem, PeerError>>, PeerError>> + Send;

    /// Has the home confirm that it held none of these keys.
    fn absent(
        &self,
        to: &Target,
        absent: Absent,
        deadline: Duration,
    ) -> impl Future<Output = Result<(), PeerError>> + Send;
}

/// What an agent answers to others: the other end of [`Peers`].
pub trait Served: Clone + Send + Sync + 'static {
    /// To [`Peers::hello`]. `from` is the datacenter in the caller's certificate.
    fn hello(
        &self,
        from: &Datacenter,
        hello: Hello,
    ) -> impl Future<Output = Result<HelloReply, PeerError>> + Send;

    /// To [`Peers::forward`].
    fn forward(
        &self,
        from: &Datacenter,
        request: Forward,
    ) -> impl Future<Output = Result<Forwarded, PeerError>> + Send;

    /// To [`Peers::follow`]. Sends items until the receiver is dropped.
    fn follow(
        &self,
        from: &Datacenter,
        start: FollowStart,
        acks: watch::Receiver<Position>,
        items: mpsc::Sender<Result<FollowItem, PeerError>>,
    ) -> impl Future<Output = ()> + Send;

    /// To [`Peers::absent`].
    fn absent(&self, from: &Datacenter, absent: Absent)
    -> impl Future<Output = Result<(), PeerError>> + Send;
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest and the newest version that it speaks.
    pub versions: (u32, u32),
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Its Consul node.
    pub node: NodeName,
    /// Its prefixes.
    pub prefixes: Vec<Prefix>,
    /// The most verbs that a transaction of its Consul takes.
    pub max_txn_ops: usize,
    /// The largest value that it is configured to take; none when it does not say.
    pub max_value_bytes: Option<usize>,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloReply {
    /// The version to speak.
    pub version: u32,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Its Consul node.
    pub node: NodeName,
    /// Its prefixes.
    pub prefixes: Vec<Prefix>,
    /// The most verbs that a transaction of its Consul takes.
    pub max_txn_ops: usize,
    /// The largest value that it is configured to take; none when it does not say.
    pub max_value_bytes: Option<usize>,
    /// What its datacenter knows of each prefix; to an agent of its own datacenter what it remembers itself, and from
    /// older releases nothing.
    pub known: Vec<Known>,
}

/// How far a datacenter's knowledge of a prefix goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The prefix's text.
    pub prefix: String,
    /// The last entry that it knows.
    pub position: Position,
    /// That entry's hash.
    pub hash: Hash,
}

/// A client's HTTP request, to be executed elsewhere. Its `Debug` shows neither body nor token.
#[derive(Clone, PartialEq, Eq)]
pub struct Forward {
    /// Stays the same when it is sent again.
    pub request_id: String,
    /// `GET`, `PUT`, `POST` or `DELETE`.
    pub method: String,
    /// As the client sent them, without its token.
    pub path_and_query: String,
    /// Those that mean something to the endpoint, names in lower case; never the token.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The client's own token.
    pub token: Option<SecretText>,
    /// The datacenter where the client asked.
    pub origin: Datacenter,
    /// How often it was passed on.
    pub hops: u32,
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward")
            .field("request_id", &self.request_id)
            .field("method", &self.method)
            .field("path_and_query", &self.path_and_query)
            .field("origin", &self.origin)
            .field("hops", &self.hops)
            .finish_non_exhaustive()
    }
}

/// What came of it. Its `Debug` shows neither headers nor body.
#[derive(Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl std::fmt::Debug for Forwarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarded")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Where a follower is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowStart {
    /// The prefix's text.
    pub prefix: String,
    /// The last entry that it has, with its hash; none when it has nothing.
    pub at: Option<(Position, Hash)>,
    /// It has the data and wants only keys, indexes and hashes to compare, and then the journal.
    pub compare: bool,
    /// The datacenter that follows, where an agent of the home's own passes its wish on to the active one. Believed of
    /// nobody else.
    pub origin: Option<Datacenter>,
}

/// The most keys that are asked about at once.
pub const ABSENT_KEYS: usize = 256;

/// Keys that a follower has and the home's list lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// The prefix's text.
    pub prefix: String,
    /// [`ABSENT_KEYS`] of them at most, all below the prefix.
    pub keys: Vec<String>,
    /// Where the list ended. What was made after it does not count: its entries follow.
    pub at: Position,
}

/// What a follower is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowItem {
    /// The journal goes on behind its position.
    Continues,
    /// Its position is not part of the home's history.
    Forked {
        /// Where the home is.
        home: Position,
        /// Why it is none.
        reason: String,
    },
    /// All keys follow.
    SnapshotBegin,
    /// Some of them.
    SnapshotPairs(Vec<SnapshotPair>),
    /// These were all.
    SnapshotEnd {
        /// Entries behind this one follow.
        position: Position,
        /// Its hash.
        hash: Hash,
        /// How many pairs there were.
        pairs: u64,
    },
    /// An entry of the journal.
    Entry {
        /// The record.
        entry: Entry,
        /// Its own hash.
        hash: Hash,
        /// The home's index of what it changed.
        modify_index: u64,
        /// The values that it names by hash, in the order of its changes.
        blobs: Vec<Bytes>,
    },
    /// Where the journal ends.
    Tip {
        /// The last entry.
        position: Position,
        /// When it was committed, in ms since 1970.
        ts_ms: u64,
    },
}

/// A key of a snapshot, with the home's indexes; some may be [`UNKNOWN_INDEX`](crate::model::kv::UNKNOWN_INDEX)
/// or [`UNKNOWN_LOCK`](crate::model::kv::UNKNOWN_LOCK).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotPair {
    /// What it holds.
    Data(Pair),
    /// What it holds, by the hash of its value.
    Hashed {
        /// Without its value.
        pair: Pair,
        /// The BLAKE3 hash of the value.
        hash: [u8; 32],
    },
    /// A lock, which lives at home only.
    Held(String),
}

/// Why another agent has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It was not reached: nothing was executed.
    #[error("{0}")]
    Unreached(String),
    /// The connection or the time ended before the answer came: whether it was executed is open.
    #[error("{0}")]
    Unknown(String),
    /// It said no: nothing was executed.
    #[error("{0}")]
    Refused(String),
    /// The two do not fit together: version, prefixes, identity, intention. Asking again changes nothing.
    #[error("{0}")]
    Misfit(String),
}

//! What is asked of a home, and what comes of it. Pure.

use crate::{
    model::{
        kv::{Op, TxnReply},
        name::Datacenter,
        sync::{Position, Token},
    },
    sync::refusal::Refusal,
};

/// A client's transaction on keys of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Stays the same when it is sent again.
    pub id: String,
    /// The datacenter where it came in.
    pub origin: Datacenter,
    /// What it does.
    pub ops: Vec<Op>,
    /// What must hold for it to be done.
    pub guard: Option<Guard>,
}

/// A write that is done only while this token is the lock's present one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The key of the lock.
    pub lock: String,
    /// What the holder was given.
    pub token: Token,
}

/// What became of a request that Consul decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Consul's answer, as for a transaction of this request alone. When it comes from the journal (the request was sent
    /// again and another agent had executed it), it names what was changed; what was read is not kept there.
    pub reply: TxnReply,
    /// The entry that carries it out; the last one when it changed nothing.
    pub at: Position,
    /// The `ModifyIndex` of that entry; 0 when nothing was changed.
    pub index: u64,
    /// Of each lock that it acquired.
    pub tokens: Vec<(String, Token)>,
}

/// What a client is told.
pub type Outcome = Result<Written, Refusal>;

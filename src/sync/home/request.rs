//! What is asked of a home, and what comes of it. Pure.

use crate::{
    model::{
        kv::{Op, TxnReply},
        name::Datacenter,
        sync::{Position, Token},
    },
    sync::{
        record::{Digest, Digester},
        refusal::Refusal,
    },
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

impl Request {
    /// What it asks for: its verbs and its guard. Where it came in does not count.
    pub fn digest(&self) -> Digest {
        let mut digester = Digester::default();
        digester.number(self.ops.len() as u64);
        self.ops.iter().for_each(|op| digest(op, &mut digester));
        if let Some(Guard { lock, token }) = &self.guard {
            digester.text(lock.as_bytes());
            digester.number(token.epoch.into());
            digester.number(token.n);
        }
        digester.end()
    }
}

/// A verb by its number, which stays: the journal keeps digests. Then its key, and all that it has.
fn digest(op: &Op, into: &mut Digester) {
    let (verb, value, numbers, session) = match op {
        Op::Set { value, flags, .. } => (1, Some(value), [*flags, 0], None),
        Op::Cas { value, flags, index, .. } => (2, Some(value), [*flags, *index], None),
        Op::Lock { value, flags, session, .. } => (3, Some(value), [*flags, 0], Some(session)),
        Op::Unlock { value, flags, session, .. } => (4, Some(value), [*flags, 0], Some(session)),
        Op::Get { .. } => (5, None, [0, 0], None),
        Op::GetTree { .. } => (6, None, [0, 0], None),
        Op::CheckIndex { index, .. } => (7, None, [0, *index], None),
        Op::CheckSession { session, .. } => (8, None, [0, 0], Some(session)),
        Op::CheckNotExists { .. } => (9, None, [0, 0], None),
        Op::Delete { .. } => (10, None, [0, 0], None),
        Op::DeleteTree { .. } => (11, None, [0, 0], None),
        Op::DeleteCas { index, .. } => (12, None, [0, *index], None),
    };
    into.number(verb);
    into.text(op.key().as_bytes());
    into.text(value.map_or(&[][..], |value| &value[..]));
    numbers.into_iter().for_each(|number| into.number(number));
    into.text(session.map_or("", |session| session.as_str()).as_bytes());
}

/// The refusal of an id that stands for another request already.
pub fn another() -> Refusal {
    Refusal::Bad("this request id was used for another request; use a new one".into())
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

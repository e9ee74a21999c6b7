//! Who did what: one line for each write, lock and approval, from what was asked and answered. Pure. Neither values nor
//! tokens get here.

use crate::{
    model::kv::Op,
    sync::endpoint::{
        ask::{Ask, LockAct, SyncAsk},
        message::Response,
    },
};

/// One act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What was done: Consul's verb, or `lock-acquire`, `lock-renew`, `lock-release`, `approve`, `resync`.
    pub act: &'static str,
    /// To which key, tree or prefix.
    pub key: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Done,
    /// It does not hold, as when a `cas` came too late.
    NotDone,
    /// The client lacks the right.
    Denied,
    /// It was not carried out.
    Refused,
    /// Open.
    Unknown,
}

impl Outcome {
    /// For the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotDone => "not done",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// The lines of a request and its answer; none for what only reads.
pub fn lines(ask: &Ask, response: &Response) -> Vec<Line> {
    let outcome = outcome(response);
    let line = |act, key: &str| Line { act, key: key.to_owned(), outcome };
    match ask {
        Ask::Write(op) => vec![line(verb(op), op.key())],
        Ask::Txn(txn) => {
            txn.ops.iter().filter(|op| op.is_write()).map(|op| line(verb(op), op.key())).collect()
        }
        Ask::Lock(lock) => match lock.act {
            LockAct::Acquire => vec![line("lock-acquire", &lock.key)],
            LockAct::Renew => vec![line("lock-renew", &lock.key)],
            LockAct::Release => vec![line("lock-release", &lock.key)],
            LockAct::Look => Vec::new(),
        },
        Ask::Sync(SyncAsk::Approve(prefix)) => vec![line("approve", prefix)],
        Ask::Sync(SyncAsk::Resync(prefix)) => vec![line("resync", prefix)],
        Ask::Sync(SyncAsk::Status) | Ask::Other | Ask::Read(_) | Ask::Session(_) => Vec::new(),
    }
}

fn outcome(response: &Response) -> Outcome {
    match response.status {
        200..=299 if response.body.as_ref() == b"false" => Outcome::NotDone,
        200..=299 => Outcome::Done,
        403 => Outcome::Denied,
        409 => Outcome::NotDone,
        504 => Outcome::Unknown,
        _ => Outcome::Refused,
    }
}

fn verb(op: &Op) -> &'static str {
    match op {
        Op::Set { .. } => "set",
        Op::Cas { .. } => "cas",
        Op::Lock { .. } => "lock",
        Op::Unlock { .. } => "unlock",
        Op::Get { .. } => "get",
        Op::GetTree { .. } => "get-tree",
        Op::CheckIndex { .. } => "check-index",
        Op::CheckSession { .. } => "check-session",
        Op::CheckNotExists { .. } => "check-not-exists",
        Op::Delete { .. } => "delete",
        Op::DeleteTree { .. } => "delete-tree",
        Op::DeleteCas { .. } => "delete-cas",
    }
}

#[cfg(test)]
mod tests;

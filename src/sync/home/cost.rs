//! How large things become on their way to Consul: what must fit is reckoned before it is sent. Pure.
//!
//! A transaction is JSON with values in base64, and Consul bounds that body (512 KiB). A journal entry is JSON too, so
//! that a value in it is in base64 twice.

use crate::{
    model::kv::Op,
    sync::{
        home::request::Request,
        record::{Change, Value},
    },
};

/// Names, punctuation and numbers of one verb: `{"KV":{"Verb":"delete-cas","Key":,"Value":"","Flags":,"Index":,"Session":""}},`
/// with twenty digits for each number.
const VERB_BYTES: usize = 160;
/// The same of one change in an entry.
const CHANGE_BYTES: usize = 80;
/// The same of one request in an entry, its token and what it asks for included.
const REQUESTED_BYTES: usize = 160;
/// A hash in hex.
const HASH_BYTES: usize = 64;

/// Bytes of one verb in a transaction's body.
pub fn op(op: &Op) -> usize {
    let rest = match op {
        Op::Set { value, .. } | Op::Cas { value, .. } => base64(value.len()),
        Op::Lock { value, session, .. } | Op::Unlock { value, session, .. } => {
            base64(value.len()) + json(session.as_str())
        }
        Op::CheckSession { session, .. } => json(session.as_str()),
        Op::Get { .. }
        | Op::GetTree { .. }
        | Op::CheckIndex { .. }
        | Op::CheckNotExists { .. }
        | Op::Delete { .. }
        | Op::DeleteTree { .. }
        | Op::DeleteCas { .. } => 0,
    };
    VERB_BYTES + json(op.key()) + rest
}

/// Bytes of one change in the body of the transaction that journals it.
pub fn change(change: &Change) -> usize {
    let value = match change {
        Change::Set { value: Value::Val(value), .. } => base64(value.len()),
        Change::Set { value: Value::Blob(_), .. } => HASH_BYTES,
        Change::Held { .. } | Change::Del { .. } | Change::DelTree { .. } => 0,
    };
    base64(CHANGE_BYTES + json(change.key()) + value)
}

/// Bytes of what an entry says of a request.
pub fn requested(request: &Request) -> usize {
    base64(REQUESTED_BYTES + json(&request.id) + json(request.origin.as_str()))
}

/// So many bytes in base64.
pub fn base64(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// A text in JSON, at most: some writers escape more than others.
fn json(text: &str) -> usize {
    let escaped = |c: char| match c {
        '"' | '\\' | '<' | '>' | '&' | '\u{7f}' => 6,
        c if c.is_control() => 6,
        '\u{2028}' | '\u{2029}' => 6,
        c => c.len_utf8(),
    };
    2 + text.chars().map(escaped).sum::<usize>()
}

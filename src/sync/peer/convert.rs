//! Between the messages on the wire and our own types. Pure. What comes in from another agent and makes no sense is an
//! error that names the field, and never a panic.

mod follow;

use crate::{
    model::{
        name::{Datacenter, NodeName},
        secret::SecretText,
        sync::{Mode, Position, Prefix},
    },
    sync::{
        peer::{ABSENT_KEYS, Absent, Forward, Forwarded, Hello, HelloReply, Known, wire as pb},
        record::Hash,
    },
};

pub use self::follow::{ack_in, ack_out, item_in, item_out, start_in, start_out};

/// A message is no longer than this.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Parts of what can be sent in several messages: large enough that their frames cost nothing, small enough that two
/// windows of HTTP/2 hold one.
const PART_BYTES: usize = 1 << 20;
/// The body of a forwarded answer, as long as that of an answer of Consul's.
pub const MAX_BODY_BYTES: usize = 64 << 20;
/// Prefixes in one greeting: far more than anybody configures.
const MAX_PREFIXES: usize = 4096;

/// A message that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A field holds something else than it should.
    #[error("the other agent's message is not understood: {field} {problem}; are both of the same release?")]
    Field {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A message of a kind that this release does not know.
    #[error("the other agent sent a kind of message that this release does not know; update this agent")]
    Unknown,
}

fn bad(field: &'static str, problem: impl ToString) -> ConvertError {
    ConvertError::Field { field, problem: problem.to_string() }
}

fn named(field: &'static str, text: String) -> Result<String, ConvertError> {
    if text.is_empty() { Err(bad(field, "is empty")) } else { Ok(text) }
}

fn count(ops: usize) -> u32 {
    u32::try_from(ops).unwrap_or(u32::MAX)
}

fn uncount(ops: u32) -> usize {
    usize::try_from(ops).unwrap_or(usize::MAX)
}

/// Zero is what a release sends that knows nothing of it.
fn bytes_out(bytes: Option<usize>) -> u64 {
    bytes.map_or(0, |bytes| u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn bytes_in(bytes: u64) -> Option<usize> {
    (bytes > 0).then(|| usize::try_from(bytes).unwrap_or(usize::MAX))
}

fn position_out(position: Position) -> pb::Position {
    pb::Position { epoch: position.epoch, seq: position.seq }
}

fn position_in(position: Option<pb::Position>) -> Result<Position, ConvertError> {
    let pb::Position { epoch, seq } = position.ok_or_else(|| bad("position", "is missing"))?;
    Ok(Position { epoch, seq })
}

/// A hash is empty (before the first entry) or hex of 32 bytes.
fn hash_in(field: &'static str, text: String) -> Result<Hash, ConvertError> {
    let is_hex = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if text.is_empty() || is_hex { Ok(Hash(text)) } else { Err(bad(field, "is no BLAKE3 hash in hex")) }
}

/// The only mode so far.
const JOURNALED: &str = "journaled";

fn prefixes_out(prefixes: Vec<Prefix>) -> Vec<pb::Prefix> {
    let out = |prefix: Prefix| pb::Prefix {
        text: prefix.text,
        home: prefix.home.to_string(),
        mode: match prefix.mode {
            Mode::Journaled => JOURNALED.to_owned(),
        },
    };
    prefixes.into_iter().map(out).collect()
}

fn prefixes_in(prefixes: Vec<pb::Prefix>) -> Result<Vec<Prefix>, ConvertError> {
    if prefixes.len() > MAX_PREFIXES {
        return Err(bad("prefixes", format!("are {}, and the limit is {MAX_PREFIXES}", prefixes.len())));
    }
    let read = |prefix: pb::Prefix| {
        let mode = match prefix.mode.as_str() {
            JOURNALED => Mode::Journaled,
            other => return Err(bad("prefix.mode", format!("is {other:?}, which is not served"))),
        };
        let text = named("prefix.text", prefix.text)?;
        let home = Datacenter::from(named("prefix.home", prefix.home)?);
        Ok(Prefix { text, home, mode })
    };
    prefixes.into_iter().map(read).collect()
}

/// A greeting, to be sent.
pub fn hello_out(hello: Hello) -> pb::HelloRequest {
    pb::HelloRequest {
        min_version: hello.versions.0,
        max_version: hello.versions.1,
        datacenter: hello.datacenter.to_string(),
        node: hello.node.to_string(),
        prefixes: prefixes_out(hello.prefixes),
        max_txn_ops: count(hello.max_txn_ops),
        max_value_bytes: bytes_out(hello.max_value_bytes),
    }
}

/// The two versions of a greeting, which are looked at before all else: the rest may mean something new.
pub fn versions(hello: &pb::HelloRequest) -> (u32, u32) {
    (hello.min_version, hello.max_version)
}

/// A greeting that came in.
///
/// # Errors
/// A field makes no sense.
pub fn hello_in(hello: pb::HelloRequest) -> Result<Hello, ConvertError> {
    Ok(Hello {
        versions: versions(&hello),
        datacenter: Datacenter::from(named("datacenter", hello.datacenter)?),
        node: NodeName::from(named("node", hello.node)?),
        prefixes: prefixes_in(hello.prefixes)?,
        max_txn_ops: uncount(hello.max_txn_ops),
        max_value_bytes: bytes_in(hello.max_value_bytes),
    })
}

/// An answer to a greeting, to be sent.
pub fn hello_reply_out(reply: HelloReply) -> pb::HelloReply {
    let known = |known: Known| pb::Known {
        prefix: known.prefix,
        position: Some(position_out(known.position)),
        hash: known.hash.0,
    };
    pb::HelloReply {
        version: reply.version,
        datacenter: reply.datacenter.to_string(),
        node: reply.node.to_string(),
        prefixes: prefixes_out(reply.prefixes),
        max_txn_ops: count(reply.max_txn_ops),
        max_value_bytes: bytes_out(reply.max_value_bytes),
        known: reply.known.into_iter().map(known).collect(),
    }
}

/// An answer to a greeting that came in.
///
/// # Errors
/// A field makes no sense.
pub fn hello_reply_in(reply: pb::HelloReply) -> Result<HelloReply, ConvertError> {
    let known = |known: pb::Known| {
        Ok(Known {
            prefix: named("known.prefix", known.prefix)?,
            position: position_in(known.position)?,
            hash: hash_in("known.hash", known.hash)?,
        })
    };
    Ok(HelloReply {
        version: reply.version,
        datacenter: Datacenter::from(named("datacenter", reply.datacenter)?),
        node: NodeName::from(named("node", reply.node)?),
        prefixes: prefixes_in(reply.prefixes)?,
        max_txn_ops: uncount(reply.max_txn_ops),
        max_value_bytes: bytes_in(reply.max_value_bytes),
        known: reply.known.into_iter().map(known).collect::<Result<_, _>>()?,
    })
}

fn headers_out(headers: Vec<(String, String)>) -> Vec<pb::Header> {
    headers.into_iter().map(|(name, value)| pb::Header { name, value }).collect()
}

fn headers_in(headers: Vec<pb::Header>) -> Vec<(String, String)> {
    headers.into_iter().map(|header| (header.name.to_ascii_lowercase(), header.value)).collect()
}

/// A request of a client, to be sent.
pub fn forward_out(forward: Forward) -> pb::ForwardRequest {
    pb::ForwardRequest {
        request_id: forward.request_id,
        method: forward.method,
        path_and_query: forward.path_and_query,
        headers: headers_out(forward.headers),
        body: forward.body,
        token: forward.token.map(|token| token.expose().to_owned()).unwrap_or_default(),
        origin: forward.origin.to_string(),
        hops: forward.hops,
    }
}

/// A request of a client that came in.
///
/// # Errors
/// A field makes no sense. The error holds neither token nor body.
pub fn forward_in(forward: pb::ForwardRequest) -> Result<Forward, ConvertError> {
    if !matches!(forward.method.as_str(), "GET" | "HEAD" | "PUT" | "POST" | "DELETE") {
        return Err(bad("method", "is none of GET, HEAD, PUT, POST and DELETE"));
    }
    if !forward.path_and_query.starts_with('/') {
        return Err(bad("path_and_query", "does not begin with a slash"));
    }
    Ok(Forward {
        request_id: named("request_id", forward.request_id)?,
        method: forward.method,
        path_and_query: forward.path_and_query,
        headers: headers_in(forward.headers),
        body: forward.body,
        token: (!forward.token.is_empty()).then(|| SecretText::from(forward.token)),
        origin: Datacenter::from(named("origin", forward.origin)?),
        hops: forward.hops,
    })
}

/// What came of a request, to be sent in as many messages as it takes.
pub fn forwarded_out(forwarded: Forwarded) -> Vec<pb::ForwardReply> {
    let mut rest = forwarded.body;
    let mut next = move || rest.split_to(rest.len().min(PART_BYTES));
    let first = pb::ForwardReply {
        status: u32::from(forwarded.status),
        headers: headers_out(forwarded.headers),
        body: next(),
    };
    let further = std::iter::from_fn(move || Some(next()).filter(|part| !part.is_empty()));
    let further = further.map(|body| pb::ForwardReply { status: 0, headers: Vec::new(), body });
    std::iter::once(first).chain(further).collect()
}

/// The head of what came of a request; [`body_in`] adds what follows.
///
/// # Errors
/// The status is none.
pub fn forwarded_in(first: pb::ForwardReply) -> Result<Forwarded, ConvertError> {
    let status = u16::try_from(first.status).ok().filter(|status| (200..600).contains(status));
    Ok(Forwarded {
        status: status.ok_or_else(|| bad("status", format!("is {}", first.status)))?,
        headers: headers_in(first.headers),
        body: first.body,
    })
}

/// Adds a further part to a body.
///
/// # Errors
/// The body grows too long.
pub fn body_in(body: &mut Vec<u8>, part: &[u8]) -> Result<(), ConvertError> {
    if body.len() + part.len() > MAX_BODY_BYTES {
        return Err(bad("body", format!("is longer than {MAX_BODY_BYTES} bytes")));
    }
    body.extend_from_slice(part);
    Ok(())
}

/// Keys to be confirmed as absent, to be sent.
pub fn absent_out(absent: Absent) -> pb::AbsentRequest {
    let Absent { prefix, keys, at } = absent;
    pb::AbsentRequest { prefix, keys, position: Some(position_out(at)) }
}

/// Keys that came in to be confirmed as absent.
///
/// # Errors
/// There are too many, or one is not below the prefix.
pub fn absent_in(absent: pb::AbsentRequest) -> Result<Absent, ConvertError> {
    let pb::AbsentRequest { prefix, keys, position } = absent;
    if keys.len() > ABSENT_KEYS {
        return Err(bad("keys", format!("are {}, and the limit is {ABSENT_KEYS}", keys.len())));
    }
    if !keys.iter().all(|key| key.starts_with(&prefix)) {
        return Err(bad("keys", "are not all below the prefix"));
    }
    Ok(Absent { prefix: named("prefix", prefix)?, keys, at: position_in(position)? })
}

#[cfg(test)]
mod tests;

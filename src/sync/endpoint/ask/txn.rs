//! The body of `/v1/txn`. Pure.
//!
//! Names of fields are compared without regard to case, as Go's JSON does; what is not known is refused, as Consul does.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Deserializer, Map, Value};

use crate::{
    model::{kv::Op, session::SessionId},
    sync::endpoint::{answer, ask::Txn, message::Response},
};

/// Consul's `txn_max_req_len`.
const MAX_BODY_BYTES: usize = 512 << 10;

/// The transaction in this body.
///
/// # Errors
/// The answer to a body that is none.
pub(super) fn txn(body: &[u8]) -> Result<Txn, Response> {
    if body.len() > MAX_BODY_BYTES {
        return Err(Response::text(
            413,
            format!(
                "Request body({} bytes) too large, max size: {MAX_BODY_BYTES} bytes. See https://www.consul.io/docs/agent/options.html#txn_max_req_len.",
                body.len()
            ),
        ));
    }
    // Consul reads the first JSON value and nothing behind it.
    let first = match Deserializer::from_slice(body).into_iter::<Value>().next() {
        None => return Err(unparsed("EOF")),
        Some(Err(error)) => return Err(unparsed(&error.to_string())),
        Some(Ok(value)) => value,
    };
    let items = match first {
        Value::Null => Vec::new(),
        Value::Array(items) => items,
        _ => return Err(unparsed("a transaction is a JSON list of operations")),
    };
    let mut txn = Txn { ops: Vec::new(), has_others: false };
    let mut errors = Vec::new();
    for (at, item) in items.into_iter().enumerate() {
        match one(item)? {
            Item::Op(op) if op.key().is_empty() && !op.is_tree() => {
                errors.push((at, "Must provide key".to_owned()));
            }
            Item::Op(op) => txn.ops.push(op),
            Item::UnknownVerb(verb) => errors.push((at, format!("unknown KV verb {verb:?}"))),
            Item::Other => txn.has_others = true,
            Item::Nothing => {}
        }
    }
    if errors.is_empty() { Ok(txn) } else { Err(answer::rolled_back(&errors, false)) }
}

enum Item {
    Op(Op),
    UnknownVerb(String),
    /// Of a node, service, check or session.
    Other,
    /// Consul passes over it.
    Nothing,
}

fn one(item: Value) -> Result<Item, Response> {
    let Value::Object(item) = item else { return Err(unparsed("an operation is a JSON object")) };
    let mut found = Item::Nothing;
    for (name, value) in item {
        match name.to_ascii_lowercase().as_str() {
            _ if value.is_null() => {}
            "kv" => {
                let Value::Object(fields) = value else { return Err(unparsed("KV is a JSON object")) };
                found = kv(fields)?;
            }
            "node" | "service" | "check" | "session" => found = Item::Other,
            _ => return Err(unknown_field(&name)),
        }
    }
    Ok(found)
}

#[derive(Default)]
struct Fields {
    verb: String,
    key: String,
    value: Bytes,
    flags: u64,
    index: u64,
    session: String,
}

fn kv(fields: Map<String, Value>) -> Result<Item, Response> {
    let mut read = Fields::default();
    for (name, value) in fields {
        if value.is_null() {
            continue;
        }
        match name.to_ascii_lowercase().as_str() {
            "verb" => read.verb = text(&name, value)?,
            "key" => read.key = text(&name, value)?,
            "session" => read.session = text(&name, value)?,
            "namespace" => drop(text(&name, value)?),
            "value" => read.value = decoded(&text(&name, value)?)?,
            "flags" => read.flags = count(&name, &value)?,
            "index" => read.index = count(&name, &value)?,
            _ => return Err(unknown_field(&name)),
        }
    }
    let Fields { verb, key, value, flags, index, session } = read;
    let session = SessionId::from(session);
    Ok(Item::Op(match verb.as_str() {
        "set" => Op::Set { key, value, flags },
        "cas" => Op::Cas { key, value, flags, index },
        "lock" => Op::Lock { key, value, flags, session },
        "unlock" => Op::Unlock { key, value, flags, session },
        "get" => Op::Get { key },
        "get-tree" => Op::GetTree { prefix: key },
        "check-index" => Op::CheckIndex { key, index },
        "check-session" => Op::CheckSession { key, session },
        "check-not-exists" => Op::CheckNotExists { key },
        "delete" => Op::Delete { key },
        "delete-tree" => Op::DeleteTree { prefix: key },
        "delete-cas" => Op::DeleteCas { key, index },
        _ => return Ok(Item::UnknownVerb(verb)),
    }))
}

fn text(name: &str, value: Value) -> Result<String, Response> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(unparsed(&format!("{name} is not a JSON string"))),
    }
}

fn count(name: &str, value: &Value) -> Result<u64, Response> {
    value.as_u64().ok_or_else(|| unparsed(&format!("{name} is not a whole number from 0 to 2^64-1")))
}

fn decoded(text: &str) -> Result<Bytes, Response> {
    // Go passes over line ends.
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| unparsed(&format!("Value: {error}")))?;
    Ok(bytes.into())
}

fn unknown_field(name: &str) -> Response {
    unparsed(&format!("json: unknown field {name:?}"))
}

fn unparsed(reason: &str) -> Response {
    Response::text(400, format!("Failed to parse body: {reason}"))
}

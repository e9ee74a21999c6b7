//! The body of `/v1/txn`. Pure.
//!
//! Names of fields are compared without regard to case, as Go's JSON does; what is not known is refused, as Consul does.
//! What Consul takes and another reader could take for something else is refused too: a name that is there twice, which
//! Go merges, and an operation of several kinds, of which Consul executes one.

use std::{collections::BTreeSet, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

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
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Option<Vec<&RawValue>>>();
    let items = match values.next() {
        None => return Err(unparsed("EOF")),
        Some(Err(error)) => return Err(unparsed(&error.to_string())),
        Some(Ok(items)) => items.unwrap_or_default(),
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

/// The members of a JSON object as they stand in the text: a map would keep one of several with the same name.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// The members of an object, each with its name in lower case behind its own. Null ones are left out: to Go they say
/// nothing.
fn members<'a>(object: &'a RawValue, what: &str) -> Result<Vec<(String, String, &'a RawValue)>, Response> {
    let Members(all) =
        serde_json::from_str(object.get()).map_err(|error| unparsed(&format!("{what}: {error}")))?;
    let mut names = BTreeSet::new();
    let mut members = Vec::new();
    for (name, value) in all {
        let lower = name.to_ascii_lowercase();
        if !names.insert(lower.clone()) {
            return Err(unparsed(&format!("{what} has {name:?} twice; names that differ in case are one")));
        }
        if value.get() != "null" {
            members.push((name, lower, value));
        }
    }
    Ok(members)
}

fn one(item: &RawValue) -> Result<Item, Response> {
    let mut found = Item::Nothing;
    for (name, lower, value) in members(item, "an operation")? {
        let read = match lower.as_str() {
            "kv" => kv(value)?,
            "node" | "service" | "check" | "session" => Item::Other,
            _ => return Err(unknown_field(&name)),
        };
        if !matches!(found, Item::Nothing) {
            // Consul would execute the first kind that it looks for and pass over the others.
            return Err(unparsed(
                "an operation is one of KV, Node, Service, Check and Session; send several operations",
            ));
        }
        found = read;
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

fn kv(fields: &RawValue) -> Result<Item, Response> {
    let mut read = Fields::default();
    for (name, lower, value) in members(fields, "KV")? {
        match lower.as_str() {
            "verb" => read.verb = text(&name, value)?,
            "key" => read.key = text(&name, value)?,
            "session" => read.session = text(&name, value)?,
            "namespace" => drop(text(&name, value)?),
            "value" => read.value = decoded(&text(&name, value)?)?,
            "flags" => read.flags = count(&name, value)?,
            "index" => read.index = count(&name, value)?,
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

fn text(name: &str, value: &RawValue) -> Result<String, Response> {
    serde_json::from_str(value.get()).map_err(|_| unparsed(&format!("{name} is not a JSON string")))
}

fn count(name: &str, value: &RawValue) -> Result<u64, Response> {
    let number = serde_json::from_str(value.get());
    number.map_err(|_| unparsed(&format!("{name} is not a whole number from 0 to 2^64-1")))
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

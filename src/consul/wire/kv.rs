//! `/v1/kv`, `/v1/txn`: pairs as they come, a list of any length piece by piece, transactions and what became of them.
//!
//! A verb that is not `get` or `get-tree` has its pair in the results with a null value, and verbs that delete or check
//! for absence have none.

mod elements;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    consul::wire::{
        WireError,
        read::{nullable, whole},
    },
    model::{
        kv::{Op, Pair, TxnError, TxnReply},
        session::SessionId,
    },
};

use crate::consul::wire::kv::elements::Elements;

/// What Consul says of a verb that the token may not do.
pub const DENIED: &str = "Permission denied";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WirePair {
    key: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    flags: u64,
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    lock_index: u64,
    create_index: u64,
    modify_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireResults {
    #[serde(deserialize_with = "nullable")]
    results: Vec<WireResult>,
}

#[derive(Deserialize)]
struct WireResult {
    #[serde(rename = "KV")]
    kv: WirePair,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireErrors {
    errors: Vec<WireTxnError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireTxnError {
    op_index: usize,
    what: String,
}

#[derive(Serialize)]
struct WireOp<'a> {
    #[serde(rename = "KV")]
    kv: WireVerb<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WireVerb<'a> {
    verb: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Encoded<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
}

/// Bytes as Consul's JSON has them.
struct Encoded<'a>(&'a [u8]);

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(self.0))
    }
}

/// A list of pairs that comes in pieces. It is held against what was asked for: keys that begin so, in their order.
pub struct Pairs<'p> {
    prefix: &'p str,
    elements: Elements,
    last: Option<String>,
    count: u64,
}

impl<'p> Pairs<'p> {
    /// The list of the keys that begin so.
    pub fn of(prefix: &'p str) -> Self {
        Self { prefix, elements: Elements::default(), last: None, count: 0 }
    }

    /// The pairs that this piece makes whole.
    ///
    /// # Errors
    /// It is not that list.
    pub fn page(&mut self, piece: &[u8]) -> Result<Vec<Pair>, WireError> {
        let Self { prefix, elements, last, count } = self;
        let mut page = Vec::new();
        elements.feed(piece, |element| {
            let pair = read(whole(element)?)?;
            if !pair.key.starts_with(*prefix) || last.as_ref().is_some_and(|last| *last >= pair.key) {
                let problem = format!("the key {:?} has no place in a list of {prefix:?}", pair.key);
                return Err(WireError::Shape(problem));
            }
            last.replace(pair.key.clone());
            *count += 1;
            page.push(pair);
            Ok(())
        })?;
        Ok(page)
    }

    /// How many there were, if the list came to its end.
    pub fn end(self) -> Result<u64, WireError> {
        self.elements.end().map(|()| self.count)
    }
}

/// The one pair of a read of one key.
pub fn only(body: &[u8]) -> Result<Pair, WireError> {
    let [found] = whole::<[WirePair; 1]>(body)?;
    read(found)
}

fn read(wire: WirePair) -> Result<Pair, WireError> {
    let value = wire.value.map_or(Ok(Vec::new()), |text| BASE64_STANDARD.decode(text));
    let value = value.map_err(|_| WireError::Shape("a value is not Base64".into()))?;
    Ok(Pair {
        key: wire.key,
        // Without room to spare: of a million small values a third of the memory is saved.
        value: Bytes::from(value.into_boxed_slice()),
        flags: wire.flags,
        session: wire.session.filter(|id| !id.is_empty()).map(SessionId::from),
        lock_index: wire.lock_index,
        create_index: wire.create_index,
        modify_index: wire.modify_index,
    })
}

/// The body of a transaction.
pub fn txn(ops: &[Op]) -> Bytes {
    let verbs: Vec<WireOp<'_>> = ops.iter().map(|op| WireOp { kv: verb(op) }).collect();
    Bytes::from(serde_json::to_vec(&verbs).expect("texts and numbers are always JSON"))
}

/// The results of a transaction that Consul carried out (200).
pub fn committed(body: &[u8]) -> Result<TxnReply, WireError> {
    let wire: WireResults = whole(body)?;
    let pairs: Result<Vec<Pair>, WireError> =
        wire.results.into_iter().map(|result| read(result.kv)).collect();
    Ok(TxnReply::Committed(pairs?))
}

/// The reasons of a transaction that Consul rolled back (409). Without any it is another thing.
pub fn rolled_back(body: &[u8]) -> Result<TxnReply, WireError> {
    let wire: WireErrors = whole(body)?;
    if wire.errors.is_empty() {
        return Err(WireError::Shape("a transaction was rolled back without a reason".into()));
    }
    let read = |wire: WireTxnError| TxnError { op_index: wire.op_index, what: wire.what };
    Ok(TxnReply::RolledBack(wire.errors.into_iter().map(read).collect()))
}

/// The most verbs that a transaction may have, as Consul says it in refusing one with more (413):
/// `Transaction contains too many operations (129 > 64)`.
pub fn most_verbs(refusal: &str) -> Option<usize> {
    let (_, rest) = refusal.split_once("too many operations (")?;
    let (_, rest) = rest.split_once('>')?;
    rest.trim().split(')').next()?.parse().ok()
}

fn verb(op: &Op) -> WireVerb<'_> {
    let plain = |verb| WireVerb { verb, key: op.key(), value: None, flags: None, index: None, session: None };
    let write =
        |verb, value, flags| WireVerb { value: Some(Encoded(value)), flags: Some(flags), ..plain(verb) };
    match op {
        Op::Set { value, flags, .. } => write("set", value, *flags),
        Op::Cas { value, flags, index, .. } => {
            WireVerb { index: Some(*index), ..write("cas", value, *flags) }
        }
        Op::Lock { value, flags, session, .. } => {
            WireVerb { session: Some(session.as_str()), ..write("lock", value, *flags) }
        }
        Op::Unlock { value, flags, session, .. } => {
            WireVerb { session: Some(session.as_str()), ..write("unlock", value, *flags) }
        }
        Op::Get { .. } => plain("get"),
        Op::GetTree { .. } => plain("get-tree"),
        Op::CheckIndex { index, .. } => WireVerb { index: Some(*index), ..plain("check-index") },
        Op::CheckSession { session, .. } => {
            WireVerb { session: Some(session.as_str()), ..plain("check-session") }
        }
        Op::CheckNotExists { .. } => plain("check-not-exists"),
        Op::Delete { .. } => plain("delete"),
        Op::DeleteTree { .. } => plain("delete-tree"),
        Op::DeleteCas { index, .. } => WireVerb { index: Some(*index), ..plain("delete-cas") },
    }
}

#[cfg(test)]
mod tests;

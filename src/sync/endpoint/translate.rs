//! A replica's Consul speaks of its own raft's indexes; clients are shown the home's. Pure.
//!
//! Only the digits are replaced: everything else of Consul's answer stays as it is, byte for byte.

use std::{borrow::Cow, ops::Range};

use serde::Deserialize;
use serde_json::value::RawValue;

/// Shown as `ModifyIndex` when the home's is not known: no raft gets there, so that a `cas` with it is refused, and every
/// JSON reader takes it, since it is the largest whole number that doubles hold exactly.
pub const NO_INDEX: u64 = 9_007_199_254_740_991;

/// What to show for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// What Consul says: the key is of no replica.
    AsIs,
    /// The home's.
    As {
        /// `CreateIndex`
        create: u64,
        /// `ModifyIndex`
        modify: u64,
        /// `LockIndex`
        lock: u64,
    },
    /// Not known.
    Unknown,
}

/// A body with indexes to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// The new body; where an index is not known it shows [`NO_INDEX`].
    pub body: Vec<u8>,
    /// Keys whose indexes are not known.
    pub unknown: Vec<String>,
}

/// A body that is not what Consul answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer of the local Consul is not understood: {0}")]
pub struct NotUnderstood(String);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kv<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    lock_index: &'a RawValue,
    #[serde(borrow)]
    create_index: &'a RawValue,
    #[serde(borrow)]
    modify_index: &'a RawValue,
}

#[derive(Deserialize)]
struct Results<'a> {
    #[serde(rename = "Results", borrow)]
    results: Option<Vec<OneResult<'a>>>,
}

#[derive(Deserialize)]
struct OneResult<'a> {
    #[serde(rename = "KV", borrow)]
    kv: Option<Kv<'a>>,
}

/// Of `/v1/kv`: a list of keys. `shown` gets each key and the local `ModifyIndex`.
///
/// # Errors
/// It is no such list.
pub fn pairs(body: &[u8], shown: impl FnMut(&str, u64) -> Shown) -> Result<Translated, NotUnderstood> {
    let text = text(body)?;
    let pairs: Vec<Kv<'_>> = serde_json::from_str(text).map_err(not_understood)?;
    replaced(text, &pairs, shown)
}

/// Of `/v1/txn`.
///
/// # Errors
/// It is no such answer.
pub fn txn(body: &[u8], shown: impl FnMut(&str, u64) -> Shown) -> Result<Translated, NotUnderstood> {
    let text = text(body)?;
    let results: Results<'_> = serde_json::from_str(text).map_err(not_understood)?;
    let pairs: Vec<Kv<'_>> =
        results.results.unwrap_or_default().into_iter().filter_map(|result| result.kv).collect();
    replaced(text, &pairs, shown)
}

fn text(body: &[u8]) -> Result<&str, NotUnderstood> {
    std::str::from_utf8(body).map_err(|error| NotUnderstood(error.to_string()))
}

fn not_understood(error: serde_json::Error) -> NotUnderstood {
    NotUnderstood(error.to_string())
}

fn replaced(
    text: &str,
    pairs: &[Kv<'_>],
    mut shown: impl FnMut(&str, u64) -> Shown,
) -> Result<Translated, NotUnderstood> {
    let mut places: Vec<(Range<usize>, u64)> = Vec::new();
    let mut unknown = Vec::new();
    for pair in pairs {
        let local = pair.modify_index.get();
        let local = local.parse().map_err(|_| NotUnderstood(format!("ModifyIndex is {local}")))?;
        let (create, modify, lock) = match shown(&pair.key, local) {
            Shown::AsIs => continue,
            Shown::As { create, modify, lock } => (create, modify, lock),
            Shown::Unknown => {
                unknown.push(pair.key.clone().into_owned());
                (NO_INDEX, NO_INDEX, 0)
            }
        };
        places.push((place(text, pair.lock_index), lock));
        places.push((place(text, pair.create_index), create));
        places.push((place(text, pair.modify_index), modify));
    }
    places.sort_by_key(|(place, _)| place.start);
    let mut body = String::with_capacity(text.len() + places.len() * 4);
    let mut from = 0;
    for (place, index) in places {
        body.push_str(&text[from..place.start]);
        body.push_str(&index.to_string());
        from = place.end;
    }
    body.push_str(&text[from..]);
    Ok(Translated { body: body.into_bytes(), unknown })
}

/// Where a part that was read from a text stands in it.
fn place(text: &str, part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr().addr() - text.as_ptr().addr();
    start..start + part.get().len()
}

#[cfg(test)]
mod tests;

//! What a client reads in an answer.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use causeway::sync::endpoint::Response;
use serde_json::Value;

use crate::sync::history::Number;

/// A key as it was shown.
pub(super) struct Shown {
    pub(super) value: Vec<u8>,
    pub(super) index: u64,
    pub(super) lock_index: u64,
}

pub(super) fn json_of(response: &Response) -> Option<Value> {
    serde_json::from_slice(&response.body).ok()
}

pub(super) fn shown(response: &Response) -> Option<Shown> {
    let body = json_of(response)?;
    let pair = body.get(0)?;
    Some(Shown {
        value: BASE64_STANDARD.decode(pair["Value"].as_str().unwrap_or_default()).ok()?,
        index: pair["ModifyIndex"].as_u64()?,
        lock_index: pair["LockIndex"].as_u64()?,
    })
}

/// The number that a value begins with; one that none of ours begins with, where it is none.
pub(super) fn number(value: &[u8]) -> Number {
    let text = String::from_utf8_lossy(value);
    text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(Number::MAX)
}

pub(super) fn items(value: &[u8]) -> Vec<Number> {
    serde_json::from_slice(value)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(value)))
}

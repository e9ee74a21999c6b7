//! What pairs look like: to people, as Consul's JSON, and in the files of `consul kv export`. Pure.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::kv::Pair;

/// A pair as `/v1/kv` has it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Json<'a> {
    lock_index: u64,
    key: &'a str,
    flags: u64,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    create_index: u64,
    modify_index: u64,
}

impl<'a> From<&'a Pair> for Json<'a> {
    fn from(pair: &'a Pair) -> Self {
        Self {
            lock_index: pair.lock_index,
            key: &pair.key,
            flags: pair.flags,
            value: BASE64_STANDARD.encode(&pair.value),
            session: pair.session.as_ref().map(|session| session.as_str()),
            create_index: pair.create_index,
            modify_index: pair.modify_index,
        }
    }
}

/// A pair in a file of `consul kv export`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// The flags.
    #[serde(default)]
    pub(crate) flags: u64,
    /// The value in Base64.
    #[serde(default)]
    value: Option<String>,
}

impl Entry {
    pub(crate) fn of(pair: &Pair) -> Self {
        Self { key: pair.key.clone(), flags: pair.flags, value: Some(BASE64_STANDARD.encode(&pair.value)) }
    }

    /// The value, or why it is none.
    pub(crate) fn value(&self) -> Result<Bytes, String> {
        let text = self.value.as_deref().unwrap_or_default();
        let decoded = BASE64_STANDARD.decode(text);
        decoded.map(Bytes::from).map_err(|_| format!("the value of {} is not Base64", self.key))
    }
}

/// The value as text, or in Base64.
pub(crate) fn value(pair: &Pair, is_base64: bool) -> String {
    if is_base64 {
        BASE64_STANDARD.encode(&pair.value)
    } else {
        String::from_utf8_lossy(&pair.value).into_owned()
    }
}

/// All there is to tell, as `consul kv get -detailed` does.
pub(crate) fn detailed(pair: &Pair, is_base64: bool) -> String {
    let session = pair.session.as_ref().map_or("-", |session| session.as_str()).to_owned();
    let lines = [
        ("CreateIndex", pair.create_index.to_string()),
        ("Flags", pair.flags.to_string()),
        ("Key", pair.key.clone()),
        ("LockIndex", pair.lock_index.to_string()),
        ("ModifyIndex", pair.modify_index.to_string()),
        ("Session", session),
        ("Value", value(pair, is_base64)),
    ];
    let line = |(name, text): (&str, String)| match text.as_str() {
        "" => format!("{name}\n"),
        text => format!("{name:16} {text}\n"),
    };
    lines.map(line).concat()
}

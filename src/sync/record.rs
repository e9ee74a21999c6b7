//! What stands in the reserved keys, as JSON that `consul kv get` shows readably. Pure.
//!
//! A record with a newer version, or one that is damaged, is an error and never a default.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use crate::model::{
    name::{Datacenter, NodeName},
    sync::{Position, Token},
};

/// The version that this build writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Values up to so many bytes stand in the journal entry itself; larger ones become blobs.
pub const MAX_INLINE_BYTES: usize = 4096;

/// A record that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Another release wrote it.
    #[error("{key} has version {version}, and this release reads {VERSION}; update this agent")]
    Version {
        /// Where.
        key: String,
        /// Its version.
        version: u32,
    },
    /// It is no such record.
    #[error(
        "{key} is damaged: {reason}; restore it, or take the prefix out and in again as docs/sync.md tells"
    )]
    Damaged {
        /// Where.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// A BLAKE3 hash in hex.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hash(pub String);

impl Hash {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }
}

/// What a request asks for, in 16 bytes of a BLAKE3 hash: whether two with one id are the same one. Base64 in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest([u8; 16]);

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = from_base64(deserializer)?;
        let bytes = <[u8; 16]>::try_from(&bytes[..]).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// Takes in what a request asks for, part by part. Texts go in with their length, so that none runs into the next.
#[derive(Clone, Debug, Default)]
pub struct Digester(blake3::Hasher);

impl Digester {
    /// Takes in a text.
    pub fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.0.update(text);
    }

    /// Takes in a number.
    pub fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    /// The digest of all of it.
    pub fn end(&self) -> Digest {
        let hash = self.0.finalize();
        Digest(std::array::from_fn(|at| hash.as_bytes()[at]))
    }
}

/// The journal's last entry (`head`). Every commit replaces it by compare-and-set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Where the journal ends.
    #[serde(flatten)]
    pub position: Position,
    /// The last entry's hash; empty before the first.
    pub hash: Hash,
    /// The first entry that is still there; those before it were trimmed.
    pub first: u64,
}

/// The histories of a home (`epoch`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epochs {
    /// The present one.
    pub epoch: u32,
    /// For each epoch after the first: the last entry of the one before that is part of it.
    pub forks: Vec<Fork>,
}

/// Where an epoch begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The epoch that begins.
    pub epoch: u32,
    /// The last entry that it shares with those before it.
    pub seq: u64,
    /// That entry's hash.
    pub hash: Hash,
}

/// One entry of the journal: what one home transaction did to the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands.
    #[serde(flatten)]
    pub position: Position,
    /// The hash of the entry before it, so that a forked history shows at one comparison.
    pub prev_hash: Hash,
    /// When it was committed, in ms since 1970, by the home agent's clock. For people and for lag.
    pub ts_ms: u64,
    /// The requests that it carries out.
    pub requests: Vec<Requested>,
    /// In the order in which they were executed.
    pub ops: Vec<Change>,
}

/// A client's request in an entry: a second one with the same id is answered from here and not executed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// The id that the client or its agent gave it.
    pub id: String,
    /// The datacenter where it came in.
    pub from: Datacenter,
    /// How many of the entry's changes are its own, in order.
    pub ops: usize,
    /// The token of the lock that it acquired.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<Token>,
    /// What it asks for; none in entries of releases that did not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<Digest>,
}

/// What happened to data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op")]
pub enum Change {
    /// The key holds this now.
    Set {
        /// The key.
        k: String,
        /// The flags.
        flags: u64,
        /// The value.
        #[serde(flatten)]
        value: Value,
    },
    /// The key is a lock: from now on it lives at home only.
    Held {
        /// The key.
        k: String,
    },
    /// The key is gone.
    Del {
        /// The key.
        k: String,
    },
    /// All keys that begin so are gone.
    DelTree {
        /// What they begin with.
        k: String,
    },
}

impl Change {
    /// The key, or what the keys begin with.
    pub fn key(&self) -> &str {
        match self {
            Self::Set { k, .. } | Self::Held { k } | Self::Del { k } | Self::DelTree { k } => k,
        }
    }
}

/// A value in an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// The bytes themselves.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    Val(Bytes),
    /// The blob of this hash.
    Blob(Hash),
}

/// How far a replica is (`state`). Every apply replaces it by compare-and-set in the transaction of its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where the data comes from.
    pub home: Datacenter,
    /// The prefix as configured.
    pub prefix: String,
    /// The last entry that the data reflects.
    #[serde(flatten)]
    pub position: Position,
    /// That entry's hash.
    pub hash: Hash,
    /// What the data is.
    pub phase: Phase,
    /// Who wrote this.
    pub node: NodeName,
    /// When, in ms since 1970.
    pub ts_ms: u64,
}

/// What a replica's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A snapshot is being applied: the data is of no single position.
    Snapshot,
    /// The data is the home's at that position.
    Stream,
}

/// Whom to ask for a duty: the value of its lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doer {
    /// Its Consul node.
    pub node: NodeName,
    /// Where its peer service listens: `address:port`.
    pub address: String,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    record: T,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// The bytes of a record.
pub fn encode<T: Serialize>(record: &T) -> Bytes {
    let versioned = Versioned { v: VERSION, record };
    serde_json::to_vec(&versioned).expect("records have text keys and no failing serializers").into()
}

/// The record in these bytes, which stand in `key`.
///
/// # Errors
/// Another version, or no such record.
pub fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, RecordError> {
    let damaged =
        |error: serde_json::Error| RecordError::Damaged { key: key.to_owned(), reason: error.to_string() };
    let Version { v } = serde_json::from_slice(bytes).map_err(damaged)?;
    if v != VERSION {
        return Err(RecordError::Version { key: key.to_owned(), version: v });
    }
    serde_json::from_slice::<Versioned<T>>(bytes).map(|versioned| versioned.record).map_err(damaged)
}

fn to_base64<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64_STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let entry = Entry {
            position: Position { epoch: 2, seq: 41 },
            prev_hash: Hash::of(b"before"),
            ts_ms: 1_700_000_000_000,
            requests: vec![Requested {
                id: "a".into(),
                from: "secondary".into(),
                ops: 3,
                token: Some(Token { epoch: 2, n: 7 }),
                digest: Some(Digester::default().end()),
            }],
            ops: vec![
                Change::Set {
                    k: "config/a".into(),
                    flags: u64::MAX,
                    value: Value::Val(Bytes::from_static(b"\0x")),
                },
                Change::Set { k: "config/b".into(), flags: 0, value: Value::Blob(Hash::of(b"large")) },
                Change::Held { k: "config/l".into() },
                Change::DelTree { k: "config/t/".into() },
            ],
        };
        let bytes = encode(&entry);
        assert_eq!(decode::<Entry>("k", &bytes).unwrap(), entry, "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn what_a_request_asks_for_may_be_untold() {
        let plain: Requested = serde_json::from_str(r#"{"id":"a","from":"b","ops":1}"#).unwrap();
        assert_eq!(plain.digest, None);
        assert!(!serde_json::to_string(&plain).unwrap().contains("digest"));
        let short = r#"{"id":"a","from":"b","ops":1,"digest":"AAAA"}"#;
        assert!(serde_json::from_str::<Requested>(short).is_err());
    }

    #[test]
    fn texts_do_not_run_into_each_other() {
        let of = |texts: &[&str]| {
            let mut digester = Digester::default();
            texts.iter().for_each(|text| digester.text(text.as_bytes()));
            digester.end()
        };
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
    }

    #[test]
    fn what_is_newer_or_damaged_is_told() {
        let newer = decode::<Head>("_sync/v1/x/head", br#"{"v":2,"epoch":1}"#).unwrap_err();
        assert!(matches!(&newer, RecordError::Version { version: 2, .. }), "{newer}");
        assert!(newer.to_string().contains("_sync/v1/x/head"));
        for damaged in [&b""[..], b"{}", b"null", br#"{"v":1}"#, br#"{"v":1,"epoch":-1,"seq":0}"#] {
            assert!(matches!(decode::<Head>("k", damaged), Err(RecordError::Damaged { .. })));
        }
    }
}

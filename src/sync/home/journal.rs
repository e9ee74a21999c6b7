//! Reading the journal and its records from Consul. What should be there and is not is an error, never an empty answer.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::{
    model::kv::{Op, Pair, TxnReply},
    sync::{
        home::{
            history::Logged,
            trim::{TEN, ten_prefix},
        },
        layout::Layout,
        record::{self, Entry, Hash, RecordError, Value},
        store::{Answer, Read, Store, StoreError},
    },
};

/// Why the journal could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("read {key}: {error}")]
    Store { key: String, error: StoreError },
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("{0} is missing: it was trimmed meanwhile, deleted by hand, or hidden by Consul's ACLs")]
    Missing(String),
}

/// A record as it was read.
pub(crate) struct Recorded<T> {
    pub(crate) record: T,
    pub(crate) index: u64,
}

/// How long one read may take. A list of a large prefix takes seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const LIST_TIMEOUT: Duration = Duration::from_secs(120);

/// How often an empty list is asked for until it is taken for a mistake.
const LOOKS: usize = 3;

/// Reads a key as it is now.
pub(crate) async fn key<S: Store>(store: &S, key: &str) -> Result<Option<Pair>, JournalError> {
    in_time(key, READ_TIMEOUT, store.get(key, Read::Consistent)).await
}

/// Reads a record as it is now.
pub(crate) async fn record<S: Store, T: DeserializeOwned>(
    store: &S,
    at: &str,
) -> Result<Option<Recorded<T>>, JournalError> {
    let Some(pair) = key(store, at).await? else { return Ok(None) };
    Ok(Some(Recorded { record: record::decode(at, &pair.value)?, index: pair.modify_index }))
}

/// Reads a record that must be there.
pub(crate) async fn expected<S: Store, T: DeserializeOwned>(
    store: &S,
    at: &str,
) -> Result<Recorded<T>, JournalError> {
    record(store, at).await?.ok_or_else(|| JournalError::Missing(at.to_owned()))
}

/// Reads all keys that begin so.
pub(crate) async fn list<S: Store>(store: &S, prefix: &str) -> Result<Vec<Pair>, JournalError> {
    in_time(prefix, LIST_TIMEOUT, store.list(prefix, Read::Consistent)).await
}

/// Reads all data of the prefix. That there is none is believed only when a transaction shows our own record and no key
/// either: an empty answer by itself may be a mistake, and whoever follows us would delete what he has.
pub(crate) async fn data<S: Store>(
    store: &S,
    layout: &Layout,
    prefix: &str,
) -> Result<Vec<Pair>, JournalError> {
    // The first keys may be written between the two looks.
    for _ in 0..LOOKS {
        let listed = list(store, prefix).await?;
        if !listed.is_empty() || is_empty_indeed(store, layout, prefix).await? {
            return Ok(listed);
        }
    }
    let error = StoreError::Unusable("Consul lists nothing, and in a transaction it shows keys".into());
    Err(JournalError::Store { key: prefix.to_owned(), error })
}

async fn is_empty_indeed<S: Store>(store: &S, layout: &Layout, prefix: &str) -> Result<bool, JournalError> {
    let sentinel = layout.sentinel();
    let ops = vec![Op::Get { key: sentinel.clone() }, Op::GetTree { prefix: prefix.to_owned() }];
    let answer = async { Ok(Answer { value: store.txn(ops).await?, index: 0 }) };
    match in_time(prefix, READ_TIMEOUT, answer).await? {
        TxnReply::Committed(pairs) if pairs.first().is_some_and(|pair| pair.key == sentinel) => {
            Ok(pairs.len() == 1)
        }
        _ => Err(JournalError::Missing(sentinel)),
    }
}

async fn in_time<T>(
    at: &str,
    limit: Duration,
    read: impl Future<Output = Result<Answer<T>, StoreError>>,
) -> Result<T, JournalError> {
    let late = || StoreError::Unknown(format!("Consul did not answer within {} s", limit.as_secs()));
    let answer = tokio::time::timeout(limit, read).await.unwrap_or_else(|_| Err(late()));
    answer.map(|answer| answer.value).map_err(|error| JournalError::Store { key: at.to_owned(), error })
}

/// Reads the entries from `from` to the end of its ten, and none after `last`: at least one, without a gap.
pub(crate) async fn some_entries<S: Store>(
    store: &S,
    layout: &Layout,
    from: u64,
    last: u64,
) -> Result<Vec<Logged>, JournalError> {
    let ten = from / TEN;
    let prefix = ten_prefix(layout, ten);
    let pairs = in_time(&prefix, READ_TIMEOUT, store.list(&prefix, Read::Consistent)).await?;
    let until = last.min(ten * TEN + (TEN - 1));
    let mut entries = Vec::new();
    let mut wanted = from;
    for pair in &pairs {
        if wanted > until || layout.seq(&pair.key) != Some(wanted) {
            continue;
        }
        entries.push(logged(pair)?);
        wanted += 1;
    }
    if wanted <= until { Err(JournalError::Missing(layout.entry(wanted))) } else { Ok(entries) }
}

/// Reads all entries from one to another.
pub(crate) async fn entries<S: Store>(
    store: &S,
    layout: &Layout,
    from: u64,
    last: u64,
) -> Result<Vec<Logged>, JournalError> {
    let mut all = Vec::new();
    let mut next = from;
    while next <= last {
        let some = some_entries(store, layout, next, last).await?;
        next += some.len() as u64;
        all.extend(some);
    }
    Ok(all)
}

/// Reads the values that an entry names, in the order of its changes.
pub(crate) async fn blobs<S: Store>(
    store: &S,
    layout: &Layout,
    entry: &Entry,
) -> Result<Vec<Bytes>, JournalError> {
    let mut blobs = Vec::new();
    for hash in named(entry) {
        let at = layout.blob(&hash.0);
        let pair = key(store, &at).await?.ok_or_else(|| JournalError::Missing(at.clone()))?;
        if Hash::of(&pair.value) != *hash {
            let reason = "its bytes have another hash than its name says".to_owned();
            return Err(RecordError::Damaged { key: at, reason }.into());
        }
        blobs.push(pair.value);
    }
    Ok(blobs)
}

/// The values that an entry names.
pub(crate) fn named(entry: &Entry) -> impl Iterator<Item = &Hash> {
    entry.ops.iter().filter_map(|change| match change {
        record::Change::Set { value: Value::Blob(hash), .. } => Some(hash),
        _ => None,
    })
}

/// What stands in an entry's key.
pub(crate) fn logged(pair: &Pair) -> Result<Logged, RecordError> {
    let entry: Entry = record::decode(&pair.key, &pair.value)?;
    Ok(Logged { entry, hash: Hash::of(&pair.value), index: pair.modify_index })
}

//! Reading what the next requests rest on. A key that cannot be read is the trouble of those who name it, and of nobody
//! beside them.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};

use crate::sync::{
    home::{
        journal::{self, JournalError},
        prepare::Facts,
    },
    refusal::Refusal,
    store::{Store, StoreError},
};

/// How many keys are read at a time: each takes a connection of its own.
const READS: usize = 16;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// The keys that could be read.
    pub(crate) facts: Facts,
    /// Those that could not.
    pub(crate) failed: BTreeMap<String, Refusal>,
}

impl Looked {
    /// Why a request that rests on these keys is refused; none when all could be read.
    pub(crate) fn refusal(&self, keys: &BTreeSet<String>) -> Option<Refusal> {
        keys.iter().find_map(|key| self.failed.get(key)).cloned()
    }
}

/// Reads these keys.
pub(crate) async fn look<S: Store>(store: &S, keys: BTreeSet<String>) -> Looked {
    let reads: Vec<_> = keys
        .into_iter()
        .map(|key| async move {
            let read = journal::key(store, &key).await;
            (key, read)
        })
        .collect();
    let read: Vec<_> = stream::iter(reads).buffer_unordered(READS).collect().await;
    let mut looked = Looked::default();
    for (key, read) in read {
        match read {
            Ok(pair) => drop(looked.facts.insert(key, pair)),
            Err(error) => drop(looked.failed.insert(key, refusal(error))),
        }
    }
    looked
}

/// What Consul refuses to read it refuses to whoever asks again.
fn refusal(error: JournalError) -> Refusal {
    match error {
        JournalError::Store { key, error: StoreError::Refused { reason, .. } } => {
            Refusal::Bad(format!("Consul of the home does not read {key}: {reason}"))
        }
        error => Refusal::NotServing(error.to_string()),
    }
}

#[cfg(test)]
mod tests;

//! The chain of entries: each names the hash of the one before it, and its number is the next. Pure.
//!
//! What does not continue the chain is no entry of this history, and nothing behind it can be trusted either.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    model::sync::Position,
    sync::record::{self, Entry, Hash, Value},
};

/// An entry that continues the chain, with the values it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it stands.
    pub position: Position,
    /// Its hash.
    pub hash: Hash,
    /// The home's index of what it changed.
    pub modify_index: u64,
    /// When it was committed, in ms since 1970 by the home agent's clock.
    pub ts_ms: u64,
    /// In the order in which they were executed.
    pub changes: Vec<Change>,
}

/// What happened to data, with the value in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key holds this now.
    Set {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
        /// The flags.
        flags: u64,
    },
    /// The key is a lock.
    Held {
        /// The key.
        key: String,
    },
    /// The key is gone.
    Del {
        /// The key.
        key: String,
    },
    /// All keys that begin so are gone.
    DelTree {
        /// What they begin with.
        tree: String,
    },
}

impl Change {
    /// The key, or what the keys begin with.
    pub fn key(&self) -> &str {
        match self {
            Self::Set { key, .. } | Self::Held { key } | Self::Del { key } => key,
            Self::DelTree { tree } => tree,
        }
    }
}

impl Link {
    /// About how many bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        let of = |change: &Change| match change {
            Change::Set { key, value, .. } => key.len() + value.len() + size_of::<Change>(),
            other => other.key().len() + size_of::<Change>(),
        };
        self.changes.iter().map(of).sum()
    }
}

/// Why an entry does not continue the chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    /// Entries are missing, or come again.
    #[error("entry {got} came after {at}, where number {} is due", .at.seq.saturating_add(1))]
    Number {
        /// The last one.
        at: Position,
        /// This one.
        got: Position,
    },
    /// It continues something else.
    #[error("entry {got} does not continue entry {at}: it names another hash")]
    Hash {
        /// The last one.
        at: Position,
        /// This one.
        got: Position,
    },
    /// It says something about keys of others.
    #[error("entry {got} changes a key outside the prefix")]
    Key {
        /// This one.
        got: Position,
    },
    /// A large value is missing, or is not the one it names.
    #[error("a large value of entry {got} is missing or damaged")]
    Blob {
        /// This one.
        got: Position,
    },
}

/// The end of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    prefix: String,
    /// The last entry.
    pub at: Position,
    /// Its hash; empty before the first.
    pub hash: Hash,
}

impl Chain {
    /// A chain for the keys of `prefix` that ends here.
    pub fn new(prefix: String, at: Position, hash: Hash) -> Self {
        Self { prefix, at, hash }
    }

    /// Takes the next entry. None when it is the last one again.
    ///
    /// # Errors
    /// It is not the next one.
    pub fn take(
        &mut self,
        entry: Entry,
        hash: Hash,
        modify_index: u64,
        blobs: Vec<Bytes>,
    ) -> Result<Option<Link>, Break> {
        let (at, got) = (self.at, entry.position);
        if got == at && hash == self.hash {
            return Ok(None);
        }
        if at.seq.checked_add(1) != Some(got.seq) || got.epoch < at.epoch {
            return Err(Break::Number { at, got });
        }
        if entry.prev_hash != self.hash {
            return Err(Break::Hash { at, got });
        }
        let changes = self.changes(got, entry.ops, blobs)?;
        (self.at, self.hash) = (got, hash.clone());
        Ok(Some(Link { position: got, hash, modify_index, ts_ms: entry.ts_ms, changes }))
    }

    fn changes(
        &self,
        got: Position,
        ops: Vec<record::Change>,
        blobs: Vec<Bytes>,
    ) -> Result<Vec<Change>, Break> {
        let blobs: BTreeMap<Hash, Bytes> = blobs.into_iter().map(|blob| (Hash::of(&blob), blob)).collect();
        let value = |value| match value {
            Value::Val(bytes) => Ok(bytes),
            Value::Blob(hash) => blobs.get(&hash).cloned().ok_or(Break::Blob { got }),
        };
        ops.into_iter()
            .map(|op| {
                if !op.key().starts_with(&self.prefix) {
                    return Err(Break::Key { got });
                }
                Ok(match op {
                    record::Change::Set { k: key, flags, value: named } => {
                        Change::Set { key, value: value(named)?, flags }
                    }
                    record::Change::Held { k: key } => Change::Held { key },
                    record::Change::Del { k: key } => Change::Del { key },
                    record::Change::DelTree { k: tree } => Change::DelTree { tree },
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;

//! Consul's key/value store: what a key holds, the verbs of a transaction and what becomes of it.
//!
//! The verbs are those of `/v1/txn`; a single `PUT` or `DELETE` of `/v1/kv` is a transaction of one verb.

use bytes::Bytes;

use crate::model::session::SessionId;

/// A `ModifyIndex` or `CreateIndex` that is not known for certain. Consul's begin at 1.
pub const UNKNOWN_INDEX: u64 = 0;

/// A `LockIndex` that is not known. No lock is ever acquired so often.
pub const UNKNOWN_LOCK: u64 = u64::MAX;

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key, not encoded. Consul bounds neither its length nor its characters before 1.21.5.
    pub key: String,
    /// The value; empty is a value.
    pub value: Bytes,
    /// The client's own number.
    pub flags: u64,
    /// Who holds it as a lock.
    pub session: Option<SessionId>,
    /// How often it was acquired; a plain write of a held key sets it to 0, so that it is no fencing token.
    pub lock_index: u64,
    /// The raft index that made it.
    pub create_index: u64,
    /// The raft index that changed it last. An equal write changes nothing, and not this.
    pub modify_index: u64,
}

/// A verb of a transaction (`/v1/txn`, Consul 1.8.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// `set`
    Set {
        /// The key.
        key: String,
        /// The new value.
        value: Bytes,
        /// The new flags.
        flags: u64,
    },
    /// `cas`: `index` 0 means that the key must not exist.
    Cas {
        /// The key.
        key: String,
        /// The new value.
        value: Bytes,
        /// The new flags.
        flags: u64,
        /// The `ModifyIndex` that it must have.
        index: u64,
    },
    /// `lock`
    Lock {
        /// The key.
        key: String,
        /// The new value.
        value: Bytes,
        /// The new flags.
        flags: u64,
        /// Who acquires it.
        session: SessionId,
    },
    /// `unlock`
    Unlock {
        /// The key.
        key: String,
        /// The new value.
        value: Bytes,
        /// The new flags.
        flags: u64,
        /// Who releases it.
        session: SessionId,
    },
    /// `get`
    Get {
        /// The key.
        key: String,
    },
    /// `get-tree`
    GetTree {
        /// What the keys begin with.
        prefix: String,
    },
    /// `check-index`
    CheckIndex {
        /// The key.
        key: String,
        /// The `ModifyIndex` that it must have.
        index: u64,
    },
    /// `check-session`
    CheckSession {
        /// The key.
        key: String,
        /// Who must hold it.
        session: SessionId,
    },
    /// `check-not-exists`
    CheckNotExists {
        /// The key.
        key: String,
    },
    /// `delete`
    Delete {
        /// The key.
        key: String,
    },
    /// `delete-tree`
    DeleteTree {
        /// What the keys begin with.
        prefix: String,
    },
    /// `delete-cas`. A key that is missing counts as deleted.
    DeleteCas {
        /// The key.
        key: String,
        /// The `ModifyIndex` that it must have.
        index: u64,
    },
}

impl Op {
    /// The key, or what the keys begin with.
    pub fn key(&self) -> &str {
        match self {
            Self::Set { key, .. }
            | Self::Cas { key, .. }
            | Self::Lock { key, .. }
            | Self::Unlock { key, .. }
            | Self::Get { key }
            | Self::CheckIndex { key, .. }
            | Self::CheckSession { key, .. }
            | Self::CheckNotExists { key }
            | Self::Delete { key }
            | Self::DeleteCas { key, .. } => key,
            Self::GetTree { prefix } | Self::DeleteTree { prefix } => prefix,
        }
    }

    /// Whether it is about all keys that begin with [`Op::key`].
    pub fn is_tree(&self) -> bool {
        matches!(self, Self::GetTree { .. } | Self::DeleteTree { .. })
    }

    /// Whether it can change something.
    pub fn is_write(&self) -> bool {
        !matches!(
            self,
            Self::Get { .. }
                | Self::GetTree { .. }
                | Self::CheckIndex { .. }
                | Self::CheckSession { .. }
                | Self::CheckNotExists { .. }
        )
    }
}

/// What became of a transaction that Consul decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnReply {
    /// All of it holds.
    Committed(Vec<Pair>),
    /// Nothing of it holds.
    RolledBack(Vec<TxnError>),
}

/// Why a transaction was rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnError {
    /// The verb, from 0.
    pub op_index: usize,
    /// What Consul says.
    pub what: String,
}

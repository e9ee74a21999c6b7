//! A datacenter's own Consul, as replication sees it: transactions, reads that say how good they are, sessions, rights.
//!
//! [`Store`] is the seam: the engine runs over a real Consul and, in tests, over a model of one.

pub mod consul;

use std::{future::Future, time::Duration};

use tokio::{sync::mpsc, time::timeout};

/// Why a request to Consul has no answer.
pub use crate::consul::kv::KvError as StoreError;
use crate::model::{
    kv::{Op, Pair, TxnReply},
    secret::SecretText,
    session::{SessionId, SessionSpec},
};

/// One Consul. Clones are the same one.
pub trait Store: Clone + Send + Sync + 'static {
    /// Executes a transaction: all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] leaves open whether it was executed.
    fn txn(&self, ops: Vec<Op>) -> impl Future<Output = Result<TxnReply, StoreError>> + Send;

    /// Reads one key.
    fn get(
        &self,
        key: &str,
        read: Read,
    ) -> impl Future<Output = Result<Answer<Option<Pair>>, StoreError>> + Send;

    /// Reads all keys that begin so, in their order. What is filtered away by ACLs is an error, and so is a body that
    /// ends early: an empty answer says that there are none. This agent's own token must be allowed to write all of it.
    fn list(
        &self,
        prefix: &str,
        read: Read,
    ) -> impl Future<Output = Result<Answer<Vec<Pair>>, StoreError>> + Send;

    /// The same for any number of keys: sends them on in pieces as they come, and gives how many there were. A slow
    /// receiver slows the read down.
    ///
    /// # Errors
    /// As for [`Store::list`]. What was sent on before an error is no list of anything, and neither is it before this
    /// returns: whoever deletes what is absent waits for the number.
    fn scan(
        &self,
        prefix: &str,
        read: Read,
        pages: mpsc::Sender<Vec<Pair>>,
    ) -> impl Future<Output = Result<Answer<u64>, StoreError>> + Send {
        async move {
            let Answer { value, index } = self.list(prefix, read).await?;
            let count = value.len() as u64;
            match pages.send(value).await {
                Ok(()) => Ok(Answer { value: count, index }),
                Err(_) => {
                    Err(StoreError::Unusable(format!("the list of {prefix} was given up by its reader")))
                }
            }
        }
    }

    /// Makes a session on this agent's own node, bound to nothing but its TTL.
    fn create_session(
        &self,
        spec: &SessionSpec,
    ) -> impl Future<Output = Result<SessionId, StoreError>> + Send;

    /// Renews a session; false when there is none any more.
    fn renew_session(&self, id: &SessionId) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Ends a session. One that is gone counts as ended.
    fn destroy_session(&self, id: &SessionId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Whether the holder of `token` (nobody in particular without one) has each of these rights. All of them while
    /// Consul's ACLs are off. A token that Consul does not know is [`StoreError::Refused`] with status 403.
    fn authorize(
        &self,
        token: Option<&SecretText>,
        rights: &[Right],
    ) -> impl Future<Output = Result<Vec<bool>, StoreError>> + Send;
}

/// How a read is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The leader answers, after it has asked a majority whether it still is one.
    Consistent,
    /// The leader answers.
    Default,
    /// The leader answers once the index is beyond this one, or after so long.
    Wait {
        /// The index of the answer before.
        index: u64,
        /// How long, at most 10 minutes.
        wait: Duration,
    },
}

/// What was read, and Consul's word on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was read.
    pub value: T,
    /// `X-Consul-Index`: what to wait on. It may go back after a restore, and jump.
    pub index: u64,
}

/// A right on a key, as Consul's policies know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// What it is on.
    pub resource: Resource,
    /// What it allows.
    pub access: Access,
    /// Which one: the key, the prefix for [`Access::List`] and recursive writes, the node of a session.
    pub segment: String,
}

/// What a right is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `key`
    Key,
    /// `session`
    Session,
    /// `operator`
    Operator,
}

/// What a right allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `read`
    Read,
    /// `list`
    List,
    /// `write`
    Write,
    /// `write` on all that begins with the segment: `write` on the prefix as Consul's `delete-tree` demands it.
    WritePrefix,
}

/// What Consul says of a session that is gone; the id follows.
pub(in crate::sync) const INVALID_SESSION: &str = "invalid session";

/// The answer, or after `limit` that there is none: whether it was executed is open then.
pub(in crate::sync) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unknown(format!("no answer within {limit:?}"))))
}

//! The store that is a real Consul, over its HTTP API.
//!
//! With ACLs, Consul before 1.11 leaves out of a list what the token may not see and says nothing of it, be that a part
//! or all of it. So a list counts only if Consul says, before the first and after each one, that this agent may write
//! all that begins so (`write-prefix`): `list` on the prefix says nothing of narrower rules below it, which hide keys
//! all the same (1.8.7).

mod pulse;
mod raw;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    consul::{
        acl::rights::ANONYMOUS,
        client::{Bearer, Client},
        kv::{Question, Reading},
    },
    model::{
        kv::{Op, Pair, TxnReply},
        secret::SecretText,
        session::{SessionId, SessionSpec},
    },
    sync::store::{Access, Answer, Read, Resource, Right, Store, StoreError, consul::pulse::Pulse},
};

/// A commit takes some ms. After so long its outcome counts as unknown.
const WRITE: Duration = Duration::from_secs(5);

/// For an answer to begin that waits for nothing.
const READ: Duration = Duration::from_secs(10);

/// The longest wait of a blocking query.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// Prefixes that are remembered as seen. When there are more, all are asked for once again.
const MAX_SEEN: usize = 1024;

/// Pieces of a list between its reader and the one who asked.
const PAGES: usize = 4;

/// The Consul beside this agent.
#[derive(Clone, Debug)]
pub struct ConsulStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    /// Prefixes of which Consul said that this agent sees all of them.
    seen: Mutex<BTreeSet<String>>,
    pulse: Pulse,
}

impl ConsulStore {
    /// The Consul of this client.
    pub fn new(client: Client) -> Self {
        Self(Arc::new(Shared { client, seen: Mutex::default(), pulse: Pulse::default() }))
    }

    /// The most verbs that a transaction of this Consul takes: 64 before Consul 1.14, 128 since.
    ///
    /// # Errors
    /// Consul does not say.
    pub async fn max_txn_ops(&self) -> Result<usize, StoreError> {
        self.0.client.max_txn_ops(READ).await
    }

    /// Whether this agent's token may do these.
    async fn own_rights(&self, rights: &[Right]) -> Result<Vec<bool>, StoreError> {
        let questions: Vec<Question> = rights.iter().map(question).collect();
        self.0.client.rights(&Bearer::Own, &questions, READ).await
    }

    /// Makes sure that nothing is left out of a list of this prefix.
    async fn sees_all(&self, prefix: &str) -> Result<(), StoreError> {
        let right =
            Right { resource: Resource::Key, access: Access::WritePrefix, segment: prefix.to_owned() };
        if self.own_rights(&[right]).await? == [true] {
            remember(&mut self.seen(), prefix);
            return Ok(());
        }
        self.seen().remove(prefix);
        Err(StoreError::Unusable(format!(
            "Consul may leave keys out of a list of {prefix}, since this agent's token may not write all of it; give \
             it key_prefix \"{prefix}\" {{ policy = \"write\" }} and no narrower rule below that, as \
             policies/causeway-sync.hcl does"
        )))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error as others see it. After a refusal nothing counts as seen.
    fn failed(&self, error: StoreError) -> StoreError {
        if matches!(error, StoreError::Refused { status: 401 | 403, .. }) {
            self.seen().clear();
        }
        error
    }
}

impl Store for ConsulStore {
    async fn txn(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        self.0.client.txn(&ops, WRITE).await.map_err(|error| self.failed(error))
    }

    async fn get(&self, key: &str, read: Read) -> Result<Answer<Option<Pair>>, StoreError> {
        let found = self.0.client.kv_get(key, reading(read)).await;
        let (value, index) = found.map_err(|error| self.failed(error))?;
        Ok(Answer { value, index })
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Answer<Vec<Pair>>, StoreError> {
        let (pages, mut coming) = mpsc::channel(PAGES);
        let collect = async {
            let mut pairs: Vec<Pair> = Vec::new();
            while let Some(page) = coming.recv().await {
                pairs.extend(page);
            }
            pairs
        };
        let (scanned, pairs) = tokio::join!(self.scan(prefix, read, pages), collect);
        Ok(Answer { value: pairs, index: scanned?.index })
    }

    async fn scan(
        &self,
        prefix: &str,
        read: Read,
        pages: mpsc::Sender<Vec<Pair>>,
    ) -> Result<Answer<u64>, StoreError> {
        if !self.seen().contains(prefix) {
            self.sees_all(prefix).await?;
        }
        let scan = async |read| {
            let scanned = self.0.client.kv_scan(prefix, reading(read), &pages).await;
            scanned.map_err(|error| self.failed(error))
        };
        let mut scanned = scan(read).await?;
        if scanned.0 == 0 && read != Read::Consistent {
            // A server that has lost its lead, or has just started, may believe that there is nothing.
            scanned = scan(Read::Consistent).await?;
        }
        self.sees_all(prefix).await?;
        Ok(Answer { value: scanned.0, index: scanned.1 })
    }

    async fn create_session(&self, spec: &SessionSpec) -> Result<SessionId, StoreError> {
        self.0.client.create_session(spec, WRITE).await
    }

    async fn renew_session(&self, id: &SessionId) -> Result<bool, StoreError> {
        self.0.client.renew_session(id, WRITE).await
    }

    async fn destroy_session(&self, id: &SessionId) -> Result<(), StoreError> {
        self.0.client.destroy_session(id, WRITE).await
    }

    async fn authorize(&self, token: Option<&SecretText>, rights: &[Right]) -> Result<Vec<bool>, StoreError> {
        let questions: Vec<Question> = rights.iter().map(question).collect();
        let token = token.filter(|token| !token.is_empty()).cloned().unwrap_or_else(nobody);
        self.0.client.rights(&Bearer::Token(token), &questions, READ).await
    }
}

fn reading(read: Read) -> Reading {
    match read {
        Read::Consistent => Reading { is_consistent: true, wait: None, deadline: READ },
        Read::Default => Reading { is_consistent: false, wait: None, deadline: READ },
        Read::Wait { index, wait } => {
            let wait = wait.min(MAX_WAIT);
            Reading { is_consistent: false, wait: Some((index, wait)), deadline: beyond(wait) }
        }
    }
}

/// When a blocking query is answered at the latest: Consul adds up to a sixteenth to the wait.
fn beyond(wait: Duration) -> Duration {
    wait + wait / 16 + READ
}

fn question(right: &Right) -> Question {
    Question {
        resource: match right.resource {
            Resource::Key => "key",
            Resource::Session => "session",
            Resource::Operator => "operator",
        },
        access: match right.access {
            Access::Read => "read",
            Access::List => "list",
            Access::Write => "write",
            Access::WritePrefix => "write-prefix",
        },
        segment: right.segment.clone(),
    }
}

/// Clients name as many prefixes as they like, as with the slots of locks.
fn remember(seen: &mut BTreeSet<String>, prefix: &str) {
    if seen.len() >= MAX_SEEN && !seen.contains(prefix) {
        seen.clear();
    }
    seen.insert(prefix.to_owned());
}

fn nobody() -> SecretText {
    SecretText::from(ANONYMOUS)
}

#[cfg(test)]
mod tests;

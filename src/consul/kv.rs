//! `/v1/kv` and `/v1/txn` of the local Consul, exact about what an answer proves: what was not sent, what was refused,
//! what may have been executed, and what only looks like an answer.
//!
//! On Consul before 1.11 nothing in an answer tells that ACLs took pairs out of a list: without any right it is a 404
//! like that of a prefix without keys (1.8.7). Whoever concludes something from what is absent asks
//! [`Client::rights`] as well.

mod judge;
mod rights;
mod session;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use tokio::sync::mpsc;

use crate::{
    consul::{
        client::{Bearer, Client, ClientError, MAX_BODY_BYTES, OpenReply, RawRequest, Reply},
        wire::kv::{self as wire, Pairs},
    },
    model::kv::{Op, Pair, TxnReply},
};

pub use crate::consul::kv::{
    judge::KvError,
    rights::{MAX_QUESTIONS, Question},
};

/// The verbs that a transaction of every supported release may have.
pub const SAFE_TXN_OPS: usize = 64;

/// More verbs than any release takes: its refusal says how many it does.
const PROBE_OPS: usize = 4096;

/// The longest pause within a list. Consul reads it from memory before it sends any of it.
const PIECE_PATIENCE: Duration = Duration::from_secs(30);

/// How a read is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Whether the leader first asks a majority whether it still is one.
    pub is_consistent: bool,
    /// An index to wait beyond, and how long.
    pub wait: Option<(u64, Duration)>,
    /// For the answer to begin; the wait counts as part of it.
    pub deadline: Duration,
}

impl Reading {
    fn query(&self) -> String {
        let mut query = if self.is_consistent { "?consistent".to_owned() } else { "?".to_owned() };
        if let Some((index, wait)) = self.wait {
            query.push_str(&format!("&index={index}&wait={}ms", wait.as_millis()));
        }
        query
    }
}

impl Client {
    /// Executes a transaction with this agent's own rights. Of one that only reads, the leader first asks a majority
    /// whether it still is one: a write finds that out by itself.
    ///
    /// # Errors
    /// [`KvError::Unknown`] leaves open whether it was executed. A right that this agent lacks is
    /// [`KvError::Refused`], although Consul says that the transaction was rolled back.
    pub async fn txn(&self, ops: &[Op], deadline: Duration) -> Result<TxnReply, KvError> {
        let target = if ops.iter().any(Op::is_write) { "/v1/txn" } else { "/v1/txn?consistent" };
        let asked = self.write(Method::PUT, target.into(), wire::txn(ops), deadline);
        let reply = asked.await.map_err(KvError::of_write)?;
        judge::txn(&reply, ops)
    }

    /// The most verbs that a transaction may have, as this Consul says it in refusing one that has more and would only
    /// read. Never less than [`SAFE_TXN_OPS`].
    pub async fn max_txn_ops(&self, deadline: Duration) -> Result<usize, KvError> {
        let ops = vec![Op::Get { key: "_".into() }; PROBE_OPS];
        let asked = self.write(Method::PUT, "/v1/txn".into(), wire::txn(&ops), deadline);
        let reply = asked.await.map_err(KvError::of_read)?;
        match wire::most_verbs(&reply.excerpt()) {
            Some(most) if reply.status == StatusCode::PAYLOAD_TOO_LARGE => Ok(most.max(SAFE_TXN_OPS)),
            _ => Err(KvError::Unusable(format!(
                "Consul does not tell how many verbs its transactions take: {}",
                reply.refusal()
            ))),
        }
    }

    /// Reads one key, and gives `X-Consul-Index` with it.
    pub async fn kv_get(&self, key: &str, reading: Reading) -> Result<(Option<Pair>, u64), KvError> {
        let target = format!("{}{}", judge::path_of(key)?, reading.query());
        let reply = self.read(target, reading).await?.reply(MAX_BODY_BYTES, PIECE_PATIENCE).await;
        judge::get(&reply.map_err(KvError::of_read)?, key)
    }

    /// Reads all keys that begin so, in their order, and sends them on as they come; gives how many there were, and
    /// `X-Consul-Index`. Memory is that of a few pieces of the body: a slow receiver slows Consul down.
    ///
    /// # Errors
    /// What was sent on before an error is no list of anything.
    pub async fn kv_scan(
        &self,
        prefix: &str,
        reading: Reading,
        pages: &mpsc::Sender<Vec<Pair>>,
    ) -> Result<(u64, u64), KvError> {
        let target = format!("{}{}&recurse", judge::path_of(prefix)?, reading.query());
        let mut open = self.read(target, reading).await?;
        if open.status != StatusCode::OK {
            let reply = open.reply(MAX_BODY_BYTES, PIECE_PATIENCE).await.map_err(KvError::of_read)?;
            return judge::no_pairs(&reply).map(|index| (0, index));
        }
        let index = judge::index(&open.head())?;
        let mut pairs = Pairs::of(prefix);
        while let Some(piece) = open.piece(PIECE_PATIENCE).await.map_err(KvError::of_read)? {
            let page = pairs.page(&piece).map_err(judge::not_understood)?;
            if !page.is_empty() && pages.send(page).await.is_err() {
                return Err(KvError::Unusable(format!("the list of {prefix} was given up by its reader")));
            }
        }
        pairs.end().map(|count| (count, index)).map_err(judge::not_understood)
    }

    /// One exchange as [`Bearer::Own`] with a JSON body.
    async fn write(
        &self,
        method: Method,
        target: String,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Reply, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        let act = format!("{method} {target}");
        let request = RawRequest { method, target, headers, body, bearer: Bearer::Own };
        let exchange = async { self.open(request, deadline).await?.reply(MAX_BODY_BYTES, deadline).await };
        let exchange = tokio::time::timeout(deadline, exchange).await;
        exchange.unwrap_or(Err(ClientError::Deadline { act, deadline }))
    }

    async fn read(&self, target: String, reading: Reading) -> Result<OpenReply, KvError> {
        let request = RawRequest {
            method: Method::GET,
            target,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            bearer: Bearer::Own,
        };
        self.open(request, reading.deadline).await.map_err(KvError::of_read)
    }
}

#[cfg(test)]
mod tests;

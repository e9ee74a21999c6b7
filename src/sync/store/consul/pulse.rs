//! Whether Consul is still there, while it has every right to be silent: in a blocking query, in a log that nothing is
//! written to. A process that was stopped keeps its connections open, and its kernel answers for it.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::time::{Instant, sleep};

use crate::{
    consul::client::{Bearer, Client, ClientError, RawRequest},
    lifecycle,
};

/// Whoever is silent for so long is asked.
const QUIET: Duration = Duration::from_secs(10);

/// For an answer to that: it is made without a look at anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked. Consul needs neither a server nor a token to say that its UI is here, or is not.
const QUESTION: &str = "/";

/// The last time that it was asked, and whether it answered. Many that wait ask once.
#[derive(Debug, Default)]
pub(super) struct Pulse(tokio::sync::Mutex<Option<(Instant, bool)>>);

impl Pulse {
    /// What comes of `work`, or after some silence that Consul is not there any more.
    pub(super) async fn attending<T>(
        &self,
        client: &Client,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let silence = async {
            loop {
                sleep(QUIET).await;
                if let Err(error) = self.check(client).await {
                    return error;
                }
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            error = silence => Err(error),
        }
    }

    async fn check(&self, client: &Client) -> Result<(), ClientError> {
        let since = lifecycle::now();
        let mut last = self.0.lock().await;
        let is_there = match *last {
            Some((asked_at, is_there)) if asked_at >= since => is_there,
            _ => {
                let asked_at = lifecycle::now();
                let is_there = answers(client).await;
                *last = Some((asked_at, is_there));
                is_there
            }
        };
        let deadline = PATIENCE;
        if is_there {
            Ok(())
        } else {
            Err(ClientError::Deadline { act: format!("GET {QUESTION}"), deadline })
        }
    }
}

/// Only silence counts: a connection that is refused or reset says nothing of those that are open.
async fn answers(client: &Client) -> bool {
    let question = RawRequest {
        method: Method::GET,
        target: QUESTION.to_owned(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        bearer: Bearer::Nobody,
    };
    !matches!(client.open(question, PATIENCE).await, Err(ClientError::Deadline { .. }))
}

//! The lock API of the agent's HTTP interface, as `causeway lock` uses it.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;

use crate::{
    cli::endpoint::excerpt,
    fetch::{self, path_segment},
    model::secret::SecretText,
    sync::lock::{
        lease::{self, Renewal},
        wire::{AcquireBody, Granted, TokenBody, View},
    },
};

/// How long an answer is waited for that needs no waiting in line: the way to the home and back, and its commit.
const CALL: Duration = Duration::from_secs(10);

/// Who is asked, and for what.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Such as `http://127.0.0.1:18500`.
    pub(super) agent: String,
    pub(super) token: Option<SecretText>,
    pub(super) name: String,
}

/// What came of asking for the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Granted(Granted),
    /// By these.
    Held(View),
    /// Asking again may help.
    NotNow(String),
    /// It does not.
    Refused(String),
}

impl Client {
    /// Asks for the lock. `request_id` stays the same in every try.
    pub(super) async fn acquire(&self, request_id: &str, body: &AcquireBody, wait: Duration) -> Asked {
        let json = serde_json::to_vec(body).expect("texts and numbers");
        let sent = self.send(Method::POST, &self.name, request_id, json, wait + CALL).await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(reason) => return Asked::NotNow(reason),
        };
        match answer.status.as_u16() {
            200 => match serde_json::from_slice(&answer.body) {
                Ok(granted) => Asked::Granted(granted),
                Err(error) => Asked::Refused(format!("an unreadable answer of {}: {error}", self.agent)),
            },
            409 => match serde_json::from_slice(&answer.body) {
                Ok(view) => Asked::Held(view),
                Err(_) => Asked::Refused(told(&answer)),
            },
            429 | 500..=599 => Asked::NotNow(told(&answer)),
            404 => Asked::Refused(format!(
                "{}; does the agent at {} replicate, as its configuration's `sync` section says?",
                told(&answer),
                self.agent
            )),
            _ => Asked::Refused(told(&answer)),
        }
    }

    /// Renews it, within a part of its TTL.
    pub(super) async fn renew(&self, granted: &Granted, ttl: Duration) -> (Renewal, String) {
        let path = format!("{}/renew", granted.key);
        let sent = self.send(Method::PUT, &path, "", token(granted), CALL.min(ttl / 3)).await;
        match sent {
            Ok(answer) if answer.status == 200 => (Renewal::Kept, String::new()),
            Ok(answer) if answer.status == 409 => (Renewal::Lost, told(&answer)),
            Ok(answer) => (Renewal::NotNow, told(&answer)),
            Err(reason) => (Renewal::NotNow, reason),
        }
    }

    /// Gives it back.
    pub(super) async fn release(&self, granted: &Granted) -> Result<(), String> {
        let path = format!("{}/release", granted.key);
        let answer = self.send(Method::PUT, &path, "", token(granted), CALL).await?;
        if answer.status == 200 { Ok(()) } else { Err(told(&answer)) }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        request_id: &str,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<fetch::Answer, String> {
        let path: Vec<String> = path.split('/').map(path_segment).collect();
        let url = format!("{}/v1/lock/{}", self.agent, path.join("/"));
        let mut headers = vec![("content-type", "application/json")];
        if let Some(token) = &self.token {
            headers.push(("x-consul-token", token.expose()));
        }
        if !request_id.is_empty() {
            headers.push(("x-sync-request-id", request_id));
        }
        let sent = fetch::send(method, &url, &headers, Bytes::from(body), deadline).await;
        sent.map_err(|reason| format!("{}: {reason}", self.agent))
    }
}

/// The longest that one request is asked to wait in line.
pub(super) fn slice(wait: Duration) -> String {
    format!("{}ms", wait.min(lease::WAIT_SLICE).as_millis())
}

fn token(granted: &Granted) -> Vec<u8> {
    let body = TokenBody { token: granted.token.clone(), session: Some(granted.session.clone()) };
    serde_json::to_vec(&body).expect("texts")
}

/// What the agent said.
fn told(answer: &fetch::Answer) -> String {
    let text = excerpt(&answer.body);
    if text.is_empty() { format!("status {}", answer.status.as_u16()) } else { text }
}

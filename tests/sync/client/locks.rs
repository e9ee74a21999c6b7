//! Counting under a lock, by the lock API and with sessions.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use causeway::model::sync::Token;
use http::Method;
use serde_json::json;
use tokio::time::sleep;

use super::{
    COUNTER, Client, LOCK, Strategy,
    shown::{json_of, number},
};
use crate::sync::{
    history::{Act, Outcome},
    world::Reply,
};

/// What a count holds itself to.
enum Guarded {
    Token(Token),
    Checked(String),
}

impl Client<'_> {
    pub(super) async fn delete_lock(&self) {
        if let Some(Some(shown)) = self.get(LOCK, "?consistent").await {
            let target = format!("/v1/kv/{LOCK}?cas={}", shown.index);
            let _ = self.ask(Method::DELETE, &target, &[], String::new()).await;
        }
    }

    pub(super) async fn count(&self, hold_ms: u64) {
        let began = self.began();
        let body =
            json!({"ttl": "10s", "wait": "8s", "id": format!("client-{}", self.task.number)}).to_string();
        let reply = self.ask(Method::POST, &format!("/v1/lock/{LOCK}"), &[], body).await;
        let Reply::Answer(response) = reply else { return };
        let Some(body) = json_of(&response).filter(|_| response.status == 200) else { return };
        let told = body["token"].as_str().and_then(|token| token.parse().ok());
        let Some(told) = told else { panic!("a lock without a token: {body}") };
        let Some(token) = self.taken_token(told).await else { return };
        self.note(began, Outcome::Done, Act::Grant { lock: LOCK.to_owned(), token });
        self.count_once(token, hold_ms, &Guarded::Token(told)).await;
        let headers = [("x-lock-token", told.to_string())];
        let body = json!({"token": told.to_string(), "session": body["session"]}).to_string();
        let _ = self.ask(Method::PUT, &format!("/v1/lock/{LOCK}/release"), &headers, body).await;
    }

    async fn taken_token(&self, told: Token) -> Option<Token> {
        if self.strategy != Strategy::LockIndex {
            return Some(told);
        }
        let shown = self.get(LOCK, "?consistent").await??;
        Some(Token { epoch: 0, n: shown.lock_index })
    }

    async fn count_once(&self, token: Token, hold_ms: u64, guarded: &Guarded) {
        let Some(shown) = self.get(COUNTER, "?consistent").await else { return };
        let from = shown.map_or(0, |shown| number(&shown.value));
        sleep(Duration::from_millis(hold_ms)).await;
        if self.strategy == Strategy::ValueFirst {
            self.put_value().await;
        }
        let began = self.began();
        let to = from + 1;
        let outcome = match guarded {
            Guarded::Checked(session) => {
                let value = BASE64_STANDARD.encode(to.to_string());
                let ops = json!([
                    {"KV": {"Verb": "check-session", "Key": LOCK, "Session": session}},
                    {"KV": {"Verb": "set", "Key": COUNTER, "Value": value}},
                ]);
                self.change(Method::PUT, "/v1/txn", &[], ops.to_string()).await.0
            }
            Guarded::Token(told) => {
                let guard = [("x-lock", LOCK.to_owned()), ("x-lock-token", told.to_string())];
                self.change(Method::PUT, &format!("/v1/kv/{COUNTER}"), &guard, to.to_string()).await.0
            }
        };
        self.note(began, outcome, Act::Count { lock: LOCK.to_owned(), token, from, to });
    }

    /// By compare-and-set: a plain write of a key that a session holds is refused.
    async fn put_value(&self) {
        if let Some(Some(shown)) = self.get(LOCK, "?consistent").await {
            let target = format!("/v1/kv/{LOCK}?cas={}", shown.index);
            let _ = self.ask(Method::PUT, &target, &[], self.task.number.to_string()).await;
        }
    }

    /// As a client of Consul's own API does: a session, acquire, work, release.
    pub(super) async fn session(&self, hold_ms: u64, is_checked: bool) {
        let body = json!({"TTL": "10s", "LockDelay": "1ms", "Behavior": "release"}).to_string();
        let home = crate::sync::world::datacenter(self.world.home_of(LOCK));
        let create = format!("/v1/session/create?dc={home}");
        let Reply::Answer(response) = self.ask(Method::PUT, &create, &[], body).await else { return };
        let id = json_of(&response).and_then(|body| body["ID"].as_str().map(str::to_owned));
        let Some(id) = id else { return };
        let began = self.began();
        let acquire = format!("/v1/kv/{LOCK}?acquire={id}");
        let reply = self.ask(Method::PUT, &acquire, &[], self.task.number.to_string()).await;
        let Reply::Answer(response) = reply else { return };
        if response.status == 200 && response.body.trim_ascii() == b"true" {
            let told = response.header("x-lock-token").and_then(|token| token.parse().ok());
            let Some(told) = told else { panic!("a lock without a token: {response:?}") };
            let Some(token) = self.taken_token(told).await else { return };
            self.note(began, Outcome::Done, Act::Grant { lock: LOCK.to_owned(), token });
            let guarded = if is_checked { Guarded::Checked(id.clone()) } else { Guarded::Token(told) };
            self.count_once(token, hold_ms, &guarded).await;
            let release = format!("/v1/kv/{LOCK}?release={id}");
            let _ = self.ask(Method::PUT, &release, &[], String::new()).await;
        }
        let _ =
            self.ask(Method::PUT, &format!("/v1/session/destroy/{id}?dc={home}"), &[], String::new()).await;
    }
}

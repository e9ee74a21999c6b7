//! Who a token belongs to, for the audit: its accessor id, as the local Consul knows it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::PoisonError,
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    consul::acl::rights::ANONYMOUS,
    lifecycle,
    model::secret::SecretText,
    sync::{
        endpoint::{Raw, Request},
        engine::Engine,
        peer::Peers,
        store::Store,
    },
};

/// Tokens whose accessors are remembered; more than use one agent at a time.
const MAX_TOKENS: usize = 1024;

/// How long: an accessor never changes, but Consul may not have known the token yet.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The accessors of tokens, by the tokens' hashes.
#[derive(Default)]
pub(super) struct Accessors {
    by_hash: BTreeMap<[u8; 32], (Instant, String)>,
    order: VecDeque<[u8; 32]>,
}

impl Accessors {
    fn get(&self, hash: &[u8; 32], now: Instant) -> Option<String> {
        self.by_hash.get(hash).filter(|(at, _)| *at + MAX_AGE > now).map(|(_, accessor)| accessor.clone())
    }

    fn put(&mut self, hash: [u8; 32], now: Instant, accessor: String) {
        if self.by_hash.insert(hash, (now, accessor)).is_none() {
            self.order.push_back(hash);
        }
        if self.order.len() > MAX_TOKENS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_hash.remove(&oldest);
        }
    }
}

#[derive(Deserialize)]
struct Own {
    #[serde(rename = "AccessorID")]
    accessor_id: String,
}

impl<S: Store + Raw, P: Peers> Engine<S, P> {
    /// The accessor id of a token; `anonymous` without one, `unknown` when Consul does not say.
    pub(super) async fn accessor(&self, token: Option<&SecretText>) -> String {
        // An agent without a part in replication says so of its clients that have none.
        let Some(token) = token.filter(|token| token.expose() != ANONYMOUS) else { return ANONYMOUS.into() };
        let (hash, now) = (*blake3::hash(token.expose().as_bytes()).as_bytes(), lifecycle::now());
        let accessors = || self.0.accessors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(accessor) = accessors().get(&hash, now) {
            return accessor;
        }
        let mut request = Request::new(Method::GET, "/v1/acl/token/self", Vec::new(), Bytes::new());
        request.token = Some(token.clone());
        let answer = self.0.store.ask(&request).await.ok().filter(|answer| answer.status == 200);
        let own = answer.and_then(|answer| serde_json::from_slice::<Own>(&answer.body).ok());
        let accessor = own.map_or_else(|| "unknown".into(), |own| own.accessor_id);
        accessors().put(hash, now, accessor.clone());
        accessor
    }
}

//! Who a token belongs to, for the audit: its accessor id, as the local Consul knows it.

use std::{sync::PoisonError, time::Duration};

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
        engine::{Engine, bounded::Bounded},
        peer::Peers,
        store::Store,
    },
};

/// Tokens whose accessors are remembered; more than use one agent at a time.
const MAX_TOKENS: usize = 1024;

/// How long: an accessor never changes, but Consul may not have known the token yet.
const MAX_AGE: Duration = Duration::from_secs(60);

/// When Consul named it, and the accessor, by the hash of the token.
pub(super) type Accessors = Bounded<[u8; 32], (Instant, String), MAX_TOKENS>;

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
        if let Some((at, accessor)) = accessors().get(&hash)
            && *at + MAX_AGE > now
        {
            return accessor.clone();
        }
        let mut request = Request::new(Method::GET, "/v1/acl/token/self", Vec::new(), Bytes::new());
        request.token = Some(token.clone());
        let answer = self.0.store.ask(&request).await.ok().filter(|answer| answer.status == 200);
        let own = answer.and_then(|answer| serde_json::from_slice::<Own>(&answer.body).ok());
        let accessor = own.map_or_else(|| "unknown".into(), |own| own.accessor_id);
        accessors().put(hash, (now, accessor.clone()));
        accessor
    }
}

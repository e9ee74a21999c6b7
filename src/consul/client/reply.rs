//! Consul's answer to one request: status, the headers that matter, the body.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, response};
use serde::de::DeserializeOwned;

use crate::{
    consul::client::ClientError,
    model::secret::{REDACTED, SecretText},
};

/// How much of a body an error shows, in characters.
const EXCERPT_CHARS: usize = 200;

/// An answer with any status.
#[derive(Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// `X-Consul-Index`: what the next blocking query waits on. Absent where Consul gives none.
    pub index: Option<u64>,
    /// `X-Consul-ContentHash`: the same for `/v1/agent/service/:id`.
    pub content_hash: Option<String>,
    /// `X-Consul-Results-Filtered-By-ACLs` (Consul 1.11+): there is more than this token may see.
    pub filtered_by_acls: bool,
    /// `X-Consul-Default-ACL-Policy` (Consul 1.9+): `allow` or `deny`.
    pub default_acl_policy: Option<String>,
    /// `X-Consul-Translate-Addresses`: addresses of other datacenters were rewritten (hashicorp/consul#5225).
    pub translates_addresses: bool,
    /// `X-Consul-KnownLeader`.
    pub known_leader: Option<bool>,
    /// The body.
    pub body: Bytes,
    act: String,
    /// Kept to be struck out of what errors show.
    token: Option<SecretText>,
}

impl Reply {
    /// An answer that was kept: no exchange took place. `act` names it in errors.
    pub fn recorded(act: String, status: StatusCode, headers: &HeaderMap, body: Bytes) -> Self {
        Self::read(act, status, headers, body, None)
    }

    pub(crate) fn new(act: String, head: &response::Parts, body: Bytes, token: Option<SecretText>) -> Self {
        Self::read(act, head.status, &head.headers, body, token)
    }

    pub(crate) fn read(
        act: String,
        status: StatusCode,
        headers: &HeaderMap,
        body: Bytes,
        token: Option<SecretText>,
    ) -> Self {
        let text = |name: &str| header(headers, name);
        Self {
            status,
            index: text("x-consul-index").and_then(|index| index.parse().ok()),
            content_hash: text("x-consul-contenthash").map(str::to_owned),
            filtered_by_acls: text("x-consul-results-filtered-by-acls") == Some("true"),
            default_acl_policy: text("x-consul-default-acl-policy").map(str::to_owned),
            translates_addresses: text("x-consul-translate-addresses").is_some(),
            known_leader: text("x-consul-knownleader").and_then(|known| known.parse().ok()),
            body,
            act,
            token,
        }
    }

    /// The reply itself if its status is 2xx, else [`ClientError::Status`].
    pub fn ok(self) -> Result<Self, ClientError> {
        if self.status.is_success() { Ok(self) } else { Err(self.refusal()) }
    }

    /// Method and path, for errors.
    pub(crate) fn act(&self) -> &str {
        &self.act
    }

    /// The body as JSON; [`ClientError::Json`] if it is another thing. The status is not looked at.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| ClientError::Json { act: self.act.clone(), reason: error.to_string() })
    }

    /// The start of the body, on one line, without the token.
    pub fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(4 * EXCERPT_CHARS)]);
        let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = match &self.token {
            Some(token) if !token.is_empty() => line.replace(token.expose(), REDACTED),
            _ => line,
        };
        line.chars().take(EXCERPT_CHARS).collect()
    }

    /// The error that this reply is, whatever its status.
    pub(crate) fn refusal(&self) -> ClientError {
        let status = self.status.as_u16();
        ClientError::Status { status, act: self.act.clone(), excerpt: self.excerpt(), remedy: remedy(status) }
    }
}

impl fmt::Debug for Reply {
    /// Without the body, which may hold a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("act", &self.act)
            .field("status", &self.status)
            .field("index", &self.index)
            .field("content_hash", &self.content_hash)
            .field("filtered_by_acls", &self.filtered_by_acls)
            .field("default_acl_policy", &self.default_acl_policy)
            .field("translates_addresses", &self.translates_addresses)
            .field("known_leader", &self.known_leader)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn remedy(status: u16) -> &'static str {
    match status {
        400 => "; check that the address is Consul's HTTP port and that Consul is 1.8.7 or newer",
        401 | 403 => {
            "; give the token the right it lacks, and make it a global token if another datacenter is asked"
        }
        404 => "; check the name, and that it is registered with this agent",
        429 => "; raise Consul's limits.rpc_rate or limits.http_max_conns_per_client",
        500 => "; it is asked again: if this stays, look at Consul's log and at the gateways on the way",
        503 => "; it is asked again: Consul has no leader or is overloaded",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_body() {
        let body = Bytes::from_static(br#"{"PrivateKeyPEM":"hush"}"#);
        let reply = Reply::recorded("GET /v1/x".into(), StatusCode::OK, &HeaderMap::new(), body);
        let shown = format!("{reply:?}");
        assert!(!shown.contains("hush") && shown.contains("body_bytes: 24"), "{shown}");
    }
}

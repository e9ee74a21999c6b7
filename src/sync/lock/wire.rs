//! What a lock's client and its home say to each other (`/v1/lock/`). Pure.
//!
//! Durations are Go's, as everywhere in Consul's API: `15s`, `1m30s`, `500ms`.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    model::{settings::duration_ms, sync::Token},
    sync::refusal::Refusal,
};

/// What Consul takes.
pub const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(86_400);
/// What Consul takes.
pub const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);
/// The longest wait in line of one request, as with Consul's blocking queries.
pub const MAX_WAIT: Duration = Duration::from_secs(600);
/// The most holders of one semaphore: each has a key of its own.
pub const MAX_HOLDERS: u32 = 256;

/// What a lock has whose client names nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockDefaults {
    /// The lease of its holder: a hand-over after its death takes twice that and the lock-delay at most.
    pub ttl: Duration,
    /// How long it stays closed after its holder's session ended by itself: what the holder sent last arrives before that.
    pub delay: Duration,
}

impl Default for LockDefaults {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(15), delay: Duration::from_secs(15) }
    }
}

/// The body of `POST /v1/lock/<name>`. Everything may be left out, the body as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcquireBody {
    /// How long the lock lives without renewal: 10 s to 24 h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// How long to wait in line; not at all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    /// How long the lock stays closed after the holder was lost: 0 to 60 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_delay: Option<String>,
    /// Who asks, for people and for the leader endpoint. It proves nothing.
    pub id: String,
    /// The lock key's value; the id by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// How many may hold it at a time; all clients name the same number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holders: Option<u32>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acquire {
    /// How long the lock lives without renewal.
    pub ttl: Duration,
    /// How long to wait in line.
    pub wait: Duration,
    /// How long the lock stays closed after the holder was lost.
    pub lock_delay: Duration,
    /// Who asks.
    pub id: String,
    /// The lock key's value.
    pub value: Bytes,
    /// How many may hold it at a time.
    pub holders: u32,
}

/// The answer to an acquire that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The key that is held: the lock's name, or one of its slots. It is the name for renewing and releasing.
    pub key: String,
    /// The fencing token.
    pub token: String,
    /// The session at home that holds it.
    pub session: String,
    /// For how long the holder may believe in it, from when this was sent.
    pub expires_in_ms: u64,
}

/// The body of `renew` and `release`; `X-Lock-Token` does as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBody {
    /// As it was granted.
    pub token: String,
    /// As it was granted. With it nobody is taken for the holder who acquired the key past Causeway, without a token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<String>,
}

/// The answer to `release`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// False: it was no longer held with this token.
    pub released: bool,
}

/// The answer to `GET /v1/lock/<name>`, and to an acquire that did not succeed (409).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The lock's name.
    pub name: String,
    /// Whether nobody else can have it now.
    pub held: bool,
    /// One for each holder.
    pub holders: Vec<HolderView>,
    /// How many wait in line at this agent.
    pub waiting: usize,
}

/// One holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    /// The key that it holds.
    pub key: String,
    /// Its session, in the lock's home.
    pub session: String,
    /// Its token; none when it acquired the key past Causeway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The key's value, by default the id that it gave.
    pub id: String,
}

/// The answer of the leader endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Whether it is who asked.
    pub leader: bool,
    /// Who it is; empty when nobody is.
    pub leader_node: String,
}

/// What is asked for in this body.
///
/// # Errors
/// It is no such body.
pub fn acquire(body: &[u8], defaults: LockDefaults) -> Result<Acquire, Refusal> {
    let body: AcquireBody = if body.trim_ascii().is_empty() {
        AcquireBody::default()
    } else {
        serde_json::from_slice(body).map_err(|error| Refusal::Bad(format!("the body: {error}")))?
    };
    let ttl = duration("ttl", body.ttl.as_deref(), defaults.ttl)?;
    let wait = duration("wait", body.wait.as_deref(), Duration::ZERO)?;
    let lock_delay = duration("lock_delay", body.lock_delay.as_deref(), defaults.delay)?;
    let holders = body.holders.unwrap_or(1);
    if !TTL.contains(&ttl) {
        return Err(Refusal::Bad(format!("ttl: {ttl:?} is not between 10s and 24h")));
    }
    if wait > MAX_WAIT || lock_delay > MAX_LOCK_DELAY {
        return Err(Refusal::Bad("wait is 10m at most, and lock_delay 60s".into()));
    }
    if !(1..=MAX_HOLDERS).contains(&holders) {
        return Err(Refusal::Bad(format!("holders: {holders} is not between 1 and {MAX_HOLDERS}")));
    }
    let value = body.value.as_ref().unwrap_or(&body.id).clone().into();
    Ok(Acquire { ttl, wait, lock_delay, id: body.id, value, holders })
}

fn duration(name: &str, text: Option<&str>, default: Duration) -> Result<Duration, Refusal> {
    let Some(text) = text else { return Ok(default) };
    duration_ms(text).map(Duration::from_millis).ok_or_else(|| {
        Refusal::Bad(format!("{name}: `{text}` is not a duration; write for example 15s or 1m30s"))
    })
}

/// The token of a request that renews or releases, and the session if it names that too.
///
/// # Errors
/// There is none.
pub fn token(header: Option<&str>, body: &[u8]) -> Result<(Token, Option<String>), Refusal> {
    let body = serde_json::from_slice::<TokenBody>(body).ok();
    let (in_body, session) = body.map_or((None, None), |body| (Some(body.token), body.session));
    let Some(text) = header.map(str::to_owned).or(in_body) else {
        let text =
            "send the token as the lock gave it, in the header X-Lock-Token or as {\"token\": \"3.17\"}";
        return Err(Refusal::Bad(text.into()));
    };
    let token = text.parse().map_err(|error| Refusal::Bad(format!("token: {error}")))?;
    Ok((token, session))
}

/// The key of a slot of a semaphore.
pub fn slot(name: &str, number: u32) -> String {
    format!("{}{number:03}", slots(name))
}

/// What the keys of all slots begin with.
pub fn slots(name: &str) -> String {
    format!("{name}/.slots/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acquire(body: &[u8]) -> Result<Acquire, Refusal> {
        super::acquire(body, LockDefaults::default())
    }

    #[test]
    fn a_body_may_leave_everything_out() {
        let defaults = LockDefaults { ttl: Duration::from_secs(30), delay: Duration::from_secs(1) };
        let plain = super::acquire(b"", defaults).unwrap();
        assert_eq!((plain.ttl, plain.lock_delay), (defaults.ttl, defaults.delay));
        assert_eq!((plain.wait, plain.holders), (Duration::ZERO, 1));
        let full = br#"{"ttl":"1m30s","wait":"5s","lock_delay":"0s","id":"web-1","holders":3}"#;
        let full = acquire(full).unwrap();
        assert_eq!((full.ttl.as_secs(), full.wait.as_secs(), full.lock_delay.as_secs()), (90, 5, 0));
        assert_eq!((full.value, full.holders), (Bytes::from("web-1"), 3));
        assert_eq!(acquire(br#"{"id":"a","value":"b"}"#).unwrap().value, Bytes::from("b"));
    }

    #[test]
    fn what_is_wrong_in_a_body_is_named() {
        for (body, told) in [
            (&br#"{"ttl":"5s"}"#[..], "between 10s and 24h"),
            (br#"{"ttl":"15"}"#, "not a duration"),
            (br#"{"ttl":15}"#, "the body"),
            (br#"{"wait":"11m"}"#, "10m at most"),
            (br#"{"holders":0}"#, "between 1 and 256"),
            (br#"{"tll":"15s"}"#, "unknown field `tll`"),
            (b"[]x", "the body"),
        ] {
            let error = acquire(body).unwrap_err();
            assert_eq!(error.status(), 400);
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn a_token_comes_in_header_or_body() {
        let expected = Token { epoch: 3, n: 17 };
        assert_eq!(token(Some("3.17"), b""), Ok((expected, None)));
        let body = br#"{"token":"3.17","session":"s"}"#;
        assert_eq!(token(None, body), Ok((expected, Some("s".into()))));
        assert_eq!(token(None, b"").unwrap_err().status(), 400);
        assert_eq!(token(Some("x"), b"").unwrap_err().status(), 400);
    }
}

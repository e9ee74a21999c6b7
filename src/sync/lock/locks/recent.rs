//! Grants of late, which can be told again.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    lifecycle,
    model::{session::SessionId, sync::Token},
    sync::{
        lock::{
            lease,
            wire::{Acquire, Granted},
        },
        record::{Digest, Digester},
    },
};

/// A grant, for whoever asks again since the answer did not arrive.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    pub(super) request_id: String,
    pub(super) name: String,
    /// What was asked for.
    pub(super) asked: Digest,
    pub(super) key: String,
    pub(super) session: SessionId,
    pub(super) token: Token,
    /// When the session was made or renewed last.
    pub(super) renewed: Instant,
    pub(super) ttl: Duration,
}

impl Recent {
    /// As the client is told of it.
    pub(super) fn told(&self) -> Granted {
        let ends = lease::ends(self.renewed.into_std(), self.ttl);
        let left = ends.saturating_duration_since(lifecycle::now().into_std());
        Granted {
            key: self.key.clone(),
            token: self.token.to_string(),
            session: self.session.to_string(),
            expires_in_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// What is asked for. Whoever asks again may wait for another time.
pub(super) fn asked(wanted: &Acquire) -> Digest {
    let Acquire { ttl, lock_delay, id, value, holders, wait: _ } = wanted;
    let mut digester = Digester::default();
    for time in [ttl, lock_delay] {
        digester.number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }
    digester.number(u64::from(*holders));
    digester.text(id.as_bytes());
    digester.text(value);
    digester.end()
}

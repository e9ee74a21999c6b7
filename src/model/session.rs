//! Consul's sessions: what locks belong to.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

/// The id of a session, a UUID given by Consul. It means something only in the datacenter that made it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: AsRef<str>> From<T> for SessionId {
    fn from(text: T) -> Self {
        Self(Arc::from(text.as_ref()))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What happens to a session's locks when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behavior {
    /// The keys stay, free.
    #[default]
    Release,
    /// The keys are deleted.
    Delete,
}

/// A session to be made. It is bound to no health check: only its TTL ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSpec {
    /// For people.
    pub name: String,
    /// How long it lives without renewal: 10 s to 24 h. Consul ends it after once to twice this time.
    pub ttl: Duration,
    /// How long its locks stay closed to others after it ended by itself: 0 to 60 s. It lives in the memory of one
    /// server, so that safety never rests on it.
    pub lock_delay: Duration,
    /// What becomes of its locks.
    pub behavior: Behavior,
}

//! Sessions: what they hold is freed or deleted when they end, and rests for the lock-delay.

use std::time::Duration;

use causeway::model::session::{Behavior, SessionId, SessionSpec};

use super::Model;

/// The longest lock-delay.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// What a session may live for. None at all is a session without an end.
const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(86_400);

/// One session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) spec: SessionSpec,
    pub(crate) create_index: u64,
    /// When it ends unless it is renewed; never without a TTL.
    ends: Option<Duration>,
}

impl Session {
    /// Its TTL begins anew. It ends a while after that, once to twice the TTL.
    pub(super) fn renew(&mut self, now: Duration, slack: u32) {
        let ttl = self.spec.ttl;
        self.ends = (!ttl.is_zero()).then(|| now + ttl + ttl * slack / 100);
    }
}

impl Model {
    /// Makes a session.
    ///
    /// # Errors
    /// Its TTL is none that Consul takes.
    pub(crate) fn create_session(&mut self, spec: &SessionSpec) -> Result<SessionId, String> {
        if !spec.ttl.is_zero() && !TTL.contains(&spec.ttl) {
            return Err(format!(
                "Invalid Session TTL '{}', must be between [{}s={}h0m0s]",
                spec.ttl.as_nanos(),
                TTL.start().as_secs(),
                TTL.end().as_secs() / 3600
            ));
        }
        self.made_sessions += 1;
        let id = SessionId::from(format!("00000000-0000-4000-8000-{:012x}", self.made_sessions));
        let create_index = self.next_index();
        let mut session = Session { spec: spec.clone(), create_index, ends: None };
        session.renew(self.now, self.slack);
        self.data.sessions.insert(id.clone(), session);
        Ok(id)
    }

    /// Renews a session; false when there is none.
    pub(crate) fn renew_session(&mut self, id: &SessionId) -> bool {
        let (now, slack) = (self.now, self.slack);
        self.data.sessions.get_mut(id).map(|session| session.renew(now, slack)).is_some()
    }

    /// Ends a session: one that is gone is not ended again.
    pub(crate) fn end_session(&mut self, id: &SessionId) {
        let raft = self.next_index();
        let Some(session) = self.data.sessions.remove(id) else { return };
        let held: Vec<String> = self
            .data
            .pairs
            .iter()
            .filter(|(_, pair)| pair.session.as_ref() == Some(id))
            .map(|(key, _)| key.clone())
            .collect();
        let delay = session.spec.lock_delay.min(MAX_DELAY);
        for key in held {
            self.free(&key, session.spec.behavior == Behavior::Delete, raft);
            if !delay.is_zero() {
                self.delays.insert(key, self.now + delay);
            }
        }
        self.changed();
    }

    /// One session.
    pub(crate) fn session(&self, id: &SessionId) -> Option<&Session> {
        self.data.sessions.get(id)
    }

    pub(super) fn next_end(&self) -> Option<(Duration, SessionId)> {
        let ends = |(id, session): (&SessionId, &Session)| session.ends.map(|at| (at, id.clone()));
        self.data.sessions.iter().filter_map(ends).min()
    }
}

//! `/v1/session`: sessions of this agent's node that nothing but their TTL ends.

use std::{ops::RangeInclusive, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::{
    consul::{
        client::{Client, Reply, path},
        kv::{KvError, judge},
        wire::session,
    },
    model::session::{SessionId, SessionSpec},
};

/// What Consul takes for a TTL.
const TTL: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(24 * 3600);

/// The longest lock-delay.
const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);

impl Client {
    /// Makes a session on the node of the Consul agent that is asked.
    ///
    /// # Errors
    /// With [`KvError::Unknown`] there may be one of which nobody knows the id; it ends with its TTL.
    pub async fn create_session(&self, spec: &SessionSpec, deadline: Duration) -> Result<SessionId, KvError> {
        // Consul answers this with 500, which would leave open whether there is one.
        if !TTL.contains(&spec.ttl) || spec.lock_delay > MAX_LOCK_DELAY {
            let reason = format!(
                "a session's TTL is 10 s to 24 h and its lock-delay at most 60 s, and {:?} and {:?} are not",
                spec.ttl, spec.lock_delay
            );
            return Err(KvError::Refused { status: 400, reason });
        }
        let body = Bytes::from(session::create(spec));
        let reply = self.session("create", None, body, deadline).await?;
        session::created(&reply.body).map_err(|error| KvError::Unknown(error.to_string()))
    }

    /// Renews a session; false when there is none any more.
    pub async fn renew_session(&self, id: &SessionId, deadline: Duration) -> Result<bool, KvError> {
        match self.session("renew", Some(id), Bytes::new(), deadline).await {
            Ok(reply) if session::is_about(&reply.body, id) => Ok(true),
            Ok(reply) => Err(KvError::Unknown(reply.refusal().to_string())),
            // Any other 404 is of somebody who knows nothing of sessions.
            Err(KvError::Refused { status: 404, reason }) if reason.contains(&gone(id)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Ends a session. One that is gone counts as ended.
    pub async fn destroy_session(&self, id: &SessionId, deadline: Duration) -> Result<(), KvError> {
        let reply = self.session("destroy", Some(id), Bytes::new(), deadline).await?;
        match reply.body.trim_ascii() == b"true" {
            true => Ok(()),
            false => Err(KvError::Unknown(reply.refusal().to_string())),
        }
    }

    async fn session(
        &self,
        act: &str,
        id: Option<&SessionId>,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Reply, KvError> {
        let parts: Vec<&str> = ["v1", "session", act].into_iter().chain(id.map(SessionId::as_str)).collect();
        let reply = self.write(Method::PUT, path(&parts), body, deadline).await.map_err(KvError::of_write)?;
        match reply.status {
            StatusCode::OK => Ok(reply),
            _ => Err(judge::refused_write(&reply)),
        }
    }
}

/// What Consul says of a session that it does not know.
fn gone(id: &SessionId) -> String {
    format!("Session id '{id}' not found")
}

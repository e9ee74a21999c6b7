//! Why a request is not carried out, as a client sees it: a status and a sentence with its remedy. Pure.

use crate::model::{name::Datacenter, session::SessionId, sync::Token};

/// Why a request is not carried out. All but [`Refusal::OutcomeUnknown`] mean that nothing was executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request itself is wrong.
    #[error("{0}")]
    Bad(String),
    /// A key below `_sync/`.
    #[error("{0} is reserved for replication; use another key")]
    Reserved(String),
    /// A transaction over two homes, or over managed and other keys.
    #[error(
        "a transaction has one home, and {first_key} is written in {first} but {second_key} in {second}; send two transactions"
    )]
    TwoHomes {
        /// One key.
        first_key: String,
        /// Where it is written.
        first: Datacenter,
        /// Another.
        second_key: String,
        /// Where that is written.
        second: Datacenter,
    },
    /// `?dc=` names another datacenter than the home.
    #[error("{key} is written in {home} only; leave out ?dc= or name {home}")]
    NotItsHome {
        /// The key.
        key: String,
        /// Its home.
        home: Datacenter,
    },
    /// The session of an acquire lives elsewhere than the key.
    #[error(
        "session {session} lives in {session_home} and {key} in {key_home}; make the session with ?dc={key_home}"
    )]
    SessionElsewhere {
        /// The session.
        session: SessionId,
        /// Its home.
        session_home: Datacenter,
        /// The key.
        key: String,
        /// Its home.
        key_home: Datacenter,
    },
    /// The client's token does not allow it.
    #[error("Permission denied: the token lacks {right} in {home}")]
    Denied {
        /// The right, for example `key:write on config/a`.
        right: String,
        /// Where it was asked.
        home: Datacenter,
    },
    /// A plain write or delete of a key that somebody holds as a lock.
    #[error(
        "{key} is held as a lock by session {session}; release it first, or write it with ?acquire=, ?release= or ?cas="
    )]
    Held {
        /// The key.
        key: String,
        /// The holder.
        session: SessionId,
    },
    /// A guarded write whose token is not the lock's present one.
    #[error("the token {given} of lock {lock} is no longer valid: {}; acquire the lock again", .current.map_or_else(|| "nobody holds it".into(), |token| format!("the present one is {token}")))]
    StaleToken {
        /// The lock.
        lock: String,
        /// The token that came with the write.
        given: Token,
        /// The present holder's.
        current: Option<Token>,
    },
    /// A value that replication does not carry.
    #[error("{what} is {bytes} bytes, and the limit is {limit}; {remedy}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        bytes: usize,
        /// The limit, the smallest of all datacenters.
        limit: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// More verbs than fit.
    #[error("the transaction has {ops} operations, and the limit is {limit}; split it")]
    TooManyOps {
        /// How many it has.
        ops: usize,
        /// How many fit, the smallest number of all datacenters.
        limit: usize,
    },
    /// Too many wait already.
    #[error("{0}")]
    Busy(String),
    /// The way to the home is cut.
    #[error(
        "home_unreachable: {home} cannot be reached: {reason}; nothing was executed: ask again when the link is back"
    )]
    HomeUnreachable {
        /// The home.
        home: Datacenter,
        /// What is known of it.
        reason: String,
    },
    /// Nobody does the work right now.
    #[error("{0}")]
    NotServing(String),
    /// The replica is older than allowed.
    #[error("{0}")]
    TooStale(String),
    /// Nothing within the time given.
    #[error("{0}")]
    Deadline(String),
    /// It was sent and there is no answer.
    #[error(
        "outcome=unknown: {reason}; send it again with X-Sync-Request-Id: {request_id}, which executes it once at most"
    )]
    OutcomeUnknown {
        /// The request.
        request_id: String,
        /// What is known of it.
        reason: String,
    },
    /// The prefixes of two agents do not fit together.
    #[error("{0}")]
    Misfit(String),
}

impl Refusal {
    /// The HTTP status that a client gets.
    pub fn status(&self) -> u16 {
        match self {
            Self::Bad(_) | Self::Reserved(_) | Self::TwoHomes { .. } | Self::NotItsHome { .. } => 400,
            Self::Denied { .. } => 403,
            Self::SessionElsewhere { .. } | Self::Held { .. } | Self::StaleToken { .. } => 409,
            Self::TooLarge { .. } | Self::TooManyOps { .. } => 413,
            Self::Busy(_) => 429,
            Self::HomeUnreachable { .. } | Self::NotServing(_) | Self::TooStale(_) | Self::Misfit(_) => 503,
            Self::Deadline(_) | Self::OutcomeUnknown { .. } => 504,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_token_names_the_present_one() {
        let stale = |current| Refusal::StaleToken {
            lock: "locks/a".into(),
            given: Token { epoch: 1, n: 3 },
            current,
        };
        assert!(stale(None).to_string().ends_with("nobody holds it; acquire the lock again"));
        assert!(
            stale(Some(Token { epoch: 1, n: 4 }))
                .to_string()
                .ends_with("the present one is 1.4; acquire the lock again")
        );
        assert_eq!(stale(None).status(), 409);
    }
}

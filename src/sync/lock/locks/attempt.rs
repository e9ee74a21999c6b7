//! Taking a lock that has the turn: look until it is free, then acquire it with a session made for that. Dropped halfway,
//! it leaves the session to be ended.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::{
    lifecycle,
    model::{
        kv::{Op, TxnReply},
        session::{Behavior, SessionId, SessionSpec},
        sync::Token,
    },
    sync::{
        home::memory::LOCK_FLAGS,
        lock::{
            locks::{
                CALL, Caller, Grants, Recent, Shared, asked,
                orphans::{Held, Orphan},
                unavailable, write,
            },
            wire::{self, Acquire},
        },
        refusal::Refusal,
        store::{Read, Store, StoreError, within},
    },
};

/// The longest wait of one look: a change that it missed is seen that soon.
const LOOK: Duration = Duration::from_secs(15);

/// Between looks at a lock that there is no leave to watch.
const UNWATCHED: Duration = Duration::from_secs(1);

/// Before another attempt on a lock that is free and still closed: the end of a lock-delay wakes nobody.
const CLOSED: Duration = Duration::from_millis(250);

/// The attempts of one request.
pub(super) struct Attempt<'a, S: Store, G: Grants> {
    shared: Arc<Shared<S, G>>,
    name: &'a str,
    wanted: &'a Acquire,
    caller: &'a Caller,
    session: Option<Session>,
    /// What was looked at last; none to look at once.
    index: Option<u64>,
    tries: u32,
}

struct Session {
    id: SessionId,
    renewed: Instant,
    /// What it may hold by now.
    key: Option<String>,
}

impl<'a, S: Store, G: Grants> Attempt<'a, S, G> {
    pub(super) fn new(
        shared: Arc<Shared<S, G>>,
        name: &'a str,
        wanted: &'a Acquire,
        caller: &'a Caller,
    ) -> Self {
        Self { shared, name, wanted, caller, session: None, index: None, tries: 0 }
    }

    /// Looks once, or waits until there is something new to see, and acquires what is free.
    pub(super) async fn once(&mut self, until: Instant) -> Result<Option<Recent>, Refusal> {
        let left = until.saturating_duration_since(lifecycle::now());
        let key = match self.free(left).await {
            Ok(Some(key)) => key,
            Ok(None) => return Ok(None),
            Err(error) if left.is_zero() => return Err(unavailable(&error)),
            Err(error) => {
                debug!(%error, "look at a lock");
                self.index = None;
                sleep(CLOSED.min(left)).await;
                return Ok(None);
            }
        };
        let session = match self.session().await {
            Ok(session) => session,
            Err(error) => return Err(unavailable(&error)),
        };
        match self.acquire(&key, &session).await? {
            Some(token) => Ok(self.granted(key, token)),
            None => {
                self.index = None;
                sleep(CLOSED.min(left)).await;
                Ok(None)
            }
        }
    }

    /// A key that nobody holds.
    async fn free(&mut self, left: Duration) -> Result<Option<String>, StoreError> {
        // Held until the look is over.
        let leave = self.index.and_then(|_| self.shared.watched.try_acquire().ok());
        let read = match self.index {
            Some(index) if leave.is_some() => Read::Wait { index, wait: left.min(LOOK) },
            Some(_) => {
                sleep(UNWATCHED.min(left)).await;
                Read::Default
            }
            None => Read::Default,
        };
        let limit = CALL + left.min(LOOK) + LOOK / 16;
        let store = &self.shared.store;
        if self.wanted.holders == 1 {
            let answer = within(limit, store.get(self.name, read)).await?;
            self.index = Some(answer.index).filter(|index| *index > 0);
            let is_held = answer.value.is_some_and(|pair| pair.session.is_some());
            return Ok((!is_held).then(|| self.name.to_owned()));
        }
        let answer = within(limit, store.list(&wire::slots(self.name), read)).await?;
        self.index = Some(answer.index).filter(|index| *index > 0);
        let held: BTreeSet<String> =
            answer.value.into_iter().filter(|pair| pair.session.is_some()).map(|pair| pair.key).collect();
        // Not the first one each time: it may be the one that is still closed.
        let order = (0..self.wanted.holders).map(|n| (n + self.tries) % self.wanted.holders);
        Ok(order.map(|n| wire::slot(self.name, n)).find(|key| !held.contains(key)))
    }

    /// A session that is fresh enough to tell its client for how long it lasts.
    async fn session(&mut self) -> Result<SessionId, StoreError> {
        let sent = lifecycle::now();
        if let Some(session) = &mut self.session {
            if sent < session.renewed + self.wanted.ttl / 3 {
                return Ok(session.id.clone());
            }
            if within(CALL, self.shared.store.renew_session(&session.id)).await? {
                session.renewed = sent;
                return Ok(session.id.clone());
            }
        }
        let spec = SessionSpec {
            name: format!("causeway lock {} for {}", self.name, self.wanted.id),
            ttl: self.wanted.ttl,
            lock_delay: self.wanted.lock_delay,
            behavior: Behavior::Release,
        };
        let id = within(CALL, self.shared.store.create_session(&spec)).await?;
        self.session = Some(Session { id: id.clone(), renewed: sent, key: None });
        Ok(id)
    }

    async fn acquire(&mut self, key: &str, session: &SessionId) -> Result<Option<Token>, Refusal> {
        self.tries += 1;
        let id = format!("{}.{session}.{}", self.caller.request_id, self.tries);
        if let Some(session) = &mut self.session {
            session.key = Some(key.to_owned());
        }
        let deadline = lifecycle::now() + CALL;
        loop {
            let op = Op::Lock {
                key: key.to_owned(),
                value: self.wanted.value.clone(),
                flags: LOCK_FLAGS,
                session: session.clone(),
            };
            match self.shared.grants.commit(write(id.clone(), &self.caller.origin, vec![op])).await {
                Ok(done) if matches!(done.reply, TxnReply::Committed(_)) => {
                    return self.token(key, session, &done.tokens).await;
                }
                Ok(_) => return Ok(None),
                // The same id again: it is executed once at most.
                Err(Refusal::OutcomeUnknown { .. }) if lifecycle::now() < deadline => sleep(CLOSED).await,
                Err(Refusal::OutcomeUnknown { .. }) => return self.token(key, session, &[]).await,
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// The token of the grant, if this session has it.
    async fn token(
        &self,
        key: &str,
        session: &SessionId,
        tokens: &[(String, Token)],
    ) -> Result<Option<Token>, Refusal> {
        if let Some((_, token)) = tokens.iter().find(|(lock, _)| lock == key) {
            return Ok(Some(*token));
        }
        let state = self.shared.state(key).await?;
        let token = state.token.filter(|_| state.session() == Some(session));
        if token.is_some() {
            // No answer to its commit has waited for the disk.
            self.shared.grants.kept().await?;
        }
        Ok(token)
    }

    fn granted(&mut self, key: String, token: Token) -> Option<Recent> {
        let Session { id, renewed, .. } = self.session.take()?;
        Some(Recent {
            request_id: self.caller.request_id.clone(),
            name: self.name.to_owned(),
            asked: asked(self.wanted),
            key,
            session: id,
            token,
            renewed,
            ttl: self.wanted.ttl,
        })
    }
}

impl<S: Store, G: Grants> Drop for Attempt<'_, S, G> {
    fn drop(&mut self) {
        let Some(Session { id, key, .. }) = self.session.take() else { return };
        let (value, origin) = (self.wanted.value.clone(), self.caller.origin.clone());
        let held = key.map(|key| Held { key, value, origin });
        // A full queue costs the session's TTL and nothing else.
        let _ = self.shared.orphans.try_send(Orphan { session: id, held });
    }
}

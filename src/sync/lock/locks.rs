//! The HTTP lock API (`/v1/lock/`), executed by the active home agent of the lock's prefix.
//!
//! Nothing here decides who holds a lock: Consul does, in the transaction that [`Grants`] commits. What an agent
//! remembers beside that (who waits, what was granted of late) may be lost with it, and costs a client its place in line.
//! What was granted to somebody who went away is given back by a task of its own.

mod attempt;
mod line;
mod orphans;
mod recent;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{Semaphore, mpsc, watch};

use self::{
    attempt::Attempt,
    line::Place,
    orphans::{Orphan, give_back},
    recent::{Recent, asked},
};
use crate::{
    lifecycle::{self, Stop, Task},
    model::{
        kv::{Op, Pair, TxnReply},
        name::Datacenter,
        session::SessionId,
        sync::{PrefixId, Token},
    },
    sync::{
        endpoint::{
            answer,
            ask::{LockAct, LockAsk},
            message::{Request, Response},
        },
        home::{Home, Write, Written, request},
        layout::Layout,
        lock::{
            waiters::Waiters,
            wire::{self, Acquire, Granted, HolderView, Leader, LockDefaults, Released, View},
        },
        record,
        refusal::Refusal,
        store::{Read, Store, StoreError, within},
    },
};

/// How long one answer of the home is waited for.
const CALL: Duration = Duration::from_secs(5);

/// Grants that can be told again when the answer did not arrive.
const MAX_RECENT: usize = 1024;

/// Sessions that wait to be ended. One too many is ended by its TTL.
const ORPHANS: usize = 1024;

/// Locks of a prefix whose change is waited for in a blocking query: each keeps a connection to Consul busy. The others
/// are looked at now and then.
const WATCHED: usize = 16;

/// Where grants are committed.
pub trait Grants: Clone + Send + Sync + 'static {
    /// The present epoch; none while this agent is not the active home.
    fn epoch(&self) -> Option<u32>;

    /// Commits a write to keys of the prefix, once at most for each id, with a token for each lock acquired.
    fn commit(&self, write: Write) -> impl Future<Output = Result<Written, Refusal>> + Send;

    /// Waits until this agent will know again of all that was committed so far, also of what nobody was answered.
    fn kept(&self) -> impl Future<Output = Result<(), Refusal>> + Send;
}

impl<S: Store> Grants for Home<S> {
    fn epoch(&self) -> Option<u32> {
        self.tip().borrow().as_ref().map(|known| known.position.epoch)
    }

    async fn commit(&self, write: Write) -> Result<Written, Refusal> {
        self.write(write).await
    }

    async fn kept(&self) -> Result<(), Refusal> {
        Self::kept(self).await
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The same in every try.
    pub request_id: String,
    /// The datacenter where it asked.
    pub origin: Datacenter,
}

/// The locks of one prefix whose home is here. Clones are the same ones.
#[derive(Debug)]
pub struct Locks<S, G>(Arc<Shared<S, G>>);

impl<S, G> Clone for Locks<S, G> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Shared<S, G> {
    store: S,
    grants: G,
    layout: Layout,
    defaults: LockDefaults,
    waits: Histogram,
    line: Mutex<Waiters>,
    /// Counts the moves in all lines.
    moves: watch::Sender<u64>,
    recent: Mutex<VecDeque<Recent>>,
    /// Leave to wait in a blocking query.
    watched: Semaphore,
    orphans: mpsc::Sender<Orphan>,
}

/// A lock's key as it is now.
struct State {
    pair: Option<Pair>,
    /// Of the last grant.
    token: Option<Token>,
}

/// What a token is worth now.
struct Present {
    given: Token,
    /// Who holds the lock with it, or why nobody does.
    session: Result<SessionId, Refusal>,
    state: State,
}

impl State {
    fn session(&self) -> Option<&SessionId> {
        self.pair.as_ref()?.session.as_ref()
    }

    /// The token of whoever holds it now.
    fn current(&self) -> Option<Token> {
        self.session().and(self.token)
    }

    fn id(&self) -> String {
        self.pair.as_ref().map_or_else(String::new, |pair| String::from_utf8_lossy(&pair.value).into_owned())
    }
}

impl<S: Store, G: Grants> Locks<S, G> {
    /// Starts to serve. The task gives back what nobody took.
    pub fn start(
        store: S,
        grants: G,
        prefix: &PrefixId,
        defaults: LockDefaults,
        waits: Histogram,
        stop: Stop,
    ) -> (Self, Task<()>) {
        let (orphans, abandoned) = mpsc::channel(ORPHANS);
        let task = give_back(store.clone(), grants.clone(), abandoned, stop);
        let shared = Shared {
            store,
            grants,
            layout: Layout::new(prefix),
            defaults,
            waits,
            line: Mutex::default(),
            moves: watch::channel(0).0,
            recent: Mutex::default(),
            watched: Semaphore::new(WATCHED),
            orphans,
        };
        (Self(Arc::new(shared)), lifecycle::spawn("sync.locks", task))
    }

    /// Answers a request whose rights have been checked.
    pub async fn serve(&self, ask: &LockAsk, request: &Request, caller: &Caller) -> Response {
        let done = match ask.act {
            LockAct::Acquire => self.acquire(&ask.key, request, caller).await,
            LockAct::Renew => self.renew(&ask.key, request).await,
            LockAct::Release => self.release(&ask.key, request, caller).await,
            LockAct::Look => self.0.view(&ask.key).await.map(|view| json(200, &view)),
            LockAct::Leader => self.leader(&ask.key, request).await,
        };
        done.unwrap_or_else(|refusal| answer::refusal(&refusal))
    }

    async fn acquire(&self, name: &str, request: &Request, caller: &Caller) -> Result<Response, Refusal> {
        let wanted = wire::acquire(&request.body, self.0.defaults)?;
        let granted = match self.0.repeated(name, &wanted, caller).await? {
            Some(granted) => Some(granted),
            None => {
                let came = lifecycle::now();
                let granted = self.0.grant(name, &wanted, caller).await?;
                if granted.is_some() {
                    self.0.waits.observe(came.elapsed().as_secs_f64());
                }
                granted
            }
        };
        match granted {
            Some(granted) => Ok(json(200, &granted).with("x-lock-token", granted.token)),
            None => Ok(json(409, &self.0.view(name).await?)),
        }
    }

    async fn renew(&self, key: &str, request: &Request) -> Result<Response, Refusal> {
        let Present { given, session, .. } = self.0.present(key, request).await?;
        let session = session?;
        match within(CALL, self.0.store.renew_session(&session)).await {
            Ok(true) => Ok(json(
                200,
                &wire::TokenBody { token: given.to_string(), session: Some(session.to_string()) },
            )),
            Ok(false) => Err(stale(key, given, None)),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn release(&self, key: &str, request: &Request, caller: &Caller) -> Result<Response, Refusal> {
        let Present { session, state, .. } = self.0.present(key, request).await?;
        // Released, lost or taken over: it is not held with this token, which is what was asked for.
        let (Ok(session), Some(pair)) = (session, state.pair) else {
            return Ok(json(200, &Released { released: false }));
        };
        let ops = unlock(key, pair.value, pair.flags, &session);
        let id = format!("{}.release", caller.request_id);
        let done = self.0.grants.commit(write(id, &caller.origin, ops)).await?;
        let orphan = Orphan { session, held: None };
        let _ = self.0.orphans.try_send(orphan);
        Ok(json(200, &Released { released: matches!(done.reply, TxnReply::Committed(_)) }))
    }

    /// 200 to the leader, 429 to all others: a load balancer sends nothing there and does not take it for broken.
    async fn leader(&self, name: &str, request: &Request) -> Result<Response, Refusal> {
        let state = self.0.state(name).await?;
        let holder = state.session().map(|_| state.id());
        let is_leader = match (request.header("x-lock-token"), request.param("id")) {
            (Some(token), _) => state.current().is_some_and(|current| current.to_string() == token),
            (None, Some(id)) => holder.as_deref() == Some(id),
            (None, None) => holder.is_some(),
        };
        let leader = Leader { leader: is_leader, leader_node: holder.unwrap_or_default() };
        Ok(json(if is_leader { 200 } else { 429 }, &leader))
    }
}

impl<S: Store, G: Grants> Shared<S, G> {
    /// Waits in line and takes the lock when it comes free; none when the time is over.
    async fn grant(
        self: &Arc<Self>,
        name: &str,
        wanted: &Acquire,
        caller: &Caller,
    ) -> Result<Option<Granted>, Refusal> {
        let until = lifecycle::now() + wanted.wait;
        let mut place = Place::join(self.clone(), name, &caller.request_id, until)?;
        let mut attempt = Attempt::new(self.clone(), name, wanted, caller);
        while place.turn().await {
            if let Some(grant) = attempt.once(until).await? {
                place.done();
                let granted = grant.told();
                self.remember(grant);
                return Ok(Some(granted));
            }
            if lifecycle::now() >= until {
                break;
            }
        }
        Ok(None)
    }

    fn remember(&self, grant: Recent) {
        let mut recent = lock(&self.recent);
        if recent.len() >= MAX_RECENT {
            recent.pop_front();
        }
        recent.push_back(grant);
    }

    /// The grant that this request got already, if it is still good.
    async fn repeated(
        &self,
        name: &str,
        wanted: &Acquire,
        caller: &Caller,
    ) -> Result<Option<Granted>, Refusal> {
        let is_it = |recent: &&Recent| recent.request_id == caller.request_id && recent.name == name;
        let Some(recent) = lock(&self.recent).iter().rev().find(is_it).cloned() else { return Ok(None) };
        if recent.asked != asked(wanted) {
            return Err(request::another());
        }
        let state = self.state(&recent.key).await?;
        let is_good = state.session() == Some(&recent.session) && state.token == Some(recent.token);
        Ok(is_good.then(|| recent.told()))
    }

    /// What a token that comes with a request is worth.
    async fn present(&self, key: &str, request: &Request) -> Result<Present, Refusal> {
        let (given, by) = wire::token(request.header("x-lock-token"), &request.body)?;
        let epoch = self.grants.epoch().ok_or_else(not_serving)?;
        let state = self.state(key).await?;
        let is_present = state.current() == Some(given) && given.epoch == epoch;
        let session = state.session().filter(|session| by.as_deref().is_none_or(|by| by == session.as_str()));
        let session = match (is_present, session) {
            (true, Some(session)) => Ok(session.clone()),
            _ => Err(stale(key, given, state.current())),
        };
        Ok(Present { given, session, state })
    }

    async fn state(&self, key: &str) -> Result<State, Refusal> {
        let fence = self.layout.fence(key);
        let reads = vec![Op::Get { key: key.to_owned() }, Op::Get { key: fence.clone() }];
        match within(CALL, self.store.txn(reads)).await.map_err(|error| unavailable(&error))? {
            TxnReply::Committed(pairs) => {
                let of = |key: &str| pairs.iter().find(|pair| pair.key == key);
                let token = of(&fence).map(|pair| record::decode::<Token>(&fence, &pair.value)).transpose();
                let token = token.map_err(|error| Refusal::NotServing(error.to_string()))?;
                Ok(State { pair: of(key).cloned(), token })
            }
            // One of them is not there: then nobody acquired the lock through Causeway.
            TxnReply::RolledBack(_) => {
                let pair = within(CALL, self.store.get(key, Read::Default)).await;
                Ok(State { pair: pair.map_err(|error| unavailable(&error))?.value, token: None })
            }
        }
    }

    async fn view(&self, name: &str) -> Result<View, Refusal> {
        let slots = within(CALL, self.store.list(&wire::slots(name), Read::Default)).await;
        let slots = slots.map_err(|error| unavailable(&error))?.value;
        let held = slots.into_iter().filter(|pair| pair.session.is_some()).map(|pair| pair.key);
        let mut holders = Vec::new();
        for key in std::iter::once(name.to_owned()).chain(held) {
            let state = self.state(&key).await?;
            if let Some(session) = state.session() {
                let token = state.token.map(|token| token.to_string());
                holders.push(HolderView { key, session: session.to_string(), token, id: state.id() });
            }
        }
        let waiting = lock(&self.line).count(name, lifecycle::now().into_std());
        Ok(View { name: name.to_owned(), held: !holders.is_empty(), holders, waiting })
    }
}

fn unlock(key: &str, value: bytes::Bytes, flags: u64, session: &SessionId) -> Vec<Op> {
    let (key, session) = (key.to_owned(), session.clone());
    vec![
        Op::CheckSession { key: key.clone(), session: session.clone() },
        Op::Unlock { key, value, flags, session },
    ]
}

fn write(request_id: String, origin: &Datacenter, ops: Vec<Op>) -> Write {
    Write { request_id, origin: origin.clone(), ops, guard: None, deadline: lifecycle::now() + CALL }
}

fn stale(key: &str, given: Token, current: Option<Token>) -> Refusal {
    Refusal::StaleToken { lock: key.to_owned(), given, current }
}

fn not_serving() -> Refusal {
    Refusal::NotServing("this agent is not the active home of the lock's prefix; send it again".into())
}

fn unavailable(error: &StoreError) -> Refusal {
    Refusal::NotServing(format!("the home's Consul: {error}"))
}

fn json(status: u16, body: &impl serde::Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("these have text keys and no failing serializers");
    Response::json(status, body)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! The door between streams and what is built for their proxies. A stream whose token has no `service:write` on its
//! proxy's service is offered nothing; one whose token loses it is closed.
//!
//! Streams with the same proxy and the same token share one gate: a task that checks the token now and then and
//! passes on what the publisher offers. `verdict` decides, this file only carries.

mod gate;
mod verdict;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, watch};

use crate::{
    app::{
        access::{
            gate::{Gate, Guard},
            verdict::Subject,
        },
        interest::Interests,
    },
    consul::{
        acl::{
            leaf::LeafTokens,
            rights::{self, Right},
        },
        client::Client,
    },
    lifecycle::{self, Stop},
    model::{
        catalog::Catalog,
        name::{ProxyId, ServiceName},
        secret::SecretText,
    },
    state::{memory::TokenMemory, tokens::TokenMark},
    xds::server::{Attached, ProxySource},
};

/// Checks under way at once: connections to Consul are few, and a check takes a millisecond.
const CHECKS_AT_ONCE: usize = 4;

/// Who may have what. Clones share everything.
#[derive(Clone)]
pub(super) struct Access(Arc<Shared>);

struct Shared {
    interests: Interests,
    examiner: Box<dyn Examiner>,
    leaf_tokens: LeafTokens,
    memory: TokenMemory,
    recheck: Duration,
    catalog: watch::Receiver<Arc<Catalog>>,
    gates: Mutex<Gates>,
}

#[derive(Default)]
struct Gates {
    last_id: u64,
    by_key: BTreeMap<GateKey, Gate>,
}

/// A proxy, and the mark of the token that its streams present. It has no `Debug`, so that it is shown nowhere.
type GateKey = (ProxyId, TokenMark);

/// Who knows what a token may do.
pub(super) trait Examiner: Send + Sync {
    /// What the token may do to the service. An error is the reason why that is not known.
    fn examine<'a>(
        &'a self,
        token: &'a SecretText,
        service: &'a ServiceName,
    ) -> BoxFuture<'a, Result<Right, String>>;
}

/// Consul, asked with the token itself.
pub(super) struct AskConsul {
    client: Client,
    turns: Semaphore,
}

impl AskConsul {
    pub(super) fn new(client: Client) -> Self {
        Self { client, turns: Semaphore::new(CHECKS_AT_ONCE) }
    }
}

impl Examiner for AskConsul {
    fn examine<'a>(
        &'a self,
        token: &'a SecretText,
        service: &'a ServiceName,
    ) -> BoxFuture<'a, Result<Right, String>> {
        Box::pin(async {
            let _turn = self.turns.acquire().await.ok();
            rights::right(&self.client, token, service).await
        })
    }
}

impl Access {
    /// Nobody has passed yet, but for those that the memory vouches for while Consul cannot be asked. A token in use is
    /// checked again every `recheck`.
    pub(super) fn new(
        interests: Interests,
        examiner: impl Examiner + 'static,
        leaf_tokens: LeafTokens,
        memory: TokenMemory,
        recheck: Duration,
        catalog: watch::Receiver<Arc<Catalog>>,
    ) -> Self {
        let (examiner, gates) = (Box::new(examiner), Mutex::default());
        Self(Arc::new(Shared { interests, examiner, leaf_tokens, memory, recheck, catalog, gates }))
    }

    /// Tells every gate what its token must have a right to, as the catalog changes. Runs until stopped, or until the
    /// catalog ends.
    pub(super) async fn follow(self, stop: Stop) {
        let mut catalog = self.0.catalog.clone();
        loop {
            let latest = catalog.borrow_and_update().clone();
            self.0.tell(&latest);
            tokio::select! {
                () = stop.wait() => return,
                changed = catalog.changed() => if changed.is_err() { return },
            }
        }
    }
}

impl Shared {
    fn gates(&self) -> MutexGuard<'_, Gates> {
        // Every change leaves the value whole.
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, catalog: &Catalog) {
        if let Some(agent) = catalog.agent().known() {
            self.leaf_tokens.tell(agent.acls_enabled);
        }
        for ((proxy, _), gate) in &self.gates().by_key {
            gate.concerns(Subject::of(catalog, proxy));
        }
    }

    /// Takes a gate away that nobody uses; gives whether it is gone, this way or another.
    fn close(&self, key: &GateKey, id: u64) -> bool {
        let mut gates = self.gates();
        match gates.by_key.get(key) {
            Some(gate) if gate.id() == id && gate.is_used() => false,
            Some(gate) if gate.id() == id => {
                gates.by_key.remove(key);
                true
            }
            _ => true,
        }
    }
}

impl ProxySource for Access {
    fn attach(&self, proxy: &ProxyId, token: Option<SecretText>) -> Attached {
        let (source, interest) = self.0.interests.hold(proxy);
        let token = token.filter(|token| !token.is_empty());
        let is_presented = token.is_some();
        let token = token.unwrap_or_else(|| SecretText::from(rights::ANONYMOUS));
        let key = (proxy.clone(), self.0.memory.mark(&token));
        let now = lifecycle::now();
        let mut gates = self.0.gates();
        let open = gates.by_key.get(&key).filter(|gate| gate.leads_to(&source) && !gate.is_outdated(now));
        let (offers, used) = match open {
            Some(gate) => gate.enter(),
            None => {
                gates.last_id += 1;
                let guard = Guard {
                    id: gates.last_id,
                    shared: self.0.clone(),
                    key: key.clone(),
                    token,
                    is_presented,
                    subject: Subject::of(&self.0.catalog.borrow(), proxy),
                };
                let gate = Gate::open(guard, source);
                let entered = gate.enter();
                gates.by_key.insert(key, gate);
                entered
            }
        };
        Attached { offers, hold: Box::new((used, interest)) }
    }
}

#[cfg(test)]
mod tests;

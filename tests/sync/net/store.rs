//! An agent's way to its Consul.

use std::time::Duration;

use causeway::{
    lifecycle,
    model::{
        kv::{Op, Pair, TxnReply},
        name::{Datacenter, NodeName},
        secret::SecretText,
        session::{SessionId, SessionSpec},
    },
    sync::{
        endpoint::{Raw, Request, Response},
        store::{Answer, Read, Right, Store, StoreError},
    },
};
use tokio::sync::oneshot;

use super::{Net, answer_until};
use crate::sync::{
    consul_model::{Ask, Model, Shared},
    history::Violation,
};

/// As long as a client waits for an answer that should come at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// One agent's Consul. Clones are the same one.
#[derive(Clone)]
pub(crate) struct SimStore {
    net: Net,
    consul: Shared,
    datacenter: Datacenter,
    node: NodeName,
    life: u64,
}

impl SimStore {
    pub(crate) fn new(net: &Net, datacenter: &Datacenter, node: &NodeName, life: u64) -> Self {
        Self {
            net: net.clone(),
            consul: net.consul(datacenter).clone(),
            datacenter: datacenter.clone(),
            node: node.clone(),
            life,
        }
    }

    /// Has it done over there, with what the network does to both ways.
    async fn call<T, F>(
        &self,
        wait: Duration,
        what: &str,
        act: impl FnOnce(Shared) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let (answer, answered) = oneshot::channel();
        let to = self.clone();
        let lane = format!("{} {what}", self.node);
        let end = lifecycle::now() + wait + PATIENCE;
        self.net.send(async move {
            if let Some(result) = to.carry(&lane, act).await {
                let _ = answer.send(result);
            }
        });
        let answer = answer_until(answered, end).await;
        if !self.net.is_alive(&self.node, self.life) {
            std::future::pending::<()>().await;
        }
        answer.unwrap_or_else(|| Err(StoreError::Unknown("no answer in time".to_owned())))
    }

    /// What moves a journal or a replica on is done by whoever has the duty at that moment.
    fn commit(&self, model: &mut Model, ops: &[Op]) -> Result<TxnReply, StoreError> {
        let duty = ops.iter().filter(|op| op.is_write()).find_map(|op| {
            let duty = |root: &str, name: &str| format!("{root}/duty/{name}");
            let key = op.key();
            let home = key.strip_suffix("/head").map(|root| duty(root, "home"));
            home.or_else(|| key.strip_suffix("/state").map(|root| duty(root, "applier")))
        });
        let holder = duty.as_ref().and_then(|duty| model.get(duty).1).and_then(|pair| pair.session);
        let reply = model.txn(ops)?;
        if let (Some(duty), TxnReply::Committed(_)) = (duty, &reply) {
            let mut inner = self.net.lock();
            let maker = holder.and_then(|id| inner.sessions.get(&(self.datacenter.clone(), id)).cloned());
            if maker.as_ref() != Some(&self.node) {
                let text = format!("duty: {} committed without {duty}, which {maker:?} has", self.node);
                inner.found.push(Violation(text));
            }
        }
        Ok(reply)
    }

    /// None when the answer never arrives.
    async fn carry<T, F>(self, lane: &str, act: impl FnOnce(Shared) -> F) -> Option<Result<T, StoreError>>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let net = &self.net;
        if net.happens(lane, |weather| weather.refused) {
            return Some(Err(StoreError::NotSent("connection refused".to_owned())));
        }
        net.near(lane).await;
        net.until(|faults| !faults.frozen.contains(&self.datacenter)).await;
        if net.lock().faults.leaderless.contains(&self.datacenter) {
            return Some(Err(StoreError::Unknown("500: No cluster leader".to_owned())));
        }
        if lane.contains(" list ") && net.lock().faults.filtered.contains(&self.datacenter) {
            return Some(Err(StoreError::Unusable("X-Consul-Results-Filtered-By-ACLs".to_owned())));
        }
        let result = act(self.consul.clone()).await;
        if net.happens(lane, |weather| weather.unanswered) {
            // Half of the connections that break are noticed.
            return net
                .happens(lane, |_| 50)
                .then(|| Err(StoreError::Unknown("connection reset".to_owned())));
        }
        net.near(lane).await;
        Some(result)
    }
}

fn wait_of(read: Read) -> Duration {
    match read {
        Read::Wait { wait, .. } => wait + wait / 16,
        Read::Consistent | Read::Default => Duration::ZERO,
    }
}

impl Store for SimStore {
    async fn txn(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        let me = self.clone();
        let what = format!("txn {}", ops.first().map_or("", Op::key));
        let act = |consul: Shared| async move { consul.with(|model| me.commit(model, &ops)) };
        self.call(Duration::ZERO, &what, act).await
    }

    async fn get(&self, key: &str, read: Read) -> Result<Answer<Option<Pair>>, StoreError> {
        let key = key.to_owned();
        let what = format!("get {key}");
        self.call(wait_of(read), &what, move |consul| async move { consul.get(&key, read).await }).await
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Answer<Vec<Pair>>, StoreError> {
        let prefix = prefix.to_owned();
        let what = format!("list {prefix}");
        self.call(wait_of(read), &what, move |consul| async move { consul.list(&prefix, read).await }).await
    }

    async fn create_session(&self, spec: &SessionSpec) -> Result<SessionId, StoreError> {
        let spec = spec.clone();
        let me = self.clone();
        let act = |consul: Shared| async move {
            let id = consul.create_session(&spec).await?;
            me.net.lock().sessions.insert((me.datacenter.clone(), id.clone()), me.node.clone());
            Ok(id)
        };
        self.call(Duration::ZERO, "create session", act).await
    }

    async fn renew_session(&self, id: &SessionId) -> Result<bool, StoreError> {
        let id = id.clone();
        let what = format!("renew {id}");
        self.call(Duration::ZERO, &what, |consul| async move { consul.renew_session(&id).await }).await
    }

    async fn destroy_session(&self, id: &SessionId) -> Result<(), StoreError> {
        let id = id.clone();
        let what = format!("destroy {id}");
        self.call(Duration::ZERO, &what, |consul| async move { consul.destroy_session(&id).await }).await
    }

    async fn authorize(&self, token: Option<&SecretText>, rights: &[Right]) -> Result<Vec<bool>, StoreError> {
        let (net, token, rights) = (self.net.clone(), token.cloned(), rights.to_vec());
        let has = async move {
            let inner = net.lock();
            Ok(rights.iter().map(|right| inner.rights.has(token.as_ref(), right)).collect())
        };
        self.call(Duration::ZERO, "authorize", move |_| has).await
    }
}

impl Raw for SimStore {
    async fn ask(&self, request: &Request) -> Result<Response, StoreError> {
        let ask = Ask {
            method: request.method.to_string(),
            path: request.path.clone(),
            query: request.query.iter().cloned().collect(),
            body: request.body.clone(),
        };
        let wait = ask.wait().map_or(Duration::ZERO, |(_, wait)| wait + wait / 16);
        let what = format!("{} {}", request.method, request.target);
        let (net, asked) = (self.net.clone(), request.clone());
        let answer = |consul: Shared| async move {
            let refusal = net.lock().rights.refusal(&asked);
            Ok(match refusal {
                Some(refusal) => Err(refusal),
                None => {
                    let told = consul.ask(&ask).await;
                    Ok(net.lock().rights.visible(&asked, told))
                }
            })
        };
        let told = match self.call(wait, &what, answer).await? {
            Ok(told) => told,
            Err(refusal) => return Ok(refusal),
        };
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        if let Some(index) = told.index {
            headers.push(("x-consul-index".to_owned(), index.to_string()));
            headers.push(("x-consul-knownleader".to_owned(), "true".to_owned()));
            headers.push(("x-consul-lastcontact".to_owned(), "0".to_owned()));
        }
        Ok(Response { status: told.status, headers, body: told.body })
    }
}

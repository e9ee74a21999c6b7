//! Carries a request out: this agent is active for its prefix. The client's own rights come first.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    lifecycle,
    model::{
        kv::{Op, Pair, TxnReply},
        session::SessionId,
        sync::Prefix,
    },
    sync::{
        endpoint::{
            Raw, Response, answer,
            ask::{Ask, LockAct, LockAsk, SyncAsk, Txn},
            rights,
        },
        engine::{Engine, Role, serve::Asked},
        home::{Guard, Home, Write, Written},
        lock::{
            locks::Caller,
            wire::{self, LockDefaults, View},
        },
        peer::Peers,
        refusal::Refusal,
        store::{Access, INVALID_SESSION, Resource, Right, Store, StoreError},
    },
};

/// What Consul says in a transaction.
const PERMISSION_DENIED: &str = "Permission denied";

/// What Consul says of a token that it does not know.
const UNKNOWN_TOKEN: &str = "ACL not found";

/// Which keys of a transaction the client may see in its results.
type Visible = BTreeMap<String, bool>;

impl<S: Store + Raw, P: Peers> Engine<S, P> {
    pub(super) async fn execute(
        &self,
        asked: &Asked<'_>,
        prefix: Option<&Prefix>,
    ) -> Result<Response, Refusal> {
        let Some(part) = prefix.and_then(|prefix| self.0.parts.get(&prefix.text)) else {
            let body = serde_json::to_string(&self.status()).expect("texts and numbers");
            return Ok(answer::json(200, body, asked.is_pretty()));
        };
        let visible = match self.permitted(asked).await? {
            Ok(visible) => visible,
            Err(response) => {
                self.tell(asked, &response).await;
                return Ok(response);
            }
        };
        let response = match (&asked.ask, &part.role) {
            (Ask::Write(op), Role::Home(home, _)) => self.write(asked, home, op).await?,
            (Ask::Txn(txn), Role::Home(home, _)) => self.transact(asked, home, txn, visible).await?,
            (Ask::Lock(lock), Role::Home(_, locks)) => {
                let origin = asked.request.origin.as_ref().map(|origin| origin.datacenter.clone());
                let caller = Caller {
                    request_id: asked.request_id.clone(),
                    origin: origin.unwrap_or_else(|| self.0.settings.datacenter.clone()),
                };
                let response = locks.serve(lock, asked.request, &caller).await;
                self.with_visible_slots(asked, lock, response).await?
            }
            (Ask::Sync(SyncAsk::Approve(_)), Role::Replica(replica)) => {
                replica.approve().await?;
                answer::boolean(true)
            }
            (Ask::Sync(SyncAsk::Resync(_)), Role::Replica(replica)) => {
                replica.resync().await?;
                answer::boolean(true)
            }
            _ => return Err(Refusal::NotServing("the duties have just changed; send it again".into())),
        };
        self.tell(asked, &response).await;
        Ok(response)
    }

    /// Checks the client's rights; the inner error is the answer to one that lacks some.
    async fn permitted(&self, asked: &Asked<'_>) -> Result<Result<Visible, Response>, Refusal> {
        let mut needed = rights::needed(&asked.ask, &asked.wishes, &self.0.settings.node);
        needed.extend(
            slots_right(&asked.ask, &asked.request.body, self.0.settings.locks)?.map(|right| (0, right)),
        );
        let keys: Vec<String> = match &asked.ask {
            Ask::Txn(txn) => {
                txn.ops.iter().filter(|op| !op.is_tree()).map(|op| op.key().to_owned()).collect()
            }
            _ => Vec::new(),
        };
        let to_see = keys.iter().map(|key| to_read(key));
        let asking: Vec<Right> = needed.iter().map(|(_, right)| right.clone()).chain(to_see).collect();
        if asking.is_empty() {
            return Ok(Ok(Visible::new()));
        }
        let has = match self.authorized(asked, &asking).await? {
            Ok(has) => has,
            Err(response) => return Ok(Err(response)),
        };
        let lacking: Vec<&(usize, Right)> =
            needed.iter().zip(&has).filter(|(_, has)| !**has).map(|(right, _)| right).collect();
        match (&asked.ask, lacking.first()) {
            (_, None) => Ok(Ok(keys.into_iter().zip(has.into_iter().skip(needed.len())).collect())),
            // As Consul does: nothing of it is executed, and each operation is told.
            (Ask::Txn(_), Some(_)) => {
                let mut errors: Vec<(usize, String)> =
                    lacking.iter().map(|(at, _)| (*at, PERMISSION_DENIED.to_owned())).collect();
                errors.dedup();
                Ok(Err(answer::rolled_back(&errors, asked.is_pretty())))
            }
            (_, Some((_, right))) => {
                Err(Refusal::Denied { right: rights::shown(right), home: self.0.settings.datacenter.clone() })
            }
        }
    }

    /// The slots of a semaphore are keys of their own: who looks at them needs the right to read each. Who only tried to
    /// acquire is told of those that it may read.
    async fn with_visible_slots(
        &self,
        asked: &Asked<'_>,
        lock: &LockAsk,
        response: Response,
    ) -> Result<Response, Refusal> {
        if !matches!(lock.act, LockAct::Look | LockAct::Acquire) {
            return Ok(response);
        }
        let Ok(mut view) = serde_json::from_slice::<View>(&response.body) else { return Ok(response) };
        let slots: Vec<Right> =
            view.holders.iter().filter(|it| it.key != lock.key).map(|it| to_read(&it.key)).collect();
        if slots.is_empty() {
            return Ok(response);
        }
        let has = match self.authorized(asked, &slots).await? {
            Ok(has) => has,
            Err(response) => return Ok(response),
        };
        let hidden: BTreeSet<String> =
            slots.into_iter().zip(has).filter(|(_, has)| !has).map(|(right, _)| right.segment).collect();
        match hidden.first() {
            None => Ok(response),
            Some(key) if lock.act == LockAct::Look => {
                let right = rights::shown(&to_read(key));
                Err(Refusal::Denied { right, home: self.0.settings.datacenter.clone() })
            }
            Some(_) => {
                view.holders.retain(|holder| !hidden.contains(&holder.key));
                let body = serde_json::to_vec(&view).expect("texts and numbers");
                Ok(Response { body: body.into(), ..response })
            }
        }
    }

    /// Asks Consul; the inner error is its answer to a token that it does not take.
    async fn authorized(
        &self,
        asked: &Asked<'_>,
        rights: &[Right],
    ) -> Result<Result<Vec<bool>, Response>, Refusal> {
        match self.0.store.authorize(asked.request.token.as_ref(), rights).await {
            Ok(has) if has.len() == rights.len() => Ok(Ok(has)),
            Ok(_) => Err(Refusal::NotServing("Consul's answer on the token's rights is not whole".into())),
            Err(StoreError::Refused { status, reason }) => {
                // What Consul says of it, without our own words around it.
                let is_unknown = status == 403 && reason.contains(UNKNOWN_TOKEN);
                let text = if is_unknown { UNKNOWN_TOKEN.to_owned() } else { reason };
                Ok(Err(Response::text(status, text)))
            }
            // Nothing is executed before the rights are known.
            Err(StoreError::NotSent(reason) | StoreError::Unknown(reason) | StoreError::Unusable(reason)) => {
                Err(Refusal::NotServing(format!("read the rights of the token: {reason}")))
            }
        }
    }

    async fn write(&self, asked: &Asked<'_>, home: &Home<S>, op: &Op) -> Result<Response, Refusal> {
        let written = self.committed(asked, home, vec![op.clone()]).await?;
        Ok(self.with_place(answer::single(op, &written.reply), &written))
    }

    async fn transact(
        &self,
        asked: &Asked<'_>,
        home: &Home<S>,
        txn: &Txn,
        visible: Visible,
    ) -> Result<Response, Refusal> {
        let mut written = self.committed(asked, home, txn.ops.clone()).await?;
        if let TxnReply::Committed(pairs) = &mut written.reply {
            let shown = self.shown(asked, std::mem::take(pairs), visible).await;
            *pairs = shown;
        }
        Ok(self.with_place(answer::txn(&written.reply, asked.is_pretty()), &written))
    }

    /// Those of the results that the client may see. It is committed: when rights cannot be read any more, less is shown.
    async fn shown(&self, asked: &Asked<'_>, pairs: Vec<Pair>, mut visible: Visible) -> Vec<Pair> {
        let of_trees: Vec<Pair> =
            pairs.iter().filter(|pair| !visible.contains_key(&pair.key)).cloned().collect();
        if !of_trees.is_empty()
            && let Ok(Ok(has)) = self.authorized(asked, &rights::seen(&of_trees)).await
        {
            visible.extend(of_trees.into_iter().map(|pair| pair.key).zip(has));
        }
        pairs.into_iter().filter(|pair| visible.get(&pair.key).copied().unwrap_or(false)).collect()
    }

    fn with_place(&self, response: Response, written: &Written) -> Response {
        match &written.reply {
            TxnReply::Committed(_) => {
                let home = self.0.settings.datacenter.as_str();
                answer::written(response, home, written.at, &written.tokens)
            }
            TxnReply::RolledBack(_) => response.with("x-sync-home", self.0.settings.datacenter.as_str()),
        }
    }

    pub(super) async fn committed(
        &self,
        asked: &Asked<'_>,
        home: &Home<S>,
        ops: Vec<Op>,
    ) -> Result<Written, Refusal> {
        let origin = asked.request.origin.as_ref().map(|origin| origin.datacenter.clone());
        let write = Write {
            request_id: asked.request_id.clone(),
            origin: origin.unwrap_or_else(|| self.0.settings.datacenter.clone()),
            ops: ops.clone(),
            guard: asked.wishes.guard.clone().map(|(lock, token)| Guard { lock, token }),
            deadline: lifecycle::now() + self.0.settings.times.commit,
        };
        let written = home.write(write).await?;
        if let Some((key, session)) = stranger(&ops, &written.reply)
            && let Some(session_home) = self.find_elsewhere(asked, session).await
        {
            return Err(Refusal::SessionElsewhere {
                session: session.clone(),
                session_home,
                key: key.to_owned(),
                key_home: self.0.settings.datacenter.clone(),
            });
        }
        Ok(written)
    }
}

/// The session that Consul does not have, and the key that was to be locked with it.
fn stranger<'o>(ops: &'o [Op], reply: &TxnReply) -> Option<(&'o str, &'o SessionId)> {
    let TxnReply::RolledBack(errors) = reply else { return None };
    let error = errors.iter().find(|error| error.what.starts_with(INVALID_SESSION))?;
    match ops.get(error.op_index)? {
        Op::Lock { key, session, .. } => Some((key, session)),
        _ => None,
    }
}

/// The right to all slots of a semaphore, which are keys below the lock's own, for one that asks to hold any of them.
/// Renewing and releasing name the slot itself.
fn slots_right(ask: &Ask, body: &[u8], defaults: LockDefaults) -> Result<Option<Right>, Refusal> {
    let Ask::Lock(LockAsk { key, act: LockAct::Acquire }) = ask else { return Ok(None) };
    let is_semaphore = wire::acquire(body, defaults)?.holders > 1;
    let segment = wire::slots(key);
    Ok(is_semaphore.then_some(Right { resource: Resource::Key, access: Access::WritePrefix, segment }))
}

fn to_read(key: &str) -> Right {
    Right { resource: Resource::Key, access: Access::Read, segment: key.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semaphore_needs_its_slots() {
        let of = |act, body: &str| {
            let ask = Ask::Lock(LockAsk { key: "locks/a".into(), act });
            slots_right(&ask, body.as_bytes(), LockDefaults::default())
                .map(|right| right.map(|right| rights::shown(&right)))
        };
        let all = "key:write (all below) on locks/a/.slots/".to_owned();
        assert_eq!(of(LockAct::Acquire, r#"{"holders":3}"#), Ok(Some(all)));
        for alone in ["", "{}", r#"{"holders":1}"#] {
            assert_eq!(of(LockAct::Acquire, alone), Ok(None), "{alone}");
        }
        assert_eq!(of(LockAct::Renew, r#"{"token":"1.1"}"#), Ok(None));
        assert!(matches!(of(LockAct::Acquire, r#"{"holders":0}"#), Err(Refusal::Bad(_))));
    }
}

//! Locks over a Consul in memory: the line, tokens, clients that go away.

use http::Method;

use super::*;
use crate::{
    lifecycle::StopSource,
    model::session::{Behavior, SessionSpec},
    sync::{duty::fake::FakeConsul, home::memory::LOCK_FLAGS, metrics::LockWaits},
};

const LOCK: &str = "locks/a";

/// Commits straight to Consul, with the fence's record in the same transaction as a home does it.
#[derive(Clone)]
struct Straight {
    consul: FakeConsul,
    layout: Layout,
}

impl Grants for Straight {
    fn epoch(&self) -> Option<u32> {
        Some(1)
    }

    async fn kept(&self) -> Result<(), Refusal> {
        Ok(())
    }

    async fn commit(&self, write: Write) -> Result<Written, Refusal> {
        let mut ops = write.ops.clone();
        let mut tokens = Vec::new();
        for op in &write.ops {
            if let Op::Lock { key, .. } = op {
                let fence = self.layout.fence(key);
                let before = self.consul.pair(&fence);
                let last =
                    before.as_ref().map_or(0, |pair| record::decode::<Token>(&fence, &pair.value).unwrap().n);
                let token = Token { epoch: 1, n: last + 1 };
                let index = before.map_or(0, |pair| pair.modify_index);
                ops.push(Op::Cas { key: fence, value: record::encode(&token), flags: 0, index });
                tokens.push((key.clone(), token));
            }
        }
        let reply = self.consul.txn(ops).await.map_err(|error| unavailable(&error))?;
        Ok(Written { reply, at: crate::model::sync::Position::default(), index: 0, tokens })
    }
}

struct Rig {
    consul: FakeConsul,
    locks: Locks<FakeConsul, Straight>,
    _stop: StopSource,
    _task: Task<()>,
}

fn rig() -> Rig {
    let consul = FakeConsul::new();
    let id = PrefixId::of("locks/");
    let grants = Straight { consul: consul.clone(), layout: Layout::new(&id) };
    let (stop_source, stop) = Stop::pair();
    let (locks, task) = Locks::start(
        consul.clone(),
        grants,
        &id,
        LockDefaults::default(),
        LockWaits::default().of(&id),
        stop,
    );
    Rig { consul, locks, _stop: stop_source, _task: task }
}

fn caller(id: &str) -> Caller {
    Caller { request_id: id.into(), origin: "primary".into() }
}

impl Rig {
    async fn ask(
        &self,
        id: &str,
        act: LockAct,
        key: &str,
        target: &str,
        body: &str,
    ) -> (u16, serde_json::Value) {
        let request = Request::new(Method::PUT, target, Vec::new(), body.to_owned().into());
        let ask = LockAsk { key: key.into(), act };
        let response = self.locks.serve(&ask, &request, &caller(id)).await;
        let body = serde_json::from_slice(&response.body)
            .unwrap_or_else(|_| String::from_utf8_lossy(&response.body).into());
        (response.status, body)
    }

    async fn acquire(&self, id: &str, body: &str) -> Result<Granted, serde_json::Value> {
        match self.ask(id, LockAct::Acquire, LOCK, "/", body).await {
            (200, granted) => Ok(serde_json::from_value(granted).unwrap()),
            (_, body) => Err(body),
        }
    }

    async fn renew(&self, granted: &Granted) -> u16 {
        self.ask("r", LockAct::Renew, &granted.key, "/", &token_of(granted)).await.0
    }

    async fn release(&self, granted: &Granted) -> serde_json::Value {
        let id = format!("release-{}", granted.token);
        self.ask(&id, LockAct::Release, &granted.key, "/", &token_of(granted)).await.1
    }
}

fn token_of(granted: &Granted) -> String {
    format!(r#"{{"token":"{}","session":"{}"}}"#, granted.token, granted.session)
}

fn released(is: bool) -> serde_json::Value {
    serde_json::json!({ "released": is })
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_granted_renewed_and_released_with_a_token_that_grows() {
    let rig = rig();
    let first = rig.acquire("1", r#"{"id":"web-1"}"#).await.unwrap();
    assert_eq!((first.key.as_str(), first.token.as_str()), (LOCK, "1.1"));
    assert_eq!(first.expires_in_ms, 13_500);
    let pair = rig.consul.pair(LOCK).unwrap();
    assert_eq!((pair.flags, pair.value), (LOCK_FLAGS, "web-1".into()));
    assert_eq!(rig.renew(&first).await, 200);
    let held = rig.acquire("2", "").await.unwrap_err();
    assert_eq!(held["holders"][0]["id"], "web-1");
    assert_eq!(held["holders"][0]["token"], "1.1");
    assert_eq!(rig.release(&first).await, released(true));
    assert_eq!(rig.release(&first).await, released(false), "once more changes nothing");
    assert_eq!(rig.renew(&first).await, 409);
    let second = rig.acquire("3", "").await.unwrap();
    assert_eq!(second.token, "1.2");
    assert_eq!(rig.release(&first).await, released(false), "an old token frees nothing");
    assert_eq!(rig.renew(&second).await, 200);
    rig.consul.until(|consul| consul.sessions().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn waiters_get_it_in_their_order_as_soon_as_it_is_free() {
    let rig = rig();
    let holder = rig.acquire("0", "").await.unwrap();
    let first = rig.acquire("1", r#"{"wait":"60s","id":"first"}"#);
    let second = rig.acquire("2", r#"{"wait":"60s","id":"second"}"#);
    let releasing = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let began = lifecycle::now();
        rig.release(&holder).await;
        began
    };
    let both = async {
        let (first, _) = tokio::join!(
            async {
                let first = first.await.unwrap();
                assert_eq!(rig.release(&first).await, released(true));
                first
            },
            async { assert_eq!(second.await.unwrap().token, "1.3") }
        );
        assert_eq!(first.token, "1.2");
        lifecycle::now()
    };
    let (began, ended) = tokio::join!(releasing, both);
    assert!(ended - began < Duration::from_secs(1), "{:?}", ended - began);
}

#[tokio::test(start_paused = true)]
async fn a_dead_holders_lock_goes_on_after_its_session_and_the_delay() {
    let rig = rig();
    let dead = rig.acquire("0", r#"{"lock_delay":"5s"}"#).await.unwrap();
    let began = lifecycle::now();
    let next = rig.acquire("1", r#"{"wait":"60s"}"#).await.unwrap();
    // The session lives for one and a half TTL here, and the delay comes on top of it.
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(27) && took < Duration::from_secs(29), "{took:?}");
    assert_eq!(next.token, "1.2");
    assert_eq!(next.expires_in_ms / 1000, 13, "a session made or renewed just before");
    assert_eq!(rig.renew(&dead).await, 409);
}

#[tokio::test(start_paused = true)]
async fn one_who_goes_away_leaves_nothing_behind() {
    let rig = rig();
    let holder = rig.acquire("0", "").await.unwrap();
    {
        let waiting = rig.acquire("1", r#"{"wait":"60s"}"#);
        let gone = tokio::time::timeout(Duration::from_secs(2), waiting).await;
        assert!(gone.is_err());
    }
    rig.release(&holder).await;
    let next = rig.acquire("2", "").await.unwrap();
    assert_eq!(next.token, "1.2", "the lock was not given to somebody who is not there");
    rig.consul.until(|consul| consul.sessions() == [SessionId::from(&next.session)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_while_it_is_granted_does_not_keep_it() {
    let rig = rig();
    for hops in 0..12 {
        // Dropped after so many turns of the runtime, wherever it then is.
        let id = format!("gone-{hops}");
        let mut acquiring = Box::pin(rig.acquire(&id, r#"{"wait":"60s"}"#));
        let turns = async {
            for _ in 0..hops {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { biased; _ = &mut acquiring => {}, () = turns => {} }
        drop(acquiring);
        let free = |consul: &FakeConsul| consul.holder(LOCK).is_none() && consul.sessions().is_empty();
        if let Some(session) = rig.consul.holder(LOCK) {
            // It was told: then it is the client's, which ends it here.
            rig.consul.end(&session);
        }
        rig.consul.until(free).await;
        tokio::time::sleep(Duration::from_secs(16)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_again_gets_the_same_grant() {
    let rig = rig();
    let first = rig.acquire("1", "").await.unwrap();
    let again = rig.acquire("1", "").await.unwrap();
    assert_eq!((again.token.as_str(), &again.session), ("1.1", &first.session));
    rig.release(&first).await;
    let later = rig.acquire("1", "").await.unwrap();
    assert_eq!(later.token, "1.2", "what was released is not told again");
}

#[tokio::test(start_paused = true)]
async fn a_request_id_stands_for_one_acquire() {
    let rig = rig();
    let first = rig.acquire("1", r#"{"id":"a"}"#).await.unwrap();
    for other in [r#"{"id":"b"}"#, r#"{"id":"a","ttl":"20s"}"#, r#"{"id":"a","holders":2}"#] {
        assert_eq!(rig.ask("1", LockAct::Acquire, LOCK, "/", other).await.0, 400, "{other}");
    }
    let again = rig.acquire("1", r#"{"id":"a","wait":"5s"}"#).await.unwrap();
    assert_eq!(again.token, first.token, "how long it waits does not count");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_not_watched_is_looked_at_every_second() {
    let rig = rig();
    let all = rig.locks.0.watched.try_acquire_many(u32::try_from(WATCHED).unwrap()).unwrap();
    let holder = rig.acquire("0", "").await.unwrap();
    let waiting = async {
        let next = rig.acquire("1", r#"{"wait":"60s"}"#).await.unwrap();
        (next.token, lifecycle::now())
    };
    let releasing = async {
        tokio::time::sleep(Duration::from_millis(3500)).await;
        rig.release(&holder).await;
        lifecycle::now()
    };
    let ((token, granted), released) = tokio::join!(waiting, releasing);
    assert_eq!(token, "1.2");
    assert!(granted - released <= Duration::from_millis(1500), "{:?}", granted - released);
    drop(all);
}

#[tokio::test(start_paused = true)]
async fn a_holder_past_causeway_is_never_taken_for_the_one_with_the_token() {
    let rig = rig();
    let first = rig.acquire("1", r#"{"lock_delay":"0s"}"#).await.unwrap();
    rig.consul.end(&SessionId::from(&first.session));
    let spec = SessionSpec {
        name: "foreign".into(),
        ttl: Duration::from_secs(60),
        lock_delay: Duration::ZERO,
        behavior: Behavior::Release,
    };
    let session = rig.consul.create_session(&spec).await.unwrap();
    let lock = Op::Lock { key: LOCK.into(), value: "".into(), flags: LOCK_FLAGS, session };
    assert!(matches!(rig.consul.run(&[lock]), TxnReply::Committed(_)));
    assert_eq!(rig.renew(&first).await, 409);
    assert_eq!(rig.release(&first).await, released(false));
}

#[tokio::test(start_paused = true)]
async fn a_semaphore_has_so_many_holders_and_no_more() {
    let rig = rig();
    let mut held = Vec::new();
    for n in 0..3 {
        held.push(rig.acquire(&n.to_string(), r#"{"holders":3}"#).await.unwrap());
    }
    let keys: std::collections::BTreeSet<_> = held.iter().map(|granted| granted.key.clone()).collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
    let full = rig.acquire("4", r#"{"holders":3}"#).await.unwrap_err();
    assert_eq!(full["holders"].as_array().unwrap().len(), 3);
    let waiting = rig.acquire("5", r#"{"holders":3,"wait":"30s"}"#);
    let releasing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.release(&held[1]).await
    };
    let (next, _) = tokio::join!(waiting, releasing);
    let next = next.unwrap();
    assert_eq!((&next.key, next.token.as_str()), (&held[1].key, "1.2"));
    assert_eq!(rig.renew(&next).await, 200);
}

#[tokio::test(start_paused = true)]
async fn the_leader_is_told_by_200_and_all_others_by_429() {
    let rig = rig();
    let ask = async |target: &str| rig.ask("x", LockAct::Leader, LOCK, target, "").await;
    assert_eq!(ask("/?id=web-1").await, (429, serde_json::json!({"leader": false, "leader_node": ""})));
    let granted = rig.acquire("1", r#"{"id":"web-1"}"#).await.unwrap();
    assert_eq!(ask("/?id=web-1").await, (200, serde_json::json!({"leader": true, "leader_node": "web-1"})));
    assert_eq!(ask("/?id=web-2").await, (429, serde_json::json!({"leader": false, "leader_node": "web-1"})));
    assert_eq!(ask("/").await.0, 200);
    rig.release(&granted).await;
    assert_eq!(ask("/?id=web-1").await.0, 429, "who was it is no longer it");
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_told_so_and_a_silent_consul_is_no_answer() {
    let rig = rig();
    assert_eq!(rig.ask("1", LockAct::Acquire, LOCK, "/", r#"{"ttl":"1s"}"#).await.0, 400);
    assert_eq!(rig.ask("1", LockAct::Renew, LOCK, "/", "").await.0, 400);
    assert_eq!(rig.ask("1", LockAct::Renew, LOCK, "/", r#"{"token":"1.1"}"#).await.0, 409);
    rig.consul.freeze(true);
    assert_eq!(rig.ask("1", LockAct::Acquire, LOCK, "/", "").await.0, 503);
    assert_eq!(rig.ask("1", LockAct::Renew, LOCK, "/", r#"{"token":"1.1"}"#).await.0, 503);
}

//! The datastore of a well-known proxy, as it took locks on Consul: who holds the lock was told by the value of its key,
//! which anybody may write. In the scenario that made its error known, Causeway's lock goes on.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use causeway::{
    lifecycle,
    model::{
        kv::{Op, TxnReply},
        session::{Behavior, SessionSpec},
        sync::Token,
    },
    sync::store::{Read, Store as _},
};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::sync::{
    client::LOCK,
    consul_model::Shared,
    mutants::Mutant,
    net::Weather,
    world::{Plan, Reply, World, datacenter, simulate},
};

/// Of a session, and of a lease.
const TTL: Duration = Duration::from_secs(10);

/// How long it waited until it gave up.
const MAX_ELAPSED: Duration = Duration::from_secs(60);

/// The old algorithm.
struct Datastore {
    consul: Shared,
    id: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Datastore {
    /// Takes the lock, then waits until its value is its own id.
    async fn begin(&self) -> Result<(), String> {
        let (behavior, lock_delay) = (Behavior::Release, Duration::from_millis(1));
        let spec = SessionSpec { name: "old".into(), ttl: TTL, lock_delay, behavior };
        let session = self.consul.create_session(&spec).await.unwrap();
        let lock = Op::Lock { key: LOCK.into(), value: self.id.clone().into(), flags: 0, session };
        assert!(matches!(self.consul.txn(vec![lock]).await, Ok(TxnReply::Committed(_))), "the lock is free");
        // What it overlooked: between its lock and its look others write the value.
        sleep(Duration::from_millis(5)).await;
        let (began, mut pause) = (lifecycle::now(), Duration::from_millis(500));
        loop {
            let pair = self.consul.get(LOCK, Read::Default).await.unwrap().value;
            let got = pair.map(|pair| String::from_utf8_lossy(&pair.value).into_owned()).unwrap_or_default();
            if got == self.id {
                return Ok(());
            }
            let line = format!(
                "Datastore sync error: object lock value: expected {}, got {got}, retrying in {pause:?}",
                self.id
            );
            println!("{line}");
            self.log.lock().unwrap().push(line);
            if began.elapsed() + pause > MAX_ELAPSED {
                return Err("datastore cannot sync".to_owned());
            }
            sleep(pause).await;
            pause = pause.mul_f64(1.5);
        }
    }

    /// Writes lock and object without any condition.
    async fn commit(&self) {
        put(&self.consul, &self.id).await;
    }
}

async fn put(consul: &Shared, value: &str) {
    let set = Op::Set { key: LOCK.into(), value: Bytes::from(value.to_owned()), flags: 0 };
    assert!(matches!(consul.txn(vec![set]).await, Ok(TxnReply::Committed(_))));
}

#[test]
fn the_old_datastore_prints_its_error_and_gives_up() {
    simulate(async {
        let consul = Shared::new(crate::sync::consul_model::Model::new());
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let store = |id: &str| Datastore { consul: consul.clone(), id: id.into(), log: log.clone() };
        let (first, second) = (store("A"), store("B"));
        first.begin().await.unwrap();
        // It is stopped past the end of its session, and goes on just when the other has the lock.
        sleep(TTL * 3).await;
        let late = async {
            sleep(Duration::from_millis(2)).await;
            first.commit().await;
        };
        let (result, ()) = tokio::join!(second.begin(), late);
        assert_eq!(result, Err("datastore cannot sync".to_owned()));
        let log = log.lock().unwrap();
        assert!(log.len() > 5, "{log:?}");
        assert!(
            log[0].starts_with("Datastore sync error: object lock value: expected B, got A, retrying in")
        );
    });
}

#[test]
fn causeway_s_lock_goes_on_where_the_old_datastore_gave_up() {
    simulate(async {
        let plan = Plan {
            seed: 1,
            datacenters: 2,
            prefixes: vec![("locks/", 0)],
            weather: Weather { delay_ms: 2, ..Weather::default() },
            mutant: Mutant::None,
        };
        let world = World::start(plan);
        sleep(Duration::from_secs(5)).await;
        let (_, first) = acquire(&world, "A").await;
        let consul = world.net.consul(&datacenter(0)).clone();
        // The holder is gone without a word, and a foreign writer puts its id where the old algorithm looked for it.
        put(&consul, "A").await;
        let began = lifecycle::now();
        let (_, second) = acquire(&world, "B").await;
        put(&consul, "A").await;
        assert!(second > first, "{first} {second}");
        assert!(
            began.elapsed() <= TTL * 2 + Duration::from_secs(2),
            "within two leases: {:?}",
            began.elapsed()
        );
        let stale = write(&world, first).await;
        assert_eq!(stale, 409, "what was paused past its lease cannot write any more");
        assert_eq!(write(&world, second).await, 200);
    });
}

/// A lock of the HTTP lock API, asked for from the other datacenter until it is granted.
async fn acquire(world: &World, id: &str) -> (Instant, Token) {
    // Safety rests on the token: without the delay of a lock nobody waits longer than for the session.
    let body = json!({"ttl": "10s", "lock_delay": "0s", "wait": "8s", "id": id}).to_string();
    loop {
        let reply = world.ask(1, 0, Method::POST, &format!("/v1/lock/{LOCK}"), &[], body.clone()).await;
        if let Reply::Answer(response) = reply {
            let granted: Value = serde_json::from_slice(&response.body).unwrap_or_default();
            if let Some(token) = granted["token"].as_str().filter(|_| response.status == 200) {
                return (lifecycle::now(), token.parse().unwrap());
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn write(world: &World, token: Token) -> u16 {
    let guard = [("x-lock", LOCK.to_owned()), ("x-lock-token", token.to_string())];
    match world.ask(1, 0, Method::PUT, "/v1/kv/locks/object", &guard, "data").await {
        Reply::Answer(response) => response.status,
        _ => 0,
    }
}

//! Locks: who may write past them, what each grant is worth, guarded writes.

use super::*;
use crate::{
    model::sync::Token,
    sync::{
        home::memory::{LOCK_FLAGS, SEMAPHORE_FLAGS},
        record::Change,
    },
};

fn lock(key: &str, session: &str) -> Op {
    Op::Lock { key: key.into(), value: Bytes::new(), flags: 0, session: session.into() }
}

fn unlock(key: &str, session: &str) -> Op {
    Op::Unlock { key: key.into(), value: Bytes::new(), flags: 0, session: session.into() }
}

fn delete(key: &str) -> Op {
    Op::Delete { key: key.into() }
}

async fn changes(store: &Fake) -> Vec<Change> {
    journal_of(store).await.into_iter().flat_map(|logged| logged.entry.ops).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_live_session_holds_is_not_written_past_it() {
    let store = Fake::new(&["s", "t", "ls", "m"]);
    let agent = Agent::serving(&store, "s").await;
    let (taken, other) =
        tokio::join!(agent.write(vec![lock("config/l", "ls")]), agent.write(vec![lock("config/l", "m")]));
    assert!(is_committed(&taken.unwrap()));
    assert!(!is_committed(&other.unwrap()), "a lock has one holder");
    assert_eq!(agent.home.holder("config/l"), Some("ls".into()));
    let past = [set("config/l", "x"), delete("config/l"), Op::DeleteTree { prefix: "config/".into() }];
    for op in past.clone() {
        let refusal = agent.write(vec![op]).await.unwrap_err();
        assert!(matches!(&refusal, Refusal::Held { key, .. } if key == "config/l"), "{refusal}");
    }
    let index = store.pair("config/l").unwrap().modify_index;
    assert!(is_committed(&agent.write(vec![cas("config/l", "by cas", index)]).await.unwrap()));
    // Another agent finds the lock as it takes over.
    store.end_session("s");
    let next = Agent::serving(&store, "t").await;
    assert_eq!(next.home.holder("config/l"), Some("ls".into()));
    assert!(matches!(next.write(vec![set("config/l", "x")]).await, Err(Refusal::Held { .. })));
    store.end_session("ls");
    assert!(is_committed(&next.write(vec![set("config/l", "free")]).await.unwrap()), "its session is gone");
    let told = changes(&store).await;
    let k = || "config/l".to_owned();
    assert_eq!(told[..2], [Change::Held { k: k() }, Change::Held { k: k() }]);
    assert!(matches!(&told[2], Change::Set { .. }), "a free key is data again");
}

#[tokio::test(start_paused = true)]
async fn what_a_request_locks_those_beside_it_see() {
    let store = Fake::new(&["s", "l"]);
    let agent = Agent::serving(&store, "s").await;
    let (first, locked, past) = tokio::join!(
        agent.write(vec![set("config/x", "")]),
        agent.write(vec![lock("config/l", "l"), set("config/l", "mine")]),
        agent.write(vec![set("config/l", "past it")]),
    );
    assert!(is_committed(&first.unwrap()) && is_committed(&locked.unwrap()));
    assert!(matches!(past, Err(Refusal::Held { .. })), "{past:?}");
    assert_eq!(store.value("config/l").as_deref(), Some("mine"));
}

#[tokio::test(start_paused = true)]
async fn a_contender_deletes_its_own_key_of_a_semaphore() {
    let store = Fake::new(&["s", "l", "m"]);
    let agent = Agent::serving(&store, "s").await;
    for session in ["l", "m"] {
        let key = format!("config/sem/{session}");
        let op = Op::Lock { key, value: Bytes::new(), flags: SEMAPHORE_FLAGS, session: session.into() };
        agent.write(vec![op]).await.unwrap();
    }
    assert_eq!(
        store.state().keys.keys().filter(|key| key.contains("/lock/")).count(),
        0,
        "nobody is excluded"
    );
    assert!(is_committed(&agent.write(vec![delete("config/sem/l")]).await.unwrap()));
    assert_eq!(store.pair("config/sem/l"), None);
    assert_eq!(agent.home.status().locks, 1);
}

#[tokio::test(start_paused = true)]
async fn keys_that_clients_mark_as_locks_never_become_data() {
    let store = Fake::new(&["s", "l"]);
    let agent = Agent::serving(&store, "s").await;
    let marked =
        Op::Unlock { key: "config/l".into(), value: Bytes::new(), flags: LOCK_FLAGS, session: "l".into() };
    agent.write(vec![lock("config/l", "l")]).await.unwrap();
    agent.write(vec![marked]).await.unwrap();
    agent.write(vec![lock("config/p", "l")]).await.unwrap();
    agent.write(vec![unlock("config/p", "l")]).await.unwrap();
    let told = changes(&store).await;
    assert!(matches!(&told[1], Change::Held { k } if k == "config/l"));
    assert!(matches!(&told[3], Change::Set { k, .. } if k == "config/p"));
}

#[tokio::test(start_paused = true)]
async fn tokens_only_grow_also_over_a_restore() {
    let store = Fake::new(&["s", "l"]);
    let agent = Agent::serving(&store, "s").await;
    let mut last = Token::default();
    let snapshot = store.state().clone();
    for n in 0..6 {
        if n == 4 {
            store.restore(&snapshot);
        }
        let written = agent.write(vec![lock("config/l", "l")]).await.unwrap();
        let (key, token) = written.tokens[0].clone();
        assert_eq!(key, "config/l");
        assert!(token > last, "{token} after {last}");
        last = token;
        agent.write(vec![unlock("config/l", "l")]).await.unwrap();
    }
    assert_eq!(last, Token { epoch: 2, n: 2 });
}

#[tokio::test(start_paused = true)]
async fn a_guarded_write_needs_the_present_token() {
    let store = Fake::new(&["s", "l", "m"]);
    let agent = Agent::serving(&store, "s").await;
    let guarded = |lock: &str, token, n: &str| {
        let guard = Some(Guard { lock: lock.into(), token });
        let write = Write { guard, ..agent.request(n, vec![set("config/data", n)]) };
        agent.home.write(write)
    };
    let first = agent.write(vec![lock("config/l", "l")]).await.unwrap().tokens[0].1;
    assert!(is_committed(&guarded("config/l", first, "a").await.unwrap()));
    store.end_session("l");
    let ended = guarded("config/l", first, "b").await;
    assert!(matches!(ended, Err(Refusal::StaleToken { current: None, .. })), "{ended:?}");
    let second = agent.write(vec![lock("config/l", "m")]).await.unwrap().tokens[0].1;
    let stale = guarded("config/l", first, "c").await.unwrap_err();
    assert_eq!(stale, Refusal::StaleToken { lock: "config/l".into(), given: first, current: Some(second) });
    assert!(is_committed(&guarded("config/l", second, "d").await.unwrap()));
    assert_eq!(guarded("far/l", second, "e").await.unwrap_err().status(), 400);
    assert!(matches!(guarded("locks/never", second, "f").await, Err(Refusal::StaleToken { .. })));
    assert_eq!(store.value("config/data").as_deref(), Some("d"));
    // The same answer, and the same refusal, to those that are sent again.
    assert!(is_committed(&guarded("config/l", second, "d").await.unwrap()));
    assert_eq!(guarded("config/l", first, "c").await.unwrap_err(), stale);
    let other = guarded("config/l", second, "c").await.unwrap_err();
    assert_eq!(other.status(), 400, "another token is another request: {other}");
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_cannot_be_read_harms_nobody_beside_it() {
    let store = Fake::new(&["s", "l"]);
    let agent = Agent::serving(&store, "s").await;
    store.state().refused = Some("locks//x".into());
    let guard = Some(Guard { lock: "locks//x".into(), token: Token { epoch: 1, n: 1 } });
    let guarded = Write { guard, ..agent.request("g", vec![set("config/data", "1")]) };
    let (first, guarded, locked) = tokio::join!(
        agent.write(vec![set("config/first", "1")]),
        agent.home.write(guarded),
        agent.write(vec![lock("config/l", "l")]),
    );
    assert!(is_committed(&first.unwrap()) && is_committed(&locked.unwrap()));
    let refusal = guarded.unwrap_err();
    assert_eq!(refusal.status(), 400);
    assert!(refusal.to_string().contains("locks//x"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn each_slot_of_a_semaphore_has_tokens_of_its_own() {
    let store = Fake::new(&["s", "l", "m"]);
    let agent = Agent::serving(&store, "s").await;
    let guarded = |slot: &str, token, n: &str| {
        let guard = Some(Guard { lock: slot.into(), token });
        agent.home.write(Write { guard, ..agent.request(n, vec![set("config/data", n)]) })
    };
    let (one, two) = ("config/sem/.slots/000", "config/sem/.slots/001");
    let first = agent.write(vec![lock(one, "l")]).await.unwrap().tokens[0].1;
    agent.write(vec![lock(two, "m")]).await.unwrap();
    agent.write(vec![unlock(two, "m")]).await.unwrap();
    let second = agent.write(vec![lock(two, "m")]).await.unwrap().tokens[0].1;
    assert!(is_committed(&guarded(one, first, "a").await.unwrap()));
    assert!(is_committed(&guarded(two, second, "b").await.unwrap()));
    // The token of one slot is nothing at another, and none is worth anything at the semaphore's own name.
    assert!(matches!(guarded(two, first, "c").await, Err(Refusal::StaleToken { .. })));
    assert!(matches!(guarded("config/sem", first, "d").await, Err(Refusal::StaleToken { .. })));
    agent.write(vec![unlock(one, "l")]).await.unwrap();
    assert!(matches!(guarded(one, first, "e").await, Err(Refusal::StaleToken { current: None, .. })));
    assert_eq!(store.value("config/data").as_deref(), Some("b"));
}

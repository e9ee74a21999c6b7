//! A Consul that hangs, ends or is not there.

use std::time::Duration;

use causeway::{
    lifecycle,
    model::session::{Behavior, SessionId},
    sync::store::{Access, Read, Resource, Right, Store, StoreError, consul::ConsulStore},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{HOST, committed, set, spec, store};
use crate::rig::parts::{Consul, PATIENCE, until};

/// What each operation says.
async fn all(store: &ConsulStore, session: &SessionId) -> Vec<(&'static str, Result<(), StoreError>)> {
    let rights = [Right { resource: Resource::Key, access: Access::Read, segment: "a".into() }];
    let told = tokio::join!(
        async { store.txn(vec![set("a", "2")]).await.map(drop) },
        async { store.create_session(&spec(10, Behavior::Release)).await.map(drop) },
        async { store.renew_session(session).await.map(drop) },
        async { store.destroy_session(session).await.map(drop) },
        async { store.get("a", Read::Consistent).await.map(drop) },
        async { store.list("a", Read::Consistent).await.map(drop) },
        async { store.authorize(None, &rights).await.map(drop) },
    );
    vec![
        ("txn", told.0),
        ("create", told.1),
        ("renew", told.2),
        ("destroy", told.3),
        ("get", told.4),
        ("list", told.5),
        ("authorize", told.6),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consul_that_hangs_leaves_the_outcome_open_within_the_deadline() {
    let consul = Consul::registered(HOST);
    let store = store(&consul, None);
    committed(&store, vec![set("a", "1")]).await;
    let session = store.create_session(&spec(10, Behavior::Release)).await.unwrap();
    let pid = Pid::from_raw(i32::try_from(consul.pid()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    // The signal is sent, and other processors may go on with what they do for a moment.
    until("every thread of Consul is stopped", || is_stopped(consul.pid()).then_some(()));
    let start = lifecycle::now();
    let commit = store.txn(vec![set("a", "2")]).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert!(matches!(commit, StoreError::Unknown(_)), "{commit}");
    for (what, told) in all(&store, &session).await {
        assert!(matches!(told, Err(StoreError::Unknown(_))), "{what}: {told:?}");
    }
    kill(pid, Signal::SIGCONT).unwrap();
    // It was sent, and it was executed.
    let written = async {
        while store
            .get("a", Read::Consistent)
            .await
            .ok()
            .and_then(|found| found.value)
            .is_none_or(|pair| pair.value != "2")
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("the write is there in the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consul_that_is_gone_was_sent_nothing_and_serves_again_when_it_is_back() {
    let mut consul = Consul::registered(HOST);
    let store = store(&consul, None);
    committed(&store, vec![set("a", "1")]).await;
    let session = store.create_session(&spec(10, Behavior::Release)).await.unwrap();
    // A write after the other, through its end: none of them says what it cannot know.
    let written = async {
        let mut last = 0_u64;
        loop {
            let op = causeway::model::kv::Op::Set {
                key: "n".into(),
                value: (last + 1).to_string().into(),
                flags: 0,
            };
            match store.txn(vec![op]).await {
                Ok(_) => last += 1,
                Err(error) => return (last, error),
            }
        }
    };
    let ended = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::task::block_in_place(|| consul.kill());
    };
    let ((last, error), ()) = tokio::join!(written, ended);
    assert!(last > 0 && matches!(error, StoreError::Unknown(_) | StoreError::NotSent(_)), "{last}: {error}");
    // What was sent over a connection that was open a moment before is not known to be lost.
    let refused =
        async { while !matches!(store.txn(vec![set("a", "1")]).await, Err(StoreError::NotSent(_))) {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("nobody listens");
    for (what, told) in all(&store, &session).await {
        assert!(matches!(told, Err(StoreError::NotSent(_))), "{what}: {told:?}");
    }
    tokio::task::block_in_place(|| consul.run());
    let read = async {
        loop {
            match store.get("n", Read::Consistent).await {
                Ok(found) => return found.value.unwrap(),
                Err(error) => {
                    assert!(matches!(error, StoreError::Unknown(_) | StoreError::Unusable(_)), "{error}")
                }
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, read).await.expect("Consul answers again");
    let found: u64 = std::str::from_utf8(&found.value).unwrap().parse().unwrap();
    assert!(
        found == last || (found == last + 1 && matches!(error, StoreError::Unknown(_))),
        "{found} after {last}: {error}"
    );
    assert_eq!(store.list("a", Read::Consistent).await.unwrap().value.len(), 1);
}

fn is_stopped(process: u32) -> bool {
    let mut threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.all(|thread| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
        // Behind the name, which may hold anything.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}

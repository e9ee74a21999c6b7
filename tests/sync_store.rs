//! The store over a real Consul: what it answers, and what its answers prove when something is wrong.

mod rights;
mod trouble;

use std::{net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use causeway::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::client::Client,
    model::{
        kv::{Op, Pair, TxnError, TxnReply},
        secret::SecretText,
        session::{Behavior, SessionId, SessionSpec},
    },
    sync::store::{Answer, Read, Store, StoreError, consul::ConsulStore},
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::rig::parts::Consul;

const HOST: Ipv4Addr = Ipv4Addr::new(127, 77, 2, 11);

fn store(consul: &Consul, token: Option<&str>) -> ConsulStore {
    ConsulStore::new(client(consul, token))
}

fn client(consul: &Consul, token: Option<&str>) -> Client {
    let address = ConsulAddress::parse(&consul.address()).unwrap();
    let token = token.map(SecretText::from);
    Client::new(ConsulSettings { address, token, ..ConsulSettings::default() }).unwrap()
}

fn set(key: &str, value: &'static str) -> Op {
    Op::Set { key: key.into(), value: Bytes::from_static(value.as_bytes()), flags: 0 }
}

fn keys(answer: &Answer<Vec<Pair>>) -> Vec<&str> {
    answer.value.iter().map(|pair| pair.key.as_str()).collect()
}

fn spec(ttl_s: u64, behavior: Behavior) -> SessionSpec {
    SessionSpec { name: "test".into(), ttl: Duration::from_secs(ttl_s), lock_delay: Duration::ZERO, behavior }
}

async fn committed(store: &ConsulStore, ops: Vec<Op>) -> Vec<Pair> {
    match store.txn(ops).await.unwrap() {
        TxnReply::Committed(pairs) => pairs,
        TxnReply::RolledBack(errors) => panic!("{errors:?}"),
    }
}

async fn rolled_back(store: &ConsulStore, ops: Vec<Op>) -> Vec<TxnError> {
    match store.txn(ops).await.unwrap() {
        TxnReply::RolledBack(errors) => errors,
        TxnReply::Committed(pairs) => panic!("{pairs:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_written_and_read() {
    let consul = Consul::start(HOST, json!({}));
    let store = store(&consul, None);
    // Nothing there is an answer too, and has an index to wait on.
    let none = store.list("a/", Read::Consistent).await.unwrap();
    assert!(none.value.is_empty() && none.index > 0);
    assert_eq!(store.get("a/x", Read::Consistent).await.unwrap().value, None);

    let odd = "a/ü \"?&%41+#";
    let binary = Bytes::from((0..=255).collect::<Vec<u8>>());
    let ops = vec![
        Op::Set { key: odd.into(), value: binary.clone(), flags: u64::MAX },
        set("a/empty", ""),
        set("a/folder/", ""),
        set("b", "other"),
    ];
    assert_eq!(committed(&store, ops).await.len(), 4);
    let listed = store.list("a/", Read::Consistent).await.unwrap();
    assert_eq!(keys(&listed), ["a/empty", "a/folder/", odd]);
    let read = store.get(odd, Read::Default).await.unwrap().value.unwrap();
    assert_eq!((&read, &read.value, read.flags), (&listed.value[2], &binary, u64::MAX));
    assert_eq!(keys(&store.list("", Read::Default).await.unwrap()).len(), 4);

    // A blocking read comes back with the change.
    let wait = Read::Wait { index: listed.index, wait: Duration::from_secs(60) };
    let (waited, _) = tokio::join!(store.list("a/", wait), committed(&store, vec![set("a/new", "1")]));
    assert_eq!(keys(&waited.unwrap()).len(), 4);
    for key in ["a//b", "/a", "a/../b", "a/.", "a/b//"] {
        let error = store.get(key, Read::Default).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { status: 400, .. }), "{key}: {error}");
        assert!(committed(&store, vec![set(key, "1"), Op::Delete { key: key.into() }]).await.len() == 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_hold_whole_or_not_at_all() {
    let consul = Consul::start(HOST, json!({}));
    let store = store(&consul, None);
    let first = committed(&store, vec![set("a/x", "1"), set("a/y", "1")]).await;
    let index = first[0].modify_index;
    let cas = |index| Op::Cas { key: "a/x".into(), value: Bytes::new(), flags: 0, index };
    let errors = rolled_back(&store, vec![set("a/z", "1"), cas(index + 1), cas(0)]).await;
    assert_eq!(errors.iter().map(|error| error.op_index).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(store.get("a/z", Read::Consistent).await.unwrap().value, None);
    // Those that leave a pair, and those that leave none.
    let pairs = committed(
        &store,
        vec![
            Op::CheckIndex { key: "a/x".into(), index },
            Op::CheckNotExists { key: "a/none".into() },
            Op::Get { key: "a/x".into() },
            Op::GetTree { prefix: "a/".into() },
            Op::DeleteCas { key: "a/none".into(), index: 7 },
            Op::DeleteTree { prefix: "a/".into() },
            cas(0),
        ],
    )
    .await;
    let shown: Vec<_> = pairs.iter().map(|pair| (pair.key.as_str(), pair.value.as_ref())).collect();
    let read: &[u8] = b"1";
    assert_eq!(shown, [("a/x", b"".as_ref()), ("a/x", read), ("a/x", read), ("a/y", read), ("a/x", b"")]);
    // An equal write changes nothing, and not the index.
    let again = committed(&store, vec![cas(pairs[4].modify_index)]).await;
    assert_eq!(again[0].modify_index, pairs[4].modify_index);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_hold_locks_until_they_end() {
    let consul = Consul::registered(HOST);
    let store = store(&consul, None);
    let session = async |behavior| store.create_session(&spec(10, behavior)).await.unwrap();
    let (ours, theirs) = (session(Behavior::Release).await, session(Behavior::Delete).await);
    let lock = |session: &SessionId, key: &str| Op::Lock {
        key: key.into(),
        value: Bytes::new(),
        flags: 0,
        session: session.clone(),
    };
    let check = |session: &SessionId| Op::CheckSession { key: "l".into(), session: session.clone() };
    let locked = committed(&store, vec![lock(&ours, "l"), check(&ours)]).await;
    assert_eq!((locked.len(), locked[1].session.as_ref(), locked[1].lock_index), (2, Some(&ours), 1));
    assert!(rolled_back(&store, vec![lock(&theirs, "l")]).await[0].what.contains("lock is already held"));
    assert_eq!(rolled_back(&store, vec![set("d", "1"), check(&theirs)]).await[0].op_index, 1);
    committed(&store, vec![lock(&theirs, "gone")]).await;

    assert_eq!(store.renew_session(&ours).await, Ok(true));
    store.destroy_session(&theirs).await.unwrap();
    store.destroy_session(&theirs).await.unwrap();
    assert_eq!(store.renew_session(&theirs).await, Ok(false));
    assert_eq!(store.get("gone", Read::Consistent).await.unwrap().value, None);
    store.destroy_session(&ours).await.unwrap();
    assert_eq!(store.get("l", Read::Consistent).await.unwrap().value.unwrap().session, None);
    assert!(rolled_back(&store, vec![check(&ours)]).await[0].what.contains("failed session check"));
    assert!(rolled_back(&store, vec![lock(&ours, "l")]).await[0].what.contains("invalid session"));
    // No check of the node's health ends it, only its TTL.
    let id = session(Behavior::Release).await;
    let info = consul.get(&format!("/v1/session/info/{id}"));
    assert_eq!(
        (&info[0]["NodeChecks"], &info[0]["TTL"], &info[0]["Node"]),
        (&json!([]), &json!("10s"), &json!("s1"))
    );
    for wrong in [spec(9, Behavior::Release), spec(86_401, Behavior::Release)] {
        let error = store.create_session(&wrong).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { status: 400, .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_told() {
    let consul = Consul::start(HOST, json!({}));
    let store = store(&consul, None);
    let most = store.max_txn_ops().await.unwrap();
    assert!([64, 128].contains(&most), "{most}");
    let many = |count| (0..count).map(|n| set(&format!("m/{n:03}"), "1")).collect::<Vec<_>>();
    assert_eq!(committed(&store, many(most)).await.len(), most);
    let large =
        |bytes: usize| vec![Op::Set { key: "big".into(), value: Bytes::from(vec![7; bytes]), flags: 0 }];
    for ops in [many(most + 1), large(513 << 10), large(400_000)] {
        let error = store.txn(ops).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { status: 413, .. }), "{error}");
    }
    // The limit is on the body, whose values are Base64.
    committed(&store, large(390_000)).await;
    assert_eq!(store.get("big", Read::Consistent).await.unwrap().value.unwrap().value.len(), 390_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_keys_come_page_by_page() {
    const KEYS: usize = 100_032;
    let consul = Consul::start(HOST, json!({}));
    let store = store(&consul, None);
    let value = Bytes::from(vec![b'v'; 256]);
    for first in (0..KEYS).step_by(64) {
        let op = |n| Op::Set { key: format!("many/{n:07}"), value: value.clone(), flags: 0 };
        committed(&store, (first..first + 64).map(op).collect()).await;
    }
    let (pages, mut coming) = mpsc::channel::<Vec<Pair>>(1);
    let count = async {
        let (mut found, mut longest) = (0, 0);
        while let Some(page) = coming.recv().await {
            assert_eq!(page[0].key, format!("many/{found:07}"));
            found += page.len();
            longest = longest.max(page.len());
        }
        (found, longest)
    };
    let (scanned, (found, longest)) = tokio::join!(store.scan("many/", Read::Consistent, pages), count);
    assert_eq!((scanned.unwrap().value, found), (KEYS as u64, KEYS));
    assert!(longest * 20 < KEYS, "a page of {longest} is no piece");
    assert_eq!(store.list("many/", Read::Consistent).await.unwrap().value.len(), KEYS);
    // A reader that goes away ends it, and nothing counts.
    let (pages, coming) = mpsc::channel(1);
    drop(coming);
    let error = store.scan("many/", Read::Consistent, pages).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable(_)), "{error}");
}

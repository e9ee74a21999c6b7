use proptest::prelude::*;

use bytes::Bytes;
use prost::Message;

use super::*;
use crate::{
    model::kv::{Pair, UNKNOWN_LOCK},
    sync::{
        peer::{FollowItem, FollowStart, SnapshotPair},
        record::{self, Change, Entry, Value},
    },
};

fn hello() -> Hello {
    Hello {
        versions: (1, 2),
        datacenter: "primary".into(),
        node: "vm1".into(),
        prefixes: vec![Prefix { text: "config/".into(), home: "primary".into(), mode: Mode::Journaled }],
        max_txn_ops: 64,
        max_value_bytes: Some(262_144),
    }
}

fn forward() -> Forward {
    Forward {
        request_id: "r1".into(),
        method: "PUT".into(),
        path_and_query: "/v1/kv/config/a?flags=3".into(),
        headers: vec![("x-sync-min-seq".into(), "1.2".into())],
        body: Bytes::from_static(b"\0value"),
        token: Some(SecretText::from("secret-token")),
        origin: "secondary".into(),
        hops: 1,
    }
}

fn entry() -> FollowItem {
    let entry = Entry {
        position: Position { epoch: 1, seq: 7 },
        prev_hash: Hash::of(b"before"),
        ts_ms: 1,
        requests: Vec::new(),
        ops: vec![Change::Set {
            k: "config/a".into(),
            flags: 1,
            value: Value::Val(Bytes::from_static(b"v")),
        }],
    };
    let hash = Hash::of(&record::encode(&entry));
    FollowItem::Entry { entry, hash, modify_index: 99, blobs: vec![Bytes::from_static(b"blob")] }
}

fn pair(key: &str, bytes: usize) -> Pair {
    Pair {
        key: key.into(),
        value: vec![b'x'; bytes].into(),
        flags: 5,
        session: None,
        lock_index: 0,
        create_index: 3,
        modify_index: 4,
    }
}

/// As it comes out at the other end.
fn sent(item: FollowItem, compare: bool) -> Vec<FollowItem> {
    let downs = item_out(item).unwrap();
    for down in &downs {
        assert!(down.encoded_len() < MAX_MESSAGE_BYTES);
    }
    let bytes = downs.iter().map(Message::encode_to_vec);
    bytes.map(|bytes| item_in(pb::FollowDown::decode(&*bytes).unwrap(), compare).unwrap()).collect()
}

#[test]
fn everything_comes_out_as_it_went_in() {
    assert_eq!(hello_in(hello_out(hello())), Ok(hello()));
    let reply = HelloReply {
        version: 1,
        datacenter: "primary".into(),
        node: "vm1".into(),
        prefixes: hello().prefixes,
        max_txn_ops: 128,
        max_value_bytes: None,
        known: vec![Known {
            prefix: "config/".into(),
            position: Position { epoch: 2, seq: 9 },
            hash: Hash::of(b"entry"),
        }],
    };
    assert_eq!(hello_reply_in(hello_reply_out(reply.clone())), Ok(reply));
    assert_eq!(forward_in(forward_out(forward())), Ok(forward()));
    let anonymous = Forward { token: None, ..forward() };
    assert_eq!(forward_in(forward_out(anonymous.clone())), Ok(anonymous));
    for at in [None, Some((Position { epoch: 1, seq: 2 }, Hash::of(b"x")))] {
        let start =
            FollowStart { prefix: "config/".into(), at, compare: true, origin: Some("secondary".into()) };
        assert_eq!(start_in(start_out(start.clone())), Ok(start));
    }
    assert_eq!(ack_in(ack_out(Position { epoch: 1, seq: 2 })), Ok(Position { epoch: 1, seq: 2 }));
    let position = Position { epoch: 3, seq: 4 };
    let items = [
        FollowItem::Continues,
        FollowItem::Forked { home: position, reason: "restored".into() },
        FollowItem::SnapshotBegin,
        FollowItem::SnapshotPairs(vec![SnapshotPair::Data(pair("a", 3)), SnapshotPair::Held("l".into())]),
        FollowItem::SnapshotEnd { position, hash: Hash::of(b"y"), pairs: 2 },
        entry(),
        FollowItem::Tip { position, ts_ms: 12 },
    ];
    for item in items {
        assert_eq!(sent(item.clone(), false), [item]);
    }
    let hashed = SnapshotPair::Hashed { pair: pair("a", 0), hash: [7; 32] };
    let item = FollowItem::SnapshotPairs(vec![hashed]);
    assert_eq!(sent(item.clone(), true), [item]);
}

#[test]
fn how_often_a_key_was_acquired_is_unknown_where_the_home_does_not_tell() {
    for lock_index in [0, 3, UNKNOWN_LOCK] {
        let pair = Pair { lock_index, ..pair("l", 1) };
        let item = FollowItem::SnapshotPairs(vec![SnapshotPair::Data(pair)]);
        assert_eq!(sent(item.clone(), false), [item]);
    }
    // As a release sends it that does not tell.
    let silent = pb::Pair { key: "l".into(), ..Default::default() };
    let down = pb::follow_down::Message::SnapshotPairs(pb::SnapshotPairs { pairs: vec![silent] });
    let bytes = pb::FollowDown { message: Some(down) }.encode_to_vec();
    let item = item_in(pb::FollowDown::decode(&*bytes).unwrap(), false).unwrap();
    let FollowItem::SnapshotPairs(pairs) = item else { panic!("{item:?}") };
    assert!(matches!(&pairs[..], [SnapshotPair::Data(Pair { lock_index: UNKNOWN_LOCK, .. })]), "{pairs:?}");
}

#[test]
fn what_is_long_takes_several_messages() {
    let pairs: Vec<_> = (0..20).map(|n| SnapshotPair::Data(pair(&n.to_string(), 512 << 10))).collect();
    let parts = sent(FollowItem::SnapshotPairs(pairs.clone()), false);
    assert!(parts.len() > 4);
    let all = parts.into_iter().flat_map(|part| match part {
        FollowItem::SnapshotPairs(pairs) => pairs,
        other => panic!("{other:?}"),
    });
    assert_eq!(all.collect::<Vec<_>>(), pairs);

    let body: Vec<u8> = (0..5_000_000u32).map(|n| n as u8).collect();
    let reply = Forwarded { status: 200, headers: vec![("a".into(), "b".into())], body: body.clone().into() };
    let mut parts = forwarded_out(reply).into_iter();
    let first = forwarded_in(parts.next().unwrap()).unwrap();
    assert_eq!((first.status, first.headers.len()), (200, 1));
    let mut whole = first.body.to_vec();
    assert!(parts.len() > 3);
    for part in parts {
        body_in(&mut whole, &part.body).unwrap();
    }
    assert!(whole == body);
    assert!(body_in(&mut vec![0; MAX_BODY_BYTES], b"x").is_err());
    let empty = Forwarded { status: 200, headers: Vec::new(), body: Bytes::new() };
    assert_eq!(forwarded_out(empty).len(), 1);
}

#[test]
fn an_entry_with_more_than_this_release_knows_is_not_passed_on() {
    let FollowItem::Entry { entry, modify_index, blobs, .. } = entry() else { unreachable!() };
    let item = FollowItem::Entry { entry, hash: Hash::of(b"other"), modify_index, blobs };
    assert!(item_out(item).unwrap_err().to_string().contains("1.7"));
}

#[test]
fn what_makes_no_sense_is_told_by_field_and_shows_no_secret() {
    let told = |error: ConvertError| error.to_string();
    let prefix = |mode: &str| pb::Prefix { text: "a".into(), home: "b".into(), mode: mode.into() };
    let with = |prefixes| hello_in(pb::HelloRequest { prefixes, ..hello_out(hello()) });
    assert!(told(with(vec![prefix("mirrored")]).unwrap_err()).contains("prefix.mode"));
    assert!(told(with(vec![prefix(JOURNALED); MAX_PREFIXES + 1]).unwrap_err()).contains("4097"));
    let nobody = pb::HelloRequest { datacenter: String::new(), ..hello_out(hello()) };
    assert!(told(hello_in(nobody).unwrap_err()).contains("datacenter is empty"));
    for (method, path) in [("BREW", "/v1/kv/a"), ("PUT", "http://evil/"), ("", "/")] {
        let bad = pb::ForwardRequest {
            method: method.into(),
            path_and_query: path.into(),
            ..forward_out(forward())
        };
        assert!(!told(forward_in(bad).unwrap_err()).contains("secret-token"));
    }
    for status in [0, 99, 199, 600, 70_000] {
        assert!(forwarded_in(pb::ForwardReply { status, ..Default::default() }).is_err(), "{status}");
    }
    let start = |hash: &str| {
        let start = pb::FollowStart { prefix: "a".into(), hash: hash.into(), ..Default::default() };
        start_in(pb::FollowUp { message: Some(pb::follow_up::Message::Start(start)) })
    };
    assert!(start("").is_ok() && start("xyz").is_err() && start(&"A".repeat(64)).is_err());
    assert_eq!(item_in(pb::FollowDown { message: None }, false), Err(ConvertError::Unknown));
    let absent = |keys: Vec<String>| Absent { prefix: "a/".into(), keys, at: Position { epoch: 1, seq: 2 } };
    let known = absent(vec!["a/".into(), "a/b".into()]);
    assert_eq!(absent_in(absent_out(known.clone())), Ok(known.clone()));
    for bad in [vec!["b".to_owned()], vec!["a/b".to_owned(); ABSENT_KEYS + 1]] {
        assert!(told(absent_in(absent_out(absent(bad))).unwrap_err()).contains("keys"));
    }
    assert!(absent_in(pb::AbsentRequest { position: None, ..absent_out(known) }).is_err());
    let unhashed = pb::SnapshotPairs { pairs: vec![pb::Pair { key: "a".into(), ..Default::default() }] };
    let unhashed = pb::FollowDown { message: Some(pb::follow_down::Message::SnapshotPairs(unhashed)) };
    assert!(item_in(unhashed.clone(), true).is_err() && item_in(unhashed, false).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), compare: bool) {
        if let Ok(message) = pb::HelloRequest::decode(&*bytes) { let _ = hello_in(message); }
        if let Ok(message) = pb::HelloReply::decode(&*bytes) { let _ = hello_reply_in(message); }
        if let Ok(message) = pb::ForwardRequest::decode(&*bytes) { let _ = forward_in(message); }
        if let Ok(message) = pb::ForwardReply::decode(&*bytes) { let _ = forwarded_in(message); }
        if let Ok(message) = pb::AbsentRequest::decode(&*bytes) { let _ = absent_in(message); }
        if let Ok(message) = pb::FollowUp::decode(&*bytes) {
            let _ = start_in(message.clone());
            let _ = ack_in(message);
        }
        if let Ok(message) = pb::FollowDown::decode(&*bytes) { let _ = item_in(message, compare); }
    }
}

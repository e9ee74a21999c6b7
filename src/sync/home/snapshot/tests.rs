use super::*;
use crate::{
    model::sync::Position,
    sync::{home::memory::LOCK_FLAGS, record::Entry},
};

fn pair(key: &str, value: &str, create_index: u64, modify_index: u64) -> Pair {
    Pair {
        key: key.into(),
        value: Bytes::from(value.to_owned()),
        flags: 0,
        session: None,
        lock_index: 0,
        create_index,
        modify_index,
    }
}

fn entry(index: u64, ops: Vec<Change>) -> Logged {
    let position = Position { epoch: 1, seq: index };
    let entry = Entry { position, prev_hash: Hash::default(), ts_ms: 0, requests: Vec::new(), ops };
    Logged { entry, hash: Hash::default(), index }
}

fn set(key: &str, value: &str) -> Change {
    Change::Set { k: key.into(), flags: 0, value: Value::Val(Bytes::from(value.to_owned())) }
}

/// What the list may show while these two entries are committed one after the other: the state before, between, or after.
#[test]
fn a_list_read_at_any_moment_gives_the_same_data() {
    let before =
        vec![pair("a", "1", 5, 5), pair("b", "1", 5, 6), pair("t/x", "1", 5, 7), pair("u", "same", 5, 5)];
    let first = entry(
        10,
        vec![
            set("a", "2"),
            Change::Del { k: "b".into() },
            Change::DelTree { k: "t/".into() },
            set("n", "1"),
            set("u", "same"),
        ],
    );
    let second = entry(11, vec![set("b", "again"), set("t/y", "1"), Change::Del { k: "n".into() }]);
    let between = vec![pair("a", "2", 5, 10), pair("n", "1", 10, 10), pair("u", "same", 5, 5)];
    let after = vec![
        pair("a", "2", 5, 10),
        pair("b", "again", 11, 11),
        pair("t/y", "1", 11, 11),
        pair("u", "same", 5, 5),
    ];
    let wanted = as_listed(after.clone());
    for listed in [before, between, after] {
        let shots = brought_forward(listed.clone(), &[first.clone(), second.clone()], &BTreeMap::new());
        assert_eq!(shots.as_ref(), Some(&wanted), "{listed:?}");
    }
}

#[test]
fn values_come_from_beside_the_journal_and_locks_keep_theirs() {
    let named = Hash("h".into());
    let change = Change::Set { k: "l".into(), flags: 3, value: Value::Blob(named.clone()) };
    let entries = [entry(10, vec![change, Change::Held { k: "lock".into() }])];
    let blobs = BTreeMap::from([(named, Bytes::from_static(b"large"))]);
    let shots = brought_forward(vec![pair("lock", "secret", 1, 2)], &entries, &blobs).unwrap();
    let large = Pair { flags: 3, ..pair("l", "large", 10, 10) };
    assert_eq!(shots, [Shot::Data(large), Shot::Held("lock".into())]);
    assert_eq!(
        brought_forward(Vec::new(), &entries, &BTreeMap::new()),
        None,
        "what is missing is no empty value"
    );
    let marked = Pair { flags: LOCK_FLAGS, ..pair("m", "x", 1, 1) };
    let held = Pair { session: Some("s".into()), ..pair("n", "x", 1, 1) };
    assert_eq!(as_listed(vec![marked, held]), [Shot::Held("m".into()), Shot::Held("n".into())]);
}

#[test]
fn messages_are_bounded_and_lose_nothing() {
    let large = "x".repeat(200 * 1024);
    let shots: Vec<_> = (0..20).map(|n| Shot::Data(pair(&format!("k{n:02}"), &large, 1, 1))).collect();
    let all: Vec<_> = messages(shots.clone(), false).collect();
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [2; 10]);
    let compared: Vec<_> = messages(shots, true).collect();
    assert_eq!(compared.len(), 1);
    let hash = *blake3::hash(large.as_bytes()).as_bytes();
    assert!(compared[0].iter().all(
        |pair| matches!(pair, SnapshotPair::Hashed { pair, hash: h } if *h == hash && pair.value.is_empty())
    ));
    let huge = vec![Shot::Data(pair("huge", &"x".repeat(MESSAGE_BYTES * 2), 1, 1))];
    assert_eq!(messages(huge, false).count(), 1, "what is larger goes alone");
    assert_eq!(messages(Vec::new(), false).count(), 0);
}

/// A release keeps the `LockIndex`, of which an entry says nothing; the list knows it, where it shows the key after that.
#[test]
fn how_often_a_key_was_acquired_is_told_where_it_is_known() {
    let freed = |lock_index, modify_index| Pair { lock_index, ..pair("l", "1", 5, modify_index) };
    let forward = |listed: Pair, ops: Vec<Vec<Change>>| {
        let entries: Vec<Logged> = (10..).zip(ops).map(|(index, ops)| entry(index, ops)).collect();
        let shots = brought_forward(vec![listed], &entries, &BTreeMap::new()).unwrap();
        let [Shot::Data(pair)] = &shots[..] else { panic!("{shots:?}") };
        (pair.lock_index, pair.modify_index)
    };
    let held = || Change::Held { k: "l".into() };
    assert_eq!(forward(freed(3, 11), vec![vec![held()], vec![set("l", "1")]]), (3, 11));
    assert_eq!(forward(freed(2, 9), vec![vec![held()], vec![set("l", "1")]]), (UNKNOWN_LOCK, 11));
    assert_eq!(forward(freed(2, 9), vec![vec![set("l", "1")]]), (0, 10), "a plain write sets it to 0");
    assert_eq!(forward(freed(0, 9), vec![vec![set("l", "1")]]), (0, 9));
    let again = vec![vec![held()], vec![set("l", "1")], vec![set("l", "1")]];
    assert_eq!(forward(freed(2, 9), again), (0, UNKNOWN_INDEX));
}

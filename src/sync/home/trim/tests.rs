use super::*;
use crate::{
    model::sync::PrefixId,
    sync::record::{Entry, Hash},
};
use bytes::Bytes;

fn head(first: u64, seq: u64) -> Head {
    Head { position: Position { epoch: 1, seq }, hash: Hash::default(), first }
}

#[test]
fn what_all_have_may_go_but_not_the_newest() {
    let keep = Keep { always: 10, max_entries: 100, max_age: Duration::from_secs(1) };
    assert_eq!(by_number(&head(1, 50), Some(30), &keep), 30);
    assert_eq!(by_number(&head(1, 50), Some(u64::MAX), &keep), 40);
    assert_eq!(by_number(&head(1, 50), None, &keep), 0);
    assert_eq!(by_number(&head(1, 250), None, &keep), 150);
    assert_eq!(by_number(&head(1, 5), Some(5), &keep), 0);
}

#[test]
fn one_that_was_never_heard_holds_all_back() {
    let dc = |name: &str| Datacenter::from(name);
    let all = [dc("a"), dc("b"), dc("c")];
    let mut acks = BTreeMap::from([(dc("b"), Position { epoch: 1, seq: 9 })]);
    assert_eq!(acked(&all, &dc("a"), &acks), None);
    acks.insert(dc("c"), Position { epoch: 1, seq: 4 });
    assert_eq!(acked(&all, &dc("a"), &acks), Some(4));
    assert_eq!(acked(&all[..1], &dc("a"), &acks), Some(u64::MAX), "alone, nobody is waited for");
}

#[test]
fn old_ones_go_whoever_needs_them() {
    let logged = |seq, ts_ms| Logged {
        entry: Entry {
            position: Position { epoch: 1, seq },
            prev_hash: Hash::default(),
            ts_ms,
            requests: Vec::new(),
            ops: Vec::new(),
        },
        hash: Hash::default(),
        index: 1,
    };
    let keep = Keep { always: 2, max_entries: 100, max_age: Duration::from_secs(1) };
    let oldest = [logged(1, 10), logged(2, 20), logged(3, 5000), logged(4, 30)];
    assert_eq!(by_age(&oldest, &head(1, 50), 3000, &keep), 2, "in order, without a gap");
    assert_eq!(by_age(&oldest, &head(1, 3), 3000, &keep), 1);
    assert_eq!(by_age(&oldest, &head(1, 50), 500, &keep), 0);
}

#[test]
fn only_whole_tens_go_and_not_too_many_at_once() {
    let layout = Layout::new(&PrefixId::of("config/"));
    assert_eq!(tens(&layout, 1, 8), None);
    let (ops, first) = tens(&layout, 1, 9).unwrap();
    assert_eq!((ops.len(), first), (1, 10));
    let Op::DeleteTree { prefix } = &ops[0] else { panic!("{ops:?}") };
    for seq in 0..200 {
        assert_eq!(layout.entry(seq).starts_with(prefix), seq < 10, "{seq}");
    }
    assert_eq!(tens(&layout, 10, 10_000).unwrap(), (tens(&layout, 10, 209).unwrap().0, 210));
    assert_eq!(tens(&layout, 10, 18), None);
    assert_eq!(tens(&layout, 210, 9), None);
    assert!(tens(&layout, 1, u64::MAX).is_some());
}

#[test]
fn values_stay_while_an_entry_may_name_them() {
    let blob = |key: &str, flags| Pair {
        key: key.into(),
        value: Bytes::new(),
        flags,
        session: None,
        lock_index: 0,
        create_index: 1,
        modify_index: 7,
    };
    let blobs = [blob("old", 10), blob("new", 600), blob("odd", u64::MAX)];
    assert_eq!(orphans(&blobs, 10 + BLOB_LEEWAY), []);
    assert_eq!(orphans(&blobs, 11 + BLOB_LEEWAY), [Op::DeleteCas { key: "old".into(), index: 7 }]);
}

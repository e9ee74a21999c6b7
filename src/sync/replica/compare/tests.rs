use super::*;
use crate::{model::kv::Pair, sync::replica::indexes::Indexes};

fn pair(key: &str, value: &str, modify_index: u64) -> Pair {
    Pair {
        key: key.into(),
        value: bytes::Bytes::copy_from_slice(value.as_bytes()),
        flags: 0,
        session: None,
        lock_index: 0,
        create_index: 400,
        modify_index,
    }
}

fn compare(local: Vec<Pair>, marked: &[&str]) -> Compare {
    let mut compare = Compare::new("c/".into(), marked.iter().map(|key| (*key).to_owned()).collect());
    compare.merge().feed(local);
    compare.merge().end_local();
    compare
}

fn hashed(key: &str, value: &str) -> Listed<Hashed> {
    let hash = *blake3::hash(value.as_bytes()).as_bytes();
    Listed::Data(Hashed { pair: pair(key, "", 500), hash })
}

#[test]
fn what_is_equal_is_known_and_the_rest_may_still_be_told() {
    let local = vec![pair("c/a", "1", 7), pair("c/b", "1", 8), pair("c/d/x", "1", 9)];
    let mut compare = compare(local, &["c/l"]);
    for listed in [hashed("c/a", "1"), hashed("c/b", "2"), hashed("c/new", "1"), Listed::Held("c/nl".into())]
    {
        // In the order of keys, as lists are.
        compare.take(listed).unwrap();
    }
    let (memory, mut differences) = compare.end(4).unwrap();
    assert_eq!(memory.indexes("c/a", 7), Indexes::Known { create: 400, modify: 500, lock: 0 });
    assert_eq!(memory.indexes("c/b", 8), Indexes::Unknown);
    assert!(memory.is_held("c/l"), "as it is marked here, although its session may have ended at home");
    assert_eq!(differences.keys.iter().collect::<Vec<_>>(), ["c/b", "c/d/x", "c/new", "c/nl"]);
    differences.settle("c/b");
    differences.settle_below("c/d/");
    differences.settle_below("c/n");
    assert_eq!((differences.len(), differences.is_empty(), differences.is_full()), (0, true, false));
}

#[test]
fn a_list_that_is_not_whole_says_nothing() {
    let mut compare = compare(vec![pair("c/a", "1", 7)], &[]);
    compare.take(hashed("c/a", "1")).unwrap();
    assert_eq!(compare.end(2).unwrap_err(), Unusable::Short { got: 1, told: 2 });
}

#[test]
fn differences_have_a_bound() {
    let mut differences = Differences::default();
    (0..=MOST_DIFFERENCES).for_each(|n| differences.add(n.to_string()));
    assert_eq!((differences.len(), differences.is_full()), (MOST_DIFFERENCES, true));
}

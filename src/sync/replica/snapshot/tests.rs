use proptest::prelude::*;

use super::*;

fn pair(key: &str, value: &str, modify_index: u64) -> Pair {
    Pair {
        key: key.into(),
        value: bytes::Bytes::copy_from_slice(value.as_bytes()),
        flags: 0,
        session: None,
        lock_index: 0,
        create_index: 1,
        modify_index,
    }
}

fn merge(local: &[Pair], marked: &[&str]) -> Merge {
    let mut merge = Merge::new("c/".into(), marked.iter().map(|key| (*key).to_owned()).collect());
    local.chunks(2).for_each(|page| merge.feed(page.to_vec()));
    merge.end_local();
    merge
}

fn data(key: &str, value: &str) -> Listed<Pair> {
    Listed::Data(pair(key, value, 500))
}

#[test]
fn each_key_is_judged_by_both_lists() {
    let local = [pair("c/a", "1", 7), pair("c/b", "1", 8), pair("c/l", "1", 9), pair("c/x", "1", 9)];
    let mut merge = merge(&local, &["c/c", "c/m", "c/old"]);
    let print = Print::of(b"1", 0);
    assert_eq!(
        merge.take(data("c/a", "1")),
        Ok(Finding::Same { home: pair("c/a", "1", 500), local: 7, print, unmark: false })
    );
    assert_eq!(
        merge.take(data("c/b", "2")),
        Ok(Finding::Differs { home: pair("c/b", "2", 500), local: Some((8, print)), unmark: false })
    );
    assert_eq!(
        merge.take(data("c/c", "1")),
        Ok(Finding::Differs { home: pair("c/c", "1", 500), local: None, unmark: true })
    );
    let held = |key: &str| Listed::<Pair>::Held(key.into());
    assert_eq!(
        merge.take(held("c/l")),
        Ok(Finding::Held { key: "c/l".into(), local: Some((9, print)), mark: true })
    );
    assert_eq!(merge.take(held("c/m")), Ok(Finding::Held { key: "c/m".into(), local: None, mark: false }));
    let rest = merge.end(5).unwrap();
    assert_eq!(rest.deletes, [Alone { key: "c/x".into(), local: (9, print) }]);
    assert_eq!(rest.unmarks, ["c/old"]);
    assert_eq!((rest.local, rest.home), (4, 5));
}

#[test]
fn a_key_is_judged_when_the_local_list_has_come_as_far() {
    let mut merge = Merge::new("c/".into(), BTreeSet::new());
    assert!(merge.needs("c/a"));
    merge.feed(vec![pair("c/a", "1", 7), pair("c/c", "1", 8)]);
    assert!(!merge.needs("c/a") && !merge.needs("c/c") && merge.needs("c/d"));
    assert!(matches!(merge.take(data("c/c", "1")), Ok(Finding::Same { .. })));
    merge.drain();
    merge.feed(vec![pair("c/z", "1", 9)]);
    merge.drain();
    assert!(merge.needs("c/zz"));
    merge.end_local();
    assert!(!merge.needs("c/zz"));
    let rest = merge.end(1).unwrap();
    let deletes: Vec<&str> = rest.deletes.iter().map(|alone| alone.key.as_str()).collect();
    assert_eq!((deletes, rest.local), (vec!["c/a", "c/z"], 3));
}

#[test]
fn a_local_list_that_is_not_whole_deletes_nothing() {
    let mut merge = Merge::new("c/".into(), BTreeSet::new());
    merge.feed(vec![pair("c/a", "1", 7)]);
    assert!(merge.end(0).is_err());
}

#[test]
fn hashes_serve_as_well_as_values() {
    let local = [pair("c/a", "1", 7), pair("c/b", "1", 8)];
    let mut merge = merge(&local, &[]);
    let hashed = |key, value: &str| {
        let hash = *blake3::hash(value.as_bytes()).as_bytes();
        Listed::Data(Hashed { pair: pair(key, "", 500), hash })
    };
    assert!(matches!(merge.take(hashed("c/a", "1")), Ok(Finding::Same { .. })));
    assert!(matches!(merge.take(hashed("c/b", "2")), Ok(Finding::Differs { .. })));
}

/// No list that is not whole and in order leads to a delete.
#[test]
fn a_list_that_is_none_deletes_nothing() {
    let local: Vec<Pair> = (0..127_739).map(|n| pair(&format!("c/{n:06}"), "1", 7)).collect();
    let end = |home: &[Listed<Pair>], told| {
        let mut merge = merge(&local, &[]);
        home.iter().cloned().try_for_each(|listed| merge.take(listed).map(drop))?;
        merge.end(told)
    };
    let some = [data("c/000001", "1"), data("c/000003", "1")];
    assert_eq!(end(&[], 127_739), Err(Unusable::Short { got: 0, told: 127_739 }));
    assert_eq!(end(&some, 3), Err(Unusable::Short { got: 2, told: 3 }));
    assert_eq!(end(&some, 1), Err(Unusable::Short { got: 2, told: 1 }));
    assert_eq!(end(&[some[1].clone(), some[0].clone()], 2), Err(Unusable::Order));
    assert_eq!(end(&[some[1].clone(), some[1].clone()], 2), Err(Unusable::Order));
    assert_eq!(end(&[data("b/other", "1")], 1), Err(Unusable::Order));
    assert_eq!(end(&[data("c", "1")], 1), Err(Unusable::Order));
    // Whole, and more than passes unasked.
    assert_eq!(
        end(&[], 0).unwrap().excess(Guard::default()),
        Some(Excess { deletes: 127_739, keys: 127_739 })
    );
    assert_eq!(
        end(&some, 2).unwrap().excess(Guard::default()),
        Some(Excess { deletes: 127_737, keys: 127_739 })
    );
}

#[test]
fn an_empty_local_list_deletes_nothing() {
    let mut merge = merge(&[], &[]);
    assert!(matches!(merge.take(data("c/a", "1")), Ok(Finding::Differs { local: None, .. })));
    assert_eq!(merge.end(1), Ok(Rest { home: 1, ..Rest::default() }));
}

#[test]
fn the_guard_lets_a_hundred_or_a_tenth_pass() {
    let rest = |deletes: usize, local, home| Rest {
        deletes: (0..deletes).map(|n| alone(pair(&n.to_string(), "1", 7))).collect(),
        local,
        home,
        ..Rest::default()
    };
    assert_eq!(rest(0, 0, 0).excess(Guard::default()), None);
    assert_eq!(rest(100, 120, 20).excess(Guard::default()), None);
    assert_eq!(rest(101, 120, 19).excess(Guard::default()), Some(Excess { deletes: 101, keys: 120 }));
    assert_eq!(rest(500, 5_000, 4_500).excess(Guard::default()), None);
    assert_eq!(rest(501, 5_000, 4_499).excess(Guard::default()), Some(Excess { deletes: 501, keys: 5_000 }));
    let gone = [rest(3, 3, 0), rest(3, 3, 1), rest(0, 0, 0)]
        .map(|rest| (rest.leaves_nothing(), rest.excess(Guard::default())));
    assert_eq!(gone, [(true, None), (false, None), (false, None)]);
    let strict = Guard { keys: 0, percent: 0 };
    assert_eq!(rest(1, 3, 2).excess(strict), Some(Excess { deletes: 1, keys: 3 }));
    let lax = Guard { keys: 0, percent: 100 };
    assert_eq!(rest(5_000, 5_000, 1).excess(lax), None);
}

type Side = std::collections::BTreeMap<String, String>;

fn side() -> impl Strategy<Value = Side> {
    prop::collection::btree_map("c/[a-d]{0,2}", "[12]?", 0..12)
}

proptest! {
    /// What is done by the findings makes the local side equal to home's.
    #[test]
    fn merging_makes_both_sides_equal(home in side(), local in side(), held in prop::collection::btree_set("c/[a-d]{0,2}", 0..4)) {
        let pairs: Vec<Pair> = local.iter().map(|(key, value)| pair(key, value, 7)).collect();
        let mut merge = merge(&pairs, &[]);
        let (mut after, mut marks) = (local.clone(), BTreeSet::new());
        let keys: BTreeSet<&String> = home.keys().chain(&held).collect();
        for key in &keys {
            let listed = match home.get(*key) {
                Some(value) if !held.contains(*key) => data(key, value),
                _ => Listed::Held((*key).clone()),
            };
            match merge.take(listed).unwrap() {
                Finding::Same { .. } => {}
                Finding::Differs { home, .. } => {
                    after.insert(home.key, String::from_utf8(home.value.to_vec()).unwrap());
                }
                Finding::Held { key, local, mark } => {
                    prop_assert_eq!(after.remove(&key).is_some(), local.is_some());
                    prop_assert!(mark);
                    marks.insert(key);
                }
            }
        }
        for alone in merge.end(keys.len() as u64).unwrap().deletes {
            after.remove(&alone.key);
        }
        let mut expected = home;
        expected.retain(|key, _| !held.contains(key));
        prop_assert_eq!(after, expected);
        prop_assert_eq!(marks, held);
    }
}

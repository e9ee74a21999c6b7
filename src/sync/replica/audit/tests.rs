use super::*;
use crate::sync::replica::indexes::{Print, here};

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

fn memory(keys: &[(&str, u64)]) -> Memory {
    let mut memory = Memory::default();
    for (key, local) in keys {
        memory.know(&pair(key, "", 500), *local, Print::of(b"1", 0));
    }
    memory
}

fn suspects(list: &[Pair], memory: &Memory, since: u64) -> Vec<String> {
    let mut look = Look::new(since);
    list.chunks(2).for_each(|page| look.take(page, memory));
    look.end(memory)
}

#[test]
fn what_differs_from_the_memory_is_a_suspect() {
    let memory = memory(&[("c/a", 7), ("c/b", 8), ("c/gone", 9), ("c/z", 10)]);
    let list = [pair("c/a", "1", 7), pair("c/b", "2", 11), pair("c/foreign", "1", 3), pair("c/z", "1", 10)];
    assert_eq!(suspects(&list, &memory, 10), ["c/b", "c/foreign", "c/gone"]);
    assert_eq!(suspects(&[], &memory, 10).len(), 4);
    assert_eq!(suspects(&list[..1], &memory, 10), ["c/b", "c/gone", "c/z"]);
}

#[test]
fn what_was_applied_during_the_list_is_none() {
    let memory = memory(&[("c/a", 12), ("c/new", 13)]);
    assert!(suspects(&[pair("c/a", "1", 7)], &memory, 10).is_empty());
}

#[test]
fn suspects_have_a_bound() {
    let list: Vec<Pair> = (0..200).map(|n| pair(&format!("c/{n:03}"), "1", 7)).collect();
    assert_eq!(suspects(&list, &Memory::default(), 10).len(), MOST_SUSPECTS);
    let keys: Vec<String> = (0..200).map(|n| format!("c/{n:03}")).collect();
    let known: Vec<(&str, u64)> = keys.iter().map(|key| (key.as_str(), 7)).collect();
    assert_eq!(suspects(&[], &memory(&known), 10).len(), MOST_SUSPECTS);
}

#[test]
fn a_second_look_tells_what_it_is() {
    let mut memory = memory(&[("c/a", 7)]);
    memory.hold("c/lock", None);
    let look = |key, now: Option<Pair>| verdict(key, now.as_ref().map(here), &memory);
    assert_eq!(look("c/a", Some(pair("c/a", "other", 7))), Verdict::Fine, "the index decides");
    assert_eq!(look("c/a", Some(pair("c/a", "1", 9))), Verdict::Restored(9));
    assert_eq!(look("c/a", Some(pair("c/a", "2", 9))), Verdict::Edited);
    assert_eq!(look("c/a", None), Verdict::Edited);
    assert_eq!(look("c/b", None), Verdict::Fine);
    assert_eq!(look("c/b", Some(pair("c/b", "1", 9))), Verdict::Edited);
    assert_eq!(look("c/lock", Some(pair("c/lock", "1", 9))), Verdict::Edited, "a lock has no data here");
}

#[test]
fn marks_are_those_of_the_locks_that_are_remembered() {
    let mut memory = Memory::default();
    ["c/a", "c/b", "c/d", "c/e"].into_iter().for_each(|key| memory.hold(key, None));
    let suspects = |marked: &[&str]| {
        let mut marks = Marks::default();
        marked.chunks(2).for_each(|page| marks.take(page, &memory));
        marks.end(&memory)
    };
    assert!(suspects(&["c/a", "c/b", "c/d", "c/e"]).is_empty());
    assert_eq!(suspects(&["c/b", "c/c", "c/d"]), ["c/a", "c/c", "c/e"]);
    assert_eq!(suspects(&[]), ["c/a", "c/b", "c/d", "c/e"]);
    let many: Vec<String> = (0..200).map(|n| format!("d/{n:03}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(suspects(&many).len(), MOST_SUSPECTS);
}

#[test]
fn a_copy_counts_each_edit_once_however_often_it_is_begun() {
    let mut known = memory(&[("c/a", 7), ("c/b", 8), ("c/gone", 9), ("c/z", 10)]);
    let now = |value: &str, index| Some(here(&pair("", value, index)));
    let mut edits = Edits::but(BTreeSet::from(["c/b".to_owned()]));
    edits.look("c/a", now("1", 7), &known);
    edits.look("c/b", now("edited", 20), &known);
    edits.look("c/foreign", now("1", 21), &known);
    assert!(edits.look("c/gone", None, &known));
    assert_eq!(edits.take(), 1, "c/b was counted before");
    edits.put_back("c/gone", 9, &known);
    assert_eq!(edits.take(), 0, "an equal write changed nothing: it was there");
    edits.put_back("c/gone", 25, &known);
    assert_eq!(edits.take(), 1);
    // It was cut; what it wrote is not remembered as its own.
    known.forget_between(None, Some("c/z"));
    for key in ["c/a", "c/b", "c/foreign", "c/gone"] {
        assert!(!edits.look(key, now("1", 30), &known) && !edits.look(key, None, &known));
    }
    edits.look("c/z", now("edited", 31), &known);
    assert_eq!((edits.take(), edits.take()), (1, 0));
    let mut none = Edits::default();
    none.look("c/foreign", now("1", 21), &known);
    assert_eq!(none.take(), 0, "without a memory of all keys nothing is known to be an edit");
}

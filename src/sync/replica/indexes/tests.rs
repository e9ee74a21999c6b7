use super::*;

fn home(key: &str, create_index: u64, modify_index: u64, lock_index: u64) -> Pair {
    let value = bytes::Bytes::new();
    Pair { key: key.into(), value, flags: 0, session: None, lock_index, create_index, modify_index }
}

fn written(first: u64, changed: Option<Change>) -> Written {
    Written { print: Print::of(b"x", 0), first, changed, created: None, was_held: false }
}

fn known(create: u64, modify: u64) -> Indexes {
    Indexes::Known { create, modify, lock: 0 }
}

#[test]
fn an_index_is_told_only_for_what_the_local_consul_holds_now() {
    let mut memory = Memory::default();
    memory.know(&home("c/a", 5, 9, 2), 70, Print::of(b"x", 0));
    assert_eq!(memory.indexes("c/a", 70), Indexes::Known { create: 5, modify: 9, lock: 2 });
    assert_eq!(memory.indexes("c/a", 71), Indexes::Unknown);
    assert_eq!(memory.indexes("c/b", 70), Indexes::Unknown);
    memory.see(&home("c/b", 6, 9, 0), 71, Print::of(b"y", 0));
    assert_eq!(memory.indexes("c/b", 71), Indexes::Unknown);
    memory.apply(&[], [("c/b", Fate::Written(written(12, None)), Some(72))]);
    assert_eq!(memory.indexes("c/b", 72), known(6, 12), "an entry tells what changed it");
    memory.forget_home();
    assert_eq!(memory.indexes("c/a", 70), Indexes::Unknown);
}

#[test]
fn a_write_that_changes_nothing_here_changed_nothing_at_home() {
    let mut memory = Memory::default();
    memory.know(&home("c/a", 5, 9, 0), 70, Print::of(b"x", 0));
    memory.apply(&[], [("c/a", Fate::Written(written(20, None)), Some(70))]);
    assert_eq!(memory.indexes("c/a", 70), known(5, 9));
    memory.apply(&[], [("c/a", Fate::Written(written(21, None)), Some(75))]);
    assert_eq!(memory.indexes("c/a", 75), known(5, 21));
    memory.apply(&[], [("c/a", Fate::Written(written(30, Some(Change::At(32)))), Some(80))]);
    assert_eq!(memory.indexes("c/a", 80), known(5, 32));
}

#[test]
fn what_nobody_told_the_local_index_of_stays_unknown() {
    let mut memory = Memory::default();
    memory.know(&home("c/a", 5, 9, 0), 70, Print::of(b"x", 0));
    memory.apply(&[], [("c/a", Fate::Written(written(20, None)), None)]);
    memory.heal("c/a", 75);
    assert_eq!(memory.indexes("c/a", 75), Indexes::Unknown, "it may be 9 or 20");
}

#[test]
fn an_equal_write_of_what_was_a_lock_changed_something_at_home_only() {
    let mut memory = Memory::default();
    memory.know(&home("c/a", 5, 9, 1), 70, Print::of(b"x", 0));
    memory.apply(&[], [("c/a", Fate::Written(written(20, None)), Some(70))]);
    assert_eq!(memory.indexes("c/a", 70), known(5, 20));
}

#[test]
fn what_was_deleted_and_made_again_was_created_then() {
    let mut memory = Memory::default();
    memory.know(&home("c/a", 5, 9, 0), 70, Print::of(b"x", 0));
    let again = Written { created: Some(22), ..written(22, Some(Change::At(22))) };
    memory.apply(&["c/".into()], [("c/a", Fate::Written(again), Some(90))]);
    assert_eq!(memory.indexes("c/a", 90), known(22, 22));
    memory.apply(&["c/".into()], []);
    assert!(memory.is_empty() && memory.record("c/a").is_none());
}

#[test]
fn what_was_a_lock_has_no_index_before_the_home_is_asked() {
    let mut memory = Memory::default();
    memory.hold("l/a", None);
    assert!(memory.is_held("l/a") && memory.has_held_below("l/") && !memory.has_held_below("m"));
    let freed = Written { was_held: true, ..written(20, Some(Change::At(20))) };
    memory.apply(&[], [("l/a", Fate::Written(freed), Some(90))]);
    assert!(!memory.is_held("l/a"));
    assert_eq!(memory.indexes("l/a", 90), Indexes::Unknown);
}

#[test]
fn a_lock_index_that_the_home_did_not_tell_is_not_guessed() {
    let mut memory = Memory::default();
    memory.know(&home("c/a", 5, 9, UNKNOWN_LOCK), 70, Print::of(b"x", 0));
    assert_eq!(memory.indexes("c/a", 70), Indexes::Unknown);
    memory.apply(&[], [("c/a", Fate::Written(written(20, Some(Change::At(20)))), Some(80))]);
    assert_eq!(memory.indexes("c/a", 80), known(5, 20), "a plain write sets it to 0");
    memory.know(&home("c/b", UNKNOWN, 9, 0), 70, Print::of(b"x", 0));
    assert_eq!(memory.indexes("c/b", 70), Indexes::Unknown);
}

#[test]
fn a_million_keys_fit() {
    // Nodes of the tree, as full as growing keys leave them, and a key of 32 bytes with its allocation.
    let bytes = (size_of::<Box<str>>() + size_of::<Record>()) * 11 / 6 + 48;
    assert!(bytes <= 200, "{bytes} bytes for each key");
}

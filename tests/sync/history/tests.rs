//! The checkers themselves: each finds what it is for, and nothing in a history that is right.

use causeway::model::sync::{Position, Token};

use super::{Act, Call, Moment, Outcome, Restored, Shown, judge, judge_restored, reads};

fn call(began: Moment, ended: Moment, outcome: Outcome, act: Act) -> Call {
    Call { client: 0, began, ended, outcome, act }
}

fn done(began: Moment, ended: Moment, act: Act) -> Call {
    call(began, ended, Outcome::Done, act)
}

fn write(value: u64) -> Act {
    Act::Write { key: "k".into(), value: Some(value) }
}

fn read(seen: Option<u64>) -> Act {
    Act::Read { key: "k".into(), seen }
}

fn cas(from: Option<u64>, to: u64, is_done: bool) -> Act {
    Act::Cas { key: "k".into(), from, to, is_done }
}

fn finds(calls: &[Call], invariant: &str) {
    let found = judge(calls);
    assert!(found.iter().any(|violation| violation.0.starts_with(invariant)), "{invariant}: {found:?}");
}

fn finds_nothing(calls: &[Call]) {
    assert_eq!(judge(calls), []);
}

#[test]
fn a_register_reads_what_was_written() {
    finds_nothing(&[done(0, 1, write(1)), done(2, 3, read(Some(1)))]);
    finds_nothing(&[done(0, 9, write(1)), done(1, 2, read(None)), done(3, 4, read(Some(1)))]);
    finds(&[done(0, 1, write(1)), done(2, 3, read(None))], "I1");
    finds(&[done(0, 9, write(1)), done(1, 2, read(Some(1))), done(3, 4, read(None))], "I1");
    finds(&[done(0, 1, read(Some(7)))], "I1");
}

#[test]
fn an_open_write_may_happen_at_any_time_or_never() {
    let open = call(0, 5, Outcome::Open, write(1));
    finds_nothing(&[open.clone(), done(6, 7, read(None))]);
    finds_nothing(&[open.clone(), done(6, 7, read(None)), done(8, 9, read(Some(1)))]);
    finds(&[open, done(6, 7, read(Some(1))), done(8, 9, read(None))], "I1");
    finds(&[call(0, 1, Outcome::Refused, write(1)), done(2, 3, read(Some(1)))], "I1");
}

#[test]
fn a_compare_and_set_compares() {
    finds_nothing(&[
        done(0, 1, cas(None, 1, true)),
        done(2, 3, cas(Some(1), 2, true)),
        done(4, 5, read(Some(2))),
    ]);
    finds(&[done(0, 1, cas(None, 1, true)), done(2, 3, cas(None, 2, true))], "I1");
    finds(&[done(0, 1, cas(None, 1, true)), done(2, 3, cas(Some(1), 2, false))], "I1");
    let open = call(2, 3, Outcome::Open, cas(Some(1), 2, false));
    finds_nothing(&[done(0, 1, cas(None, 1, true)), open, done(4, 5, cas(Some(1), 3, false))]);
}

#[test]
fn lists_have_one_order() {
    let append = |item, a: &[u64], b: &[u64]| Act::Append {
        item,
        lists: vec![("a".into(), a.to_vec()), ("b".into(), b.to_vec())],
    };
    let seen =
        |a: &[u64], b: &[u64]| Act::Lists { seen: vec![("a".into(), a.to_vec()), ("b".into(), b.to_vec())] };
    let two = [done(0, 1, append(1, &[], &[])), done(2, 3, append(2, &[1], &[1]))];
    let with = |last: Act| [two.as_slice(), &[done(8, 9, last)]].concat();
    finds_nothing(&with(seen(&[1, 2], &[1, 2])));
    finds(&with(seen(&[1, 2], &[1])), "I2");
    finds(&with(seen(&[2, 1], &[1, 2])), "I2");
    finds(&with(seen(&[1, 2, 1], &[1, 2])), "I2");
    let crossed = [
        call(0, 9, Outcome::Open, append(1, &[], &[])),
        call(0, 9, Outcome::Open, append(2, &[], &[])),
        done(10, 11, seen(&[1, 2], &[2, 1])),
    ];
    finds(&crossed, "I2");
    let half = [call(0, 9, Outcome::Open, append(1, &[], &[])), done(10, 11, seen(&[1], &[]))];
    finds(&half, "I2");
}

#[test]
fn tokens_grow_and_order_what_they_guard() {
    let token = |n| Token { epoch: 1, n };
    let grant = |n| Act::Grant { lock: "l".into(), token: token(n) };
    let count = |n, from, to| Act::Count { lock: "l".into(), token: token(n), from, to };
    finds_nothing(&[
        done(0, 1, grant(1)),
        done(1, 2, count(1, 0, 1)),
        done(3, 4, grant(2)),
        done(5, 6, count(2, 1, 2)),
    ]);
    finds(&[done(0, 1, grant(1)), done(3, 4, grant(1))], "I5");
    finds(&[done(0, 1, grant(2)), done(3, 4, grant(1))], "I5");
    finds(&[done(0, 1, count(1, 0, 1)), done(3, 4, count(2, 0, 1))], "I7");
    finds(&[done(0, 1, count(2, 0, 1)), done(3, 4, count(1, 1, 2))], "I6");
}

fn restore(prefix: &str) -> Restored {
    Restored { datacenter: "dc1".into(), prefixes: vec![prefix.into()], saved: 100, restored: 200 }
}

#[test]
fn a_restore_takes_back_what_came_after_the_snapshot_and_nothing_else() {
    let restored = |prefix: &str| vec![restore(prefix)];
    let judged = |calls: &[Call]| judge_restored(calls, &restored("k"));
    let kept = || done(0, 1, write(1));
    let lost = || done(110, 120, write(2));
    for last in [Some(1), Some(2)] {
        assert_eq!(judged(&[kept(), lost(), done(130, 140, read(Some(2))), done(210, 220, read(last))]), []);
    }
    // What was before the snapshot stays, what is read before the restore is what was written, and nothing comes from nowhere.
    for wrong in [done(210, 220, read(None)), done(130, 140, read(Some(1))), done(210, 220, read(Some(9)))] {
        let found = judged(&[kept(), lost(), wrong.clone()]);
        assert!(found.iter().any(|violation| violation.0.starts_with("I1")), "{wrong:?}: {found:?}");
    }
    // Another prefix lost nothing.
    let elsewhere = judge_restored(&[kept(), lost(), done(210, 220, read(Some(1)))], &restored("other"));
    assert!(elsewhere.iter().any(|violation| violation.0.starts_with("I1")), "{elsewhere:?}");
}

#[test]
fn tokens_grow_through_a_restore() {
    let restored = [restore("l")];
    let grant = |epoch, n| Act::Grant { lock: "l".into(), token: Token { epoch, n } };
    let calls = |last| [done(0, 1, grant(1, 1)), done(110, 120, grant(1, 2)), done(210, 220, last)];
    assert_eq!(judge_restored(&calls(grant(2, 2)), &restored), []);
    let found = judge_restored(&calls(grant(1, 2)), &restored);
    assert!(found.iter().any(|violation| violation.0.starts_with("I5")), "{found:?}");
}

#[test]
fn a_reader_is_never_shown_that_a_replica_went_back() {
    let shown = |reader: &str, prefix: &str, began, epoch, seq| Shown {
        reader: reader.into(),
        prefix: prefix.into(),
        began,
        position: Position { epoch, seq },
    };
    // Each reader and each prefix by itself, in the order of its questions; a new epoch is ahead of every entry before.
    let good = [
        shown("one", "config/", 0, 1, 4),
        shown("two", "config/", 1, 1, 2),
        shown("one", "locks/", 2, 1, 1),
        shown("one", "config/", 5, 2, 3),
        shown("one", "config/", 4, 1, 4),
    ];
    assert_eq!(reads(&good), []);
    let bad = [good.as_slice(), &[shown("two", "config/", 9, 1, 1)]].concat();
    let found = reads(&bad);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "I4: two was shown config/ at 1.2 and then at 1.1");
    assert_eq!(reads(&[good.as_slice(), &[shown("one", "config/", 9, 1, 9)]].concat()).len(), 1);
}

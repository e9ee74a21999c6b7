use bytes::Bytes;

use super::*;
use crate::sync::endpoint::ask::{LockAsk, Read, Txn, What};

fn set(key: &str) -> Op {
    Op::Set { key: key.into(), value: Bytes::from_static(b"secret value"), flags: 0 }
}

#[test]
fn every_write_lock_and_order_leaves_a_line_without_its_value() {
    let ops = vec![set("a"), Op::Get { key: "b".into() }, Op::DeleteTree { prefix: "c".into() }];
    let told = lines(&Ask::Txn(Txn { ops, has_others: false }), &Response::json(200, "{}"));
    let short = |lines: Vec<Line>| {
        lines
            .into_iter()
            .map(|line| format!("{} {} {}", line.act, line.key, line.outcome.as_str()))
            .collect::<Vec<_>>()
    };
    assert!(!format!("{told:?}").contains("secret"));
    assert_eq!(short(told), ["set a done", "delete-tree c done"]);
    let lock = |act| Ask::Lock(LockAsk { key: "l".into(), act });
    assert_eq!(short(lines(&lock(LockAct::Release), &Response::json(200, ""))), ["lock-release l done"]);
    assert!(lines(&lock(LockAct::Look), &Response::json(200, "")).is_empty());
    assert_eq!(
        short(lines(&Ask::Sync(SyncAsk::Approve("p/".into())), &Response::json(200, "true"))),
        ["approve p/ done"]
    );
    let read = Ask::Read(Read { key: "a".into(), what: What::Pair });
    assert!(lines(&read, &Response::json(200, "")).is_empty());
}

#[test]
fn outcomes_are_what_the_client_was_told() {
    for (status, body, outcome) in [
        (200, "true", Outcome::Done),
        (200, "false", Outcome::NotDone),
        (409, "{}", Outcome::NotDone),
        (403, "", Outcome::Denied),
        (400, "", Outcome::Refused),
        (413, "", Outcome::Refused),
        (503, "", Outcome::Refused),
        (504, "", Outcome::Unknown),
        (500, "invalid session", Outcome::Refused),
    ] {
        let told = lines(&Ask::Write(set("a")), &Response::text(status, body));
        assert_eq!(told[0].outcome, outcome, "{status} {body}");
    }
}

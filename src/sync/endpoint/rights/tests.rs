use bytes::Bytes;

use super::*;
use crate::{
    model::sync::Token,
    sync::endpoint::ask::{LockAsk, Txn},
};

fn shown_rights(ask: &Ask, wishes: &Wishes) -> Vec<String> {
    needed(ask, wishes, &"n1".into()).iter().map(|(at, right)| format!("{at} {}", shown(right))).collect()
}

#[test]
fn each_verb_needs_what_consul_asks_for() {
    let (key, session) = (|| "a".to_owned(), || "s".into());
    let ops = vec![
        Op::Set { key: key(), value: Bytes::new(), flags: 0 },
        Op::Cas { key: key(), value: Bytes::new(), flags: 0, index: 0 },
        Op::Lock { key: key(), value: Bytes::new(), flags: 0, session: session() },
        Op::Unlock { key: key(), value: Bytes::new(), flags: 0, session: session() },
        Op::Get { key: key() },
        Op::GetTree { prefix: key() },
        Op::CheckIndex { key: key(), index: 1 },
        Op::CheckSession { key: key(), session: session() },
        Op::CheckNotExists { key: key() },
        Op::Delete { key: key() },
        Op::DeleteTree { prefix: key() },
        Op::DeleteCas { key: key(), index: 1 },
    ];
    let ask = Ask::Txn(Txn { ops, has_others: false });
    assert_eq!(
        shown_rights(&ask, &Wishes::default()),
        [
            "0 key:write on a",
            "1 key:write on a",
            "2 key:write on a",
            "3 key:write on a",
            "6 key:read on a",
            "7 key:read on a",
            "8 key:write on a",
            "9 key:write on a",
            "10 key:write (all below) on a",
            "11 key:write on a",
        ]
    );
}

#[test]
fn locks_guards_and_orders() {
    let lock = |act| Ask::Lock(LockAsk { key: "l".into(), act });
    let none = Wishes::default();
    assert_eq!(shown_rights(&lock(LockAct::Acquire), &none), ["0 key:write on l", "0 session:write on n1"]);
    assert_eq!(shown_rights(&lock(LockAct::Look), &none), ["0 key:read on l"]);
    let guarded = Wishes { guard: Some(("l".into(), Token::default())), ..Wishes::default() };
    let set = Ask::Write(Op::Set { key: "a".into(), value: Bytes::new(), flags: 0 });
    assert_eq!(shown_rights(&set, &guarded), ["0 key:write on a", "0 key:read on l"]);
    assert_eq!(shown_rights(&Ask::Sync(SyncAsk::Approve("a".into())), &none), ["0 operator:write"]);
    assert!(shown_rights(&Ask::Sync(SyncAsk::Status), &none).is_empty());
}

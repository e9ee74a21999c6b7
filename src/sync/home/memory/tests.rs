use super::*;
use crate::{
    model::sync::Position,
    sync::record::{Digester, Hash, Requested},
};

fn digest(of: &str) -> Digest {
    let mut digester = Digester::default();
    digester.text(of.as_bytes());
    digester.end()
}

fn answer(index: u64) -> Outcome {
    let reply = TxnReply::Committed(Vec::new());
    Ok(Written { reply, at: Position::default(), index, tokens: Vec::new() })
}

#[test]
fn the_oldest_answers_are_forgotten_first() {
    let mut seen = Seen::default();
    let any = digest("any");
    for n in 0..MAX_SEEN as u64 + 10 {
        seen.insert(&format!("r{n}"), Some(any), answer(n));
    }
    assert_eq!(seen.len(), MAX_SEEN);
    assert_eq!(seen.get("r9", any), Ok(None));
    seen.insert("r10", Some(any), answer(0));
    assert_eq!(seen.get("r10", any), Ok(Some(&answer(10))), "the first answer stays");
    let large = Pair {
        value: Bytes::from(vec![0; MAX_SEEN_BYTES]),
        ..shown(&[Change::Held { k: "k".into() }], 1)[0].clone()
    };
    let written = Written { reply: TxnReply::Committed(vec![large]), ..answer(0).unwrap() };
    seen.insert("large", Some(any), Ok(written));
    assert!(seen.is_empty(), "not even itself fits");
}

#[test]
fn an_id_stands_for_one_request() {
    let mut seen = Seen::default();
    seen.insert("id", Some(digest("a")), answer(1));
    assert_eq!(seen.get("id", digest("a")), Ok(Some(&answer(1))));
    assert_eq!(seen.get("id", digest("b")), Err(another()));
    seen.insert("old", None, answer(2));
    assert_eq!(seen.get("old", digest("b")), Ok(Some(&answer(2))), "nobody knows what it asked for");
    seen.clear();
    assert_eq!(seen.get("id", digest("b")), Ok(None));
    assert!(seen.is_empty());
}

#[test]
fn an_entry_tells_which_requests_it_carried_out() {
    let change =
        |k: &str| Change::Set { k: k.into(), flags: 7, value: crate::sync::record::Value::Val(Bytes::new()) };
    let requested =
        |id: &str, ops, token| Requested { id: id.into(), from: "b".into(), ops, token, digest: None };
    let token = Token { epoch: 1, n: 4 };
    let entry = Entry {
        position: Position { epoch: 1, seq: 3 },
        prev_hash: Hash::default(),
        ts_ms: 0,
        requests: vec![
            requested("one", 1, None),
            requested("two", 2, Some(token)),
            requested("odd", 9, None),
        ],
        ops: vec![change("a"), change("b"), Change::Held { k: "l".into() }, Change::Del { k: "c".into() }],
    };
    let mut seen = Seen::default();
    seen.learn(&entry, 12);
    let of = |id: &str| seen.get(id, digest("")).unwrap().unwrap().clone().unwrap();
    assert_eq!(of("one").reply, TxnReply::Committed(shown(&[change("a")], 12)));
    assert_eq!((of("two").tokens, of("two").index), (vec![("l".to_owned(), token)], 12));
    assert_eq!(
        of("odd").reply,
        TxnReply::Committed(Vec::new()),
        "a count that is too large takes what is there"
    );
}

#[test]
fn locks_come_and_go_with_what_is_committed() {
    let mut locks = Locks::default();
    let lock = |key: &str| Op::Lock { key: key.into(), value: Bytes::new(), flags: 0, session: "s".into() };
    let unlock =
        |key: &str| Op::Unlock { key: key.into(), value: Bytes::new(), flags: 0, session: "s".into() };
    let held = |k: &str| Change::Held { k: k.into() };
    let free =
        |k: &str| Change::Set { k: k.into(), flags: 0, value: crate::sync::record::Value::Val(Bytes::new()) };
    let get = Op::Get { key: "x".into() };
    locks.apply(&[lock("t/a"), get, lock("t/b"), lock("u")], &[held("t/a"), held("t/b"), held("u")]);
    assert_eq!((locks.len(), locks.holder("u")), (3, Some(&"s".into())));
    locks.apply(&[unlock("t/a")], &[held("t/a")]);
    assert_eq!((locks.contains("t/a"), locks.holder("t/a")), (true, None), "marked as a lock, and free");
    locks.apply(&[unlock("u")], &[free("u")]);
    assert!(!locks.contains("u"));
    locks.apply(&[Op::DeleteTree { prefix: "t/".into() }], &[Change::DelTree { k: "t/".into() }]);
    assert!(locks.is_empty());
}

#[test]
fn grants_are_forgotten_rather_than_piled_up() {
    let mut fences = Fences::default();
    for n in 0..=MAX_FENCES as u64 {
        fences.insert(&format!("l{n}"), Token { epoch: 1, n }, n);
    }
    assert_eq!(fences.0.len(), 1);
}

use super::*;

const AT: Position = Position { epoch: 2, seq: 7 };

fn chain() -> Chain {
    Chain::new("c/".into(), AT, Hash::of(b"seven"))
}

fn entry(epoch: u32, seq: u64, prev: &[u8], ops: Vec<record::Change>) -> Entry {
    let position = Position { epoch, seq };
    Entry { position, prev_hash: Hash::of(prev), ts_ms: 5, requests: Vec::new(), ops }
}

fn set(key: &str, value: Value) -> record::Change {
    record::Change::Set { k: key.into(), flags: 3, value }
}

#[test]
fn the_next_entry_continues_the_chain() {
    let mut chain = chain();
    let large = Bytes::from_static(b"large");
    let ops = vec![
        set("c/a", Value::Val(Bytes::from_static(b"x"))),
        set("c/b", Value::Blob(Hash::of(&large))),
        record::Change::Held { k: "c/l".into() },
        record::Change::DelTree { k: "c/".into() },
    ];
    let link =
        chain.take(entry(2, 8, b"seven", ops), Hash::of(b"eight"), 90, vec![large.clone()]).unwrap().unwrap();
    assert_eq!((link.position.seq, link.modify_index, link.ts_ms), (8, 90, 5));
    assert_eq!(link.changes[1], Change::Set { key: "c/b".into(), value: large, flags: 3 });
    assert_eq!(link.changes.len(), 4);
    // The same one again says nothing; the next one may begin an epoch.
    assert_eq!(chain.take(entry(2, 8, b"seven", Vec::new()), Hash::of(b"eight"), 90, Vec::new()), Ok(None));
    let next = chain.take(entry(3, 9, b"eight", Vec::new()), Hash::of(b"nine"), 91, Vec::new());
    assert_eq!(next.unwrap().unwrap().position, Position { epoch: 3, seq: 9 });
}

#[test]
fn what_does_not_continue_it_is_told_and_changes_nothing() {
    let got = |epoch, seq| Position { epoch, seq };
    let blob = || vec![set("c/a", Value::Blob(Hash::of(b"large")))];
    let outside = vec![record::Change::DelTree { k: "c".into() }];
    let cases = [
        (entry(2, 9, b"seven", Vec::new()), Vec::new(), Break::Number { at: AT, got: got(2, 9) }),
        (entry(2, 6, b"seven", Vec::new()), Vec::new(), Break::Number { at: AT, got: got(2, 6) }),
        (entry(2, 7, b"seven", Vec::new()), Vec::new(), Break::Number { at: AT, got: got(2, 7) }),
        (entry(1, 8, b"seven", Vec::new()), Vec::new(), Break::Number { at: AT, got: got(1, 8) }),
        (entry(2, 8, b"other", Vec::new()), Vec::new(), Break::Hash { at: AT, got: got(2, 8) }),
        (entry(2, 8, b"seven", outside), Vec::new(), Break::Key { got: got(2, 8) }),
        (entry(2, 8, b"seven", blob()), Vec::new(), Break::Blob { got: got(2, 8) }),
        (entry(2, 8, b"seven", blob()), vec![Bytes::from_static(b"x")], Break::Blob { got: got(2, 8) }),
    ];
    for (entry, blobs, expected) in cases {
        let mut chain = chain();
        assert_eq!(chain.take(entry, Hash::of(b"another"), 90, blobs), Err(expected));
        assert_eq!(chain, self::chain());
    }
}

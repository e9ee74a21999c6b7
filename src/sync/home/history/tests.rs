use super::*;
use crate::sync::record::Fork;

fn at(epoch: u32, seq: u64) -> Position {
    Position { epoch, seq }
}

fn hash(text: &str) -> Hash {
    Hash(text.into())
}

/// Entries 1 to 4 in epoch 1, 5 to 9 in epoch 2, 10 to 12 in epoch 5; those before 3 are gone. Entry n has hash hn.
fn epochs() -> Epochs {
    let fork = |epoch, seq: u64| Fork { epoch, seq, hash: hash(&format!("h{seq}")) };
    Epochs { epoch: 5, forks: vec![fork(2, 4), fork(5, 9)] }
}

fn head() -> Head {
    Head { position: at(5, 12), hash: hash("h12"), first: 3 }
}

fn logged(seq: u64) -> Logged {
    let epoch = if seq > 9 {
        5
    } else if seq > 4 {
        2
    } else {
        1
    };
    let entry = Entry {
        position: at(epoch, seq),
        prev_hash: hash(&format!("h{}", seq - 1)),
        ts_ms: 0,
        requests: Vec::new(),
        ops: Vec::new(),
    };
    Logged { entry, hash: hash(&format!("h{seq}")), index: seq }
}

fn judge(position: Position, its: &str) -> Standing {
    let entry = wanted(&head(), position).map(logged);
    standing(&epochs(), &head(), (position, &hash(its)), entry.as_ref())
}

#[test]
fn who_has_our_entry_goes_on_behind_it() {
    for (epoch, seq) in [(5, 12), (5, 11), (2, 9), (2, 5), (1, 4), (1, 3), (1, 2), (5, 9)] {
        assert_eq!(judge(at(epoch, seq), &format!("h{seq}")), Standing::Continues, "{epoch}.{seq}");
    }
    assert_eq!(judge(at(1, 1), "h1"), Standing::Trimmed);
    assert_eq!(judge(at(1, 0), ""), Standing::Trimmed);
}

#[test]
fn who_has_another_has_none_of_our_history() {
    let forked = |position, its: &str| match judge(position, its) {
        Standing::Forked { contests, .. } => Some(contests),
        _ => None,
    };
    assert_eq!(forked(at(5, 12), "x"), Some(true), "we have lost it ourselves");
    assert_eq!(forked(at(5, 11), "x"), Some(true));
    assert_eq!(forked(at(5, 13), "h13"), Some(true));
    assert_eq!(forked(at(6, 1), "x"), Some(true));
    assert_eq!(forked(at(2, 10), "h10"), Some(false), "written after the fork, then lost by a restore");
    assert_eq!(forked(at(1, 5), "h5"), Some(false));
    assert_eq!(forked(at(1, 9), "h9"), Some(false));
    assert_eq!(forked(at(1, 4), "x"), Some(false));
    assert_eq!(forked(at(1, 2), "x"), Some(false), "the entry after it still tells");
    assert_eq!(forked(at(5, 3), "h3"), Some(true), "that epoch began later");
    assert_eq!(forked(at(2, 3), "h3"), Some(false));
}

#[test]
fn an_empty_journal_is_gone_on_with() {
    let epochs = Epochs { epoch: 1, forks: Vec::new() };
    let head = Head { position: at(1, 0), hash: Hash::default(), first: 1 };
    assert_eq!(wanted(&head, at(1, 0)), None);
    assert_eq!(standing(&epochs, &head, (at(1, 0), &Hash::default()), None), Standing::Continues);
}

use super::*;
use crate::model::sync::Mode;

fn prefix() -> Prefix {
    Prefix { text: "config/".into(), home: "primary".into(), mode: Mode::Journaled }
}

fn at(epoch: u32, seq: u64) -> Position {
    Position { epoch, seq }
}

fn known(position: Position, hash: &str) -> Known {
    Known { prefix: "config/".into(), position, hash: Hash(hash.into()) }
}

/// A journal that ends so.
fn found(position: Position, hash: &str) -> Found {
    Found {
        epochs: Some(Epochs { epoch: position.epoch, forks: Vec::new() }),
        head: Some(Head { position, hash: Hash(hash.into()), first: 1 }),
        sentinel: Some(Sentinel { prefix: "config/".into(), home: "primary".into() }),
        last: (position.seq > 0).then(|| (position, Hash(hash.into()))),
        entries: BTreeMap::new(),
    }
}

#[test]
fn what_others_agree_with_is_served() {
    let known = [known(at(2, 7), "h7"), known(at(2, 5), "h5"), known(at(1, 99), "old"), known(at(0, 0), "")];
    assert_eq!(decide(&found(at(2, 7), "h7"), &known, None, &prefix()), Decision::Serve);
    assert_eq!(decide(&found(at(1, 0), ""), &[], None, &prefix()), Decision::Serve);
    assert_eq!(
        decide(&found(at(2, 7), "h7"), &[], Some(1), &prefix()),
        Decision::Serve,
        "that epoch is over"
    );
}

#[test]
fn whoever_knows_more_or_another_entry_begins_an_epoch() {
    let cases: [(&[Known], Option<u32>, u32); 5] = [
        (&[known(at(2, 8), "h8")], None, 3),
        (&[known(at(2, 7), "other")], None, 3),
        (&[known(at(4, 1), "x"), known(at(5, 1), "y")], None, 6),
        (&[known(at(2, 7), "h7")], Some(2), 3),
        (&[], Some(9), 10),
    ];
    for (known, contested, epoch) in cases {
        let decision = decide(&found(at(2, 7), "h7"), known, contested, &prefix());
        let Decision::NewEpoch { epochs, head, .. } = decision else { panic!("{known:?}: {decision:?}") };
        assert_eq!((epochs.epoch, head.position), (epoch, at(epoch, 7)));
        assert_eq!(epochs.forks, [Fork { epoch, seq: 7, hash: Hash("h7".into()) }]);
        assert_eq!(head.hash, Hash("h7".into()));
    }
}

#[test]
fn a_wiped_home_does_not_begin_at_the_first_epoch_again() {
    let first = decide(&Found::default(), &[], None, &prefix());
    assert!(
        matches!(&first, Decision::Begin { epochs, head } if epochs.epoch == 1 && epochs.forks.is_empty() && head.first == 1)
    );
    let wiped = decide(&Found::default(), &[known(at(3, 40), "h")], None, &prefix());
    let Decision::Begin { epochs, head } = wiped else { panic!("{wiped:?}") };
    assert_eq!((epochs.epoch, head.position), (4, at(4, 0)));
    assert_eq!(epochs.forks, [Fork { epoch: 4, seq: 0, hash: Hash::default() }]);
}

#[test]
fn records_that_do_not_fit_together_are_refused() {
    let good = || found(at(2, 7), "h7");
    let bad = [
        Found { epochs: None, ..good() },
        Found { head: None, ..good() },
        Found { sentinel: None, ..good() },
        Found { last: None, ..good() },
        Found { last: Some((at(2, 7), Hash("other".into()))), ..good() },
        Found { last: Some((at(2, 6), Hash("h7".into()))), ..good() },
        Found { last: Some((at(3, 7), Hash("h7".into()))), ..good() },
        Found { epochs: Some(Epochs { epoch: 3, forks: Vec::new() }), ..good() },
        Found { sentinel: Some(Sentinel { prefix: "config/".into(), home: "secondary".into() }), ..good() },
        Found { sentinel: Some(Sentinel { prefix: "other/".into(), home: "primary".into() }), ..good() },
        Found { head: Some(Head { position: at(2, 0), hash: Hash("h".into()), first: 1 }), ..good() },
    ];
    for found in bad {
        // Even where others know more: nothing is written over what is not understood.
        let decision = decide(&found, &[known(at(9, 9), "x")], None, &prefix());
        assert!(matches!(decision, Decision::Refuse(_)), "{found:?}: {decision:?}");
    }
    let last_epoch = decide(&good(), &[known(at(u32::MAX, 1), "x")], None, &prefix());
    assert!(matches!(last_epoch, Decision::Refuse(_)));
}

#[test]
fn an_entry_before_the_last_that_is_another_one_begins_an_epoch() {
    let head = || Found { entries: BTreeMap::from([(4, Hash("h4".into()))]), ..found(at(2, 7), "h7") };
    let decide = |known: Known| decide(&head(), &[known], None, &prefix());
    assert_eq!(decide(known(at(2, 4), "h4")), Decision::Serve);
    assert!(matches!(decide(known(at(2, 4), "other")), Decision::NewEpoch { .. }));
    assert_eq!(decide(known(at(1, 4), "other")), Decision::Serve, "that epoch is over");
    assert_eq!(decide(known(at(2, 3), "trimmed")), Decision::Serve, "nobody can tell any more");
}

#[test]
fn only_entries_of_the_present_epoch_that_are_kept_are_compared() {
    let mut found = found(at(2, 7), "h7");
    if let Some(head) = &mut found.head {
        head.first = 3;
    }
    let compared = |position| compared(&found, &known(position, "h"));
    assert_eq!(
        [at(2, 2), at(2, 3), at(2, 6), at(2, 7), at(1, 4), at(3, 4)].map(compared),
        [None, Some(3), Some(6), None, None, None]
    );
    assert_eq!(super::compared(&Found::default(), &known(at(1, 1), "h")), None);
}

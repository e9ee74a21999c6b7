use super::*;
use crate::{
    model::name::{Datacenter, NodeName},
    sync::replica::{indexes::Print, snapshot::Alone},
};

fn now() -> Instant {
    crate::lifecycle::now().into_std()
}

const AT: Position = Position { epoch: 1, seq: 9 };

fn state(position: Position, phase: Phase) -> State {
    let (home, node) = (Datacenter::from("primary"), NodeName::from("node"));
    State { home, prefix: "c/".into(), position, hash: Hash::of(b"nine"), phase, node, ts_ms: 1 }
}

fn at() -> (Position, Hash) {
    (AT, Hash::of(b"nine"))
}

#[test]
fn each_change_of_stage_is_told_once() {
    let (mut machine, now) = (Machine::default(), now());
    let mut told = Vec::new();
    let events = [
        Event::Taken,
        Event::Reached(Stage::Snapshot),
        Event::Copied,
        Event::Reached(Stage::Stream),
        Event::Reached(Stage::Stream),
        Event::Failed("cut".into()),
        Event::Failed("cut".into()),
        Event::Reached(Stage::Stream),
        Event::Held(Reason::Guard(Excess { deletes: 7, keys: 8 })),
        Event::Approved,
        Event::Lost,
    ];
    for event in events {
        told.extend(machine.step(event, now).map(|transition| transition.to));
    }
    use Stage::{Hold, Init, Retry, Snapshot, Standby, Stream};
    assert_eq!(told, [Init, Snapshot, Stream, Retry, Stream, Hold, Init, Standby]);
}

#[test]
fn the_reason_is_shown_until_the_work_goes_well() {
    let (mut machine, now) = (Machine::default(), now());
    machine.step(Event::Failed("cut".into()), now);
    assert_eq!(machine.why(), Some("cut"));
    machine.step(Event::Reached(Stage::Compare), now);
    assert_eq!(machine.why(), Some("cut"));
    machine.step(Event::Reached(Stage::Stream), now);
    assert_eq!(machine.why(), None);
    machine.step(Event::Held(Reason::Behind { home: AT, at: AT }), now);
    assert!(machine.why().unwrap().contains("causeway sync approve"));
}

#[test]
fn pauses_double_up_to_a_limit_and_begin_anew_after_a_healthy_stream() {
    let (mut machine, now) = (Machine::default(), now());
    let mut pauses = Vec::new();
    for _ in 0..10 {
        machine.step(Event::Failed("cut".into()), now);
        pauses.push(machine.pause(1.0));
    }
    let millis: Vec<u128> = pauses.iter().map(Duration::as_millis).collect();
    assert_eq!(millis, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    assert_eq!(machine.pause(0.0), Duration::ZERO);
    machine.step(Event::Reached(Stage::Stream), now);
    machine.step(Event::Failed("cut".into()), now + HEALTHY / 2);
    assert_eq!(machine.pause(1.0), BACKOFF_CAP, "a short stream proves nothing");
    machine.step(Event::Reached(Stage::Stream), now);
    machine.step(Event::Failed("cut".into()), now + HEALTHY);
    assert_eq!(machine.pause(1.0), BACKOFF_FIRST);
}

#[test]
fn how_to_begin_follows_from_the_record_and_the_memory() {
    let mut machine = Machine::default();
    let (stream, snapshot) = (state(AT, Phase::Stream), state(AT, Phase::Snapshot));
    let anew = |check| Opening::Anew { check };
    assert_eq!(machine.opening(None, false), anew(None));
    assert_eq!(machine.opening(Some(&stream), true), Opening::Continue(at().0, at().1));
    assert_eq!(machine.opening(Some(&stream), false), Opening::Compare(at().0, at().1));
    assert_eq!(machine.opening(Some(&snapshot), true), anew(Some(at())));
    let first = state(Position::default(), Phase::Snapshot);
    assert_eq!(machine.opening(Some(&first), false), anew(None), "there is no position to ask about");
    machine.step(Event::Anew("asked for"), now());
    assert_eq!(machine.opening(Some(&stream), true), anew(Some(at())));
    machine.step(Event::Copied, now());
    assert_eq!(machine.opening(Some(&stream), true), Opening::Continue(at().0, at().1));
    machine.step(Event::Approved, now());
    assert_eq!(machine.opening(Some(&stream), true), anew(None), "a person took that decision");
    assert!(machine.is_approved());
    machine.step(Event::Failed("cut".into()), now());
    assert!(machine.is_approved(), "an approval holds until it is carried out");
    machine.step(Event::Copied, now());
    assert!(!machine.is_approved());
}

#[test]
fn a_home_is_empty_only_by_entries_that_follow_ours() {
    let rest = |deletes: usize, home: u64| Rest {
        deletes: (0..deletes).map(|n| Alone { key: n.to_string(), local: (7, Print::of(b"1", 0)) }).collect(),
        local: deletes,
        home,
        ..Rest::default()
    };
    let objects = |at: (u32, u64), home: (u32, u64), rest: Rest| {
        let position = |(epoch, seq)| Position { epoch, seq };
        let reason = objection(position(at), position(home), &rest, Guard::default())?;
        assert!(reason.to_string().contains("causeway sync approve"));
        Some(reason)
    };
    assert_eq!(objects((1, 9), (1, 10), rest(3, 0)), None, "emptied through the journal");
    for (at, home) in [((1, 9), (1, 9)), ((1, 9), (2, 12)), ((0, 0), (1, 12))] {
        let reason = objects(at, home, rest(3, 0)).unwrap();
        assert!(matches!(reason, Reason::Emptied { keys: 3, .. }), "{reason}");
        assert!(reason.to_string().contains("all 3 keys would be deleted"), "{reason}");
        assert_eq!(objects(at, home, rest(0, 0)), None, "both are empty");
        assert_eq!(objects(at, home, rest(3, 1)), None);
    }
    assert!(
        matches!(objects((1, 9), (1, 10), rest(101, 0)), Some(Reason::Guard(_))),
        "many are never unasked"
    );
    assert!(matches!(objects((1, 9), (1, 8), rest(0, 0)), Some(Reason::Behind { .. })));
}

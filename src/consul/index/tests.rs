use proptest::prelude::*;

use super::*;

fn reply(index: u64, changed: bool) -> Event {
    Event::Reply { index: Some(index), hash: None, changed }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Runs a script at one event each 10 s with full jitter; gives `(pause in ms, cursor)` for each.
fn run(follow: Follow, script: &[Event]) -> Vec<(u64, Cursor)> {
    let mut poll = Poll::new(follow);
    let mut now = Duration::ZERO;
    let step = |event| {
        now += Duration::from_secs(10);
        let ask = poll.next(event, now, 1.0, WAIT);
        (ask.pause.as_millis() as u64, ask.cursor)
    };
    script.iter().map(step).collect()
}

#[test]
fn an_index_is_blocked_on_and_its_fall_is_a_relist() {
    let asks = run(Follow::Index, &[reply(7, true), reply(9, true), reply(3, true), reply(3, false)]);

    assert_eq!(asks, [(0, Cursor::Index(7)), (0, Cursor::Index(9)), (0, Cursor::Now), (0, Cursor::Index(3))]);
}

#[test]
fn an_index_that_fell_is_believed_of_a_leader_that_is_sure_and_of_no_other() {
    let mut poll = Poll::new(Follow::Index);
    let first = poll.first(WAIT);
    assert!(first.is_consistent, "what is known of it may be from disk");
    assert!(!poll.doubts(Some(1), &first));

    let ask = poll.next(&reply(7, true), ms(0), 1.0, WAIT);
    assert!(!ask.is_consistent && !poll.doubts(Some(7), &ask) && !poll.doubts(Some(9), &ask));
    for index in [Some(6), Some(1), Some(0), None] {
        assert!(poll.doubts(index, &ask), "{index:?}");
    }
    let relist = poll.next(&Event::Failed(Fault::Busy), ms(1), 1.0, WAIT);
    assert!(!relist.is_consistent && poll.doubts(Some(6), &relist), "a failure makes nobody forget");

    let again = poll.again(WAIT);
    assert!(again.is_consistent && again.cursor == Cursor::Now && again.pause.is_zero());
    assert!(!poll.doubts(Some(6), &again));
    let ask = poll.next(&reply(6, true), ms(2), 1.0, WAIT);
    assert!(!ask.is_consistent && !poll.doubts(Some(6), &ask), "the other history is the one from now on");
}

#[test]
fn what_has_no_index_is_not_doubted() {
    for follow in [Follow::Hash, Follow::Every(ms(5))] {
        let mut poll = Poll::new(follow);
        let first = poll.first(WAIT);
        assert!(!first.is_consistent);
        let absent = Event::Reply { index: None, hash: None, changed: true };
        let ask = poll.next(&absent, ms(0), 1.0, WAIT);
        assert!(!poll.doubts(None, &ask));
    }
}

#[test]
fn a_missing_or_zero_index_is_polled() {
    let absent = Event::Reply { index: None, hash: None, changed: false };
    let asks = run(Follow::Index, &[reply(0, true), absent.clone(), reply(4, true)]);
    assert_eq!(asks, [(1000, Cursor::Now), (1000, Cursor::Now), (0, Cursor::Index(4))]);
    assert_eq!(run(Follow::Hash, &[absent]), [(1000, Cursor::Now)]);
}

#[test]
fn what_stays_unregistered_is_asked_for_less_and_less() {
    let absent = Event::Reply { index: None, hash: None, changed: false };
    let there = Event::Reply { index: None, hash: Some("ab".into()), changed: true };
    let mut script = vec![absent.clone(); 16];
    script.extend([there, absent]);
    let pauses: Vec<_> = run(Follow::Hash, &script).into_iter().map(|(pause, _)| pause).collect();
    assert_eq!(pauses[..10], [1000; 10]);
    assert_eq!(pauses[10..], [2000, 4000, 8000, 10_000, 10_000, 10_000, 0, 1000]);
}

#[test]
fn a_hash_is_blocked_on() {
    let reply = Event::Reply { index: None, hash: Some("ab".into()), changed: true };
    assert_eq!(run(Follow::Hash, &[reply]), [(0, Cursor::Hash("ab".into()))]);
}

#[test]
fn what_cannot_block_is_polled_and_failures_are_retried_sooner() {
    let pace = Duration::from_secs(30);
    let asks = run(Follow::Every(pace), &[Event::Failed(Fault::Unreachable), reply(5, true)]);
    assert_eq!(asks, [(100, Cursor::Now), (30_000, Cursor::Now)]);
}

#[test]
fn backoff_doubles_to_its_cap_and_success_ends_it() {
    let mut script = vec![reply(5, true)];
    script.extend(vec![Event::Failed(Fault::Busy); 9]);
    script.extend([reply(5, false), Event::Failed(Fault::Busy)]);
    let pauses: Vec<_> = run(Follow::Index, &script).into_iter().map(|(pause, _)| pause).collect();
    assert_eq!(pauses, [0, 250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000, 0, 250]);
}

#[test]
fn each_fault_has_its_floor_and_cap() {
    for (fault, first, last) in [
        (Fault::Unreachable, 100, 5_000),
        (Fault::Cut(ms(1)), 100, 5_000),
        (Fault::Garbage, 100, 30_000),
        (Fault::Hung, 1_000, 30_000),
        (Fault::NotReady, 100, 1_000),
        (Fault::Limited, 1_000, 30_000),
        (Fault::Denied, 2_000, 30_000),
    ] {
        let pauses = run(Follow::Index, &vec![Event::Failed(fault); 30]);
        assert_eq!((pauses[0].0, pauses[29].0), (first, last), "{fault:?}");
    }
}

#[test]
fn a_consul_that_is_back_and_refuses_is_asked_again_soon() {
    let mut script = vec![Event::Failed(Fault::Unreachable); 8];
    script.extend(vec![Event::Failed(Fault::Denied); 3]);
    script.extend([Event::Failed(Fault::Unreachable), Event::Failed(Fault::Busy)]);
    let pauses: Vec<_> = run(Follow::Index, &script).into_iter().map(|(pause, _)| pause).collect();
    assert_eq!(pauses[8..], [2_000, 4_000, 8_000, 800, 250], "as long as nobody answered does not count");
}

#[test]
fn a_poll_cut_by_a_timeout_is_taken_up_again_once() {
    let cut = Event::Failed(Fault::Cut(Duration::from_secs(30)));
    let asks = run(Follow::Index, &[reply(5, true), cut.clone(), cut, reply(5, false)]);
    assert_eq!(asks[1], (1000, Cursor::Index(5)));
    assert_eq!(asks[2].1, Cursor::Now);
    assert_eq!(asks[3], (0, Cursor::Index(5)));
}

#[test]
fn an_absent_kind_is_asked_for_rarely() {
    assert_eq!(run(Follow::Index, &[Event::Absent]), [(600_000, Cursor::Now)]);
}

#[test]
fn the_deadline_leaves_consul_its_own_jitter() {
    let mut poll = Poll::new(Follow::Index);
    assert_eq!(poll.first(WAIT).deadline, MARGIN);
    let ask = poll.next(&reply(5, true), Duration::ZERO, 0.0, Duration::from_secs(32));
    assert_eq!(ask.deadline, Duration::from_secs(34) + MARGIN);
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (proptest::option::of(0_u64..9), any::<bool>()).prop_map(|(index, changed)| Event::Reply {
            index,
            hash: None,
            changed
        }),
        Just(Event::Absent),
        Just(Event::Failed(Fault::Unreachable)),
        Just(Event::Failed(Fault::Busy)),
        (0_u64..60_000).prop_map(|n| Event::Failed(Fault::Cut(ms(n)))),
    ]
}

proptest! {
    /// Whatever Consul answers at once and for ever, the number of requests in a minute is bounded.
    #[test]
    fn it_is_never_a_hot_loop(events in proptest::collection::vec(any_event(), 1..50), jitter in 0.0_f64..1.0) {
        let mut poll = Poll::new(Follow::Index);
        let (mut now, mut asked) = (Duration::ZERO, 0);
        for event in events.iter().cycle() {
            now += poll.next(event, now, jitter, WAIT).pause;
            asked += 1;
            if now > Duration::from_secs(60) {
                break;
            }
            prop_assert!(asked <= 3200, "{asked} requests in {now:?}");
        }
    }

    /// Identical answers settle at about one a second.
    #[test]
    fn identical_answers_are_slow(index in 1_u64..100) {
        let mut poll = Poll::new(Follow::Index);
        let mut now = Duration::ZERO;
        for _ in 0..62 {
            now += poll.next(&reply(index, false), now, 0.0, WAIT).pause;
        }
        prop_assert!(now >= Duration::from_secs(59));
    }

    /// An index is only ever blocked on if the last reply gave it, or the poll was cut by a timeout.
    #[test]
    fn no_index_outlives_its_reply(events in proptest::collection::vec(any_event(), 1..60)) {
        let mut poll = Poll::new(Follow::Index);
        let mut before = Cursor::Now;
        for event in &events {
            let ask = poll.next(event, Duration::ZERO, 0.5, WAIT);
            if let Cursor::Index(index) = ask.cursor {
                prop_assert!(index > 0);
                let given = matches!(event, Event::Reply { index: Some(i), .. } if *i == index);
                let kept = matches!(event, Event::Failed(Fault::Cut(_))) && before == Cursor::Index(index);
                prop_assert!(given || kept);
            }
            if let (Event::Reply { index: Some(new), .. }, Cursor::Index(old)) = (event, &before) {
                prop_assert!(*new >= *old || ask.cursor == Cursor::Now);
            }
            before = ask.cursor;
        }
    }
}

//! Scripts: events in, actions out.

use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(10);

fn doer(name: &str) -> Doer {
    Doer { node: name.into(), address: format!("{name}:1") }
}

fn s(text: &str) -> SessionId {
    SessionId::from(text)
}

fn start() -> Instant {
    crate::lifecycle::now().into_std()
}

fn machine(slots: usize, now: Instant) -> Machine {
    Machine::new(doer("me"), TTL, slots, fastrand::Rng::with_seed(1), now)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn seen(holder: Option<&str>, index: u64) -> Option<Seen> {
    Some(Seen { holder: holder.map(s), doer: holder.map(doer), index })
}

/// A machine of one duty that holds it with session `s1`, renewed at `now`.
fn holding(now: Instant) -> Machine {
    let mut machine = machine(1, now);
    machine.step(Event::Woke, now);
    machine.step(Event::Made { sent: now, session: Some(s("s1")) }, now);
    machine.step(Event::Looked { slot: 0, asked: now, seen: seen(None, 5) }, now);
    machine.step(Event::Acquired { slot: 0, session: s("s1"), grant: Grant::Granted }, now);
    assert_eq!(machine.holding(0).session, Some(s("s1")));
    machine
}

#[test]
fn a_free_duty_is_taken_as_soon_as_session_and_key_are_known() {
    let now = start();
    let mut machine = machine(1, now);
    let actions = machine.step(Event::Woke, now);
    assert_eq!(actions, [Action::MakeSession, Action::Look { slot: 0, after: None }]);
    assert_eq!(machine.wake_at(), None, "all that can be done is under way");
    let actions = machine.step(Event::Looked { slot: 0, asked: now, seen: seen(None, 5) }, now);
    assert_eq!(actions, [Action::Look { slot: 0, after: Some(5) }]);
    let actions = machine.step(Event::Made { sent: now, session: Some(s("s1")) }, now + ms(5));
    assert_eq!(actions, [Action::Acquire { slot: 0, session: s("s1") }]);
    let granted = Event::Acquired { slot: 0, session: s("s1"), grant: Grant::Granted };
    assert_eq!(machine.step(granted, now + ms(9)), []);
    assert_eq!(machine.holding(0), Holding { session: Some(s("s1")), doer: Some(doer("me")) });
}

#[test]
fn a_session_is_renewed_at_a_third_and_lost_at_nine_tenths_after_it_was_sent() {
    let now = start();
    let mut machine = holding(now);
    assert_eq!(machine.wake_at(), Some(now + TTL / 3));
    assert_eq!(machine.step(Event::Woke, now + TTL / 3), [Action::Renew(s("s1"))]);
    let sent = now + TTL / 3;
    let kept = Event::Renewed { session: s("s1"), sent, renewal: Renewal::Kept };
    assert_eq!(machine.step(kept, sent + ms(1500)), []);
    assert_eq!(machine.wake_at(), Some(sent + TTL / 3), "counted from when it was sent");
    machine.step(Event::Woke, sent + TTL / 3);
    let unknown = Event::Renewed { session: s("s1"), sent: sent + TTL / 3, renewal: Renewal::Unknown };
    machine.step(unknown, sent + TTL / 2);
    assert_eq!(machine.step(Event::Woke, sent + ms(8999)), [Action::Renew(s("s1"))]);
    assert!(machine.holding(0).session.is_some());
    assert_eq!(machine.step(Event::Woke, sent + ms(9000)), [Action::Destroy(s("s1")), Action::MakeSession]);
    assert_eq!(machine.holding(0), Holding::default());
}

#[test]
fn a_renewal_that_is_heard_of_too_late_renews_nothing() {
    let now = start();
    let mut machine = holding(now);
    machine.step(Event::Woke, now + TTL / 3);
    let late = Event::Renewed { session: s("s1"), sent: now + TTL / 3, renewal: Renewal::Kept };
    let actions = machine.step(late, now + TTL);
    assert!(actions.contains(&Action::Destroy(s("s1"))), "{actions:?}");
    assert_eq!(machine.holding(0).session, None);
}

#[test]
fn an_ended_session_loses_all_duties_at_once() {
    let now = start();
    let mut machine = holding(now);
    machine.step(Event::Woke, now + TTL / 3);
    let gone = Event::Renewed { session: s("s1"), sent: now + TTL / 3, renewal: Renewal::Gone };
    assert_eq!(machine.step(gone, now + TTL / 3), [Action::MakeSession]);
    assert_eq!(machine.holding(0), Holding::default());
    let made = Event::Made { sent: now + TTL / 3, session: Some(s("s2")) };
    assert_eq!(machine.step(made, now + TTL / 3), [Action::Acquire { slot: 0, session: s("s2") }]);
}

#[test]
fn a_held_duty_is_taken_when_it_comes_free_and_not_before() {
    let now = start();
    let mut machine = machine(1, now);
    machine.step(Event::Woke, now);
    machine.step(Event::Made { sent: now, session: Some(s("s1")) }, now);
    let held = Event::Looked { slot: 0, asked: now, seen: seen(Some("other"), 5) };
    assert_eq!(machine.step(held, now), [Action::Look { slot: 0, after: Some(5) }]);
    assert_eq!(machine.holding(0), Holding { session: None, doer: Some(doer("other")) });
    let free = Event::Looked { slot: 0, asked: now, seen: seen(None, 6) };
    let actions = machine.step(free, now + ms(100));
    assert_eq!(
        actions,
        [Action::Look { slot: 0, after: Some(6) }, Action::Acquire { slot: 0, session: s("s1") }]
    );
    let refused = Event::Acquired { slot: 0, session: s("s1"), grant: Grant::Refused };
    assert_eq!(machine.step(refused, now + ms(110)), [], "not at once");
    let again = machine.wake_at().unwrap();
    assert!(again > now + ms(110) && again <= now + ms(110) + RETRY.1, "a lock-delay wakes nobody");
    assert_eq!(machine.step(Event::Woke, again), [Action::Acquire { slot: 0, session: s("s1") }]);
}

#[test]
fn an_acquire_without_an_answer_is_found_by_looking() {
    let now = start();
    let mut machine = machine(1, now);
    machine.step(Event::Woke, now);
    machine.step(Event::Made { sent: now, session: Some(s("s1")) }, now);
    machine.step(Event::Looked { slot: 0, asked: now, seen: seen(None, 5) }, now);
    machine.step(Event::Acquired { slot: 0, session: s("s1"), grant: Grant::Unknown }, now + ms(9));
    assert_eq!(machine.holding(0).session, None);
    machine.step(Event::Looked { slot: 0, asked: now, seen: seen(Some("s1"), 6) }, now + ms(10));
    assert_eq!(machine.holding(0).session, Some(s("s1")));
}

#[test]
fn what_was_read_before_the_grant_does_not_undo_it_and_what_was_read_after_does() {
    let now = start();
    let mut machine = holding(now);
    let granted_at = now;
    let old = Event::Looked { slot: 0, asked: now - ms(1), seen: seen(None, 5) };
    assert_eq!(
        machine.step(old, now + ms(1)),
        [Action::Look { slot: 0, after: None }],
        "at once, to be sure"
    );
    assert_eq!(machine.holding(0).session, Some(s("s1")));
    let new = Event::Looked { slot: 0, asked: granted_at + ms(1), seen: seen(None, 9) };
    let actions = machine.step(new, now + ms(2));
    assert!(actions.contains(&Action::Acquire { slot: 0, session: s("s1") }), "{actions:?}");
    assert_eq!(machine.holding(0).session, None);
}

#[test]
fn an_index_that_goes_back_is_not_waited_on() {
    let now = start();
    let mut machine = holding(now);
    machine.step(Event::Looked { slot: 0, asked: now, seen: seen(Some("s1"), 90) }, now);
    let woken = machine.step(Event::Woke, now + LOOK_PAUSE);
    assert_eq!(woken, [Action::Look { slot: 0, after: Some(90) }]);
    let back = Event::Looked { slot: 0, asked: now + LOOK_PAUSE, seen: seen(Some("s1"), 7) };
    machine.step(back, now + ms(300));
    assert_eq!(machine.step(Event::Woke, now + ms(900)), [Action::Look { slot: 0, after: None }]);
}

#[test]
fn at_the_end_everything_is_given_back() {
    let now = start();
    let mut machine = holding(now);
    assert_eq!(machine.release(now), Some(Release { session: s("s1"), slots: vec![0] }));
    assert_eq!(machine.holding(0).session, None);
    assert_eq!(machine.release(now), None);
}

#[test]
fn without_duties_there_is_no_session() {
    let now = start();
    let mut machine = machine(0, now);
    assert_eq!(machine.step(Event::Woke, now), []);
    assert_eq!(machine.wake_at(), None);
}

/// What the world does next to one machine of two duties.
#[derive(Clone, Debug)]
enum Turn {
    Pass(u64),
    Make(bool),
    Renew(Renewal),
    Acquire(usize, Grant),
    Look(usize, Option<u8>),
}

fn turn() -> impl Strategy<Value = Turn> {
    let renewal = prop_oneof![Just(Renewal::Kept), Just(Renewal::Gone), Just(Renewal::Unknown)];
    let grant =
        prop_oneof![Just(Grant::Granted), Just(Grant::Refused), Just(Grant::NoSession), Just(Grant::Unknown)];
    prop_oneof![
        (0..12_000_u64).prop_map(Turn::Pass),
        any::<bool>().prop_map(Turn::Make),
        renewal.prop_map(Turn::Renew),
        (0..2_usize, grant).prop_map(|(slot, grant)| Turn::Acquire(slot, grant)),
        (0..2_usize, proptest::option::of(0..4_u8)).prop_map(|(slot, holder)| Turn::Look(slot, holder)),
    ]
}

proptest! {
    /// Whatever is answered, and however late: nothing is asked twice at a time, a duty is believed in only within nine
    /// tenths of the TTL after a renewal was sent, and the machine never wants to wake for nothing.
    #[test]
    fn a_duty_is_believed_in_only_within_its_lease(turns in proptest::collection::vec(turn(), 1..120)) {
        let mut now = start();
        let mut machine = machine(2, now);
        let mut open: Vec<(Action, Instant)> = Vec::new();
        let (mut made, mut lease_from) = (0, None);
        let mut event = Event::Woke;
        for turn in turns {
            for action in machine.step(event.clone(), now) {
                prop_assert!(!open.iter().any(|(other, _)| same_kind(other, &action)), "{action:?} twice");
                if !matches!(action, Action::Destroy(_)) {
                    open.push((action, now));
                }
            }
            for slot in 0..2 {
                if machine.holding(slot).session.is_some() {
                    let from: Instant = lease_from.expect("a session was made");
                    prop_assert!(now < from + TTL * 9 / 10, "held {:?} after it was sent", now - from);
                }
            }
            prop_assert!(machine.wake_at().is_none_or(|at| at > now), "wakes for nothing");
            event = answer(&turn, &mut open, &mut now, &mut made, &mut lease_from);
        }
    }
}

fn same_kind(one: &Action, other: &Action) -> bool {
    match (one, other) {
        (Action::Look { slot: a, .. }, Action::Look { slot: b, .. }) => a == b,
        (Action::Acquire { slot: a, session: s }, Action::Acquire { slot: b, session: t }) => {
            a == b && s == t
        }
        (Action::Renew(a), Action::Renew(b)) => a == b,
        (Action::MakeSession, Action::MakeSession) => true,
        _ => false,
    }
}

fn answer(
    turn: &Turn,
    open: &mut Vec<(Action, Instant)>,
    now: &mut Instant,
    made: &mut u32,
    lease_from: &mut Option<Instant>,
) -> Event {
    let wanted = |action: &Action| match (turn, action) {
        (Turn::Make(_), Action::MakeSession) | (Turn::Renew(_), Action::Renew(_)) => true,
        (Turn::Acquire(slot, _), Action::Acquire { slot: of, .. })
        | (Turn::Look(slot, _), Action::Look { slot: of, .. }) => slot == of,
        _ => false,
    };
    if let Turn::Pass(time) = turn {
        *now += ms(*time);
        return Event::Woke;
    }
    let Some(at) = open.iter().position(|(action, _)| wanted(action)) else { return Event::Woke };
    let (action, sent) = open.remove(at);
    match (turn, action) {
        (Turn::Make(is_made), _) => {
            *made += 1;
            if *is_made {
                *lease_from = Some(sent);
            }
            Event::Made { sent, session: is_made.then(|| s(&made.to_string())) }
        }
        (Turn::Renew(renewal), Action::Renew(session)) => {
            if *renewal == Renewal::Kept {
                *lease_from = Some(lease_from.map_or(sent, |from| from.max(sent)));
            }
            Event::Renewed { session, sent, renewal: *renewal }
        }
        (Turn::Acquire(slot, grant), Action::Acquire { session, .. }) => {
            Event::Acquired { slot: *slot, session, grant: *grant }
        }
        (Turn::Look(slot, holder), _) => {
            let holder = holder.map(|number| number.to_string());
            Event::Looked { slot: *slot, asked: sent, seen: seen(holder.as_deref(), 3) }
        }
        _ => Event::Woke,
    }
}

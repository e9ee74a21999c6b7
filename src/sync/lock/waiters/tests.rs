//! Scripts and properties of the line.

use proptest::prelude::*;

use super::*;

const LOCK: &str = "locks/a";

fn start() -> Instant {
    crate::lifecycle::now().into_std()
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_turn_goes_in_the_order_of_coming() {
    let now = start();
    let mut line = Waiters::default();
    let [a, b, c] = ["a", "b", "c"].map(|name| line.join(LOCK, name, now + s(60), now).unwrap());
    assert_eq!(line.standing(LOCK, a, now), Standing::First);
    assert_eq!(line.standing(LOCK, c, now), Standing::Behind(2));
    line.leave(LOCK, b, Leave::Done, now);
    line.leave(LOCK, a, Leave::Done, now);
    assert_eq!(line.standing(LOCK, c, now), Standing::First);
    assert_eq!(line.standing(LOCK, a, now), Standing::Gone);
    assert_eq!(line.count(LOCK, now), 1);
    line.leave(LOCK, c, Leave::Done, now);
    assert!(line.lines.is_empty(), "nothing is left of an empty line");
}

#[test]
fn a_place_is_kept_for_a_while_and_nobody_waits_for_who_is_away() {
    let now = start();
    let mut line = Waiters::default();
    let a = line.join(LOCK, "a", now + s(60), now).unwrap();
    let b = line.join(LOCK, "b", now + s(60), now).unwrap();
    line.leave(LOCK, a, Leave::Away, now);
    assert_eq!(line.standing(LOCK, b, now), Standing::First);
    let again = line.join(LOCK, "a", now + s(60), now + s(1)).unwrap();
    assert_eq!(line.standing(LOCK, again, now + s(1)), Standing::First);
    line.leave(LOCK, again, Leave::Away, now + s(2));
    let late = line.join(LOCK, "a", now + s(60), now + s(2) + PLACE_KEPT).unwrap();
    assert_eq!(line.standing(LOCK, late, now + s(2) + PLACE_KEPT), Standing::Behind(1));
}

#[test]
fn a_client_that_asks_twice_has_one_place() {
    let now = start();
    let mut line = Waiters::default();
    let first = line.join(LOCK, "a", now + s(60), now).unwrap();
    let second = line.join(LOCK, "a", now + s(60), now).unwrap();
    assert_eq!(line.standing(LOCK, first, now), Standing::Gone);
    assert_eq!(line.standing(LOCK, second, now), Standing::First);
    line.leave(LOCK, first, Leave::Done, now);
    assert_eq!(line.standing(LOCK, second, now), Standing::First, "the old stay takes nothing along");
}

#[test]
fn one_whose_time_is_over_holds_nobody_up() {
    let now = start();
    let mut line = Waiters::default();
    let a = line.join(LOCK, "a", now + s(1), now).unwrap();
    let b = line.join(LOCK, "b", now + s(60), now).unwrap();
    assert_eq!(line.standing(LOCK, a, now + s(2)), Standing::Gone);
    assert_eq!(line.standing(LOCK, b, now + s(2)), Standing::First);
}

#[test]
fn the_line_has_a_bound() {
    let now = start();
    let mut line = Waiters::default();
    for n in 0..MAX_WAITERS {
        line.join(LOCK, &n.to_string(), now + s(60), now).unwrap();
    }
    assert_eq!(line.join(LOCK, "one more", now + s(60), now), Err(Full));
    line.join(LOCK, "3", now + s(60), now).expect("it has a place already");
    line.join("locks/b", "one more", now + s(60), now).expect("another lock");
}

proptest! {
    /// Of those who stay, each gets its turn in the order of coming, whoever comes and goes meanwhile.
    #[test]
    fn turns_are_in_order(turns in proptest::collection::vec((0..12_u8, 0..4_u8), 1..200)) {
        let now = start();
        let mut line = Waiters::default();
        let mut there: Vec<(u8, Ticket)> = Vec::new();
        for (name, act) in turns {
            let place = there.iter().position(|(other, _)| *other == name);
            match (act, place) {
                (0 | 1, None) => {
                    let ticket = line.join(LOCK, &name.to_string(), now + s(60), now).unwrap();
                    there.push((name, ticket));
                }
                (0 | 1, Some(at)) => {
                    there[at].1 = line.join(LOCK, &name.to_string(), now + s(60), now).unwrap();
                }
                (_, Some(at)) => line.leave(LOCK, there.remove(at).1, Leave::Done, now),
                (_, None) => {}
            }
            for (before, (_, ticket)) in there.iter().enumerate() {
                let expected = if before == 0 { Standing::First } else { Standing::Behind(before) };
                prop_assert_eq!(line.standing(LOCK, *ticket, now), expected);
            }
        }
    }
}

//! Scripts of one holder, and many holders in a world that delays, loses and pauses.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(15);

fn start() -> Instant {
    crate::lifecycle::now().into_std()
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn holder(until: Option<Instant>, now: Instant) -> Holder {
    Holder::new(TTL, until, fastrand::Rng::with_seed(7), now)
}

fn asked(sent: Instant, answer: Answer) -> Event {
    Event::Asked { sent, answer }
}

fn renewed(sent: Instant, renewal: Renewal) -> Event {
    Event::Renewed { sent, renewal }
}

/// One that got the lock by a request sent at `now`.
fn holding(now: Instant) -> Holder {
    let mut holder = holder(None, now);
    assert_eq!(holder.step(&Event::Woke, now), [Action::Ask { wait: WAIT_SLICE }]);
    assert_eq!(holder.step(&asked(now, Answer::Granted), now + s(1)), [Action::Hold]);
    assert_eq!(holder.holds_until(), Some(now + TTL * 9 / 10));
    holder
}

#[test]
fn a_lock_is_renewed_at_a_third_counted_from_sending() {
    let now = start();
    let mut holder = holding(now);
    assert_eq!(holder.wake_at(), Some(now + s(5)));
    assert_eq!(holder.step(&Event::Woke, now + s(5)), [Action::Renew]);
    assert_eq!(holder.step(&renewed(now + s(5), Renewal::Kept), now + s(7)), []);
    assert_eq!(holder.holds_until(), Some(now + s(5) + TTL * 9 / 10));
    assert_eq!(holder.wake_at(), Some(now + s(10)));
}

#[test]
fn what_cannot_be_renewed_is_lost_before_the_home_ends_it() {
    let now = start();
    let mut holder = holding(now);
    holder.step(&Event::Woke, now + s(5));
    holder.step(&renewed(now + s(5), Renewal::NotNow), now + s(10));
    let again = holder.wake_at().unwrap();
    assert!(again > now + s(10) && again <= now + s(10) + TTL / 10);
    assert_eq!(holder.step(&Event::Woke, again), [Action::Renew]);
    assert_eq!(holder.wake_at(), Some(now + TTL * 9 / 10), "an answer may never come");
    let lost = Action::Lost { loss: Loss::Unrenewed, ours_until: now + TTL };
    assert_eq!(holder.step(&Event::Woke, now + TTL * 9 / 10), [lost]);
    assert_eq!(holder.step(&renewed(again, Renewal::Kept), now + s(14)), [], "too late");
    assert_eq!(holder.holds_until(), None);
}

#[test]
fn after_a_pause_the_lock_is_lost_before_anything_else() {
    let now = start();
    let mut holder = holding(now);
    holder.step(&Event::Woke, now + s(5));
    let woken = holder.step(&renewed(now + s(5), Renewal::Kept), now + s(60));
    assert_eq!(woken, [Action::Lost { loss: Loss::Late, ours_until: now + TTL }]);
}

#[test]
fn a_lock_that_the_home_gave_to_another_is_lost_at_once() {
    let now = start();
    let mut holder = holding(now);
    holder.step(&Event::Woke, now + s(5));
    let told = holder.step(&renewed(now + s(5), Renewal::Lost), now + s(6));
    assert_eq!(told, [Action::Lost { loss: Loss::Taken, ours_until: now }]);
    assert_eq!(holder.wake_at(), None);
}

#[test]
fn a_grant_after_a_long_wait_is_confirmed_first() {
    let now = start();
    let mut holder = holder(None, now);
    holder.step(&Event::Woke, now);
    assert_eq!(holder.step(&asked(now, Answer::Granted), now + s(30)), [Action::Renew]);
    assert_eq!(holder.holds_until(), None);
    let confirmed = holder.step(&renewed(now + s(30), Renewal::Kept), now + s(31));
    assert_eq!(confirmed, [Action::Hold]);
    assert_eq!(holder.holds_until(), Some(now + s(30) + TTL * 9 / 10));
}

#[test]
fn a_grant_that_may_be_one_of_a_request_without_answer_is_confirmed_first() {
    let now = start();
    let mut holder = holder(None, now);
    holder.step(&Event::Woke, now);
    assert_eq!(holder.step(&asked(now, Answer::NotNow), now + s(20)), []);
    let again = holder.wake_at().unwrap();
    assert!(matches!(holder.step(&Event::Woke, again)[..], [Action::Ask { .. }]));
    // Granted at the very first may be what the home tells: the session is 20 s old then.
    assert_eq!(holder.step(&asked(again, Answer::Granted), again), [Action::Renew]);
    assert_eq!(holder.holds_until(), None);
    assert_eq!(holder.step(&renewed(again, Renewal::Kept), again + s(1)), [Action::Hold]);
    assert_eq!(holder.holds_until(), Some(again + TTL * 9 / 10));
}

#[test]
fn a_grant_that_cannot_be_confirmed_is_given_back() {
    let now = start();
    let mut holder = holder(None, now);
    holder.step(&Event::Woke, now);
    holder.step(&asked(now, Answer::Granted), now + s(30));
    let actions = holder.step(&Event::Woke, now + s(30) + TTL);
    assert_eq!(actions, [Action::GiveBack, Action::Ask { wait: WAIT_SLICE }]);
}

#[test]
fn waiting_ends_at_its_time_and_not_before_the_first_answer() {
    let now = start();
    let mut at_once = holder(Some(now), now);
    assert_eq!(at_once.step(&Event::Woke, now), [Action::Ask { wait: Duration::ZERO }]);
    let told = at_once.step(&asked(now, Answer::Held), now + s(1));
    assert_eq!(told, [Action::GiveUp(Answer::Held)]);
    let mut patient = holder(Some(now + s(60)), now);
    assert_eq!(patient.step(&Event::Woke, now), [Action::Ask { wait: WAIT_SLICE }]);
    let again = patient.step(&asked(now, Answer::Held), now + s(50));
    assert_eq!(again, [Action::Ask { wait: s(10) }], "the home waited, so that we need not");
    assert_eq!(patient.step(&asked(now + s(50), Answer::NotNow), now + s(51)), []);
    assert!(patient.wake_at().unwrap() > now + s(51));
}

#[test]
fn an_answer_that_came_at_once_is_not_asked_for_again_at_once() {
    let now = start();
    let mut holder = holder(None, now);
    holder.step(&Event::Woke, now);
    assert_eq!(holder.step(&asked(now, Answer::Held), now + Duration::from_millis(2)), []);
    let rest = holder.wake_at().unwrap().duration_since(now);
    assert!(rest >= REST.0 / 2 && rest <= REST.0 * 2, "{rest:?}");
}

/// The home as Consul plays it: a session ends somewhere between once and twice its TTL after its last renewal.
#[derive(Default)]
struct Home {
    held: Option<(u64, Instant)>,
    last_token: u64,
    /// The greatest token of the guarded writes that took effect.
    written: u64,
}

impl Home {
    fn expire(&mut self, now: Instant) {
        if self.held.is_some_and(|(_, ends)| ends <= now) {
            self.held = None;
        }
    }

    fn acquire(&mut self, now: Instant, ends: Instant) -> Option<u64> {
        self.expire(now);
        if self.held.is_some() {
            return None;
        }
        self.last_token += 1;
        self.held = Some((self.last_token, ends));
        Some(self.last_token)
    }

    fn renew(&mut self, token: u64, now: Instant, ends: Instant) -> bool {
        self.expire(now);
        match &mut self.held {
            Some((held, until)) if *held == token => {
                *until = ends;
                true
            }
            _ => false,
        }
    }

    /// A guarded write: takes effect with the present token only.
    fn write(&mut self, token: u64, now: Instant) -> bool {
        self.expire(now);
        self.held.is_some_and(|(held, _)| held == token)
    }
}

struct Client {
    holder: Holder,
    token: Option<u64>,
    believes: bool,
    paused_until: Instant,
    /// Answers on their way: when they arrive, and what they are.
    mail: BTreeMap<(Instant, u64), (Event, Option<u64>)>,
}

/// What the network and the machine do to one request: delays there and back, in ms; whether a leg loses it; how long
/// the session lives beyond its TTL; how long the client is paused afterwards.
#[derive(Clone, Debug)]
struct Fate {
    there_ms: u64,
    back_ms: u64,
    is_lost: bool,
    extra: f64,
    pause_ms: u64,
}

fn fate() -> impl Strategy<Value = Fate> {
    let delay = || prop_oneof![8 => 0..80_u64, 2 => 80..4_000_u64, 1 => 4_000..40_000_u64];
    let pause = prop_oneof![12 => Just(0_u64), 1 => 0..40_000_u64];
    (delay(), delay(), proptest::bool::weighted(0.1), 0.0..1.0_f64, pause).prop_map(
        |(there_ms, back_ms, is_lost, extra, pause_ms)| Fate { there_ms, back_ms, is_lost, extra, pause_ms },
    )
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A request on its way to the home.
struct Sent {
    client: usize,
    action: Action,
    token: Option<u64>,
    sent: Instant,
    fate: Fate,
}

struct World {
    now: Instant,
    home: Home,
    clients: Vec<Client>,
    requests: BTreeMap<(Instant, u64), Sent>,
    fates: Vec<Fate>,
    count: u64,
    grants: u64,
}

impl World {
    fn new(clients: usize, fates: Vec<Fate>) -> Self {
        let now = start();
        let client = |n: usize| Client {
            holder: Holder::new(TTL, None, fastrand::Rng::with_seed(n as u64), now),
            token: None,
            believes: false,
            paused_until: now,
            mail: BTreeMap::new(),
        };
        let clients = (0..clients).map(client).collect();
        Self { now, home: Home::default(), clients, requests: BTreeMap::new(), fates, count: 0, grants: 0 }
    }

    fn next_at(&self) -> Option<Instant> {
        let wake = |client: &Client| {
            let mail = client.mail.keys().next().map(|(at, _)| *at);
            let at = mail.into_iter().chain(client.holder.wake_at()).min()?;
            Some(at.max(client.paused_until))
        };
        let request = self.requests.keys().next().map(|(at, _)| *at);
        self.clients.iter().filter_map(wake).chain(request).min()
    }

    fn run(&mut self) -> Result<(), TestCaseError> {
        while let (Some(at), false) = (self.next_at(), self.fates.is_empty()) {
            self.now = at.max(self.now);
            while let Some(entry) = self.requests.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let request = entry.remove();
                self.serve(&request);
            }
            for n in 0..self.clients.len() {
                self.wake(n);
                self.check()?;
            }
        }
        Ok(())
    }

    fn wake(&mut self, n: usize) {
        let client = &mut self.clients[n];
        if client.paused_until > self.now {
            return;
        }
        let mut events = vec![(Event::Woke, None)];
        while let Some(entry) = client.mail.first_entry().filter(|entry| entry.key().0 <= self.now) {
            events.push(entry.remove());
        }
        for (event, token) in events {
            if token.is_some() && matches!(event, Event::Asked { .. }) {
                self.clients[n].token = token;
            }
            for action in self.clients[n].holder.step(&event, self.now) {
                self.act(n, action);
            }
        }
        let client = &self.clients[n];
        // Whoever believes writes: first what it believed when it was paused, by the token that it had.
        if let (true, Some(token)) = (client.believes, client.token)
            && self.home.write(token, self.now)
        {
            assert!(token >= self.home.written, "token {token} wrote after {}", self.home.written);
            self.home.written = token;
        }
    }

    fn act(&mut self, n: usize, action: Action) {
        match action {
            Action::Ask { .. } | Action::Renew => {
                let Some(fate) = self.fates.pop() else { return };
                self.count += 1;
                let token = self.clients[n].token;
                self.clients[n].paused_until = self.now + ms(fate.pause_ms);
                let at = self.now + ms(fate.there_ms);
                let request = Sent { client: n, action, token, sent: self.now, fate };
                self.requests.insert((at, self.count), request);
            }
            Action::Hold => {
                self.grants += 1;
                self.clients[n].believes = true;
            }
            Action::Lost { .. } => {
                self.clients[n].believes = false;
                let rng = fastrand::Rng::with_seed(self.count);
                self.clients[n].holder = Holder::new(TTL, None, rng, self.now);
            }
            Action::GiveBack => {}
            Action::GiveUp(_) => unreachable!("they wait for ever"),
        }
    }

    fn serve(&mut self, request: &Sent) {
        let Sent { client, action, token, sent, fate } = request;
        let (token, sent) = (*token, *sent);
        let ends = self.now + TTL + TTL.mul_f64(fate.extra);
        let (event, token) = match action {
            Action::Ask { .. } => match self.home.acquire(self.now, ends) {
                Some(token) => (asked(sent, Answer::Granted), Some(token)),
                None => (asked(sent, Answer::Held), None),
            },
            _ => {
                let is_kept = token.is_some_and(|token| self.home.renew(token, self.now, ends));
                (renewed(sent, if is_kept { Renewal::Kept } else { Renewal::Lost }), None)
            }
        };
        let (event, token) = match (fate.is_lost, event) {
            (false, event) => (event, token),
            (true, Event::Asked { .. }) => (asked(sent, Answer::NotNow), None),
            (true, _) => (renewed(sent, Renewal::NotNow), None),
        };
        // Who does not get it waits in line for a while.
        let in_line = if matches!(event, Event::Asked { answer: Answer::Held, .. }) { s(4) } else { s(0) };
        self.count += 1;
        let at = self.now + in_line + ms(fate.back_ms);
        self.clients[*client].mail.insert((at, self.count), (event, token));
    }

    /// At no moment may two of them act on the belief that they hold it, even while they are paused: their leases, as
    /// they count them, do not overlap.
    fn check(&self) -> Result<(), TestCaseError> {
        let hold = |client: &&Client| client.holder.holds_until().is_some_and(|until| self.now < until);
        let holders: Vec<Option<u64>> = self.clients.iter().filter(hold).map(|client| client.token).collect();
        prop_assert!(holders.len() <= 1, "two holders at a time: tokens {holders:?}");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn there_are_never_two_holders(clients in 2..5_usize, fates in proptest::collection::vec(fate(), 20..250)) {
        World::new(clients, fates).run()?;
    }
}

#[test]
fn the_world_of_the_property_does_grant_locks() {
    let calm = Fate { there_ms: 5, back_ms: 5, is_lost: false, extra: 0.5, pause_ms: 0 };
    let mut fates = vec![calm.clone(); 400];
    for fate in fates.iter_mut().step_by(20) {
        fate.pause_ms = 40_000;
    }
    let mut world = World::new(3, fates);
    world.run().unwrap();
    assert!(world.grants > 3, "{} grants", world.grants);
}

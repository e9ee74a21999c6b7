//! The duties' sessions and locks: made, renewed, ended, taken and looked at. A duty may be lost for a bad answer, on both
//! sides at once; data never is, and the next answer that is right brings it back.
//!
//! What Consul says of a session (`/v1/session/info`) nobody asks here: the answer to a renewal says the same.

use causeway::{
    lifecycle::{Stop, Task},
    model::{name::NodeName, sync::PrefixId},
    sync::{
        duty::{Duties, Holding},
        layout::Duty,
        record::Doer,
    },
};
use tokio::sync::watch;

use super::{
    DUTY, OF_CALLS, OF_KEYS,
    asking::Clock,
    server::{Asked, Bad, Server, Spot},
    world::{PREFIX, Plan, World, layout, take},
};

const MAKE: Spot = |asked: &Asked<'_>| asked.path == "session/create";
const RENEW: Spot = |asked: &Asked<'_>| asked.path.starts_with("session/renew/");
const END: Spot = |asked: &Asked<'_>| asked.path.starts_with("session/destroy/");
const TAKE: Spot = |asked: &Asked<'_>| asked.is_txn_with(&["\"lock\"", "/duty/"]);

/// What leads there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Time: it is asked again and again.
    Wait,
    /// Consul ends the sessions. What comes of it is asked until it is known.
    Lose,
    /// No renewal comes through, so that the agents give their sessions up, end them, and make others.
    GiveUp,
}

impl World {
    fn sides(&self) -> [(&Server, Duty); 2] {
        [(&self.at_home, Duty::Home), (&self.at_replica, Duty::Applier)]
    }

    fn end_sessions(&self) {
        for (server, duty) in self.sides() {
            server.consul().with(|model| {
                let held = model.get(&layout().duty(duty)).1.and_then(|pair| pair.session);
                model.end_session(&held.expect("the duty is held"));
            });
        }
    }

    /// A row: so many bad answers of each Consul, and then everything goes on.
    async fn loses(&mut self, row: &str, spot: Spot, bad: Bad, way: Way) {
        // What Consul has done after all, or will not do, is not asked of it again.
        let times = if way == Way::Wait { 3 } else { 1 };
        for (server, _) in self.sides() {
            server.spoil(spot, bad, None);
            if way == Way::GiveUp {
                server.spoil_too(RENEW, Bad::Failed, None);
            }
        }
        if way == Way::Lose {
            self.end_sessions();
        }
        let is_met = |world: &Self| world.sides().iter().all(|(server, _)| server.met() >= times);
        self.until(is_met).await;
        self.assert_intact(row);
        self.sides().iter().for_each(|(server, _)| server.mend());
        self.until(|world| world.home_says().is_none()).await;
        self.is_level().await;
        self.write_large().await;
        self.is_level().await;
        self.assert_intact(row);
        self.assert_journal(row, "");
        println!("{row}: goes on at {:?}", self.status().position);
    }
}

/// Who has a duty: the one who seeks it, or whom the test names.
pub(super) fn duty(
    server: &Server,
    duty: Duty,
    plan: &Plan,
    stop: &Stop,
) -> (watch::Sender<Holding>, watch::Receiver<Holding>, Option<Task<()>>) {
    if !plan.has_duties {
        let (told, holding) = watch::channel(take(server, duty));
        return (told, holding, None);
    }
    let (me, id) = (Doer { node: NodeName::from("node"), address: "a:1".into() }, PrefixId::of(PREFIX));
    let rng = fastrand::Rng::with_seed(1);
    let (duties, seeking) = Duties::start(server.store(), me, vec![(id.clone(), duty)], rng, stop.clone());
    (watch::Sender::default(), duties.watch(&id, duty), Some(seeking))
}

async fn world() -> World {
    World::start(Plan { clock: Clock::Jumps, has_duties: true, ..Plan::default() }).await
}

#[tokio::test(start_paused = true)]
async fn no_bad_answer_about_the_session_of_a_duty_deletes_anything() {
    let mut world = world().await;
    for bad in OF_CALLS {
        world.loses(&format!("a session that is made: {bad:?}"), MAKE, *bad, Way::Lose).await;
        world.loses(&format!("a session that is ended: {bad:?}"), END, *bad, Way::GiveUp).await;
    }
    for bad in OF_CALLS.iter().chain(&[Bad::Gone]) {
        world.loses(&format!("a session that is renewed: {bad:?}"), RENEW, *bad, Way::Wait).await;
    }
    world.assert_nothing_was_edited();
}

#[tokio::test(start_paused = true)]
async fn no_bad_answer_about_the_lock_of_a_duty_deletes_anything() {
    let mut world = world().await;
    for bad in OF_CALLS {
        world.loses(&format!("the lock that is taken: {bad:?}"), TAKE, *bad, Way::Lose).await;
    }
    for bad in OF_KEYS {
        world.loses(&format!("the lock that is looked at: {bad:?}"), DUTY, *bad, Way::Wait).await;
    }
    world.assert_nothing_was_edited();
}

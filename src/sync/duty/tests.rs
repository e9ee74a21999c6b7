//! Duties over a Consul in memory, with a clock that jumps.

use super::*;
use crate::{lifecycle::StopSource, sync::duty::fake::FakeConsul};

struct Agent {
    duties: Duties<FakeConsul>,
    stop: StopSource,
    task: Task<()>,
}

fn doer(name: &str) -> Doer {
    Doer { node: name.into(), address: format!("{name}:8503") }
}

fn id() -> PrefixId {
    PrefixId::of("config/")
}

fn agent(consul: &FakeConsul, name: &str) -> Agent {
    let (stop, stopped) = Stop::pair();
    let wanted = vec![(id(), Duty::Home), (PrefixId::of("other/"), Duty::Applier)];
    let rng = fastrand::Rng::with_seed(name.len() as u64);
    let (duties, task) = Duties::start(consul.clone(), doer(name), wanted, rng, stopped);
    Agent { duties, stop, task }
}

impl Agent {
    fn home(&self) -> watch::Receiver<Holding> {
        self.duties.watch(&id(), Duty::Home)
    }

    async fn active(&self) -> SessionId {
        let mut home = self.home();
        let held = home.wait_for(|holding| holding.session.is_some()).await.unwrap();
        held.session.clone().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn one_agent_is_active_and_the_other_knows_whom_to_ask() {
    let consul = FakeConsul::new();
    let first = agent(&consul, "a");
    let session = first.active().await;
    assert_eq!(consul.holder(&Layout::new(&id()).duty(Duty::Home)), Some(session));
    let second = agent(&consul, "bb");
    let mut home = second.home();
    let told = home.wait_for(|holding| holding.doer.is_some()).await.unwrap().clone();
    assert_eq!(told, Holding { session: None, doer: Some(doer("a")) });
    tokio::time::sleep(SESSION_TTL * 10).await;
    assert!(first.home().borrow().session.is_some(), "renewed in time");
    assert!(second.home().borrow().session.is_none());
}

#[tokio::test(start_paused = true)]
async fn at_a_stop_the_other_takes_over_at_once() {
    let consul = FakeConsul::new();
    let mut first = agent(&consul, "a");
    first.active().await;
    let second = agent(&consul, "bb");
    second.home().wait_for(|holding| holding.doer.is_some()).await.unwrap();
    let began = lifecycle::now();
    first.stop.stop();
    first.task.join().await.unwrap();
    second.active().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(first.home().borrow().session, None);
    assert_eq!(consul.sessions().len(), 1, "the first one's session is ended");
}

#[tokio::test(start_paused = true)]
async fn a_dead_agents_duties_go_to_the_other_within_two_ttls() {
    let consul = FakeConsul::new();
    let first = agent(&consul, "a");
    first.active().await;
    let second = agent(&consul, "bb");
    second.home().wait_for(|holding| holding.doer.is_some()).await.unwrap();
    let began = lifecycle::now();
    drop(first.task);
    second.active().await;
    assert!(began.elapsed() <= SESSION_TTL * 2, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_consul_that_answers_no_more_costs_the_duties_before_it_can_end_the_session() {
    let consul = FakeConsul::new();
    let first = agent(&consul, "a");
    let before = first.active().await;
    let began = lifecycle::now();
    consul.freeze(true);
    first.home().wait_for(|holding| holding.session.is_none()).await.unwrap();
    assert!(began.elapsed() <= SESSION_TTL * 9 / 10, "{:?}", began.elapsed());
    consul.freeze(false);
    let after = first.active().await;
    assert_ne!(before, after);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_lost_while_consul_was_silent_is_ended_when_it_answers() {
    let consul = FakeConsul::new();
    let first = agent(&consul, "a");
    let before = first.active().await;
    consul.freeze(true);
    first.home().wait_for(|holding| holding.session.is_none()).await.unwrap();
    tokio::time::sleep(CALL * 2).await;
    assert!(consul.sessions().contains(&before), "its TTL is not over");
    consul.freeze(false);
    let began = lifecycle::now();
    consul.until(|consul| !consul.sessions().contains(&before)).await;
    assert!(began.elapsed() <= CALL + AGAIN, "{:?}", began.elapsed());
    first.active().await;
}

#[tokio::test(start_paused = true)]
async fn an_ended_session_and_a_lock_that_somebody_deleted_are_noticed() {
    let consul = FakeConsul::new();
    let first = agent(&consul, "a");
    let before = first.active().await;
    consul.end(&before);
    let mut home = first.home();
    let is_other = |holding: &Holding| holding.session.as_ref().is_some_and(|session| *session != before);
    home.wait_for(is_other).await.unwrap();
    let key = Layout::new(&id()).duty(Duty::Home);
    consul.run(&[Op::Delete { key: key.clone() }]);
    consul.until(|consul| consul.holder(&key).is_some()).await;
    first.active().await;
}

#[tokio::test(start_paused = true)]
async fn a_duty_that_was_not_wanted_is_nobodys() {
    let consul = FakeConsul::new();
    let first = agent(&consul, "a");
    let mut other = first.duties.watch(&id(), Duty::Applier);
    assert_eq!(*other.borrow(), Holding::default());
    assert!(other.changed().await.is_err());
}

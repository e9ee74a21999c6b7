//! What an agent knows of earlier runs: a Consul that was restored while nobody else can be asked, and requests that were carried
//! out elsewhere meanwhile.

use super::*;
use crate::{
    model::sync::Token,
    sync::{positions::tests::Slow, store::StoreError},
};

fn lock(session: &str) -> Op {
    Op::Lock { key: "config/l".into(), value: Bytes::new(), flags: 0, session: session.into() }
}

/// An agent with this disk, started anew, as the only one that can be asked.
async fn started(store: &Fake, session: &str, disk: &Slow) -> Agent {
    let settings = HomeSettings { positions: disk.positions(), ..settings() };
    let agent = Agent::start_with(store, session, settings, Nobody::default());
    agent.take_duty(store);
    agent.served().await;
    agent
}

async fn granted(agent: &Agent, session: &str) -> Token {
    agent.write(vec![lock(session)]).await.unwrap().tokens[0].1
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_only_the_disk_knows_of_repeats_no_token() {
    for is_kept in [true, false] {
        let store = Fake::new(&["s", "t", "l", "m"]);
        let disk = Slow::default();
        let agent = started(&store, "s", &disk).await;
        agent.write(vec![set("config/a", "1")]).await.unwrap();
        let snapshot = store.state().clone();
        let lost = granted(&agent, "l").await;
        drop(agent);
        store.restore(&snapshot);
        store.end_session("s");
        let disk = if is_kept { disk } else { Slow::default() };
        let again = granted(&started(&store, "t", &disk).await, "m").await;
        assert_eq!(again > lost, is_kept, "{lost} and then {again}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_without_a_restore_begins_no_epoch() {
    let store = Fake::new(&["s", "t", "l"]);
    let disk = Slow::default();
    let agent = started(&store, "s", &disk).await;
    granted(&agent, "l").await;
    // Committed, and not on the disk yet.
    agent.write(vec![set("config/a", "1")]).await.unwrap();
    drop(agent);
    store.end_session("s");
    assert_eq!(started(&store, "t", &disk).await.served().await.position, Position { epoch: 1, seq: 2 });
}

#[tokio::test(start_paused = true)]
async fn only_grants_wait_for_the_disk() {
    let store = Fake::new(&["s", "l"]);
    let disk = Slow::default();
    let agent = started(&store, "s", &disk).await;
    for n in 0..100 {
        agent.write(vec![set("config/a", &n.to_string())]).await.unwrap();
    }
    assert_eq!(disk.writes(), 0, "no write of data waits for one");
    granted(&agent, "l").await;
    assert_eq!(disk.writes(), 1);
    assert_eq!(disk.positions().known(PREFIX).map(|known| known.position.seq), Some(101));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_sees_that_another_went_on_from_a_restore() {
    let store = Fake::new(&["s", "t", "u"]);
    let disk = Slow::default();
    let first = started(&store, "s", &disk).await;
    let snapshot = store.state().clone();
    first.write(vec![set("config/a", "lost")]).await.unwrap();
    first.home.0.settings.positions.flush().await;
    drop(first);
    store.restore(&snapshot);
    store.end_session("s");
    let other = started(&store, "t", &Slow::default()).await;
    for n in 0..3 {
        other.write(vec![set("config/a", &n.to_string())]).await.unwrap();
    }
    drop(other);
    store.end_session("t");
    let back = started(&store, "u", &disk).await.served().await.position;
    assert_eq!(back, Position { epoch: 2, seq: 3 });
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_through_a_takeover_is_not_carried_out_again() {
    let store = Fake::new(&["s"]);
    let (one, two) =
        (Agent::serving(&store, "s").await, Agent::start_with(&store, "s", settings(), Nobody::default()));
    // Both believe to have the duty, as around a takeover.
    two.duty.send_replace(Holding { session: Some("s".into()), doer: None });
    two.served().await;
    let first = two.write_as("r", vec![set("config/a", "1")]).await.unwrap();
    one.duty.send_modify(|_| {});
    let again = one.write_as("r", vec![set("config/a", "1")]).await.unwrap();
    assert_eq!(again.at, first.at);
    assert_eq!(journal_of(&store).await.len(), 1, "it is carried out once");
}

#[tokio::test(start_paused = true)]
async fn the_journals_end_is_on_the_disk_before_an_unanswered_grant_is_told() {
    let store = Fake::new(&["s"]);
    let (disk, other_disk) = (Slow::default(), Slow::default());
    let agent = started(&store, "s", &disk).await;
    // Another agent goes on, as it does where this one was lost from sight for a while.
    let settings = HomeSettings { positions: other_disk.positions(), ..settings() };
    let other = Agent::start_with(&store, "s", settings, Nobody::default());
    other.duty.send_replace(Holding { session: Some("s".into()), doer: None });
    other.served().await;
    other.write(vec![set("config/a", "1")]).await.unwrap();
    other.write(vec![set("config/a", "2")]).await.unwrap();
    assert_eq!(agent.home.0.settings.positions.known(PREFIX).map(|known| known.position.seq), Some(0));
    assert_eq!(disk.writes(), 0, "nothing was granted");

    agent.home.kept().await.unwrap();
    let end = other.served().await;
    assert_eq!((disk.positions().known(PREFIX), disk.writes()), (Some(end), 1));
    agent.home.kept().await.unwrap();
    assert_eq!(disk.writes(), 1, "what is there already is not written again");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_read_lets_no_unanswered_grant_be_told() {
    let store = Fake::new(&["s"]);
    let disk = Slow::default();
    let agent = started(&store, "s", &disk).await;
    agent.write(vec![set("config/a", "1")]).await.unwrap();
    store.state().unreadable = Some(StoreError::Unknown("500".into()));
    let refusal = agent.home.kept().await.unwrap_err();
    assert!(matches!(&refusal, Refusal::NotServing(why) if why.contains("journal's end")), "{refusal:?}");
    assert_eq!(disk.writes(), 0);
    store.state().unreadable = None;
    agent.home.kept().await.unwrap();
    assert_eq!(disk.positions().known(PREFIX).map(|known| known.position.seq), Some(1));
}

#[tokio::test(start_paused = true)]
async fn without_a_journal_nothing_waits_for_the_disk() {
    let disk = Slow::default();
    let settings = HomeSettings { positions: disk.positions(), ..settings() };
    let agent = Agent::start_with(&Fake::new(&["s"]), "s", settings, Nobody::default());
    assert_eq!(agent.home.kept().await, Ok(()));
    assert_eq!(disk.writes(), 0);
}

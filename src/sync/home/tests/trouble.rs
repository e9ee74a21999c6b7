//! Outcomes that are not known, a duty that is lost, a Consul that was restored.

use super::{fake::Fault, *};
use crate::sync::store::StoreError;

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_looked_up() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        store.state().faults.push_back(fault);
        let value = format!("{fault:?}");
        let written = agent.write(vec![set("config/a", &value)]).await.unwrap();
        assert!(is_committed(&written), "{fault:?}");
        let pair = store.pair("config/a").unwrap();
        assert_eq!((pair.modify_index, pair.value), (written.index, Bytes::from(value)), "{fault:?}");
    }
    let entries = journal_of(&store).await;
    let told: Vec<usize> = entries.iter().map(|logged| logged.entry.requests.len()).collect();
    assert_eq!(told, [1, 0, 1], "before the lost one is sent again, an empty entry bars its way");
    assert_eq!(agent.home.status().unknown_total, 2);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_arrives_late_does_nothing() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    store.state().faults.push_back(Fault::Late(Duration::from_secs(3)));
    agent.write(vec![cas("config/a", "1", 0)]).await.unwrap();
    agent.write(vec![Op::Delete { key: "config/a".into() }]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(store.pair("config/a"), None);
    journal_of(&store).await;
    agent.write(vec![set("config/b", "1")]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_once_the_duty_is_lost() {
    let store = Fake::new(&["s", "t"]);
    let old = Agent::serving(&store, "s").await;
    old.write(vec![set("config/a", "1")]).await.unwrap();
    // The old one does not notice yet: only the session's check stands in its way.
    store.end_session("s");
    let new = Agent::serving(&store, "t").await;
    new.write(vec![set("config/a", "2")]).await.unwrap();
    let late = old.write(vec![set("config/a", "3")]);
    tokio::pin!(late);
    let early = tokio::time::timeout(Duration::from_secs(1), &mut late).await;
    if let Ok(outcome) = early {
        assert!(matches!(outcome, Err(Refusal::NotServing(_))), "{outcome:?}");
    }
    old.duty.send_replace(Holding::default());
    let again = old.write(vec![set("config/a", "4")]).await;
    assert!(matches!(again, Err(Refusal::NotServing(_))), "{again:?}");
    assert_eq!(store.value("config/a").as_deref(), Some("2"));
    assert!(old.home.tip().borrow().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_stays_unknown_when_the_duty_goes_with_it() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    store.state().faults.extend([Fault::RequestLost; 20]);
    let write = agent.write(vec![set("config/a", "1")]);
    let lose = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        agent.duty.send_replace(Holding::default());
    };
    let (outcome, ()) = tokio::join!(write, lose);
    assert!(matches!(outcome, Err(Refusal::OutcomeUnknown { .. })), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_had_no_turn_was_not_executed() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    store.state().faults.extend([Fault::RequestLost; 8]);
    let first = agent.write(vec![set("config/a", "1")]);
    let second = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let deadline = crate::lifecycle::now() + Duration::from_millis(30);
        let write = Write { deadline, ..agent.request("id", vec![set("config/b", "1")]) };
        agent.home.write(write).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(second, Err(Refusal::Deadline(_))), "{second:?}");
    assert!(is_committed(&first.unwrap()), "the first is carried out in the end");
    assert_eq!(store.pair("config/b"), None);
}

#[tokio::test(start_paused = true)]
async fn what_never_left_is_refused_at_once() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    store.state().faults.push_back(Fault::NotSent);
    let refusal = agent.write(vec![set("config/a", "1")]).await.unwrap_err();
    assert_eq!(refusal.status(), 503, "{refusal}");
    assert!(is_committed(&agent.write(vec![set("config/a", "1")]).await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_restored_consul_begins_a_new_epoch_before_anything_is_acknowledged() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    for n in 0..5 {
        agent.write(vec![set("config/a", &n.to_string())]).await.unwrap();
    }
    let snapshot = store.state().clone();
    let lost = agent.write_as("lost", vec![set("config/a", "lost")]).await.unwrap();
    assert_eq!(lost.at, Position { epoch: 1, seq: 6 });
    store.restore(&snapshot);
    let written = agent.write(vec![set("config/b", "1")]).await.unwrap();
    assert_eq!(written.at, Position { epoch: 2, seq: 6 });
    let epochs: journal::Recorded<Epochs> = journal::expected(&store, &layout().epoch()).await.unwrap();
    assert_eq!((epochs.record.epoch, epochs.record.forks.len()), (2, 1));
    assert_eq!(epochs.record.forks[0].seq, 5);
    let again = agent.write_as("lost", vec![set("config/a", "lost")]).await.unwrap();
    assert_eq!(again.at, Position { epoch: 2, seq: 7 }, "what the restore undid is executed anew");
    assert_eq!(store.value("config/a").as_deref(), Some("lost"));
    journal_of(&store).await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_consul_shows_even_while_nothing_is_written() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    let snapshot = store.state().clone();
    agent.write(vec![set("config/a", "lost")]).await.unwrap();
    store.restore(&snapshot);
    let mut tip = agent.home.tip();
    let is_new = |known: &Option<Known>| known.as_ref().is_some_and(|known| known.position.epoch == 2);
    tokio::time::timeout(Duration::from_secs(20), tip.wait_for(is_new)).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_others_know_counts_at_a_takeover() {
    let store = Fake::new(&["s", "t"]);
    let agent = Agent::serving(&store, "s").await;
    agent.write(vec![set("config/a", "1")]).await.unwrap();
    let known =
        Known { prefix: PREFIX.into(), position: Position { epoch: 4, seq: 9 }, hash: Hash::of(b"theirs") };
    store.end_session("s");
    let next = Agent::start_with(&store, "t", settings(), Nobody { known: vec![known] });
    next.take_duty(&store);
    assert_eq!(next.served().await.position, Position { epoch: 5, seq: 1 });
}

#[tokio::test(start_paused = true)]
async fn damaged_records_are_never_written_over() {
    let store = Fake::new(&["s", "t"]);
    let agent = Agent::serving(&store, "s").await;
    agent.write(vec![set("config/a", "1")]).await.unwrap();
    store.end_session("s");
    agent.duty.send_replace(Holding::default());
    let healthy = store.state().clone();
    let harm = [
        vec![Op::Delete { key: layout().head() }],
        vec![Op::Delete { key: layout().entry(1) }],
        vec![Op::Delete { key: layout().sentinel() }],
        vec![set(&layout().epoch(), r#"{"v":2}"#)],
        vec![set(&layout().entry(1), "garbage")],
    ];
    for harm in harm {
        *store.state() = healthy.clone();
        store.execute(&harm);
        let next = Agent::start_with(&store, "t", settings(), Nobody::default());
        next.take_duty(&store);
        let mut stage = next.home.0.stage.subscribe();
        let told = |stage: &Stage| matches!(stage, Stage::TakingOver(Some(_)));
        stage.wait_for(told).await.unwrap();
        let keys = store.state().keys.clone();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(store.state().keys, keys, "{harm:?}");
        assert_eq!(next.home.status().state, "taking_over", "{harm:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_confirmed_as_absent_only_where_none_was_there_at_the_position() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    let at = agent.write(vec![set("config/old", "1")]).await.unwrap().at;
    agent.write(vec![set("config/new", "1")]).await.unwrap();
    let many: Vec<String> = (0..150).map(|n| format!("config/gone/{n}")).collect();
    agent.home.absent(&many, at).await.unwrap();
    let said = async |key: &str, at: Position| match agent.home.absent(&[key.to_owned()], at).await {
        Err(PeerError::Refused(text)) => text,
        other => panic!("{key}: {other:?}"),
    };
    assert!(said("config/old", at).await.contains("config/old is gone: it is there"));
    // Its entry follows the list.
    agent.home.absent(&["config/new".to_owned()], at).await.unwrap();
    let trimmed = Position { seq: at.seq + 7, ..at };
    assert!(said("config/new", trimmed).await.contains("the entry where the list ended is gone"));
    // Consul refuses to tell where the token may not write.
    store.state().unreadable = Some(StoreError::Refused { status: 403, reason: "Permission denied".into() });
    assert!(said("config/new", at).await.contains("Permission denied"));
    store.state().faults.push_back(Fault::AnswerLost);
    assert!(said("config/gone", at).await.contains("cannot confirm"));
}

//! Writing: group commit, who gets what, repeated requests, large values, trimming.

use futures_util::future::join_all;

use super::*;
use crate::sync::record::{Change, Value};

#[tokio::test(start_paused = true)]
async fn many_clients_share_transactions_and_each_gets_its_own_answer() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    let before = store.state().transactions.len();
    let clients = (0..64).map(|client| {
        let agent = &agent;
        async move {
            for n in 0..20 {
                let key = format!("config/{client}");
                let ops = vec![set(&key, &n.to_string()), Op::Get { key: key.clone() }];
                let written = agent.write(ops).await.unwrap();
                let TxnReply::Committed(pairs) = &written.reply else { panic!("{written:?}") };
                assert_eq!(pairs.iter().map(|pair| pair.key.as_str()).collect::<Vec<_>>(), [&key, &key]);
                assert_eq!(pairs[1].value, n.to_string().as_bytes());
                assert_eq!(pairs[1].modify_index, written.index);
                assert_eq!(written.at.epoch, 1);
            }
        }
    });
    join_all(clients).await;
    let transactions = store.state().transactions.len() - before;
    // 30 requests of two verbs fit beside our three.
    assert!((1280 / 30..=1280 / 20).contains(&transactions), "{transactions} transactions for 1280 writes");
    let entries = journal_of(&store).await;
    assert_eq!(entries.iter().map(|logged| logged.entry.requests.len()).sum::<usize>(), 1280);
    assert_eq!(agent.home.status().requests_total, 1280);
}

#[tokio::test(start_paused = true)]
async fn one_rolled_back_request_leaves_those_beside_it_alone() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    let bad = vec![set("config/x", "never"), cas("config/missing", "v", 7)];
    let (first, a, bad, b) = tokio::join!(
        agent.write(vec![set("config/first", "1")]),
        agent.write(vec![set("config/a", "1")]),
        agent.write(bad),
        agent.write(vec![set("config/b", "1")]),
    );
    assert!(is_committed(&first.unwrap()) && is_committed(&a.unwrap()) && is_committed(&b.unwrap()));
    let bad = bad.unwrap();
    let TxnReply::RolledBack(errors) = bad.reply else { panic!("{bad:?}") };
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].op_index, 1, "verbs are counted from the request's own first");
    assert_eq!((bad.index, store.value("config/x")), (0, None));
    assert_eq!(store.value("config/b").as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn of_many_that_compare_and_set_one_key_one_wins() {
    let store = Fake::new(&["s"]);
    let agent = Agent::serving(&store, "s").await;
    let before = store.state().transactions.len();
    let all = join_all((0..50).map(|n| agent.write(vec![cas("config/k", &n.to_string(), 0)]))).await;
    let won: Vec<_> = all.iter().filter(|outcome| is_committed(outcome.as_ref().unwrap())).collect();
    assert_eq!(won.len(), 1);
    let transactions = store.state().transactions.len() - before;
    assert!(transactions <= 6, "those that lose are told so together: {transactions}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_again_is_executed_once() {
    let store = Fake::new(&["s", "t"]);
    let agent = Agent::serving(&store, "s").await;
    let add = || vec![cas("config/n", "1", 0)];
    let (a, b) = tokio::join!(agent.write_as("id-1", add()), agent.write_as("id-1", add()));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a, b, "also while the first still waits");
    assert_eq!(agent.write_as("id-1", add()).await.unwrap(), a);
    let lost = agent.write_as("id-2", add()).await.unwrap();
    assert!(!is_committed(&lost));
    store.execute(&[Op::Delete { key: "config/n".into() }]);
    assert_eq!(agent.write_as("id-2", add()).await.unwrap(), lost, "what its sender was told stays true");

    store.end_session("s");
    let next = Agent::serving(&store, "t").await;
    let again = next.write_as("id-1", add()).await.unwrap();
    assert_eq!((again.at, again.index), (a.at, a.index), "another agent knows it from the journal");
    assert!(is_committed(&again));
    assert_eq!(journal_of(&store).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_id_stands_for_one_request() {
    let store = Fake::new(&["s", "t"]);
    let agent = Agent::serving(&store, "s").await;
    let one = || vec![set("config/a", "1")];
    let other = || vec![set("config/b", "1")];
    let (a, b) = tokio::join!(agent.write_as("id", one()), agent.write_as("id", other()));
    let a = a.unwrap();
    assert!(is_committed(&a));
    assert_eq!(b.unwrap_err().status(), 400, "also while the first still waits");
    let refusal = agent.write_as("id", other()).await.unwrap_err();
    assert!(refusal.to_string().contains("use a new one"), "{refusal}");
    assert_eq!(agent.write_as("id", one()).await.unwrap(), a);

    store.end_session("s");
    let next = Agent::serving(&store, "t").await;
    assert_eq!(next.write_as("id", other()).await.unwrap_err().status(), 400, "the journal tells it too");
    assert_eq!(next.write_as("id", one()).await.unwrap().at, a.at);
    assert_eq!(store.pair("config/b"), None);
}

#[tokio::test(start_paused = true)]
async fn large_values_stand_beside_the_journal_and_go_with_it() {
    let store = Fake::new(&["s"]);
    let mut settings = settings();
    settings.keep.always = 10;
    settings.datacenters.truncate(1);
    let agent = Agent::start_with(&store, "s", settings, Nobody::default());
    agent.take_duty(&store);
    agent.served().await;
    let large = "x".repeat(200_000);
    let all =
        join_all((0..4).map(|n| agent.write(vec![set(&format!("config/{n}"), &format!("{large}{n}"))])))
            .await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    let entries = journal_of(&store).await;
    let ops: Vec<_> = entries.iter().flat_map(|logged| &logged.entry.ops).collect();
    assert!(ops.iter().all(|op| matches!(op, Change::Set { value: Value::Blob(_), .. })), "{ops:?}");
    let blobs = || store.state().keys.keys().filter(|key| key.starts_with(&layout().blobs())).count();
    assert_eq!(blobs(), 4);

    let too_large = agent.write(vec![set("config/l", &"x".repeat(256 * 1024 + 1))]).await.unwrap_err();
    assert_eq!(too_large.status(), 413, "{too_large}");
    for n in 0..600 {
        agent.write(vec![set("config/small", &n.to_string())]).await.unwrap();
    }
    let mut first = agent.home.0.tip.subscribe();
    first.wait_for(|tip| tip.as_ref().is_some_and(|tip| tip.first > 520)).await.unwrap();
    // All 256 parts are looked through, one each five seconds.
    tokio::time::sleep(Duration::from_secs(260 * 5)).await;
    assert_eq!(blobs(), 0);
    assert_eq!(store.value("config/3").map(|value| value.len()), Some(200_001), "the data itself stays");
    agent.write(vec![set("config/after", "1")]).await.unwrap();
    let entries = journal_of(&store).await;
    assert!((11..20).contains(&entries.len()), "{}", entries.len());
}

#[tokio::test(start_paused = true)]
async fn the_journal_stays_until_all_have_it_or_it_is_old() {
    let store = Fake::new(&["s"]);
    let mut settings = settings();
    settings.keep.always = 10;
    settings.keep.max_entries = 400;
    let agent = Agent::start_with(&store, "s", settings, Nobody::default());
    agent.take_duty(&store);
    agent.served().await;
    for n in 0..300 {
        agent.write(vec![set("config/a", &n.to_string())]).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(journal_of(&store).await.len(), 300, "the other datacenter was never heard");
    agent.home.0.acks.send_modify(|acks| {
        acks.insert("secondary".into(), Position { epoch: 1, seq: 57 });
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(agent.home.status().first, Some(50), "whole tens go");
    for n in 0..300 {
        agent.write(vec![set("config/b", &n.to_string())]).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(agent.home.status().first, Some(200), "no more than the bound, whoever needs them");
    journal_of(&store).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_executed_is_refused_before_it_waits() {
    let store = Fake::new(&["s"]);
    let agent = Agent::start_with(&store, "s", settings(), Nobody::default());
    let refusal = agent.write(vec![set("config/a", "1")]).await.unwrap_err();
    assert!(matches!(refusal, Refusal::NotServing(_)), "{refusal}");
    agent.take_duty(&store);
    let mut stage = agent.home.0.stage.subscribe();
    stage.wait_for(|stage| !matches!(stage, Stage::Standby(_))).await.unwrap();
    let status = |ops| async { agent.write(ops).await.unwrap_err().status() };
    assert_eq!(status(vec![set("_sync/v1/x", "1")]).await, 400);
    assert_eq!(status(vec![set("other/x", "1")]).await, 400);
    assert_eq!(status(vec![]).await, 400);
    assert_eq!(status((0..62).map(|n| set(&format!("config/{n}"), "")).collect()).await, 413);
    let fits: Vec<_> = (0..61).map(|n| set(&format!("config/{n}"), "")).collect();
    assert!(is_committed(&agent.write(fits).await.unwrap()));
    let large = (0..3).map(|n| set(&format!("config/{n}"), &"x".repeat(150_000))).collect();
    assert_eq!(status(large).await, 413);
}

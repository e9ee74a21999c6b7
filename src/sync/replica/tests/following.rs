//! A snapshot, the stream behind it, and what cuts them.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_snapshot_and_then_the_stream() {
    let home = FakeHome::new();
    fill(&home, 300);
    let at = home.write(&[lock("c/lock")]);
    let rig = Rig::over(FakeConsul::default(), home, "s1");
    assert!(rig.replica.is_held("c/00000"), "nothing is known, so that everything may be held");
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    rig.is_equal();
    assert!(rig.replica.is_held("c/lock") && rig.replica.has_held_below("c/l"));
    assert!(!rig.replica.is_held("c/00000"));
    assert_eq!(rig.indexes("c/00007"), rig.home_indexes("c/00007"));
    let at =
        rig.home.write(&[set("c/00007", "other"), Op::Delete { key: "c/00008".into() }, lock("c/00009")]);
    rig.applies(at).await;
    rig.is_equal();
    assert_eq!(rig.indexes("c/00007"), rig.home_indexes("c/00007"));
    assert_eq!(rig.replica.indexes("c/00008", 1), Indexes::Unknown);
    assert!(rig.replica.is_held("c/00009"));
    assert_eq!(rig.replica.known().map(|known| known.position), Some(at));
    let status = rig.until(|status| status.lag.entries == Some(0)).await;
    assert_eq!((status.lag.ms, status.counts.snapshots, status.keys, status.held), (Some(0), 1, 298, 2));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_for_a_position() {
    let rig = Rig::new();
    rig.reaches(Stage::Stream).await;
    let deadline = lifecycle::now() + Duration::from_secs(2);
    assert!(!rig.replica.applied(Position { epoch: 1, seq: 1 }, deadline).await);
    assert_eq!(lifecycle::now(), deadline);
}

#[tokio::test(start_paused = true)]
async fn a_cut_stream_goes_on_where_it_was() {
    let rig = Rig::new();
    let at = rig.home.set("c/a", "1");
    rig.applies(at).await;
    rig.home.trouble(|trouble| trouble.is_cut = true);
    let status = rig.reaches(Stage::Retry).await;
    assert!(status.reason.unwrap().contains("cut"));
    let at = rig.home.set("c/a", "2");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(rig.replica.lag().ms.is_some_and(|ms| ms >= 100_000), "{:?}", rig.replica.lag());
    rig.home.trouble(|trouble| trouble.is_cut = false);
    rig.applies(at).await;
    rig.is_equal();
    assert_eq!(rig.replica.status().counts.snapshots, 1);
    assert_eq!(rig.indexes("c/a"), rig.home_indexes("c/a"));
    let tries = rig.home.follows.lock().unwrap().len();
    assert!((5..40).contains(&tries), "{tries} tries in 100 s");
}

#[tokio::test(start_paused = true)]
async fn a_home_that_answers_again_is_followed_at_once_however_long_the_pause() {
    let rig = Rig::new();
    let at = rig.home.set("c/a", "1");
    rig.applies(at).await;
    rig.home.trouble(|trouble| trouble.is_cut = true);
    rig.reaches(Stage::Retry).await;
    let at = rig.home.set("c/a", "2");
    let tries = || rig.home.follows.lock().unwrap().len();
    // Pauses grow to half a minute at most, which three of these pass without a try sooner or later.
    let mut quiet = 0;
    while quiet < 3 {
        let before = tries();
        tokio::time::sleep(Duration::from_secs(5)).await;
        quiet = if tries() == before { quiet + 1 } else { 0 };
    }
    rig.home.trouble(|trouble| trouble.is_cut = false);
    rig.home_answers.send_replace(());
    let soon = lifecycle::now() + Duration::from_millis(100);
    assert!(rig.replica.applied(at, soon).await, "{:?}", rig.replica.status());
    rig.is_equal();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_was_cut_begins_again_and_writes_what_is_missing() {
    let home = FakeHome::new();
    let at = fill(&home, 400);
    home.trouble(|trouble| trouble.list_ends_after = Some(250));
    let rig = Rig::over(FakeConsul::default(), home, "s1");
    let status = rig.reaches(Stage::Retry).await;
    assert!(status.reason.unwrap().contains("250 of 400"));
    assert_eq!(rig.state().phase, Phase::Snapshot);
    assert!(rig.replica.is_held("c/00399"), "half a list answers for nobody");
    let index = rig.consul.pair("c/00000").unwrap().modify_index;
    rig.home.trouble(|trouble| trouble.list_ends_after = None);
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    rig.is_equal();
    assert_eq!(rig.consul.pair("c/00000").unwrap().modify_index, index, "what is equal is not written");
}

#[tokio::test(start_paused = true)]
async fn while_a_later_snapshot_goes_in_nobody_is_answered_from_here() {
    let rig = Rig::new();
    let at = fill(&rig.home, 50);
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    assert!(!rig.replica.is_held("c/00001"));
    rig.home.trouble(|trouble| trouble.list_ends_after = Some(20));
    rig.replica.resync().await.unwrap();
    rig.reaches(Stage::Retry).await;
    assert!(rig.replica.is_held("c/00001") && rig.replica.has_held_below("c/"));
    assert_eq!(rig.indexes("c/00001"), Indexes::Unknown);
    assert!(!rig.replica.applied(at, lifecycle::now()).await);
    assert_eq!(rig.replica.status().position, Some(at), "people see where it was");
    rig.home.trouble(|trouble| trouble.list_ends_after = None);
    rig.applies(at).await;
    assert!(!rig.replica.is_held("c/00001"));
    assert_eq!(rig.indexes("c/00001"), rig.home_indexes("c/00001"));
    rig.is_equal();
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_loses_no_index() {
    for answering in [Answering::LosesAnswer, Answering::LosesRequest] {
        let rig = Rig::new();
        let at = rig.home.set("c/a", "1");
        rig.applies(at).await;
        rig.reaches(Stage::Stream).await;
        *rig.consul.answering.lock().unwrap() = answering;
        let at = rig.home.set("c/a", "2");
        rig.applies(at).await;
        rig.is_equal();
        assert_eq!(rig.indexes("c/a"), rig.home_indexes("c/a"), "{answering:?}");
        let counts = rig.replica.status().counts;
        assert_eq!((counts.snapshots, counts.compares), (1, 0), "{answering:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_may_have_become_a_lock_is_asked_for_at_home() {
    let rig = Rig::new();
    let at = rig.home.set("c/a", "1");
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    *rig.consul.answering.lock().unwrap() = Answering::LosesAnswer;
    let at = rig.home.write(&[lock("c/a")]);
    while rig.consul.pair("c/a").is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(rig.replica.is_held("c/a") && rig.replica.has_held_below("c/"), "it is not here, and not gone");
    rig.applies(at).await;
    assert!(rig.replica.is_held("c/a"));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_a_lock_is_answered_from_here_once_the_home_has_told_of_it() {
    let rig = Rig::new();
    rig.home.write(&[lock("c/l")]);
    let session = SessionId::from("client");
    let unlock = Op::Unlock { key: "c/l".into(), value: Bytes::from_static(b"v"), flags: 0, session };
    let at = rig.home.write(&[unlock]);
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    let known = rig.home_indexes("c/l");
    assert!(matches!(known, Indexes::Known { lock: 1, .. }), "{known:?}");
    assert_eq!(rig.indexes("c/l"), known, "a snapshot tells");
    rig.home.write(&[lock("c/l")]);
    let session = SessionId::from("client");
    let unlock = Op::Unlock { key: "c/l".into(), value: Bytes::from_static(b"v"), flags: 0, session };
    let at = rig.home.write(&[unlock]);
    rig.applies(at).await;
    assert_eq!(rig.indexes("c/l"), Indexes::Unknown, "an entry does not");
    rig.replica.resync().await.unwrap();
    rig.until(|status| status.counts.snapshots == 2 && status.stage == Stage::Stream).await;
    assert!(matches!(rig.indexes("c/l"), Indexes::Known { lock: 2, .. }));
    assert_eq!(rig.indexes("c/l"), rig.home_indexes("c/l"));
}

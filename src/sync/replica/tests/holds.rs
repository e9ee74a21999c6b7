//! What puts a replica on hold, and what a bad answer must not do.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_home_with_another_history_holds_the_replica_until_a_person_approves() {
    let rig = Rig::new();
    let at = fill(&rig.home, 200);
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    assert!(matches!(rig.replica.approve().await, Err(Refusal::Bad(_))));
    let before = rig.consul.data(PREFIX);
    // The home was restored to almost nothing, and says so.
    rig.home.trouble(|trouble| (trouble.is_cut, trouble.is_forked) = (true, true));
    rig.reaches(Stage::Retry).await;
    rig.home.history.send_modify(|history| {
        *history = History { epoch: 2, ..Default::default() };
        assert!(history.write(&[set("c/restored", "1")]));
    });
    rig.home.trouble(|trouble| trouble.is_cut = false);
    let status = rig.reaches(Stage::Hold).await;
    assert!(status.reason.unwrap().contains("causeway sync approve"));
    assert_eq!(rig.indexes("c/00001"), Indexes::Unknown, "its indexes count anew");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(rig.consul.data(PREFIX), before, "nothing changes meanwhile");
    assert_eq!(rig.replica.known().map(|known| known.position), Some(at));
    // Trying again changes nothing.
    rig.replica.resync().await.unwrap();
    rig.until(|status| status.stage == Stage::Hold && status.counts.stages["hold"] == 2).await;
    assert_eq!(rig.consul.data(PREFIX), before);
    rig.replica.approve().await.unwrap();
    rig.until(|status| status.position == Some(Position { epoch: 2, seq: 1 })).await;
    rig.reaches(Stage::Stream).await;
    rig.is_equal();
}

#[tokio::test(start_paused = true)]
async fn more_deletes_than_the_guard_allows_wait_for_a_person() {
    let rig = Rig::new();
    let at = fill(&rig.home, 150);
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    rig.home.trouble(|trouble| trouble.is_cut = true);
    rig.reaches(Stage::Retry).await;
    let at = rig
        .home
        .write(&[Op::DeleteTree { prefix: "c/000".into() }, Op::DeleteTree { prefix: "c/0010".into() }]);
    // The entry was trimmed, so that only the list tells.
    rig.home.history.send_modify(|history| history.first = at.seq + 1);
    let before = rig.consul.data(PREFIX);
    rig.home.trouble(|trouble| trouble.is_cut = false);
    let status = rig.reaches(Stage::Hold).await;
    assert!(status.reason.unwrap().contains("110 of 150 keys"));
    assert_eq!(rig.consul.data(PREFIX), before);
    rig.replica.approve().await.unwrap();
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    rig.is_equal();
    assert_eq!(rig.consul.data(PREFIX).len(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_broken_chain_puts_the_replica_on_hold() {
    let rig = Rig::new();
    let at = rig.home.set("c/a", "1");
    rig.applies(at).await;
    rig.home.trouble(|trouble| trouble.breaks_chain = true);
    rig.home.set("c/a", "2");
    let status = rig.reaches(Stage::Hold).await;
    assert!(status.reason.unwrap().contains("does not continue entry 1.1"));
    assert_eq!(rig.consul.data(PREFIX)["c/a"].0, "1");
    assert_eq!(rig.state().position, at);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_used_puts_the_replica_on_hold() {
    let rig = Rig::new();
    let at = rig.home.set("c/a", "1");
    rig.applies(at).await;
    for (value, word) in [("{", "damaged"), (r#"{"v":9}"#, "version 9")] {
        rig.consul.run(&[set(&layout().state(), value)]);
        rig.home.set("c/a", value);
        let status = rig.reaches(Stage::Hold).await;
        assert!(status.reason.unwrap().contains(word));
        assert_eq!(rig.consul.pair(&layout().state()).unwrap().value, value);
        rig.replica.approve().await.unwrap();
        rig.reaches(Stage::Stream).await;
        rig.is_equal();
    }
}

/// Whatever list fails or says too little: nothing is deleted.
#[tokio::test(start_paused = true)]
async fn no_read_that_fails_deletes_anything() {
    type Harm = Box<dyn Fn(&Rig)>;
    let unusable =
        |error: StoreError| move |rig: &Rig| *rig.consul.unusable.lock().unwrap() = Some(error.clone());
    let harms: Vec<(&str, Harm)> = vec![
        ("a filtered local list", Box::new(unusable(StoreError::Unusable("filtered by ACLs".into())))),
        (
            "a refused local list",
            Box::new(unusable(StoreError::Refused { status: 403, reason: "no".into() })),
        ),
        ("a 404", Box::new(unusable(StoreError::Refused { status: 404, reason: "no".into() }))),
        ("a 500", Box::new(unusable(StoreError::Unknown("500".into())))),
        ("no Consul", Box::new(unusable(StoreError::NotSent("refused".into())))),
        (
            "a home list that ends early",
            Box::new(|rig| rig.home.trouble(|trouble| trouble.list_ends_after = Some(3))),
        ),
        ("an empty home list", Box::new(|rig| rig.home.trouble(|trouble| trouble.list_ends_after = Some(0)))),
        (
            "a home list without some keys that claims to be whole",
            Box::new(|rig| rig.home.trouble(|trouble| trouble.list_lies_after = Some(45))),
        ),
        (
            "an empty home list that claims to be whole",
            Box::new(|rig| rig.home.trouble(|trouble| trouble.list_lies_after = Some(0))),
        ),
        ("a home that is cut off", Box::new(|rig| rig.home.trouble(|trouble| trouble.is_cut = true))),
    ];
    for (what, harm) in harms {
        let rig = Rig::new();
        let at = fill(&rig.home, 50);
        rig.applies(at).await;
        rig.reaches(Stage::Stream).await;
        let before = rig.consul.data(PREFIX);
        harm(&rig);
        rig.replica.resync().await.unwrap();
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_ne!(rig.replica.status().stage, Stage::Stream, "{what}");
        assert_eq!(rig.consul.data(PREFIX), before, "{what}");
        assert_ne!(before, nothing());
    }
}

/// A home of so many keys whose journal deletes all of them and is trimmed while its replica is cut off.
async fn emptied(keys: usize) -> (Rig, Position) {
    let rig = Rig::new();
    let at = fill(&rig.home, keys);
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    rig.home.trouble(|trouble| trouble.is_cut = true);
    rig.reaches(Stage::Retry).await;
    let at = rig.home.write(&[Op::DeleteTree { prefix: PREFIX.into() }]);
    rig.home.history.send_modify(|history| history.first = at.seq + 1);
    rig.home.trouble(|trouble| trouble.is_cut = false);
    (rig, at)
}

#[tokio::test(start_paused = true)]
async fn a_home_that_was_emptied_through_its_journal_is_followed() {
    let (rig, at) = emptied(50).await;
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    rig.is_equal();
    let status = rig.replica.status();
    assert_eq!((status.keys, status.counts.snapshots, status.counts.stages.get("hold")), (0, 2, None));
    let at = rig.home.set("c/again", "1");
    rig.applies(at).await;
    rig.is_equal();
}

#[tokio::test(start_paused = true)]
async fn a_large_home_that_was_emptied_waits_for_a_person_all_the_same() {
    let (rig, at) = emptied(150).await;
    let status = rig.reaches(Stage::Hold).await;
    assert!(status.reason.unwrap().contains("150 of 150 keys would be deleted"));
    rig.replica.approve().await.unwrap();
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    rig.is_equal();
}

#[tokio::test(start_paused = true)]
async fn a_home_that_is_empty_where_it_was_not_holds_until_it_is_mended() {
    let rig = Rig::new();
    let at = fill(&rig.home, 50);
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    let before = rig.consul.data(PREFIX);
    rig.home.trouble(|trouble| trouble.list_lies_after = Some(0));
    rig.replica.resync().await.unwrap();
    let status = rig.reaches(Stage::Hold).await;
    let reason = status.reason.unwrap();
    assert!(reason.contains("says at 1.50 that it is empty") && reason.contains("all 50 keys"), "{reason}");
    assert_eq!(rig.consul.data(PREFIX), before);
    rig.home.trouble(|trouble| trouble.list_lies_after = None);
    rig.replica.resync().await.unwrap();
    rig.reaches(Stage::Stream).await;
    rig.is_equal();
    assert_eq!(rig.consul.data(PREFIX), before);
}

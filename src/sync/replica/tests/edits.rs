//! What others do to the keys of a replica.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_edited_here_is_restored_and_counted() {
    let rig = Rig::new();
    let at = fill(&rig.home, 20);
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    rig.consul.run(&[set("c/00001", "edited"), set("c/foreign", "1"), Op::Delete { key: "c/00002".into() }]);
    // Edited and edited back: no edit any more.
    rig.consul.run(&[set("c/00003", "edited")]);
    rig.consul.run(&[set("c/00003", "value")]);
    rig.until(|status| status.counts.snapshots == 2 && status.stage == Stage::Stream).await;
    rig.is_equal();
    assert_eq!(rig.replica.status().counts.local_edits, 3);
    for key in ["c/00001", "c/00002", "c/00003"] {
        assert_eq!(rig.indexes(key), rig.home_indexes(key), "{key}");
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(rig.replica.status().counts.local_edits, 3, "each is counted once");
}

#[tokio::test(start_paused = true)]
async fn what_was_edited_while_nobody_looked_is_found_at_the_takeover() {
    let first = Rig::new();
    let at = fill(&first.home, 20);
    first.applies(at).await;
    first.reaches(Stage::Stream).await;
    let (consul, home) = (first.consul.clone(), first.home.clone());
    drop(first);
    consul.run(&[set("c/00001", "edited"), Op::Delete { key: "c/00002".into() }]);
    let second = Rig::over(consul, home, "s2");
    second.until(|status| status.counts.snapshots == 1 && status.stage == Stage::Stream).await;
    second.is_equal();
    assert_eq!(second.replica.status().counts.local_edits, 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_copy_takes_back_is_counted_like_what_an_audit_finds() {
    let rig = Rig::new();
    let at = fill(&rig.home, 40);
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    let edits = [
        set("c/00001", "edited"),
        Op::Delete { key: "c/00002".into() },
        set("c/00030", "edited"),
        set("c/foreign", "1"),
    ];
    rig.consul.run(&edits);
    // The first copy is cut behind the first two, and what the second writes again is no edit.
    rig.home.trouble(|trouble| trouble.list_ends_after = Some(20));
    rig.replica.resync().await.unwrap();
    rig.reaches(Stage::Retry).await;
    assert_eq!(rig.replica.status().counts.local_edits, 2);
    let at = rig.home.write(&[set("c/00003", "home's own"), Op::Delete { key: "c/00004".into() }]);
    rig.home.trouble(|trouble| trouble.list_ends_after = None);
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    rig.is_equal();
    assert_eq!(rig.replica.status().counts.local_edits, 4);
    rig.replica.resync().await.unwrap();
    rig.until(|status| status.counts.snapshots == 3 && status.stage == Stage::Stream).await;
    assert_eq!(rig.replica.status().counts.local_edits, 4, "each is counted once");
}

#[tokio::test(start_paused = true)]
async fn more_edits_than_an_audit_looks_at_are_all_counted() {
    let rig = Rig::new();
    let at = fill(&rig.home, 300);
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    for n in 100..250 {
        rig.consul.run(&[set(&format!("c/{n:05}"), "edited")]);
    }
    rig.until(|status| status.counts.snapshots == 2 && status.stage == Stage::Stream).await;
    rig.is_equal();
    assert_eq!(rig.replica.status().counts.local_edits, 150);
}

#[tokio::test(start_paused = true)]
async fn a_state_record_that_went_back_is_noticed_without_an_entry() {
    let rig = Rig::new();
    let at = rig.home.set("c/a", "1");
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    let state = layout().state();
    let old = rig.consul.pair(&state).unwrap();
    // An equal write moves the journal, and nothing of the data: only the state tells that it was restored.
    let at = rig.home.set("c/a", "1");
    rig.applies(at).await;
    rig.consul.kv.lock().unwrap().pairs.insert(state.clone(), old);
    let status = rig.reaches(Stage::Retry).await;
    let reason = status.reason.unwrap();
    assert!(reason.contains(&state) && reason.contains("restored"), "{reason}");
    rig.reaches(Stage::Stream).await;
    rig.is_equal();
    // And when it is gone.
    rig.consul.run(&[Op::Delete { key: state }]);
    let status = rig.reaches(Stage::Retry).await;
    assert!(status.reason.unwrap().contains("is gone"));
    rig.reaches(Stage::Stream).await;
    rig.is_equal();
    assert_eq!(rig.replica.status().counts.local_edits, 0);
}

#[tokio::test(start_paused = true)]
async fn marks_that_are_not_those_of_locks_are_mended() {
    let rig = Rig::new();
    fill(&rig.home, 5);
    let at = rig.home.write(&[lock("c/l1"), lock("c/l2"), lock("c/l3")]);
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    let layout = layout();
    rig.consul.run(&[Op::Delete { key: layout.held("c/l2") }, set(&layout.held("c/00001"), "")]);
    rig.until(|status| status.counts.snapshots == 2 && status.stage == Stage::Stream).await;
    rig.is_equal();
    assert_eq!(rig.replica.status().counts.local_edits, 2);
    assert!(rig.consul.pair(&layout.held("c/l2")).is_some());
    assert_eq!(rig.consul.pair(&layout.held("c/00001")), None);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(rig.replica.status().counts.snapshots, 2);
}

#[tokio::test(start_paused = true)]
async fn an_audit_that_cannot_read_interrupts_nothing() {
    let rig = Rig::new();
    let at = rig.home.set("c/a", "1");
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    *rig.consul.unusable.lock().unwrap() = Some(StoreError::Unusable("filtered by ACLs".into()));
    tokio::time::sleep(Duration::from_secs(100)).await;
    let at = rig.home.set("c/a", "2");
    rig.applies(at).await;
    let stages = rig.replica.status().counts.stages;
    assert_eq!((stages.get("retry"), stages.get("stream")), (None, Some(&1)), "{stages:?}");
}

//! The duty goes from agent to agent.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_agent_that_lost_the_duty_writes_nothing() {
    let rig = Rig::new();
    let at = rig.home.set("c/a", "1");
    rig.applies(at).await;
    // Another took it, and this one has not heard.
    take(&rig.consul, "other");
    rig.home.set("c/a", "2");
    rig.reaches(Stage::Retry).await;
    assert_eq!(rig.consul.data(PREFIX)["c/a"].0, "1");
    rig.duty.send_replace(Holding::default());
    rig.reaches(Stage::Standby).await;
    assert_eq!(rig.indexes("c/a"), Indexes::Unknown);
    assert!(rig.replica.is_held("c/a"));
    assert!(matches!(rig.replica.resync().await, Err(Refusal::NotServing(_))));
}

#[tokio::test(start_paused = true)]
async fn another_agent_goes_on_from_the_state_record_without_a_copy() {
    let first = Rig::new();
    let at = first.home.set("c/a", "1");
    first.applies(at).await;
    let at = first.home.write(&[lock("c/l"), set("c/b", "1")]);
    first.applies(at).await;
    first.reaches(Stage::Stream).await;
    let (consul, home) = (first.consul.clone(), first.home.clone());
    drop(first);
    // Meanwhile the home goes on.
    let at = home.write(&[set("c/a", "2"), set("c/new", "1")]);
    let second = Rig::over(consul, home, "s2");
    second.applies(at).await;
    let status = second.until(|status| status.differences == 0 && status.stage == Stage::Stream).await;
    assert_eq!((status.counts.snapshots, status.counts.compares, status.counts.local_edits), (0, 1, 0));
    second.is_equal();
    for key in ["c/a", "c/b", "c/new"] {
        assert_eq!(second.indexes(key), second.home_indexes(key), "{key}");
    }
    assert!(second.replica.is_held("c/l"));
}

#[tokio::test(start_paused = true)]
async fn the_duty_may_come_back() {
    let rig = Rig::new();
    let at = rig.home.set("c/a", "1");
    rig.applies(at).await;
    rig.reaches(Stage::Stream).await;
    let holding = rig.duty.send_replace(Holding::default());
    rig.reaches(Stage::Standby).await;
    rig.duty.send_replace(holding);
    let at = rig.home.set("c/a", "2");
    rig.applies(at).await;
    rig.is_equal();
    assert_eq!(rig.replica.status().counts.compares, 0, "nobody applied meanwhile: what is remembered holds");
    assert_eq!(rig.indexes("c/a"), rig.home_indexes("c/a"));
}

//! The task, over a Consul and a home in memory. Time is paused: it passes when all wait.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    double::{Answering, FakeConsul, FakeHome, set},
    *,
};
use crate::{
    lifecycle::StopSource,
    model::{
        kv::{Op, TxnReply},
        name::Datacenter,
        session::SessionId,
        sync::{Mode, PrefixId},
    },
    sync::{
        layout::{Duty, Layout},
        record::{self, Phase, State},
        store::StoreError,
    },
};

const PREFIX: &str = "c/";

struct Rig {
    consul: FakeConsul,
    home: FakeHome,
    replica: Replica<FakeConsul, FakeHome>,
    duty: watch::Sender<Holding>,
    _stop: StopSource,
    _task: Task<()>,
}

fn layout() -> Layout {
    Layout::new(&PrefixId::of(PREFIX))
}

/// Gives the duty to a session.
fn take(consul: &FakeConsul, session: &str) -> Holding {
    let key = layout().duty(Duty::Applier);
    let session = SessionId::from(session);
    consul.run(&[Op::Delete { key: key.clone() }]);
    let lock = Op::Lock { key, value: Bytes::new(), flags: 0, session: session.clone() };
    assert!(matches!(consul.run(&[lock]), TxnReply::Committed(_)));
    Holding { session: Some(session), doer: None }
}

impl Rig {
    fn new() -> Self {
        Self::over(FakeConsul::default(), FakeHome::new(), "s1")
    }

    fn over(consul: FakeConsul, home: FakeHome, session: &str) -> Self {
        let prefix = Prefix { text: PREFIX.into(), home: Datacenter::from("primary"), mode: Mode::Journaled };
        let settings = ReplicaSettings::new(prefix, NodeName::from("node"));
        let (duty, holding) = watch::channel(take(&consul, session));
        let (stop_source, stop) = Stop::pair();
        let rng = fastrand::Rng::with_seed(1);
        let (replica, task) = Replica::start(settings, consul.clone(), home.clone(), holding, rng, stop);
        Self { consul, home, replica, duty, _stop: stop_source, _task: task }
    }

    async fn applies(&self, at: Position) {
        let deadline = lifecycle::now() + Duration::from_secs(120);
        assert!(self.replica.applied(at, deadline).await, "{at} is not applied: {:?}", self.replica.status());
    }

    async fn until(&self, what: impl Fn(&ReplicaStatus) -> bool) -> ReplicaStatus {
        let deadline = lifecycle::now() + Duration::from_secs(300);
        loop {
            let status = self.replica.status();
            if what(&status) {
                return status;
            }
            assert!(lifecycle::now() < deadline, "{status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn reaches(&self, stage: Stage) -> ReplicaStatus {
        self.until(|status| status.stage == stage).await
    }

    /// What the home holds is here, and the record says so.
    fn is_equal(&self) {
        let history = self.home.history.borrow();
        let mut expected = history.kv.data(PREFIX);
        expected.retain(|key, _| !history.held.contains(key));
        assert_eq!(self.consul.data(PREFIX), expected);
        let state = self.state();
        assert_eq!(
            (state.position, state.hash, state.phase),
            (history.tip().0, history.tip().1, Phase::Stream)
        );
    }

    fn state(&self) -> State {
        let pair = self.consul.pair(&layout().state()).expect("a state record");
        record::decode(&pair.key, &pair.value).unwrap()
    }

    fn indexes(&self, key: &str) -> Indexes {
        self.replica.indexes(key, self.consul.pair(key).expect("the key").modify_index)
    }

    fn home_indexes(&self, key: &str) -> Indexes {
        let pair = self.home.history.borrow().kv.pairs[key].clone();
        Indexes::Known { create: pair.create_index, modify: pair.modify_index, lock: pair.lock_index }
    }
}

fn lock(key: &str) -> Op {
    Op::Lock { key: key.into(), value: Bytes::new(), flags: 0, session: SessionId::from("client") }
}

fn fill(home: &FakeHome, keys: usize) -> Position {
    let mut at = Position::default();
    for n in 0..keys {
        at = home.set(&format!("c/{n:05}"), "value");
    }
    at
}

/// What other agents of the datacenter see of a key that is not there.
fn nothing() -> BTreeMap<String, (Bytes, u64)> {
    BTreeMap::new()
}

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
        *history = super::double::History { epoch: 2, ..Default::default() };
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

//! The task, over a Consul and a home in memory. Time is paused: it passes when all wait.

mod duty;
mod edits;
mod following;
mod holds;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    double::{Answering, FakeConsul, FakeHome, History, set},
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
    home_answers: watch::Sender<()>,
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
        let home_answers = watch::Sender::new(());
        let mut settings = ReplicaSettings::new(prefix, NodeName::from("node"));
        settings.home_answers = home_answers.subscribe();
        let (duty, holding) = watch::channel(take(&consul, session));
        let (stop_source, stop) = Stop::pair();
        let rng = fastrand::Rng::with_seed(1);
        let (replica, task) = Replica::start(settings, consul.clone(), home.clone(), holding, rng, stop);
        Self { consul, home, replica, duty, home_answers, _stop: stop_source, _task: task }
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

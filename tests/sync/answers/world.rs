//! A home and a replica of it, each over a Consul of its own with all keys.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use causeway::{
    lifecycle::{self, Stop, StopSource, Task, spawn},
    model::{
        kv::{Op, Pair, TxnReply},
        name::{Datacenter, NodeName},
        session::{Behavior, SessionSpec},
        sync::{Mode, Position, Prefix, PrefixId, PrefixTable},
    },
    sync::{
        duty::Holding,
        home::{Home, HomeSettings, Others, Write},
        layout::{Duty, Layout},
        peer::{
            FOLLOW_QUEUE, FollowItem, FollowStart, Forward, Forwarded, Hello, HelloReply, Known, PeerError,
            Peers, Target,
        },
        replica::{Replica, ReplicaSettings, ReplicaStatus, machine::Stage},
        store::consul::ConsulStore,
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::server::Server;
use crate::sync::consul_model::{Model, Shared, Snapshot, Waits, under};

pub(super) const PREFIX: &str = "config/";

/// As many as a release of consul-replicate once deleted after a bad answer.
pub(super) const KEYS: usize = 127_739;

/// A lock at home, which a replica marks.
const LOCK: &str = "config/lock";
const LOCK_FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;

/// For whatever takes long when the machine has other work.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

fn key(n: usize) -> String {
    format!("{PREFIX}{n:06}")
}

fn layout() -> Layout {
    Layout::new(&PrefixId::of(PREFIX))
}

fn set(key: String, value: String, flags: u64) -> Op {
    Op::Set { key, value: Bytes::from(value), flags }
}

/// What Consul holds at home and at the replica before anything runs. Raft counts differently in each.
fn filled() -> &'static [Snapshot; 2] {
    static FILLED: OnceLock<[Snapshot; 2]> = OnceLock::new();
    FILLED.get_or_init(|| {
        [7, 4_000].map(|before| {
            let mut model = Model::new();
            let mut write = |ops: &[Op]| assert!(matches!(model.txn(ops), Ok(TxnReply::Committed(_))));
            (0..before).for_each(|n| write(&[set("other".to_owned(), n.to_string(), 0)]));
            let keys: Vec<Op> = (0..KEYS).map(|n| set(key(n), format!("value of {n}"), 0)).collect();
            keys.chunks(64).for_each(write);
            model.save()
        })
    })
}

/// Nobody else.
#[derive(Clone)]
struct Alone;

impl Others for Alone {
    async fn known(&self, _: &str) -> Vec<Known> {
        Vec::new()
    }

    fn max_txn_ops(&self) -> usize {
        64
    }
}

/// The replica's way to the home.
#[derive(Clone)]
struct Way {
    home: Home<ConsulStore>,
    is_cut: watch::Receiver<bool>,
    streams: Arc<Mutex<Vec<Task<()>>>>,
}

impl Peers for Way {
    async fn hello(&self, _: &Target, _: Hello) -> Result<HelloReply, PeerError> {
        Err(PeerError::Refused("nobody greets here".into()))
    }

    async fn forward(&self, _: &Target, _: Forward, _: Duration) -> Result<Forwarded, PeerError> {
        Err(PeerError::Refused("nothing is forwarded here".into()))
    }

    async fn follow(
        &self,
        _: &Target,
        start: FollowStart,
        acks: watch::Receiver<Position>,
    ) -> Result<mpsc::Receiver<Result<FollowItem, PeerError>>, PeerError> {
        if *self.is_cut.borrow() {
            return Err(PeerError::Unreached("the way is cut".into()));
        }
        let (items, coming) = mpsc::channel(FOLLOW_QUEUE);
        let (home, mut is_cut, from) =
            (self.home.clone(), self.is_cut.clone(), Datacenter::from("secondary"));
        let stream = spawn("test.stream", async move {
            tokio::select! {
                biased;
                _ = is_cut.wait_for(|is_cut| *is_cut) => {}
                () = home.follow(&from, start, acks, items) => {}
            }
        });
        self.streams.lock().unwrap().push(stream);
        Ok(coming)
    }
}

/// Both of them. Dropping it ends them.
pub(super) struct World {
    pub(super) at_home: Server,
    pub(super) at_replica: Server,
    home: Home<ConsulStore>,
    home_duty: watch::Sender<Holding>,
    replica: Replica<ConsulStore, Way>,
    replica_duty: watch::Sender<Holding>,
    way: Way,
    is_cut: watch::Sender<bool>,
    audit: Duration,
    writes: u64,
    _tasks: Vec<Task<()>>,
    replica_task: Task<()>,
    stop: (StopSource, Stop),
}

fn prefix() -> Prefix {
    Prefix { text: PREFIX.to_owned(), home: Datacenter::from("primary"), mode: Mode::Journaled }
}

/// A Consul with these keys.
async fn server(snapshot: &Snapshot) -> Server {
    let mut model = Model::new();
    model.restore(snapshot.clone(), false, Waits::End);
    Server::start(Shared::new(model)).await
}

/// Gives a duty to a new session.
fn take(server: &Server, duty: Duty) -> Holding {
    let key = layout().duty(duty);
    let session = server.consul().with(|model| {
        let (name, behavior) = ("test".to_owned(), Behavior::Release);
        let spec = SessionSpec { name, ttl: Duration::ZERO, lock_delay: Duration::ZERO, behavior };
        let session = model.create_session(&spec).unwrap();
        let lock = Op::Lock { key: key.clone(), value: Bytes::new(), flags: 0, session: session.clone() };
        assert!(matches!(model.txn(&[Op::Delete { key }, lock]), Ok(TxnReply::Committed(_))));
        session
    });
    Holding { session: Some(session), doer: None }
}

impl World {
    /// Starts them, writes a little, and waits until the replica has it.
    pub(super) async fn start(audit: Duration) -> Self {
        let [home_keys, replica_keys] = filled();
        let (at_home, at_replica) = (server(home_keys).await, server(replica_keys).await);
        let mut prefixes = PrefixTable::default();
        prefixes.add(prefix()).unwrap();
        let names = ["primary", "secondary"].map(Datacenter::from).to_vec();
        let (source, stop) = Stop::pair();
        let (home_duty, holding) = watch::channel(take(&at_home, Duty::Home));
        let settings = HomeSettings::new(names, prefix(), prefixes);
        let rng = fastrand::Rng::with_seed(1);
        let (home, home_task) = Home::start(settings, at_home.store(), Alone, holding, rng, stop.clone());
        let (is_cut, see_cut) = watch::channel(false);
        let way = Way { home: home.clone(), is_cut: see_cut, streams: Arc::default() };
        let (replica, replica_duty, replica_task) = replica(&at_replica, &way, audit, &stop);
        let mut world = Self {
            at_home,
            at_replica,
            home,
            home_duty,
            replica,
            replica_duty,
            way,
            is_cut,
            audit,
            writes: 0,
            _tasks: vec![home_task],
            replica_task,
            stop: (source, stop),
        };
        world.until(|world| world.home_says().is_none()).await;
        for op in [set(LOCK.to_owned(), String::new(), LOCK_FLAGS), set(key(0), "value of 0".into(), 0)] {
            world.write_op(op).await;
        }
        world.is_level().await;
        world
    }

    /// Has the home write something.
    pub(super) async fn write(&mut self) {
        let value = format!("{}", self.writes);
        self.write_op(set(format!("{PREFIX}written"), value, 0)).await;
    }

    async fn write_op(&mut self, op: Op) {
        self.writes += 1;
        let write = Write {
            request_id: format!("request {}", self.writes),
            origin: Datacenter::from("primary"),
            ops: vec![op],
            guard: None,
            deadline: lifecycle::now() + PATIENCE,
        };
        self.home.write(write).await.unwrap();
    }

    pub(super) fn status(&self) -> ReplicaStatus {
        self.replica.status()
    }

    /// Why the home does not serve.
    pub(super) fn home_says(&self) -> Option<String> {
        let status = self.home.status();
        (status.state != "serving").then(|| status.reason.unwrap_or_default())
    }

    pub(super) fn cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }

    pub(super) async fn resync(&self) {
        self.replica.resync().await.unwrap();
    }

    /// Another agent takes the home over.
    pub(super) fn move_home(&self) {
        self.home_duty.send_replace(take(&self.at_home, Duty::Home));
    }

    /// Another agent, which knows nothing, takes the replica over.
    pub(super) fn move_replica(&mut self) {
        let (replica, duty, task) = replica(&self.at_replica, &self.way, self.audit, &self.stop.1);
        (self.replica, self.replica_duty, self.replica_task) = (replica, duty, task);
    }

    /// The applier loses its duty and has it again: what failed before makes it wait no longer.
    pub(super) async fn refresh(&self) {
        let holding = self.replica_duty.send_replace(Holding::default());
        self.until(|world| world.status().stage == Stage::Standby).await;
        self.replica_duty.send_replace(holding);
        self.is_level().await;
    }

    /// Waits until the home serves and the replica has all of it.
    pub(super) async fn is_level(&self) {
        self.until(|world| {
            let (status, tip) = (world.status(), world.home.status().position);
            tip.is_some()
                && status.stage == Stage::Stream
                && status.position == tip
                && status.lag.is_connected
                && status.lag.entries == Some(0)
        })
        .await;
    }

    pub(super) async fn until(&self, what: impl Fn(&Self) -> bool) {
        let reached = async {
            while !what(self) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = timeout(PATIENCE, reached).await;
        assert!(in_time.is_ok(), "home: {:?}\nreplica: {:?}", self.home.status(), self.status());
    }

    /// Every key is there and was never away: it was created once.
    pub(super) fn assert_intact(&self, row: &str) {
        static EXPECTED: OnceLock<Vec<Pair>> = OnceLock::new();
        let expected = EXPECTED.get_or_init(|| {
            let mut model = Model::new();
            model.restore(filled()[1].clone(), false, Waits::End);
            under(model.pairs(), PREFIX).map(|(_, pair)| pair.clone()).collect()
        });
        assert_eq!(expected.len(), KEYS);
        self.at_replica.consul().look(|model| {
            let mut found = under(model.pairs(), PREFIX).map(|(_, pair)| pair);
            for expected in expected {
                let is_there = found.next().is_some_and(|pair| {
                    pair.create_index == expected.create_index
                        && pair.key == expected.key
                        && pair.value == expected.value
                });
                assert!(is_there, "{row}: {} is missing, or was", expected.key);
            }
        });
    }
}

fn replica(
    server: &Server,
    way: &Way,
    audit: Duration,
    stop: &Stop,
) -> (Replica<ConsulStore, Way>, watch::Sender<Holding>, Task<()>) {
    let settings = ReplicaSettings { audit, ..ReplicaSettings::new(prefix(), NodeName::from("node")) };
    let (duty, holding) = watch::channel(take(server, Duty::Applier));
    let rng = fastrand::Rng::with_seed(1);
    let (replica, task) = Replica::start(settings, server.store(), way.clone(), holding, rng, stop.clone());
    (replica, duty, task)
}

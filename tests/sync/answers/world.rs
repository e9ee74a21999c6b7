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
        home::{Home, HomeSettings, Others, Write, Written, trim::Keep},
        layout::{Duty, Layout},
        peer::{
            Absent, FOLLOW_QUEUE, FollowItem, FollowStart, Forward, Forwarded, Hello, HelloReply, Known,
            PeerError, Peers, Target,
        },
        refusal::Refusal,
        replica::{Replica, ReplicaSettings, ReplicaStatus, machine::Stage},
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::{
    asking::{Asking, Clock},
    duty::duty,
    server::Server,
};
use crate::sync::consul_model::{Model, Shared, Snapshot, Waits, under};

pub(super) const PREFIX: &str = "config/";

/// As many as a release of consul-replicate once deleted after a bad answer.
pub(super) const KEYS: usize = 127_739;

/// A lock at home, which a replica marks.
pub(super) const LOCK: &str = "config/lock";
pub(super) const LOCK_FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;

/// So rarely that none is done.
const NO_AUDIT: Duration = Duration::from_secs(3600);

/// For whatever takes long when the machine has other work.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

fn key(n: usize) -> String {
    format!("{PREFIX}{n:06}")
}

pub(super) fn layout() -> Layout {
    Layout::new(&PrefixId::of(PREFIX))
}

pub(super) fn set(key: String, value: String, flags: u64) -> Op {
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
    home: Home<Asking>,
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

    async fn absent(&self, _: &Target, absent: Absent, _: Duration) -> Result<(), PeerError> {
        if *self.is_cut.borrow() {
            return Err(PeerError::Unreached("the way is cut".into()));
        }
        self.home.absent(&absent.keys, absent.at).await
    }
}

/// How a world differs from others.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) clock: Clock,
    pub(super) audit: Duration,
    pub(super) keep: Keep,
    /// Datacenters that take part and never say how far they are.
    pub(super) silent: &'static [&'static str],
    /// Whether duties are taken as agents take them, or by the test.
    pub(super) has_duties: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let (clock, audit) = (Clock::Runs, NO_AUDIT);
        Self { clock, audit, keep: Keep::default(), silent: &[], has_duties: false }
    }
}

/// Both of them. Dropping it ends them.
pub(super) struct World {
    pub(super) at_home: Server,
    pub(super) at_replica: Server,
    pub(super) home: Home<Asking>,
    home_duty: watch::Sender<Holding>,
    replica: Replica<Asking, Way>,
    replica_duty: watch::Sender<Holding>,
    way: Way,
    is_cut: watch::Sender<bool>,
    plan: Plan,
    writes: u64,
    _tasks: Vec<Task<()>>,
    replica_task: Task<()>,
    stop: (StopSource, Stop),
}

fn prefix() -> Prefix {
    Prefix { text: PREFIX.to_owned(), home: Datacenter::from("primary"), mode: Mode::Journaled }
}

/// A Consul with these keys.
async fn server(snapshot: &Snapshot, clock: Clock) -> Server {
    let mut model = Model::new();
    model.restore(snapshot.clone(), false, Waits::End);
    Server::start(Shared::new(model), clock).await
}

/// Gives a duty to a new session.
pub(super) fn take(server: &Server, duty: Duty) -> Holding {
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
    pub(super) async fn start(plan: Plan) -> Self {
        let [home_keys, replica_keys] = filled();
        let (at_home, at_replica) =
            (server(home_keys, plan.clock).await, server(replica_keys, plan.clock).await);
        let mut prefixes = PrefixTable::default();
        prefixes.add(prefix()).unwrap();
        let names = ["primary", "secondary"].iter().chain(plan.silent).map(|name| Datacenter::from(*name));
        let (source, stop) = Stop::pair();
        let (home_duty, holding, seeks_home) = duty(&at_home, Duty::Home, &plan, &stop);
        let settings =
            HomeSettings { keep: plan.keep, ..HomeSettings::new(names.collect(), prefix(), prefixes) };
        let rng = fastrand::Rng::with_seed(1);
        let (home, home_task) = Home::start(settings, at_home.store(), Alone, holding, rng, stop.clone());
        let (is_cut, see_cut) = watch::channel(false);
        let way = Way { home: home.clone(), is_cut: see_cut, streams: Arc::default() };
        let (replica_duty, holding, seeks_replica) = duty(&at_replica, Duty::Applier, &plan, &stop);
        let (replica, replica_task) = replica(&at_replica, &way, plan.audit, holding, &stop);
        let tasks = [Some(home_task), seeks_home, seeks_replica].into_iter().flatten().collect();
        let mut world = Self {
            at_home,
            at_replica,
            home,
            home_duty,
            replica,
            replica_duty,
            way,
            is_cut,
            plan,
            writes: 0,
            _tasks: tasks,
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

    /// The same with a value that stands beside the journal.
    pub(super) async fn write_large(&mut self) {
        let op = self.large();
        self.write_op(op).await;
    }

    pub(super) fn large(&self) -> Op {
        set(format!("{PREFIX}large"), format!("{} {}", self.writes, "x".repeat(5_000)), 0)
    }

    pub(super) async fn write_op(&mut self, op: Op) -> Written {
        let write = self.request(op);
        self.home.write(write).await.unwrap()
    }

    /// A request with an id of its own.
    pub(super) fn request(&mut self, op: Op) -> Write {
        self.writes += 1;
        Write {
            request_id: format!("request {}", self.writes),
            origin: Datacenter::from("primary"),
            ops: vec![op],
            guard: None,
            deadline: lifecycle::now() + PATIENCE,
        }
    }

    /// Has the home execute it, and tells what came of it.
    pub(super) fn begin(&self, write: Write) -> watch::Receiver<Option<Result<Written, Refusal>>> {
        let (told, outcome) = watch::channel(None);
        let home = self.home.clone();
        let asking = spawn("test.write", async move {
            let _ = told.send(Some(home.write(write).await));
        });
        self.way.streams.lock().unwrap().push(asking);
        outcome
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
        let (duty, holding) = watch::channel(take(&self.at_replica, Duty::Applier));
        let (replica, task) = replica(&self.at_replica, &self.way, self.plan.audit, holding, &self.stop.1);
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
                sleep(self.plan.clock.step()).await;
            }
        };
        let in_time = timeout(PATIENCE, reached).await;
        assert!(in_time.is_ok(), "home: {:?}\nreplica: {:?}", self.home.status(), self.status());
    }

    /// Every key is there and was never away, on both sides: it was created once.
    pub(super) fn assert_intact(&self, row: &str) {
        static EXPECTED: OnceLock<[Vec<Pair>; 2]> = OnceLock::new();
        let expected = EXPECTED.get_or_init(|| {
            filled().each_ref().map(|snapshot| {
                let mut model = Model::new();
                model.restore(snapshot.clone(), false, Waits::End);
                under(model.pairs(), PREFIX).map(|(_, pair)| pair.clone()).collect()
            })
        });
        for (server, expected) in [&self.at_home, &self.at_replica].into_iter().zip(expected) {
            assert_eq!(expected.len(), KEYS);
            server.consul().look(|model| {
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
}

fn replica(
    server: &Server,
    way: &Way,
    audit: Duration,
    holding: watch::Receiver<Holding>,
    stop: &Stop,
) -> (Replica<Asking, Way>, Task<()>) {
    let settings = ReplicaSettings { audit, ..ReplicaSettings::new(prefix(), NodeName::from("node")) };
    let rng = fastrand::Rng::with_seed(1);
    Replica::start(settings, server.store(), way.clone(), holding, rng, stop.clone())
}

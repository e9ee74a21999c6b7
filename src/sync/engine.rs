//! The engine of one sync agent: its duties, homes and replicas, and the endpoint over them.
//!
//! What decides is pure and stands in [`crate::sync::endpoint`]; here and below is what acts: `serve` follows a request
//! on its way, `forward` takes it elsewhere, `execute` carries it out at home, `local` reads a replica, `session` finds
//! sessions, `neighbours` knows the other datacenters, `doers` the active agents of our own, `served` answers them all.

mod above;
mod accessor;
mod bounded;
mod doers;
mod execute;
mod forward;
pub mod kin;
mod local;
mod neighbours;
mod remember;
mod serve;
mod served;
mod session;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, UNIX_EPOCH},
};

use futures_util::future::select_all;
use tokio::sync::{Semaphore, watch};

use crate::{
    lifecycle::{self, Stop, Task},
    model::{
        name::{Datacenter, NodeName},
        sync::{Prefix, PrefixId, PrefixTable},
    },
    sync::{
        duty::{Duties, Holding},
        endpoint::{Raw, route::Standing},
        engine::{accessor::Accessors, doers::Doers, kin::KinSeen, neighbours::Neighbours, session::Places},
        home::{Home, HomeSettings, trim::Keep},
        layout::Duty,
        lock::{locks::Locks, wire::LockDefaults},
        metrics::LockWaits,
        peer::{Hello, Known, MIN_VERSION, Peers, VERSION},
        positions::Positions,
        record::Doer,
        replica::{Replica, ReplicaSettings, snapshot::Guard},
        status::{PrefixStatus, SyncStatus},
        store::Store,
    },
};

/// Blocking queries and endless answers at the local Consul at a time. It takes 200 connections from one address in all
/// (`http_max_conns_per_client`), and resets what is beyond; the agent's own watches need some of them.
const MAX_WATCHES: usize = 96;

/// Other requests at the local Consul at a time, out of the same 200 connections.
const MAX_EXCHANGES: usize = 48;

/// Requests that wait at other agents at a time: for a lock, or for a change. A connection between agents carries more calls
/// than that, so that those which are answered at once, renewals of sessions among them, never wait behind these.
pub const MAX_WAITING_AWAY: usize = 768;

/// What an engine is told.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Our datacenter.
    pub datacenter: Datacenter,
    /// All datacenters that replicate, ours among them.
    pub datacenters: Vec<Datacenter>,
    /// Our Consul node.
    pub node: NodeName,
    /// Where our peer service listens: `address:port`, as others of our datacenter reach it.
    pub address: String,
    /// The prefixes and their homes.
    pub prefixes: PrefixTable,
    /// Where sessions live that name no datacenter.
    pub sessions_home: Datacenter,
    /// Sizes.
    pub limits: Limits,
    /// Times.
    pub times: Times,
    /// What this agent saw committed, in earlier runs too.
    pub positions: Positions,
    /// What locks have whose clients name nothing else.
    pub locks: LockDefaults,
    /// Where it is counted how long they are waited for.
    pub lock_waits: LockWaits,
    /// What the other sync agents of our datacenter say of themselves.
    pub kin: KinSeen,
    /// Makes the random numbers. Another one at every start of a real agent.
    pub seed: u64,
}

/// Sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most verbs that a transaction of our Consul takes: 64 before Consul 1.14, 128 since.
    pub max_txn_ops: usize,
    /// The largest value that is taken. With its journal entry, as base64, it fits a transaction of 512 KiB.
    pub max_value_bytes: usize,
    /// How much of a journal is kept.
    pub keep: Keep,
    /// How many deletes at once pass at a replica without a person's word.
    pub guard: Guard,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_txn_ops: 64, max_value_bytes: 256 << 10, keep: Keep::default(), guard: Guard::default() }
    }
}

/// Times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// After so long a home that does not answer counts as unreachable.
    pub forward: Duration,
    /// How long a commit at home may take.
    pub commit: Duration,
    /// How long a forwarded write waits for the own replica to have it.
    pub applied: Duration,
    /// A replica older than this answers no read; none to answer always.
    pub max_staleness: Option<Duration>,
    /// How often a replica looks for edits past the agents.
    pub audit: Duration,
    /// How long a commit waits for more, while there are many.
    pub linger: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            forward: Duration::from_secs(2),
            commit: Duration::from_secs(5),
            applied: Duration::from_secs(2),
            max_staleness: None,
            audit: Duration::from_secs(30),
            linger: Duration::from_millis(2),
        }
    }
}

/// The engine. Clones are the same one.
pub struct Engine<S, P>(Arc<Inner<S, P>>);

impl<S, P> Clone for Engine<S, P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<S, P> {
    settings: EngineSettings,
    store: S,
    peers: P,
    parts: BTreeMap<String, Part<S, P>>,
    neighbours: Neighbours<P>,
    doers: Doers,
    /// Makes request ids; with the node and the start they are nobody else's.
    rng: Mutex<fastrand::Rng>,
    started_ms: u128,
    places: Mutex<Places>,
    accessors: Mutex<Accessors>,
    watches: Arc<Semaphore>,
    waiting_away: Semaphore,
    exchanges: Arc<Semaphore>,
    /// The greatest `X-Consul-Index` that the local Consul gave.
    seen_index: AtomicU64,
}

/// A prefix in this datacenter.
struct Part<S, P> {
    prefix: Prefix,
    holding: watch::Receiver<Holding>,
    role: Role<S, P>,
}

/// What this datacenter is to a prefix.
enum Role<S, P> {
    Home(Home<S>, Locks<S, Home<S>>),
    Replica(Replica<S, P>),
}

impl<S: Store + Raw, P: Peers> Engine<S, P> {
    /// Starts all of it. The task ends after the stop, and before it only when a part failed.
    pub fn start(settings: EngineSettings, store: S, peers: P, stop: Stop) -> (Self, Task<()>) {
        let mut rng = fastrand::Rng::with_seed(settings.seed);
        let me = Doer { node: settings.node.clone(), address: settings.address.clone() };
        let wanted =
            settings.prefixes.iter().map(|prefix| (PrefixId::of(&prefix.text), settings.duty(prefix)));
        let (duties, task) = Duties::start(store.clone(), me, wanted.collect(), rng.fork(), stop.clone());
        let neighbours = Neighbours::new(&settings, peers.clone());
        let mut tasks = vec![task, lifecycle::spawn("sync.greet", neighbours.clone().run(stop.clone()))];
        let mut parts = BTreeMap::new();
        for prefix in settings.prefixes.iter() {
            let holding = duties.watch(&PrefixId::of(&prefix.text), settings.duty(prefix));
            let (stop, store, rng) = (stop.clone(), store.clone(), rng.fork());
            let (role, task) = if prefix.home == settings.datacenter {
                let others = neighbours.clone();
                let (home, task) = Home::start(
                    settings.home(prefix),
                    store.clone(),
                    others,
                    holding.clone(),
                    rng,
                    stop.clone(),
                );
                let id = PrefixId::of(&prefix.text);
                let waits = settings.lock_waits.of(&id);
                let (locks, giving_back) =
                    Locks::start(store, home.clone(), &id, settings.locks, waits, stop);
                tasks.push(giving_back);
                (Role::Home(home, locks), task)
            } else {
                let mut settings = settings.replica(prefix);
                if let Some(answers) = neighbours.answers(&prefix.home) {
                    settings.home_answers = answers;
                }
                let (replica, task) =
                    Replica::start(settings, store, peers.clone(), holding.clone(), rng, stop);
                (Role::Replica(replica), task)
            };
            tasks.push(task);
            parts.insert(prefix.text.clone(), Part { prefix: prefix.clone(), holding, role });
        }
        let since_1970 = lifecycle::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        let inner = Inner {
            settings,
            store,
            peers,
            parts,
            neighbours,
            doers: Doers::default(),
            rng: Mutex::new(rng),
            started_ms: since_1970.as_millis(),
            places: Mutex::default(),
            accessors: Mutex::default(),
            watches: Arc::new(Semaphore::new(MAX_WATCHES)),
            waiting_away: Semaphore::new(MAX_WAITING_AWAY),
            exchanges: Arc::new(Semaphore::new(MAX_EXCHANGES)),
            seen_index: AtomicU64::new(0),
        };
        let engine = Self(Arc::new(inner));
        tasks.push(lifecycle::spawn("sync.remember", engine.clone().remember(stop.clone())));
        (engine, lifecycle::spawn("sync.engine", look_after(tasks, stop)))
    }

    /// How everything stands.
    pub fn status(&self) -> SyncStatus {
        let inner = &*self.0;
        let prefixes = inner.parts.values().map(|part| PrefixStatus {
            prefix: part.prefix.text.clone(),
            id: PrefixId::of(&part.prefix.text),
            home: part.prefix.home.clone(),
            is_active: part.holding.borrow().session.is_some(),
            active_node: inner.doer(part).map(|doer| doer.node),
            misfit: inner.misfit(&part.prefix),
            as_home: match &part.role {
                Role::Home(home, _) => Some(home.status()),
                Role::Replica(_) => None,
            },
            as_replica: match &part.role {
                Role::Home(..) => None,
                Role::Replica(replica) => Some(replica.status()),
            },
        });
        SyncStatus {
            datacenter: inner.settings.datacenter.clone(),
            node: inner.settings.node.clone(),
            sessions_home: inner.settings.sessions_home.clone(),
            prefixes: prefixes.collect(),
            datacenters: inner.neighbours.status(),
            disagreements: kin::disagreements(
                &inner.settings.node,
                &inner.settings.prefixes,
                &kin::known(&inner.settings.kin),
            ),
        }
    }
}

impl<S, P: Peers> Inner<S, P> {
    /// In what way another agent, of whatever datacenter, disagrees on a prefix.
    fn misfit(&self, prefix: &Prefix) -> Option<String> {
        let settings = &self.settings;
        let kin = || kin::misfit(&settings.node, prefix, &kin::known(&settings.kin));
        self.neighbours.misfit(prefix).or_else(kin)
    }
}

impl<S, P> Inner<S, P> {
    fn me(&self) -> Doer {
        Doer { node: self.settings.node.clone(), address: self.settings.address.clone() }
    }

    /// Who does the work on a part.
    fn doer(&self, part: &Part<S, P>) -> Option<Doer> {
        let holding = part.holding.borrow();
        if holding.session.is_some() { Some(self.me()) } else { holding.doer.clone() }
    }

    fn standing(&self, prefix: &Prefix) -> Standing {
        let Some(part) = self.parts.get(&prefix.text) else { return Standing::Nobody };
        if part.holding.borrow().session.is_some() {
            return Standing::Active;
        }
        match self.doer(part) {
            // The lock's value is ours and the session is not: a former self of ours, or a lease about to end.
            Some(doer) if doer == self.me() => Standing::Nobody,
            // What a replica's applier would do the home does as well, but for the way through our own data.
            Some(doer) if matches!(part.role, Role::Replica(_)) && self.doers.is_silent(&doer) => {
                Standing::Nobody
            }
            Some(doer) => Standing::Elsewhere(doer),
            None => Standing::Nobody,
        }
    }

    /// An id that no other request has.
    fn new_request_id(&self) -> String {
        let random = self.rng.lock().unwrap_or_else(PoisonError::into_inner).u128(..);
        format!("{}-{:x}-{random:032x}", self.settings.node, self.started_ms)
    }
}

impl<S: Store, P: Peers> Part<S, P> {
    /// How far this agent itself knows the prefix.
    fn known(&self) -> Option<Known> {
        match &self.role {
            Role::Home(home, _) => home.tip().borrow().clone(),
            Role::Replica(replica) => replica.known(),
        }
    }
}

impl EngineSettings {
    /// What this datacenter does for a prefix.
    fn duty(&self, prefix: &Prefix) -> Duty {
        if prefix.home == self.datacenter { Duty::Home } else { Duty::Applier }
    }

    fn home(&self, prefix: &Prefix) -> HomeSettings {
        let mut home = HomeSettings::new(self.datacenters.clone(), prefix.clone(), self.prefixes.clone());
        home.max_txn_ops = self.limits.max_txn_ops;
        home.max_value_bytes = self.limits.max_value_bytes;
        home.commit_timeout = self.times.commit;
        home.linger = self.times.linger;
        home.keep = self.limits.keep;
        home.positions = self.positions.clone();
        home
    }

    fn replica(&self, prefix: &Prefix) -> ReplicaSettings {
        let mut replica = ReplicaSettings::new(prefix.clone(), self.node.clone());
        replica.max_txn_ops = self.limits.max_txn_ops;
        replica.commit = self.times.commit;
        replica.audit = self.times.audit;
        replica.guard = self.limits.guard;
        replica
    }

    /// How this agent greets others.
    pub fn hello(&self) -> Hello {
        Hello {
            versions: (MIN_VERSION, VERSION),
            datacenter: self.datacenter.clone(),
            node: self.node.clone(),
            prefixes: self.prefixes.iter().cloned().collect(),
            max_txn_ops: self.limits.max_txn_ops,
            max_value_bytes: Some(self.limits.max_value_bytes),
        }
    }
}

/// Waits for all of them after the stop; before it, for the first that ends.
async fn look_after(mut tasks: Vec<Task<()>>, stop: Stop) {
    while !tasks.is_empty() {
        let (ended, at, _) = select_all(tasks.iter_mut().map(|task| Box::pin(task.join()))).await;
        let task = tasks.swap_remove(at);
        if !stop.is_set() {
            let reason = ended.err().map_or_else(|| "it returned".to_owned(), |error| error.reason);
            tracing::info!(task = task.name(), reason, "replication stops, since a part of it ended");
            return;
        }
    }
}

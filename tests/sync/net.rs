//! Simulated datacenters in one runtime with a paused clock: each has a model of a Consul, each agent reaches it and other
//! agents over a network that delays, loses, doubles and cuts, all from one seed.
//!
//! What was sent is carried out whatever became of who sent it: a call of an agent that crashed, was stopped or gave up
//! may still arrive, and late. An agent that is stopped does nothing at all, and then finds everything overdue at once.
//! `store` is the way to a Consul, `peers` the one to other agents, `disk` what outlives an agent.

mod disk;
mod peers;
mod rights;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use causeway::{
    lifecycle::{self, process::Turns},
    model::{
        name::{Datacenter, NodeName},
        session::SessionId,
    },
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

pub(crate) use self::{
    disk::{Content, SimDisk},
    peers::{Door, SimPeers},
    rights::{PART, READER, own},
    store::SimStore,
};
use crate::sync::{
    consul_model::{Model, Shared},
    history::{May, Turn, Violation},
};

/// How bad the network is, in percent of messages and in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Between an agent and its Consul; between datacenters it is ten times as long.
    pub(crate) delay_ms: u64,
    /// Never arrive, and who sent them knows it.
    pub(crate) refused: u32,
    /// Are carried out, and the answer is lost.
    pub(crate) unanswered: u32,
    /// Between agents: arrive twice.
    pub(crate) doubled: u32,
    /// Streams that break at an item.
    pub(crate) broken: u32,
}

/// What is wrong right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// These agents are stopped: what reaches them waits.
    pub(crate) paused: BTreeSet<NodeName>,
    /// Nothing arrives from the one at the other.
    pub(crate) cut: BTreeSet<(Datacenter, Datacenter)>,
    /// Consul takes requests and does not answer until it goes on.
    pub(crate) frozen: BTreeSet<Datacenter>,
    /// Consul has no leader and says so.
    pub(crate) leaderless: BTreeSet<Datacenter>,
    /// Consul's lists come filtered, and say so.
    pub(crate) filtered: BTreeSet<Datacenter>,
}

struct Inner {
    seed: u64,
    /// How often each lane drew: what happens on one does not depend on who else drew before.
    lanes: BTreeMap<String, u64>,
    faults: Faults,
    weather: Weather,
    doors: BTreeMap<NodeName, (Datacenter, u64, Arc<dyn Door>)>,
    /// How often each agent was started: what an earlier one asked is answered to nobody.
    lives: BTreeMap<NodeName, u64>,
    /// Who made each session.
    sessions: BTreeMap<(Datacenter, SessionId), NodeName>,
    found: Vec<Violation>,
    /// Tasks of agents that are stopped, in the order in which they wanted to run.
    held: BTreeMap<NodeName, Vec<Waker>>,
    rights: rights::Rights,
}

/// When the tasks of an agent run.
struct Gate {
    net: Net,
    node: NodeName,
}

impl Turns for Gate {
    fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.net.lock();
        if !inner.faults.paused.contains(&self.node) {
            return Poll::Ready(());
        }
        let held = inner.held.entry(self.node.clone()).or_default();
        if !held.iter().any(|waker| waker.will_wake(cx.waker())) {
            held.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// All of it. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Net {
    inner: Arc<Mutex<Inner>>,
    /// Wakes whoever waits for the end of a fault, in the order in which they came.
    changes: Arc<Notify>,
    consuls: Arc<BTreeMap<Datacenter, Shared>>,
    began: Instant,
}

impl Net {
    /// Datacenters with empty Consuls.
    pub(crate) fn new(seed: u64, datacenters: &[Datacenter], weather: Weather) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let consuls = datacenters
            .iter()
            .map(|name| (name.clone(), Shared::new(Model::new().with_slack(rng.u32(0..=100)))))
            .collect();
        let inner = Inner {
            seed,
            lanes: BTreeMap::new(),
            faults: Faults::default(),
            weather,
            doors: BTreeMap::new(),
            lives: BTreeMap::new(),
            sessions: BTreeMap::new(),
            found: Vec::new(),
            held: BTreeMap::new(),
            rights: rights::Rights::default(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            changes: Arc::default(),
            consuls: Arc::new(consuls),
            began: lifecycle::now(),
        }
    }

    /// The Consul of a datacenter.
    pub(crate) fn consul(&self, datacenter: &Datacenter) -> &Shared {
        &self.consuls[datacenter]
    }

    /// Changes what is wrong.
    pub(crate) fn fault(&self, change: impl FnOnce(&mut Faults)) {
        let woken: Vec<Waker> = {
            let mut inner = self.lock();
            change(&mut inner.faults);
            let Inner { held, faults, .. } = &mut *inner;
            let running: Vec<NodeName> =
                held.keys().filter(|node| !faults.paused.contains(*node)).cloned().collect();
            running.iter().filter_map(|node| held.remove(node)).flatten().collect()
        };
        woken.into_iter().for_each(Waker::wake);
        self.changes.notify_waiters();
    }

    /// Nothing is wrong any more, and nothing is lost.
    pub(crate) fn heal(&self) {
        self.fault(|faults| *faults = Faults::default());
        let mut inner = self.lock();
        inner.weather = Weather { delay_ms: inner.weather.delay_ms, ..Weather::default() };
    }

    /// From now on a token may do this.
    pub(crate) fn allow(&self, token: &'static str, may: May) {
        let at = self.moment();
        self.lock().rights.turn(at, token, may);
    }

    /// What tokens could do, and when.
    pub(crate) fn turns_of_rights(&self) -> Vec<Turn> {
        self.lock().rights.turns().to_vec()
    }

    /// What was found on the way to Consuls.
    pub(crate) fn found(&self) -> Vec<Violation> {
        self.lock().found.clone()
    }

    /// Since the beginning, in ns.
    pub(crate) fn moment(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap()
    }

    /// A number for the next life of an agent.
    pub(crate) fn seed(&self, node: &NodeName) -> u64 {
        self.rng(node.as_str()).u64(..)
    }

    /// What is drawn next on a lane.
    fn rng(&self, lane: &str) -> fastrand::Rng {
        let mut inner = self.lock();
        let seed = inner.seed;
        let count = inner.lanes.entry(lane.to_owned()).or_default();
        *count += 1;
        let text = format!("{lane} {count} {seed}");
        let hash = blake3::hash(text.as_bytes());
        fastrand::Rng::with_seed(
            hash.as_bytes().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    }

    /// A new life of an agent: what earlier ones of it wait for never comes.
    pub(crate) fn new_life(&self, node: &NodeName) -> u64 {
        let mut inner = self.lock();
        let life = inner.lives.entry(node.clone()).or_default();
        *life += 1;
        *life
    }

    /// From now on others reach this agent.
    pub(crate) fn open(&self, node: &NodeName, datacenter: &Datacenter, life: u64, door: Arc<dyn Door>) {
        self.lock().doors.insert(node.clone(), (datacenter.clone(), life, door));
    }

    /// From now on nobody does, and what it asked is answered to nobody.
    pub(crate) fn close(&self, node: &NodeName) {
        self.lock().doors.remove(node);
        self.new_life(node);
    }

    /// Lets all agents go at the end: they know the network and it knows them, so neither would ever be freed.
    pub(crate) fn let_go(&self) {
        let doors = std::mem::take(&mut self.lock().doors);
        drop(doors);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Which life of an agent this is.
    pub(crate) fn life(&self, node: &NodeName) -> u64 {
        self.lock().lives.get(node).copied().unwrap_or_default()
    }

    fn is_alive(&self, node: &NodeName, life: u64) -> bool {
        self.lock().lives.get(node) == Some(&life)
    }

    /// Whether something of so many percent happens now.
    fn happens(&self, lane: &str, percent: impl FnOnce(&Weather) -> u32) -> bool {
        let percent = percent(&self.lock().weather);
        percent > 0 && self.rng(lane).u32(0..100) < percent
    }

    /// One of so many.
    fn pick(&self, lane: &str, count: usize) -> usize {
        self.rng(lane).usize(0..count)
    }

    /// Between an agent and its Consul. Some messages take much longer than others, and are overtaken.
    async fn near(&self, lane: &str) {
        self.delay(lane, 1).await;
    }

    /// Between datacenters.
    async fn far(&self, lane: &str) {
        self.delay(lane, 10).await;
    }

    async fn delay(&self, lane: &str, times: u64) {
        let most = self.lock().weather.delay_ms * 1000 * times;
        let mut rng = self.rng(lane);
        let late = if rng.u32(0..20) == 0 { 8 } else { 1 };
        let micros = rng.u64(0..=most) * late;
        sleep(Duration::from_micros(micros)).await;
    }

    /// Waits until nothing of this kind is wrong.
    async fn until(&self, is_right: impl Fn(&Faults) -> bool) {
        loop {
            let mut change = std::pin::pin!(self.changes.notified());
            change.as_mut().enable();
            if is_right(&self.lock().faults) {
                return;
            }
            change.await;
        }
    }

    /// Where everything that an agent does belongs.
    pub(crate) fn turns(&self, node: &NodeName) -> Arc<dyn Turns> {
        Arc::new(Gate { net: self.clone(), node: node.clone() })
    }

    fn is_cut(&self, from: &Datacenter, to: &Datacenter) -> bool {
        self.lock().faults.cut.contains(&(from.clone(), to.clone()))
    }

    /// Something on its way: nobody who gives up takes it back.
    #[expect(clippy::disallowed_methods, reason = "what is under way has no owner: it ends with the runtime")]
    pub(crate) fn send(&self, flight: impl Future<Output = ()> + Send + 'static) -> tokio::task::AbortHandle {
        tokio::spawn(flight).abort_handle()
    }
}

/// Waits for the answer until then.
async fn answer_until<T>(answer: tokio::sync::oneshot::Receiver<T>, end: Instant) -> Option<T> {
    tokio::select! {
        biased;
        answer = answer => match answer {
            Ok(answer) => Some(answer),
            // The flight never answers: that is noticed only by waiting.
            Err(_) => {
                sleep_until(end).await;
                None
            }
        },
        () = sleep_until(end) => None,
    }
}

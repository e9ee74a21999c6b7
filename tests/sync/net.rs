//! Simulated datacenters in one runtime with a paused clock: each has a model of a Consul, each agent reaches it and other
//! agents over a network that delays, loses, doubles and cuts, all from one seed.
//!
//! What was sent is carried out whatever became of who sent it: a call of an agent that crashed, was stopped or gave up
//! may still arrive, and late. `store` is the way to a Consul, `peers` the one to other agents.

mod peers;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use causeway::{
    lifecycle,
    model::{
        name::{Datacenter, NodeName},
        session::SessionId,
    },
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

pub(crate) use self::{
    peers::{Door, SimPeers},
    store::SimStore,
};
use crate::sync::{
    consul_model::{Model, Shared},
    history::Violation,
};

/// How bad the network is, in percent of messages and in ms.
#[derive(Clone, Copy, Debug, Default)]
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
    /// Nothing leaves or reaches these agents, until it goes on.
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
    rng: fastrand::Rng,
    weather: Weather,
    doors: BTreeMap<NodeName, (Datacenter, u64, Arc<dyn Door>)>,
    /// How often each agent was started: what an earlier one asked is answered to nobody.
    lives: BTreeMap<NodeName, u64>,
    /// Who made each session.
    sessions: BTreeMap<(Datacenter, SessionId), NodeName>,
    found: Vec<Violation>,
}

/// All of it. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Net {
    inner: Arc<Mutex<Inner>>,
    faults: watch::Sender<Faults>,
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
            rng,
            weather,
            doors: BTreeMap::new(),
            lives: BTreeMap::new(),
            sessions: BTreeMap::new(),
            found: Vec::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            faults: watch::Sender::new(Faults::default()),
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
        self.faults.send_modify(change);
    }

    /// Nothing is wrong any more, and nothing is lost.
    pub(crate) fn heal(&self) {
        self.faults.send_modify(|faults| *faults = Faults::default());
        let mut inner = self.lock();
        inner.weather = Weather { delay_ms: inner.weather.delay_ms, ..Weather::default() };
    }

    /// What was found on the way to Consuls.
    pub(crate) fn found(&self) -> Vec<Violation> {
        self.lock().found.clone()
    }

    /// Since the beginning, in ns.
    pub(crate) fn moment(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap()
    }

    /// A number for who needs one of his own.
    pub(crate) fn seed(&self) -> u64 {
        self.lock().rng.u64(..)
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
    fn happens(&self, percent: impl FnOnce(&Weather) -> u32) -> bool {
        let mut inner = self.lock();
        let percent = percent(&inner.weather);
        inner.rng.u32(0..100) < percent
    }

    /// One of so many.
    fn pick(&self, count: usize) -> usize {
        self.lock().rng.usize(0..count)
    }

    /// Between an agent and its Consul. Some messages take much longer than others, and are overtaken.
    async fn near(&self) {
        self.delay(1).await;
    }

    /// Between datacenters.
    async fn far(&self) {
        self.delay(10).await;
    }

    async fn delay(&self, times: u64) {
        let micros = {
            let mut inner = self.lock();
            let most = inner.weather.delay_ms * 1000 * times;
            let late = if inner.rng.u32(0..20) == 0 { 8 } else { 1 };
            inner.rng.u64(0..=most) * late
        };
        sleep(Duration::from_micros(micros)).await;
    }

    /// Waits until nothing of this kind is wrong.
    async fn until(&self, is_right: impl Fn(&Faults) -> bool) {
        let mut faults = self.faults.subscribe();
        let _ = faults.wait_for(|faults| is_right(faults)).await;
    }

    /// Waits until this agent runs.
    pub(crate) async fn running(&self, node: &NodeName) {
        self.until(|faults| !faults.paused.contains(node)).await;
    }

    fn is_cut(&self, from: &Datacenter, to: &Datacenter) -> bool {
        self.faults.borrow().cut.contains(&(from.clone(), to.clone()))
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

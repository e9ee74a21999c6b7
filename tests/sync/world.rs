//! Datacenters with running engines, witnesses at each Consul, and clients that ask agents.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use causeway::{
    lifecycle::{self, Stop, StopSource, Task, process},
    model::{
        name::{Datacenter, NodeName},
        sync::{Mode, Position, Prefix, PrefixTable},
    },
    sync::{
        endpoint::{Request, Response},
        engine::{
            Engine, EngineSettings, Limits, Times,
            kin::{Kin, KinSeen},
        },
        positions::Positions,
        replica::machine::Stage,
    },
};
use http::Method;
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use crate::sync::{
    consul_model::Snapshot,
    history::{Moment, Restored, Side, Violation, Witness},
    mutants::{Mutant, MutantPeers, MutantStore, Watermark},
    net::{Content, Net, SimDisk, SimPeers, SimStore, Weather},
};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(12);

/// What is run.
type Agent = Engine<MutantStore<SimStore>, MutantPeers<SimPeers>>;

/// How many agents of each datacenter replicate.
pub(crate) const AGENTS: usize = 2;

/// What a world is made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) datacenters: usize,
    /// Prefixes, with the number of their home.
    pub(crate) prefixes: Vec<(&'static str, usize)>,
    pub(crate) weather: Weather,
    pub(crate) mutant: Mutant,
}

struct Running {
    engine: Agent,
    /// Before its stop: dropped first, it ends without any farewell.
    _task: Task<()>,
    _stop: StopSource,
}

/// All of it.
pub(crate) struct World {
    plan: Plan,
    pub(crate) net: Net,
    prefixes: PrefixTable,
    agents: Mutex<BTreeMap<NodeName, Running>>,
    witnesses: Arc<Mutex<Vec<Witness>>>,
    saved: Mutex<BTreeMap<Datacenter, (Moment, Snapshot)>>,
    restored: Mutex<Vec<Restored>>,
    marks: Mutex<BTreeMap<Datacenter, Watermark>>,
    disks: Mutex<BTreeMap<NodeName, Content>>,
}

/// The name of a datacenter by its number, from 0.
pub(crate) fn datacenter(number: usize) -> Datacenter {
    Datacenter::from(format!("dc{}", number + 1))
}

/// The name of an agent.
pub(crate) fn node(datacenter: usize, agent: usize) -> NodeName {
    NodeName::from(format!("dc{}-a{}", datacenter + 1, agent + 1))
}

fn address(node: &NodeName) -> String {
    format!("{node}:8508")
}

/// A replica that has not what its home has.
#[derive(Clone, Debug)]
pub(crate) struct Behind {
    pub(crate) prefix: &'static str,
    /// The number of its datacenter.
    pub(crate) at: usize,
    pub(crate) position: Option<Position>,
    pub(crate) end: Option<Position>,
}

impl std::fmt::Display for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { prefix, at, position, end } = self;
        let shown = |at: &Option<Position>| at.map_or("nothing".to_owned(), |at| at.to_string());
        write!(f, "{prefix} in {} is at {} of {}", datacenter(*at), shown(position), shown(end))
    }
}

/// What came of a client's request.
pub(crate) enum Reply {
    Answer(Response),
    /// Nobody listened: it was not executed.
    NotSent,
    /// No answer.
    Silence,
}

impl World {
    /// Starts all agents.
    pub(crate) fn start(plan: Plan) -> Arc<Self> {
        let names: Vec<Datacenter> = (0..plan.datacenters).map(datacenter).collect();
        let net = Net::new(plan.seed, &names, plan.weather);
        let mut prefixes = PrefixTable::default();
        for (text, home) in &plan.prefixes {
            let prefix = Prefix { text: (*text).to_owned(), home: datacenter(*home), mode: Mode::Journaled };
            prefixes.add(prefix).unwrap();
        }
        let witnesses = plan.prefixes.iter().map(|(text, _)| Witness::new(text)).collect();
        let world = Arc::new(Self {
            net,
            prefixes,
            agents: Mutex::default(),
            witnesses: Arc::new(Mutex::new(witnesses)),
            saved: Mutex::default(),
            restored: Mutex::default(),
            marks: Mutex::default(),
            disks: Mutex::default(),
            plan,
        });
        names.iter().for_each(|name| world.watch(name));
        for at in 0..world.plan.datacenters {
            (0..AGENTS).for_each(|agent| world.boot(at, agent));
        }
        world
    }

    fn watch(&self, name: &Datacenter) {
        let (witnesses, name) = (self.witnesses.clone(), name.clone());
        let homes: Vec<bool> = self.plan.prefixes.iter().map(|(_, home)| datacenter(*home) == name).collect();
        let consul = self.net.consul(&name).clone();
        consul.with(|model| {
            model.observe(Box::new(move |model| {
                let mut witnesses = witnesses.lock().unwrap();
                for (witness, is_home) in witnesses.iter_mut().zip(&homes) {
                    witness.look(&name, if *is_home { Side::Home } else { Side::Replica }, model.pairs());
                }
            }));
        });
    }

    /// Starts an agent, with an empty memory, and what is on its disk.
    pub(crate) fn boot(&self, at: usize, agent: usize) {
        let (datacenter_name, node) = (datacenter(at), node(at, agent));
        let life = self.net.new_life(&node);
        self.net.fault(|faults| faults.paused.retain(|paused| *paused != node));
        let settings = EngineSettings {
            datacenter: datacenter_name.clone(),
            datacenters: (0..self.plan.datacenters).map(datacenter).collect(),
            node: node.clone(),
            address: address(&node),
            prefixes: self.prefixes.clone(),
            sessions_home: datacenter(0),
            limits: Limits::default(),
            times: Times::default(),
            positions: self.positions(&node),
            locks: Default::default(),
            lock_waits: Default::default(),
            kin: self.kin(at, agent),
            seed: self.net.seed(&node),
        };
        let store = SimStore::new(&self.net, &datacenter_name, &node, life);
        let peers = SimPeers::new(&self.net, &datacenter_name, &node, life);
        let mutant = self.plan.mutant;
        let mark = self.marks.lock().unwrap().entry(datacenter_name.clone()).or_default().clone();
        let (source, stop) = Stop::pair();
        let (store, peers) = (MutantStore::new(store, mutant), MutantPeers::new(peers, mutant, mark));
        let start = || Engine::start(settings, store, peers, stop);
        let (engine, task) = process::enter(self.net.turns(&node), start);
        self.net.open(&node, &datacenter_name, life, Arc::new(engine.clone()));
        self.lock_agents().insert(node, Running { engine, _task: task, _stop: source });
    }

    /// The other agents of its datacenter, as the catalog would show them.
    fn kin(&self, at: usize, agent: usize) -> KinSeen {
        let others = (0..AGENTS).filter(|other| *other != agent).map(|other| node(at, other));
        let prefixes: Vec<Prefix> = self.prefixes.iter().cloned().collect();
        let kin = others.map(|node| Kin { address: address(&node), node, prefixes: prefixes.clone() });
        watch::channel(Some(Arc::new(kin.collect()))).1
    }

    fn positions(&self, node: &NodeName) -> Positions {
        if self.plan.mutant == Mutant::NoDisk {
            return Positions::default();
        }
        let content = self.disks.lock().unwrap().entry(node.clone()).or_default().clone();
        let body = content.lock().unwrap().clone();
        Positions::on(SimDisk::new(&self.net, node, content), &body)
    }

    /// As `kill -9` does.
    pub(crate) fn crash(&self, at: usize, agent: usize) {
        let node = node(at, agent);
        self.net.close(&node);
        let running = self.lock_agents().remove(&node);
        drop(running);
    }

    /// Keeps a snapshot of a datacenter's Consul.
    pub(crate) fn save(&self, at: usize) {
        let snapshot = self.net.consul(&datacenter(at)).look(|model| model.save());
        self.saved.lock().unwrap().insert(datacenter(at), (self.net.moment(), snapshot));
    }

    /// Restores what was kept.
    pub(crate) fn restore(&self, at: usize, is_fresh: bool, waits: crate::sync::consul_model::Waits) {
        if let Some((saved, snapshot)) = self.saved.lock().unwrap().get(&datacenter(at)).cloned() {
            let homes = self.plan.prefixes.iter().filter(|(_, home)| *home == at);
            let prefixes = homes.map(|(text, _)| (*text).to_owned()).collect();
            let restored = self.net.moment();
            let restored = Restored { datacenter: datacenter(at).to_string(), prefixes, saved, restored };
            self.restored.lock().unwrap().push(restored);
            for (witness, (_, home)) in self.witnesses.lock().unwrap().iter_mut().zip(&self.plan.prefixes) {
                witness.forget(&datacenter(at), if *home == at { Side::Home } else { Side::Replica });
            }
            self.net.consul(&datacenter(at)).with(|model| model.restore(snapshot, is_fresh, waits));
        }
    }

    /// Whether a datacenter went back.
    pub(crate) fn is_restored(&self, at: usize) -> bool {
        self.restored.lock().unwrap().iter().any(|restored| restored.datacenter == datacenter(at).as_str())
    }

    /// Which prefixes went back, and to when.
    pub(crate) fn restored(&self) -> Vec<Restored> {
        self.restored.lock().unwrap().clone()
    }

    /// What witnesses found.
    pub(crate) fn found(&self) -> Vec<Violation> {
        let mut found = self.net.found();
        found.extend(self.witnesses.lock().unwrap().iter().flat_map(|witness| witness.found().to_vec()));
        found
    }

    /// Whether home ever had this value at this index, as was shown.
    pub(crate) fn check_index(&self, key: &str, index: u64, value: &[u8]) {
        let mut witnesses = self.witnesses.lock().unwrap();
        let at = self.plan.prefixes.iter().position(|(text, _)| key.starts_with(text));
        if let Some(witness) = at.and_then(|at| witnesses.get_mut(at)) {
            witness.check_index(key, index, value);
        }
    }

    /// The number of the datacenter where a key is written.
    pub(crate) fn home_of(&self, key: &str) -> usize {
        let home = self.plan.prefixes.iter().find(|(text, _)| key.starts_with(text));
        home.map(|(_, home)| *home).unwrap()
    }

    /// Replicas that have not what their home has: the prefix and the number of the datacenter.
    pub(crate) fn behind(&self) -> Vec<Behind> {
        let witnesses = self.witnesses.lock().unwrap();
        let mut behind = Vec::new();
        for (witness, (text, home)) in witnesses.iter().zip(&self.plan.prefixes) {
            let end: Option<Position> = witness.end();
            for at in (0..self.plan.datacenters).filter(|at| at != home) {
                let position = witness.position(&datacenter(at));
                if !witness.is_equal(&datacenter(at)) {
                    behind.push(Behind { prefix: text, at, position, end });
                }
            }
        }
        behind
    }

    /// How a replica stands, as its agents say.
    pub(crate) fn stages(&self, behind: &Behind) -> Vec<(Stage, Option<String>)> {
        let agents = self.lock_agents();
        let running = (0..AGENTS).filter_map(|agent| agents.get(&node(behind.at, agent)));
        let statuses = running.flat_map(|running| running.engine.status().prefixes);
        let replicas =
            statuses.filter(|status| status.prefix == behind.prefix).filter_map(|status| status.as_replica);
        replicas.map(|replica| (replica.stage, replica.reason)).collect()
    }

    /// Homes that take their own datacenter for one that follows: whoever passes a follower on is none.
    pub(crate) fn followers_at_home(&self) -> impl Iterator<Item = String> + use<> {
        let agents = self.lock_agents();
        let statuses = agents.iter().flat_map(|(node, running)| {
            running.engine.status().prefixes.into_iter().map(move |status| (node.clone(), status))
        });
        let strange = statuses.filter_map(|(node, status)| {
            let followers = status.as_home?.followers;
            followers.contains_key(&status.home).then(|| format!("{node}: {}: {followers:?}", status.prefix))
        });
        strange.collect::<Vec<_>>().into_iter()
    }

    /// A client's request to an agent.
    pub(crate) async fn ask(
        &self,
        at: usize,
        agent: usize,
        method: Method,
        target: &str,
        headers: &[(&str, String)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let node = node(at, agent);
        let engine = self.lock_agents().get(&node).map(|running| running.engine.clone());
        let Some(engine) = engine else { return Reply::NotSent };
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let request = Request::new(method, target, headers, body.into());
        let (answer, answered) = oneshot::channel();
        let (net, name) = (self.net.clone(), node.clone());
        let life = net.life(&node);
        self.net.send(async move {
            let response = process::within(net.turns(&name), async { engine.serve(request).await }).await;
            if net.life(&name) == life {
                let _ = answer.send(response);
            } else {
                // The connection ends with the agent; that is noticed by waiting.
                std::future::pending::<()>().await;
            }
        });
        match timeout(PATIENCE, answered).await {
            Ok(Ok(response)) => Reply::Answer(response),
            _ => Reply::Silence,
        }
    }

    fn lock_agents(&self) -> MutexGuard<'_, BTreeMap<NodeName, Running>> {
        self.agents.lock().unwrap()
    }
}

/// Runs in a runtime of its own whose clock jumps to what happens next.
pub(crate) fn simulate<T>(run: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(run)
}

/// Now, for whoever sleeps until then.
pub(crate) fn after(duration: Duration) -> tokio::time::Instant {
    lifecycle::now() + duration
}

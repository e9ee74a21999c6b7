//! The clients: one connection each, as Envoys have, and one thread for all of them. They share the machine with what is
//! measured and take as little of it as can be: a read, a look at the type and the nonce, and a write of the answer.
#![allow(dead_code, reason = "each measurement uses a part of it")]

use std::{
    collections::{BTreeMap, HashMap},
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use causeway::{
    lifecycle::{self, Task},
    xds::resource::Kind,
};
use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::{
    answer::{self, Answered},
    figures::percentile,
    http2::{ADS, Call},
};

/// Connections made at once; the kernel's queue for a Unix socket is no longer than this everywhere.
const CONNECTING: usize = 64;
/// How long a change may be on its way to the last client.
const ARRIVING: Duration = Duration::from_secs(60);
/// Between two looks at whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the clients do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) socket: PathBuf,
    pub(crate) clients: usize,
    /// Names asked for, by the short name of the kind; what is asked for everything has none.
    pub(crate) names: BTreeMap<String, Vec<String>>,
    /// How many resources a client has when it has everything.
    pub(crate) resources: usize,
    /// Before all others one client learns the versions; the others say that they have them.
    pub(crate) reconnect: bool,
    /// Who they say they are.
    pub(crate) nodes: Nodes,
    /// Endpoints whose first port tells which change they are of: then staleness is noted.
    pub(crate) watched: Option<String>,
}

/// Their nodes' ids.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Nodes {
    /// Each has its own, which begins with this.
    Each(String),
    /// All have this one.
    One(String),
}

impl Nodes {
    fn of(&self, number: usize) -> String {
        match self {
            Self::Each(begin) => format!("{begin}-{number}"),
            Self::One(id) => id.clone(),
        }
    }
}

/// What they say, a line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// All have everything or, reconnecting, are answered.
    Ready(Ready),
    /// From now on arrivals are counted.
    Counting,
    /// Every client has had one more response, the last of them then.
    All { at_us: u64 },
    /// How stale clients were at most before each response that brought them further, in microseconds, and how many
    /// have the last change.
    Stale { p50: u64, p99: u64, max: u64, responses: usize, current: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// When the first began to connect.
    pub(crate) from_us: u64,
    /// When the last had everything.
    pub(crate) at_us: u64,
    /// The most that one of them read.
    pub(crate) bytes: u64,
}

/// When changes were made, which are numbered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Moments {
    /// The number of the first.
    pub(crate) first: usize,
    pub(crate) changed_us: Vec<u64>,
}

/// Each stream is a descriptor in either process, and processes inherit the limit. Gives the one that holds now.
pub(crate) fn raise_file_limit() -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard)
}

/// Microseconds since the Unix epoch: the clock that processes share.
pub(crate) fn clock_us() -> u64 {
    u64::try_from(lifecycle::wall_clock().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

fn say(said: Said) {
    println!("{}", serde_json::to_string(&said).unwrap());
}

/// Runs until standard input ends. An empty line on it starts the count; the moments of changes ask how stale clients were.
pub(crate) fn run(orders: Orders) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (clients, kinds) = (orders.clients, known(&orders));
    let tally = Arc::new(Tally { clients, ..Tally::default() });
    let _tasks = runtime.block_on(async {
        let versions = if orders.reconnect { learn(&orders, &kinds).await } else { HashMap::new() };
        let (orders, versions) = (Arc::new(orders), Arc::new(versions));
        let turns = Arc::new(Semaphore::new(CONNECTING));
        tally.from_us.store(clock_us(), Ordering::SeqCst);
        let start = |number| {
            let client = Client {
                orders: orders.clone(),
                versions: versions.clone(),
                tally: tally.clone(),
                turns: turns.clone(),
            };
            lifecycle::spawn("client", client.run(number))
        };
        (0..clients).map(start).collect::<Vec<Task<()>>>()
    });
    for line in io::stdin().lock().lines() {
        let line = line.unwrap();
        if line.is_empty() {
            tally.arrived.store(0, Ordering::SeqCst);
            say(Said::Counting);
        } else {
            say(tally.stale(&serde_json::from_str(&line).unwrap()));
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    clients: usize,
    from_us: AtomicU64,
    ready: AtomicUsize,
    bytes: AtomicU64,
    arrived: AtomicUsize,
    steps: Mutex<Vec<Step>>,
}

/// A client came from one change to a later one.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// The first change that it did not have.
    lacked: u32,
    /// The last change that it has now.
    has: u32,
    at_us: u64,
}

impl Tally {
    fn ready(&self, bytes: u64) {
        let at_us = clock_us();
        self.bytes.fetch_max(bytes, Ordering::SeqCst);
        if self.ready.fetch_add(1, Ordering::SeqCst) + 1 == self.clients {
            let (from_us, bytes) = (self.from_us.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst));
            say(Said::Ready(Ready { from_us, at_us, bytes }));
        }
    }

    fn arrived(&self) {
        let at_us = clock_us();
        if self.arrived.fetch_add(1, Ordering::SeqCst) + 1 == self.clients {
            self.arrived.store(0, Ordering::SeqCst);
            say(Said::All { at_us });
        }
    }
}

impl Tally {
    /// A client has one more response, with the endpoints of this change.
    fn step(&self, before: Option<u32>, has: u32) {
        let lacked = before.map_or(0, |before| before + 1);
        if before != Some(has) {
            self.steps.lock().unwrap().push(Step { lacked, has, at_us: clock_us() });
        }
    }

    /// Waits until all have the last of these changes. What was noted of them is forgotten.
    fn stale(&self, moments: &Moments) -> Said {
        let last = moments.first + moments.changed_us.len() - 1;
        let has_last = |step: &&Step| usize::try_from(step.has).unwrap() == last;
        let current = || self.steps.lock().unwrap().iter().filter(has_last).count();
        let until = lifecycle::now() + ARRIVING;
        while current() < self.clients && lifecycle::now() < until {
            std::thread::sleep(LOOK_EVERY);
        }
        let current = current();
        let steps = std::mem::take(&mut *self.steps.lock().unwrap());
        let changed = |number: u32| moments.changed_us[usize::try_from(number).unwrap() - moments.first];
        let stale: Vec<u64> =
            steps.iter().map(|step| step.at_us.saturating_sub(changed(step.lacked))).collect();
        let [p50, p99, max] = [50, 99, 100].map(|part| percentile(&stale, part));
        Said::Stale { p50, p99, max, responses: stale.len(), current }
    }
}

struct Client {
    orders: Arc<Orders>,
    versions: Arc<HashMap<String, HashMap<String, String>>>,
    tally: Arc<Tally>,
    turns: Arc<Semaphore>,
}

impl Client {
    async fn run(self, number: usize) {
        let turn = self.turns.acquire().await.unwrap();
        let mut stream = Stream::open(&self.orders.socket, &self.orders.nodes.of(number)).await;
        drop(turn);
        for (kind, names) in known(&self.orders) {
            let versions = self.versions.get(kind.type_url()).cloned().unwrap_or_default();
            stream.ask(kind, names, versions).await;
        }
        if self.orders.reconnect {
            // Nothing is sent to one that has everything: what answers this was asked after all the rest.
            stream.ask(Kind::Listener, vec!["no such listener".to_owned()], HashMap::new()).await;
        }
        let (mut resources, mut is_ready, mut change) = (0, false, None);
        loop {
            let response = stream.next().await;
            match &self.orders.watched {
                None => self.tally.arrived(),
                Some(watched) => {
                    if let Some(now) = answer::change(&response, watched, change) {
                        self.tally.step(change, now);
                        change = Some(now);
                    }
                }
            }
            let response = Answered::read(&response);
            resources += response.resources;
            let is_answered = response.removed > 0;
            if !is_ready && (is_answered || resources >= self.orders.resources) {
                is_ready = true;
                self.tally.ready(stream.call.bytes);
            }
            stream.ack(response.type_url, response.nonce).await;
        }
    }
}

fn known(orders: &Orders) -> Vec<(Kind, Vec<String>)> {
    let of = |kind: Kind| orders.names.get(kind.short()).map(|names| (kind, names.clone()));
    // The order in which an Envoy asks.
    [Kind::Cluster, Kind::Endpoints, Kind::Secret, Kind::Listener].into_iter().filter_map(of).collect()
}

/// What a client has after its first connection: versions by type and name.
async fn learn(orders: &Orders, kinds: &[(Kind, Vec<String>)]) -> HashMap<String, HashMap<String, String>> {
    let mut stream = Stream::open(&orders.socket, "proxy-first").await;
    for (kind, names) in kinds {
        stream.ask(*kind, names.clone(), HashMap::new()).await;
    }
    let mut versions: HashMap<String, HashMap<String, String>> = HashMap::new();
    while versions.values().map(HashMap::len).sum::<usize>() < orders.resources {
        let response = DeltaDiscoveryResponse::decode(&*stream.next().await).unwrap();
        let of_kind = versions.entry(response.type_url.clone()).or_default();
        of_kind.extend(response.resources.iter().map(|r| (r.name.clone(), r.version.clone())));
        stream.ack(&response.type_url, &response.nonce).await;
    }
    versions
}

/// One delta ADS stream.
struct Stream {
    call: Call,
    /// Until it is told, with the first request.
    node: Option<Node>,
}

impl Stream {
    async fn open(socket: &Path, node: &str) -> Self {
        let node = Node { id: node.to_owned(), ..Node::default() };
        Self { call: Call::open(socket, ADS).await, node: Some(node) }
    }

    async fn ask(&mut self, kind: Kind, names: Vec<String>, versions: HashMap<String, String>) {
        let request = DeltaDiscoveryRequest {
            node: self.node.take(),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names,
            initial_resource_versions: versions,
            ..DeltaDiscoveryRequest::default()
        };
        self.call.send(&request).await;
    }

    async fn next(&mut self) -> Vec<u8> {
        self.call.next().await
    }

    async fn ack(&mut self, type_url: &str, nonce: &str) {
        let request = DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            response_nonce: nonce.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        self.call.send(&request).await;
    }
}

/// The process of the clients, as those see it who started it.
pub(crate) struct Clients {
    child: Child,
    stdin: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Clients {
    pub(crate) fn start(orders: &Orders) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.arg("clients").arg(serde_json::to_string(orders).unwrap());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, said) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, said }
    }

    /// Waits until all have everything.
    pub(crate) fn ready(&mut self) -> Ready {
        loop {
            if let Said::Ready(ready) = self.next() {
                return ready;
            }
        }
    }

    pub(crate) fn count(&mut self) {
        writeln!(self.stdin).unwrap();
        while self.next() != Said::Counting {}
    }

    /// When the last of all had one more response.
    pub(crate) fn all(&mut self) -> u64 {
        match self.next() {
            Said::All { at_us } => at_us,
            other => panic!("{other:?} while a change is under way"),
        }
    }

    /// How stale they were, once they have all of these changes.
    pub(crate) fn stale(&mut self, moments: Moments) -> Said {
        writeln!(self.stdin, "{}", serde_json::to_string(&moments).unwrap()).unwrap();
        loop {
            if let said @ Said::Stale { .. } = self.next() {
                return said;
            }
        }
    }

    fn next(&mut self) -> Said {
        let mut line = String::new();
        assert!(self.said.read_line(&mut line).unwrap() > 0, "the clients ended");
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // It may have ended by itself, with a panic that it has shown.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

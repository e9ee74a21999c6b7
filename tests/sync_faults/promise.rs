//! What clients were promised for the time of a fault (docs/sync.md, "In a partition"), asked of the agents meanwhile and
//! measured. An answer may take longer than promised by what an agent takes for a trivial one at that moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use causeway::{
    lab::plan::{PREFIXES, PRIMARY, SECONDARY},
    lifecycle,
};
use tokio::time::Instant;

use crate::{
    lab_sync::{
        ask::{NoAnswer, Reply, ask_within},
        world::{AGENTS, World},
    },
    sync_faults::nemesis::{Fault, Victim, home_of, other},
};

/// A home that cannot be reached is known to be so by then.
const UNREACHABLE: Duration = Duration::from_secs(2);
/// An answer about a write comes by then, whatever it is: that, and 5 s to commit.
const ANY_ANSWER: Duration = Duration::from_secs(7);
/// After twice the 10 s of an agent's session another one has its duties, and asks what the others know for 5 s at most.
const TAKEN_OVER: Duration = Duration::from_secs(25);
/// Of an agent's session: who was paused for longer has lost its duties.
pub(super) const LEASE: Duration = Duration::from_secs(9);
/// A replica says that it is cut off by then: the connection is found dead after 8 s, and a silent stream after 15 s.
const MARKED_STALE: Duration = Duration::from_secs(15);
/// Consul elects another leader and finds the servers that are gone; nothing is promised, and this is seen as too long.
const ELECTED: Duration = Duration::from_secs(30);
/// A write that needs nothing from the other datacenter.
const AT_HOME: Duration = Duration::from_secs(1);
/// On a machine that has nothing else to do.
const ALLOWANCE: Duration = Duration::from_secs(1);
/// How much slower than a trivial answer.
const SLOWER: u32 = 10;
/// Who answered within the last second is believed to be there, and may be sent a write that has no answer.
const BELIEVED: Duration = Duration::from_millis(1_500);
/// Longer than anything promised.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One promise, measured.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    what: String,
    took: Duration,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.2} s", self.what, self.took.as_secs_f32())
    }
}

/// How long something took.
#[derive(Clone, Copy)]
pub(super) struct Took {
    pub(super) time: Duration,
    /// Of it, how long one thread of the agents could run and had no processor, the one that waited longest: nobody
    /// promises that there is one.
    pub(super) waited: Duration,
}

/// Measures that.
pub(super) struct Watch<'w> {
    world: &'w World,
    at: Instant,
    waited: BTreeMap<PathBuf, Duration>,
}

impl<'w> Watch<'w> {
    pub(super) fn start(world: &'w World) -> Self {
        Self { world, at: lifecycle::now(), waited: waited(world) }
    }

    pub(super) fn took(&self) -> Took {
        let since =
            |(thread, waited): (PathBuf, Duration)| Some(waited.saturating_sub(*self.waited.get(&thread)?));
        let longest = waited(self.world).into_iter().filter_map(since).max();
        let time = self.at.elapsed();
        Took { time, waited: longest.unwrap_or_default().min(time) }
    }
}

/// What the kernel counts of each thread of the agents until now.
fn waited(world: &World) -> BTreeMap<PathBuf, Duration> {
    let agents = AGENTS.iter().flat_map(|(_, nodes)| nodes);
    let pids = agents.filter_map(|node| world.lab().pid(node, "causeway").ok());
    let tasks = pids.filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten().flatten();
    let threads = tasks.map(|task| task.path());
    threads.filter_map(|thread| Some((thread.clone(), waited_by(&thread)?))).collect()
}

/// The second figure of `schedstat`, in nanoseconds.
fn waited_by(thread: &Path) -> Option<Duration> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    text.split(' ').nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// What was asked during a fault.
pub(super) struct Promises<'w> {
    world: &'w World,
    round: &'w str,
    began: Watch<'w>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    kept: Vec<Kept>,
    broken: Vec<String>,
}

impl<'w> Promises<'w> {
    /// Of faults that began now.
    pub(super) fn new(world: &'w World, round: &'w str) -> Self {
        Self { world, round, began: Watch::start(world), found: Mutex::default() }
    }

    /// Writes what is read during the fault.
    pub(super) fn prepare(world: &World, round: &str) {
        for (prefix, home) in PREFIXES {
            for (_, nodes) in AGENTS {
                let url = format!("{}/v1/kv/{prefix}{round}/seed", world.agent(nodes[0]));
                let reply = world.ask("PUT", &url, b"seed");
                assert_eq!(reply.status, 200, "{prefix} at home in {home}: {reply:?}");
            }
        }
    }

    /// All that holds during this fault, which lasts so long at least. `hit` are the nodes of agents that are gone.
    pub(super) fn ask(&self, fault: Fault, length: Duration, hit: &BTreeSet<String>) {
        match fault {
            // Who goes on within its lease keeps its duties.
            Fault::Stop(Victim::Home(_) | Victim::Applier(_)) if length < LEASE => {}
            Fault::Kill(Victim::Home(prefix)) | Fault::Stop(Victim::Home(prefix)) => {
                self.writes_again(prefix, home_of(prefix), hit, "taken over", TAKEN_OVER);
                self.writes_again(prefix, other(home_of(prefix)), hit, "elsewhere too", TAKEN_OVER);
            }
            Fault::Kill(Victim::Applier(prefix)) | Fault::Stop(Victim::Applier(prefix)) => {
                self.applies_again(prefix, hit);
            }
            Fault::Kill(Victim::Follower(datacenter) | Victim::Leader(datacenter))
            | Fault::Stop(Victim::Follower(datacenter) | Victim::Leader(datacenter)) => {
                self.writes_again(prefix_of(datacenter), datacenter, hit, "written again", ELECTED);
            }
            Fault::Kill(Victim::Majority(datacenter)) | Fault::Stop(Victim::Majority(datacenter)) => {
                self.is_leaderless(prefix_of(datacenter));
            }
            Fault::Slow { delay_ms } => self.is_slow(Duration::from_millis(delay_ms)),
            Fault::Reset | Fault::Restore(_) => {}
            partition => {
                debug_assert!(partition.is_partition());
                self.is_partitioned();
            }
        }
    }

    /// What was measured, and what was not kept.
    pub(super) fn end(self) -> (Vec<Kept>, Vec<String>) {
        let Found { kept, broken } = self.found.into_inner().unwrap();
        (kept, broken)
    }

    fn key(&self, prefix: &str, name: &str) -> String {
        format!("/v1/kv/{prefix}{}/{name}", self.round)
    }

    /// Asks, and tells how long it took.
    fn timed(&self, node: &str, method: &str, target: &str, body: &str) -> (Result<Reply, NoAnswer>, Took) {
        let (url, began) = (format!("{}{target}", self.world.agent(node)), Watch::start(self.world));
        let reply = ask_within(PATIENCE, method, &url, &[], body.as_bytes());
        (reply, began.took())
    }

    /// What comes on top of a promise right now.
    fn slack(&self, node: &str) -> Duration {
        let slower = self.timed(node, "GET", "/v1/sync/status", "").1.time * SLOWER;
        allowance() + slower
    }

    fn keep(&self, what: &str, Took { time: took, waited }: Took, promised: Duration, node: &str) {
        let within = promised + waited + self.slack(node);
        if took > within {
            let (took, within) = (took.as_secs_f32(), within.as_secs_f32());
            self.break_with(format!("{what}: {took:.2} s instead of {within:.2} s at most, at {node}"));
        }
        self.slowest(what, took);
    }

    /// Of several only the slowest is of interest.
    fn slowest(&self, what: &str, took: Duration) {
        let kept = &mut self.found.lock().unwrap().kept;
        match kept.iter_mut().find(|kept| kept.what == what) {
            Some(kept) => kept.took = kept.took.max(took),
            None => kept.push(Kept { what: what.to_owned(), took }),
        }
    }

    fn break_with(&self, text: String) {
        self.found.lock().unwrap().broken.push(text);
    }

    /// The other one has no way home: refused in time and not executed. Home goes on, and what is here is read.
    fn is_partitioned(&self) {
        std::thread::scope(|scope| {
            for (prefix, home) in PREFIXES {
                scope.spawn(move || self.is_marked_stale(prefix, other(home)));
            }
            std::thread::sleep(BELIEVED);
            for node in AGENTS.iter().flat_map(|(_, nodes)| nodes) {
                scope.spawn(move || self.is_cut_off(node));
            }
        });
    }

    fn is_cut_off(&self, node: &str) {
        for (prefix, home) in PREFIXES {
            let (seed, probe) = (self.key(prefix, "seed"), self.key(prefix, "probe"));
            if nodes(home).contains(&node) {
                let (reply, took) = self.timed(node, "PUT", &probe, "home");
                self.expect(node, &probe, &reply, 200);
                self.keep("write at home", took, AT_HOME, node);
                continue;
            }
            self.read(node, &seed);
            // What was on its way when the link went down may have been answered a moment ago.
            let is_unknown =
                |reply: &Result<Reply, NoAnswer>| reply.as_ref().is_ok_and(|reply| reply.status == 504);
            let _ = (0..2).any(|_| !is_unknown(&self.timed(node, "PUT", &probe, "remote").0));
            self.refused(node, "PUT", &probe, "remote");
            self.refused(node, "GET", &format!("{seed}?consistent"), "");
            if prefix == "locks/" {
                let lock = format!("/v1/lock/{prefix}{}/probe-lock", self.round);
                self.refused(node, "POST", &lock, "");
            }
        }
    }

    fn refused(&self, node: &str, method: &str, target: &str, body: &str) {
        let (reply, took) = self.timed(node, method, target, body);
        self.expect(node, target, &reply, 503);
        if let Ok(reply) = &reply
            && !reply.text().contains("home_unreachable")
        {
            self.break_with(format!("{method} {target} at {node} does not say home_unreachable: {reply:?}"));
        }
        self.keep("503 home_unreachable", took, UNREACHABLE, node);
    }

    fn read(&self, node: &str, target: &str) {
        let (reply, took) = self.timed(node, "GET", target, "");
        self.expect(node, target, &reply, 200);
        if reply.as_ref().is_ok_and(|reply| reply.header("x-sync-lag").is_none()) {
            self.break_with(format!("GET {target} at {node} does not say how old it is: {reply:?}"));
        }
        self.keep("read at the replica", took, AT_HOME, node);
    }

    fn is_marked_stale(&self, prefix: &str, datacenter: &'static str) {
        let (seed, node) = (self.key(prefix, "seed"), nodes(datacenter)[0]);
        let end = self.began.at + MARKED_STALE + self.slack(node);
        while lifecycle::now() < end {
            let (reply, _) = self.timed(node, "GET", &seed, "");
            if reply.is_ok_and(|reply| reply.header("x-sync-stale").is_some()) {
                return self.keep("marked stale after", self.began.took(), MARKED_STALE, node);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.break_with(format!("{prefix} at {node} is cut off and not marked as stale"));
    }

    /// Until a write is acknowledged at an agent that is still there. Others are told to come again.
    fn writes_again(
        &self,
        prefix: &str,
        datacenter: &'static str,
        hit: &BTreeSet<String>,
        what: &str,
        promised: Duration,
    ) {
        let target = self.key(prefix, "again");
        for node in nodes(datacenter).into_iter().filter(|node| !hit.contains(*node)) {
            let end = self.began.at + promised + PATIENCE;
            loop {
                let (reply, _) = self.timed(node, "PUT", &target, what);
                match &reply {
                    Ok(reply) if reply.status == 200 => break,
                    Ok(reply) if [503, 504].contains(&reply.status) => {}
                    _ => self.break_with(format!("PUT {target} at {node} is answered so: {reply:?}")),
                }
                if lifecycle::now() > end {
                    return self.break_with(format!("{what}: {prefix} is not written at {node}: {reply:?}"));
                }
                std::thread::sleep(LOOK_EVERY);
            }
            self.keep(&format!("{what} ({prefix})"), self.began.took(), promised, node);
        }
    }

    /// Home goes on at once; what is here is read, and another applier goes on.
    fn applies_again(&self, prefix: &str, hit: &BTreeSet<String>) {
        let (home, marker, seed) = (home_of(prefix), self.key(prefix, "applied"), self.key(prefix, "seed"));
        let is_left = |node: &&str| !hit.contains(*node);
        let Some(at) = nodes(home).into_iter().find(is_left) else { return };
        if nodes(home).iter().all(is_left) {
            let (reply, took) = self.timed(at, "PUT", &self.key(prefix, "probe"), "home");
            self.expect(at, "a write at home", &reply, 200);
            self.keep("write at home", took, AT_HOME, at);
        }
        let status = |reply: Result<Reply, NoAnswer>| reply.map_or(0, |reply| reply.status);
        let mut reads = BTreeSet::new();
        let mut is_written = false;
        for node in nodes(other(home)).into_iter().filter(is_left) {
            let end = self.began.at + TAKEN_OVER + PATIENCE;
            loop {
                is_written = is_written || status(self.timed(at, "PUT", &marker, "applied").0) == 200;
                let (reply, took) = self.timed(node, "GET", &seed, "");
                reads.insert(status(reply));
                self.slowest("read without an applier", took.time);
                // Past the agents: until then they ask the home.
                let local = format!("{}{marker}", self.world.consul(node));
                if is_written && status(ask_within(PATIENCE, "GET", &local, &[], b"")) == 200 {
                    break;
                }
                if lifecycle::now() > end {
                    return self.break_with(format!("nobody applies {prefix} again; reads: {reads:?}"));
                }
                std::thread::sleep(LOOK_EVERY);
            }
            self.keep(&format!("applied again ({prefix})"), self.began.took(), TAKEN_OVER, node);
        }
        if reads.iter().any(|status| *status != 200) {
            self.break_with(format!("reads of {prefix} without an applier: {reads:?}"));
        }
    }

    /// Nothing is acknowledged, and everybody is told so in time.
    fn is_leaderless(&self, prefix: &str) {
        let target = self.key(prefix, "leaderless");
        for node in [PRIMARY, SECONDARY].into_iter().flat_map(nodes) {
            let (reply, took) = self.timed(node, "PUT", &target, "");
            if !reply.as_ref().is_ok_and(|reply| [503, 504].contains(&reply.status)) {
                self.break_with(format!("PUT {target} at {node} without a leader: {reply:?}"));
            }
            let what = reply.map_or("no answer".to_owned(), |reply| reply.status.to_string());
            self.keep(&format!("{what} without a leader"), took, ANY_ANSWER, node);
        }
    }

    /// Slow is not cut.
    fn is_slow(&self, delay: Duration) {
        for (prefix, home) in PREFIXES {
            let probe = self.key(prefix, "probe");
            for node in nodes(other(home)) {
                let (reply, took) = self.timed(node, "PUT", &probe, "slow");
                self.expect(node, &probe, &reply, 200);
                if took.time < delay * 2 {
                    let took = took.time;
                    self.break_with(format!("a write over {delay:?} each way took {took:?}: it is not slow"));
                }
                self.keep("write over the slow link", took, UNREACHABLE, node);
            }
        }
    }

    fn expect(&self, node: &str, target: &str, reply: &Result<Reply, NoAnswer>, status: u16) {
        if !reply.as_ref().is_ok_and(|reply| reply.status == status) {
            self.break_with(format!("{target} at {node} is no {status}: {reply:?}"));
        }
    }
}

/// What a promise's time may be missed by: more where much more wants to run than can, since every process of the lab then
/// waits for a processor, now this one, now that.
pub(super) fn allowance() -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default();
    let is_crowded =
        load > 3.0 * std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    if is_crowded { ALLOWANCE * 4 } else { ALLOWANCE }
}

/// The nodes of a datacenter that have an agent.
pub(super) fn nodes(datacenter: &str) -> [&'static str; 2] {
    AGENTS.iter().find(|(name, _)| *name == datacenter).map(|(_, nodes)| *nodes).unwrap()
}

/// The prefix that is written in a datacenter.
pub(super) fn prefix_of(datacenter: &str) -> &'static str {
    PREFIXES.iter().find(|(_, home)| *home == datacenter).map(|(prefix, _)| *prefix).unwrap()
}

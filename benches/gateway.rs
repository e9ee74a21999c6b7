//! One real mesh gateway before thousands of services, on real parts: Consul, agent and Envoy.
//!
//! From the start of the agent to Envoy's ACK of all clusters and endpoints, from the return of a write to Envoy's ACK
//! of what it changes, and what that takes: connections to Consul, of which a 1.8 gives one client 200, and the agent's
//! memory and CPU. `cargo bench --bench gateway -- 300` takes another number of services than the usual 2,000. It
//! judges nothing but that Envoy has all of them and that nothing failed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot be made ends with a panic"
)]

#[path = "kit/acks.rs"]
mod acks;
#[path = "kit/figures.rs"]
mod figures;
#[path = "../tests/rig"]
mod rig {
    pub(crate) mod crowd;
    pub(crate) mod parts;
}

use std::{
    env,
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    process::Stdio,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use causeway::{consul::client::Client, lifecycle};
use serde_json::{Value, json};

use crate::{
    acks::{LOG, ack_us, day_us, since},
    figures::{machine, percentile},
    rig::{
        crowd::{Watcher, client, cpu, fill, register, requests, sidecar},
        parts::{Agent, Consul, Home, Process, causeway, free_ports, tool},
    },
};

const HOST: Ipv4Addr = Ipv4Addr::new(127, 58, 2, 1);
const SERVICES: usize = 2_000;
/// Of each kind: a check that turns critical, and back.
const CHANGES: usize = 50;
const PORT: u16 = 20_000;
const AT_REST: Duration = Duration::from_secs(30);
/// Between two looks at counters, which cost the agent little; what the times of the start are known to.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Far beyond what anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(300);
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/gateway.txt");

fn main() {
    let services = env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(SERVICES);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut report = format!("{}, at the start\n\n", machine());
    let consul = Consul::start(HOST, json!({}));
    let writer = client(&consul);
    let began = lifecycle::now();
    runtime.block_on(fill(&writer, services));
    println!("{services} services registered in {:.1?}", began.elapsed());
    let watcher = Watcher::of(consul.http);
    let mut gateway = Gateway::start(&consul, services);
    write_start(&mut report, &gateway, services);
    let times = runtime.block_on(gateway.changes(&writer, services));
    write_changes(&mut report, &times, gateway.cpu_of_changes);
    write_rest(&mut report, &gateway, &consul);
    let (all, failed) = requests(&gateway.agent);
    let most = watcher.most.load(Ordering::Relaxed);
    let _ = writeln!(
        report,
        "connections to Consul at once, our own included   {most:>8}, of 200\nrequests to Consul                                {all:>8}, failed {failed}"
    );
    print!("{report}");
    let _ = writeln!(report, "\n{}, at the end\n\nwrite to ACK, us: {times:?}", machine());
    fs::write(RESULTS, report).unwrap();
    println!("\nevery single time: {RESULTS}");
    assert_eq!(failed, 0, "{}", gateway.agent.log().text());
}

/// The agent and its Envoy.
struct Gateway {
    agent: Agent,
    envoy: Process,
    /// From the agent's start to the ACK of the last cluster, and of everything.
    clusters: Duration,
    everything: Duration,
    /// The agent's until then.
    cpu: Duration,
    kib: u64,
    cpu_of_changes: Duration,
}

/// What the agent has counted of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    responses: u64,
    resources: u64,
    acks: u64,
    nacks: u64,
}

impl Counts {
    fn is_settled(self) -> bool {
        self.responses == self.acks
    }
}

impl Gateway {
    /// Both begin at once; Envoy waits for the agent's answers.
    fn start(consul: &Consul, services: usize) -> Self {
        let [port, admin] = free_ports(HOST);
        let home = Home::new(HOST);
        let socket = format!("unix:{}", home.socket().display());
        let mut command = causeway();
        command.args(["envoy", "--gateway", "mesh", "--register", "--address", &format!("{HOST}:{port}")]);
        command.args(["--http-addr", &consul.address(), "--xds", &socket]);
        command.args(["--admin-bind", &format!("{HOST}:{admin}"), "--bootstrap-dir"]).arg(home.path(""));
        command.arg("--envoy-binary").arg(tool("envoy", "ENVOY_BIN"));
        command.args(["--", "--concurrency", "1", "--log-level", "warn"]).stdout(Stdio::null());
        let began = lifecycle::now().into_std();
        let agent = Agent::with(home, &consul.address(), LOG, &[]);
        let envoy = Process::start(&mut command);
        let mut gateway = Self {
            agent,
            envoy,
            clusters: Duration::ZERO,
            everything: Duration::ZERO,
            cpu: Duration::ZERO,
            kib: 0,
            cpu_of_changes: Duration::ZERO,
        };
        gateway.clusters = gateway.until_taken(began, "CDS", services);
        gateway.everything = gateway.until_taken(began, "EDS", services);
        gateway.cpu = cpu(gateway.agent.process.pid());
        gateway.kib = gateway.rss_kib();
        gateway
    }

    /// When Envoy had so many resources of a type, and had acknowledged all that it was sent.
    fn until_taken(&mut self, began: Instant, kind: &str, resources: usize) -> Duration {
        loop {
            let counts = self.until(&format!("{kind} acknowledged"), kind, |counts| {
                counts.is_settled() && counts.resources >= resources as u64
            });
            let taken = began.elapsed();
            // A resource may have been sent more than once, so that the sum alone does not tell.
            if self.synced(kind) >= resources && self.counts(kind) == counts {
                return taken;
            }
        }
    }

    fn until(&mut self, what: &str, kind: &str, is_there: impl Fn(Counts) -> bool) -> Counts {
        let end = lifecycle::now() + PATIENCE;
        loop {
            let counts = self.counts(kind);
            if is_there(counts) {
                return counts;
            }
            let envoy = &mut self.envoy;
            assert!(envoy.is_running(), "Envoy ended:\n{}", envoy.log.text());
            assert!(lifecycle::now() < end, "not in time: {what}, {counts:?}\n{}", self.agent.log().text());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn counts(&self, kind: &str) -> Counts {
        let text = self.agent.get("/metrics").body;
        let count = |name: &str| {
            let series = format!("causeway_xds_{name}_total{{type=\"{kind}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
        };
        let counts = Counts {
            responses: count("responses"),
            resources: count("resources_sent"),
            acks: count("acks"),
            nacks: count("nacks"),
        };
        assert_eq!(counts.nacks, 0, "{}", self.agent.log().text());
        counts
    }

    /// How many resources of a type Envoy has as they should be, if it has all.
    fn synced(&self, kind: &str) -> usize {
        let status: Value = self.agent.get("/status").json();
        let proxy = &status["proxies"][0];
        let types = proxy["streams"][0]["types"].as_array().unwrap();
        let of_kind = types.iter().find(|of| of["kind"] == kind).unwrap();
        let resources = of_kind["resources"].as_array().unwrap();
        let is_whole = proxy["complete"] == true && resources.iter().all(|r| r["state"] == "synced");
        if is_whole { resources.len() } else { 0 }
    }

    /// From the return of each write to the ACK of the endpoints that it changes, in microseconds.
    async fn changes(&mut self, writer: &Client, services: usize) -> Vec<u64> {
        let cpu_before = cpu(self.agent.process.pid());
        let mut times = Vec::new();
        for status in ["critical", "passing"] {
            for turn in 0..CHANGES {
                self.agent.log().clear();
                register(writer, sidecar(turn * services / CHANGES, PORT, status)).await;
                let written = day_us();
                let acked = self.agent.log().find(|text| text.lines().find_map(ack_us));
                let acked = acked.unwrap_or_else(|| panic!("no ACK in\n{}", self.agent.log().text()));
                times.push(u64::try_from(since(written, acked)).unwrap_or(0));
            }
        }
        self.cpu_of_changes = cpu(self.agent.process.pid()) - cpu_before;
        times
    }

    fn rss_kib(&self) -> u64 {
        figures::rss_kib_of(self.agent.process.pid())
    }
}

fn write_start(report: &mut String, gateway: &Gateway, services: usize) {
    let (clusters, everything) = (gateway.clusters.as_secs_f64(), gateway.everything.as_secs_f64());
    let _ = writeln!(
        report,
        "One mesh gateway before {services} services\n\n\
         agent's start to the ACK of all clusters          {clusters:>8.2} s\n\
         agent's start to the ACK of all endpoints         {everything:>8.2} s\n\
         agent's CPU until then                            {:>8.2} s\n\
         agent's memory then                               {:>8.1} MB",
        gateway.cpu.as_secs_f64(),
        gateway.kib as f64 / 1_024.0,
    );
}

fn write_changes(report: &mut String, times: &[u64], cpu: Duration) {
    let ms = |percent| percentile(times, percent) as f64 / 1_000.0;
    let _ = writeln!(
        report,
        "write of a check to Envoy's ACK, p50, p99, max    {:>8.1} {:.1} {:.1} ms of {}\n\
         agent's CPU for each of them                      {:>8.1} ms",
        ms(50),
        ms(99),
        ms(100),
        times.len(),
        cpu.as_secs_f64() * 1_000.0 / times.len() as f64,
    );
}

fn write_rest(report: &mut String, gateway: &Gateway, consul: &Consul) {
    let (agent, server) = (gateway.agent.process.pid(), consul.pid());
    let (agent_before, server_before) = (cpu(agent), cpu(server));
    std::thread::sleep(AT_REST);
    let percent =
        |now: Duration, before: Duration| 100.0 * (now - before).as_secs_f64() / AT_REST.as_secs_f64();
    let _ = writeln!(
        report,
        "CPU at rest, agent, Consul                        {:>8.1} {:.1} %\n\
         agent's memory at the end                         {:>8.1} MB",
        percent(cpu(agent), agent_before),
        percent(cpu(server), server_before),
        gateway.rss_kib() as f64 / 1_024.0,
    );
}

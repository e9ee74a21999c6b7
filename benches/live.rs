//! Measurements on real parts: one Consul as local agent, one Causeway, one Envoy with an upstream.
//!
//! From the return of a Consul write that changes an instance's health to Envoy's ACK at the agent, beside the
//! wake-up of a raw blocking query on the same health, which is the floor for whoever reads Consul over HTTP (Consul's
//! own xDS is no peer: of version 2, it cannot speak to this Envoy), and what the agent takes at rest (`latency`). Changes
//! without end to a thousand streams, and thousands of clients at once (`load`). What clients leave behind that are refused or
//! vanish, which takes a quarter of an hour (`visits`). All of it, or what is named. Prints all beside the figures to reach, and
//! keeps every single time in a file. It judges nothing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot be made ends with a panic"
)]

#[path = "kit/acks.rs"]
mod acks;
#[path = "kit/answer.rs"]
mod answer;
#[path = "kit/clients.rs"]
mod clients;
#[path = "kit/figures.rs"]
mod figures;
#[path = "kit/http2.rs"]
mod http2;
#[path = "live/load.rs"]
mod load;
#[path = "../tests/rig/parts.rs"]
mod parts;
#[path = "kit/ports.rs"]
mod ports;
#[path = "kit/visitors.rs"]
mod visitors;

use std::{env, fmt::Write as _, fs, net::Ipv4Addr, path::Path, process::Stdio, time::Duration};

use causeway::{config::consul::ConsulSettings, consul::client::Client, lifecycle};
use serde_json::{Value, json};

use crate::{
    acks::{LOG, ack_us, day_us, since},
    figures::machine,
    parts::{Agent, Consul, Home, Process, causeway, free_ports, tool, until},
};

const HOST: Ipv4Addr = Ipv4Addr::new(127, 58, 1, 1);
const RUNS: usize = 5;
const CHANGES: usize = 200;
/// Of which the first warm caches and connections up and are not counted.
const WARM_UP: usize = 20;
const AT_REST: Duration = Duration::from_secs(30);
const HEALTH: &str = "/v1/health/connect/api";
const DEADLINE: Duration = Duration::from_secs(30);
/// Clients that come and go, so many times: what a crowd leaves that another one makes grow is kept for each of them.
const VISITS: usize = 100_000;
const CROWDS: usize = 3;
/// Longer than the agent remembers a name of which it heard nothing, watches what is no longer wanted, and keeps a
/// connection to Consul that nobody uses: 60 s, 30 s, and 60 s that are looked at every 60 s.
const FORGOTTEN: Duration = Duration::from_secs(220);
const REFUSED: &str = "causeway_xds_streams_refused_total";
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/live.txt");
const RESULTS_OF_LOAD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/load.txt");
const RESULTS_OF_VISITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/visits.txt");

fn main() {
    // The raw query gets a thread of its own: on one thread it and the write would be read in one go.
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if words.first().is_some_and(|word| word == "clients") {
        return clients::run(serde_json::from_str(&words[1]).unwrap());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let is_wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    if is_wanted("latency") {
        latency(&runtime, &World::start(LOG));
    }
    if is_wanted("load") {
        load(&runtime);
    }
    if is_wanted("visits") {
        let mut report = format!("{} at the start\n\n", machine());
        write_visits(&mut report, &runtime.block_on(World::start(LOG).visits()));
        print!("{report}");
        fs::write(RESULTS_OF_VISITS, report).unwrap();
    }
}

fn load(runtime: &tokio::runtime::Runtime) {
    clients::raise_file_limit();
    let mut report = format!("{} at the start\n\n", machine());
    load::measure(runtime, &World::start(""), &mut report);
    print!("{report}");
    fs::write(RESULTS_OF_LOAD, report).unwrap();
}

fn latency(runtime: &tokio::runtime::Runtime, world: &World) {
    let mut report = format!("{} at the start\n\n", machine());
    let runs: Vec<Run> = (0..RUNS).map(|_| runtime.block_on(world.run())).collect();
    write_live(&mut report, &runs);
    // The raw poll of the last run is over; what is left is the agent beside one sidecar.
    let rest = world.rest();
    write_rest(&mut report, &rest);
    print!("{report}");
    for (number, run) in runs.iter().enumerate() {
        let _ = writeln!(report, "\nrun {number}: write to ACK, us: {:?}", run.acks);
        let _ = writeln!(report, "run {number}: write to blocking query, us: {:?}", run.polls);
    }
    fs::write(RESULTS, report).unwrap();
    println!("\nevery single time: {RESULTS}\n");
}

/// The parts, running.
struct World {
    consul: Consul,
    agent: Agent,
    _envoy: Process,
}

/// Times of one run, in microseconds, in the order of the changes.
struct Run {
    acks: Vec<i64>,
    polls: Vec<i64>,
}

impl World {
    /// With more settings of the agent.
    fn start(settings: &str) -> Self {
        let consul = Consul::start(HOST, json!({}));
        let [public, upstream, admin] = free_ports(HOST);
        consul.register(&json!({"Name": "web", "ID": "web", "Port": 8080, "Connect": {"SidecarService": {
            "Address": HOST, "Port": public, "Checks": [],
            "Proxy": {"Upstreams": [{"DestinationName": "api", "LocalBindAddress": HOST, "LocalBindPort": upstream}]}}}}));
        consul.put(
            "/v1/catalog/register",
            &json!({"Node": "other", "Address": "127.58.1.2", "Service":
            {"ID": "api-1", "Service": "api", "Port": 8080}}),
        );
        consul.put("/v1/catalog/register", &api(21_000));
        let agent = Agent::with(Home::new(HOST), &consul.address(), settings, &[]);
        agent.until_ready();
        let socket = format!("unix:{}", agent.home.socket().display());
        let mut envoy = causeway();
        envoy.args(["envoy", "--sidecar-for", "web", "--http-addr", &consul.address(), "--xds", &socket]);
        envoy.args(["--admin-bind", &format!("{HOST}:{admin}"), "--bootstrap-dir"]).arg(agent.home.path(""));
        envoy.arg("--envoy-binary").arg(tool("envoy", "ENVOY_BIN"));
        envoy.args(["--", "--concurrency", "1", "--log-level", "warn"]).stdout(Stdio::null());
        let envoy = Process::start(&mut envoy);
        until("Envoy has everything", || {
            let status: Value = agent.get("/status").json();
            let proxies = status["proxies"].as_array()?;
            let types = proxies.first()?["streams"].as_array()?.first()?["types"].as_array()?.clone();
            let is_whole = proxies[0]["complete"] == true && types.iter().any(|kind| kind["kind"] == "EDS");
            let is_synced = |kind: &Value| {
                kind["resources"].as_array().is_some_and(|all| all.iter().all(|r| r["state"] == "synced"))
            };
            (is_whole && types.iter().all(is_synced)).then_some(())
        });
        Self { consul, agent, _envoy: envoy }
    }

    async fn run(&self) -> Run {
        let authority = self.consul.http.to_string();
        let address = causeway::config::consul::ConsulAddress::Http { authority };
        let client = Client::new(ConsulSettings { address, ..ConsulSettings::default() }).unwrap();
        let mut run = Run { acks: Vec::new(), polls: Vec::new() };
        for number in 0..CHANGES + WARM_UP {
            let status = if number % 2 == 0 { "critical" } else { "passing" };
            let (ack, poll) = self.change(&client, status).await;
            if number >= WARM_UP {
                run.acks.push(ack);
                run.polls.push(poll);
            }
        }
        run
    }

    /// One change: from the return of the write to the ACK and to the return of the raw blocking query.
    async fn change(&self, client: &Client, status: &str) -> (i64, i64) {
        let index = client.get(HEALTH, &[], DEADLINE).await.unwrap().index.unwrap().to_string();
        self.agent.log().clear();
        let asking = client.clone();
        let mut polled = lifecycle::spawn("poll", async move {
            let query = [("index", index.as_str()), ("wait", "20s")];
            asking.get(HEALTH, &query, DEADLINE).await.unwrap().ok().unwrap();
            day_us()
        });
        let written = async {
            // A change after quiet, at no fixed beat with anything's timers.
            tokio::time::sleep(Duration::from_millis(20 + fastrand::u64(..20))).await;
            let body = json!({"Node": "other", "Address": "127.58.1.2", "SkipNodeUpdate": true, "Check": check(status)});
            client.put("/v1/catalog/register", &[], Some(body), DEADLINE).await.unwrap().ok().unwrap();
            day_us()
        };
        let written = written.await;
        let polled = polled.join().await.unwrap();
        let acked = self.agent.log().find(|text| text.lines().find_map(ack_us));
        let acked = acked.unwrap_or_else(|| panic!("no ACK in\n{}", self.agent.log().text()));
        (since(written, acked), since(written, polled))
    }

    /// Clients that are refused or vanish, each under a name that the agent has not heard of.
    async fn visits(&self) -> Visits {
        let (pid, socket) = (self.agent.process.pid(), self.agent.home.socket());
        let (mut held, mut took) = (vec![Held::of(pid)], Duration::ZERO);
        for _ in 0..CROWDS {
            let began = lifecycle::now();
            visitors::come_and_go(&socket, VISITS).await;
            took += began.elapsed();
            tokio::time::sleep(FORGOTTEN).await;
            held.push(Held::of(pid));
        }
        let refused = self.agent.get("/metrics").body;
        let refused =
            refused.lines().find_map(|line| line.strip_prefix(REFUSED)).unwrap().trim().parse().unwrap();
        Visits { held, took, refused }
    }

    fn rest(&self) -> Rest {
        let pid = self.agent.process.pid();
        let (cpu, switches) = (cpu_us(pid), switches(pid));
        std::thread::sleep(AT_REST);
        Rest {
            cpu_us: cpu_us(pid) - cpu,
            switches: self::switches(pid) - switches,
            rss_kib: kib(pid, "VmRSS"),
            anon_kib: kib(pid, "RssAnon"),
            file_kib: kib(pid, "RssFile"),
        }
    }
}

/// What visitors cost.
struct Visits {
    /// Before the first crowd and after each.
    held: Vec<Held>,
    took: Duration,
    /// Streams that were told why they end.
    refused: u64,
}

/// What the agent holds.
struct Held {
    kib: u64,
    anon_kib: u64,
    files: usize,
    threads: usize,
}

impl Held {
    fn of(pid: u32) -> Self {
        let count = |of: &str| fs::read_dir(format!("/proc/{pid}/{of}")).unwrap().count();
        Self {
            kib: kib(pid, "VmRSS"),
            anon_kib: kib(pid, "RssAnon"),
            files: count("fd"),
            threads: count("task"),
        }
    }
}

fn write_visits(report: &mut String, visits: &Visits) {
    let _ = writeln!(
        report,
        "\n{CROWDS} times {VISITS} clients that are refused or vanish in {:.1} s, two of five under a new name each; {} streams were \
         told why they end;\nwhat the agent holds {} s after each crowd\n",
        visits.took.as_secs_f64(),
        visits.refused,
        FORGOTTEN.as_secs()
    );
    for (crowds, held) in visits.held.iter().enumerate() {
        let mib = |kib: u64| kib as f64 / 1_024.0;
        let _ = writeln!(
            report,
            "after {:>7}    {:.1} MB, of it the agent's own {:.1} MB, {} descriptors, {} threads",
            crowds * VISITS,
            mib(held.kib),
            mib(held.anon_kib),
            held.files,
            held.threads
        );
    }
    let _ = writeln!(report, "to reach         the same");
}

/// A field of a process's memory, in KiB.
fn kib(pid: u32, field: &str) -> u64 {
    let memory = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = memory.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// The upstream's one sidecar.
fn api(port: u32) -> Value {
    let service = json!({
        "Kind": "connect-proxy", "ID": "api-1-sidecar-proxy", "Service": "api-sidecar-proxy", "Port": port,
        "Proxy": {"DestinationServiceName": "api", "DestinationServiceID": "api-1"},
    });
    json!({"Node": "other", "Address": "127.58.1.2", "Service": service, "Check": check("passing")})
}

fn check(status: &str) -> Value {
    json!({"Node": "other", "CheckID": "api", "Name": "api", "Status": status, "ServiceID": "api-1-sidecar-proxy"})
}

/// What the agent took at rest.
struct Rest {
    cpu_us: u64,
    switches: u64,
    rss_kib: u64,
    anon_kib: u64,
    file_kib: u64,
}

/// What a file of every thread says, added up.
fn of_threads(pid: u32, file: &str, read: impl Fn(&str) -> u64) -> u64 {
    let threads = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).unwrap();
    threads
        .map(|thread| read(&fs::read_to_string(thread.unwrap().path().join(file)).unwrap_or_default()))
        .sum()
}

/// User and system time. `stat` counts hundredths of a second, too coarse for so little; `schedstat` nanoseconds.
fn cpu_us(pid: u32) -> u64 {
    of_threads(pid, "schedstat", |text| {
        text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap() / 1_000
    })
}

fn switches(pid: u32) -> u64 {
    of_threads(pid, "status", |text| {
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    })
}

fn percentile(times: &[i64], percent: usize) -> i64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn write_live(report: &mut String, runs: &[Run]) {
    let _ = writeln!(
        report,
        "From the return of a Consul write (health change, same datacenter), {RUNS} runs of {CHANGES} changes, in ms\n"
    );
    let _ = writeln!(report, "{:<42} {:>8} {:>8} {:>8}", "", "p50", "p99", "max");
    type Times = fn(&Run) -> &Vec<i64>;
    let kinds: [(&str, Times); 2] =
        [("to Envoy's ACK", |run| &run.acks), ("to a raw blocking query (floor)", |run| &run.polls)];
    for (name, times) in kinds {
        for (number, run) in runs.iter().enumerate() {
            write_row(report, &format!("  {name}, run {number}"), |percent| percentile(times(run), percent));
        }
        let of_runs = |percent| median(runs.iter().map(|run| percentile(times(run), percent)).collect());
        write_row(report, &format!("{name}, median"), of_runs);
    }
    let _ = writeln!(report, "{:<42} {:>8} {:>8}", "to reach, to Envoy's ACK", "5.000", "20.000");
}

fn write_row(report: &mut String, name: &str, percentile: impl Fn(usize) -> i64) {
    let ms = |percent| percentile(percent) as f64 / 1_000.0;
    let _ = writeln!(report, "{name:<42} {:>8.3} {:>8.3} {:>8.3}", ms(50), ms(99), ms(100));
}

fn write_rest(report: &mut String, rest: &Rest) {
    let mib = |kib: u64| kib as f64 / 1_024.0;
    let percent = rest.cpu_us as f64 / AT_REST.as_micros() as f64 * 100.0;
    let _ = writeln!(
        report,
        "\nAt rest beside one sidecar, {} s after these {} changes\n\n\
         memory (VmRSS)   {:>7.1} MB, of it the agent's own (RssAnon) {:.1} MB, of files (RssFile) {:.1} MB; to reach: 20 MB\n\
         CPU              {percent:>7.3} %, {} context switches; to reach: 0.1 %",
        AT_REST.as_secs(),
        RUNS * (CHANGES + WARM_UP),
        mib(rest.rss_kib),
        mib(rest.anon_kib),
        mib(rest.file_kib),
        rest.switches,
    );
}

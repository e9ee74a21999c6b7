//! Answers that pass through an agent as they come: long ones in little memory, endless ones without an end, and nothing
//! is left behind when a client goes or Consul stops.

mod relay;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use self::relay::Relay;
use crate::rig::parts::{Agent, Consul, Home, PATIENCE, Reply, free_ports, http, until};

const HOST: Ipv4Addr = Ipv4Addr::new(127, 62, 0, 1);

/// A whole list of these, in Base64, is some 100 MB.
const VALUES: usize = 180;
const VALUE_BYTES: usize = 420_000;

/// What an agent may grow by while such a list passes: buffers on both sides, and an allocator's own ideas.
const FLAT_KB: u64 = 32 << 10;

struct Bench {
    agent: Agent,
    consul: Consul,
    /// Between the two.
    relay: Relay,
}

impl Bench {
    /// An agent that takes part in replication, alone in its datacenter.
    fn start() -> Self {
        let consul = Consul::start(HOST, json!({}));
        let relay = Relay::start(HOST, consul.http);
        let [listen] = free_ports::<1>(HOST);
        let settings = format!(
            "sync.enabled = true\nsync.datacenters = [\"dc1\"]\nsync.listen = \"{HOST}:{listen}\"\n\
             sync.prefix = [{{ prefix = \"config/\", home = \"dc1\" }}]"
        );
        let agent = Agent::with(Home::new(HOST), &format!("http://{}", relay.address), &settings, &[]);
        until("replication serves", || {
            let written = http(agent.home.http, "PUT", "/v1/kv/config/ready", "yes").ok()?;
            (written.status == 200).then_some(())
        });
        Self { agent, consul, relay }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        http(self.agent.home.http, method, path, body).unwrap()
    }

    /// A field of the agent's `/proc/PID/status`, in KB.
    fn memory(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.agent.process.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse().unwrap()
    }

    /// A request under way, its connection just opened.
    fn begin(&self, path: &str) -> TcpStream {
        let to = self.agent.home.http;
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n").unwrap();
        stream
    }

    fn until_at(&self, request: &str, count: usize) {
        until(&format!("{count} connections are at {request}"), || {
            (self.relay.at(request) == count).then_some(())
        });
    }
}

/// Reads until this text was there, and gives all that was.
fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = String::new();
    let mut piece = [0; 4096];
    while !seen.contains(text) {
        let count = stream.read(&mut piece).unwrap_or_else(|error| panic!("{text}: {error}, after {seen}"));
        assert!(count > 0, "{text} did not come, but {seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    seen
}

#[test]
fn a_long_answer_costs_little_memory_whoever_takes_it() {
    let bench = Bench::start();
    let value = "x".repeat(VALUE_BYTES);
    for n in 0..VALUES {
        let written = http(bench.consul.http, "PUT", &format!("/v1/kv/plain/{n:03}"), &value).unwrap();
        assert_eq!(written.body.trim(), "true");
    }
    const LIST: &str = "/v1/kv/plain/?recurse";
    let consuls = http(bench.consul.http, "GET", LIST, "").unwrap().body;
    assert!(consuls.len() > 100_000_000, "{}", consuls.len());

    let before = bench.memory("VmHWM");
    let whole = bench.ask("GET", LIST, "");
    assert!(whole.status == 200 && whole.body == consuls, "{} of {}", whole.body.len(), consuls.len());
    // One that takes a little and then nothing, and is still there.
    let mut slow = bench.begin("/v1/kv/plain/?recurse&slow");
    let head = read_until(&mut slow, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    bench.until_at("&slow", 1);
    let second = bench.ask("GET", LIST, "");
    assert_eq!(second.body.len(), consuls.len(), "others go on beside it");
    let after = bench.memory("VmHWM");
    println!("{} bytes passed: the agent's peak went from {before} to {after} KB", consuls.len());
    assert!(after < before + FLAT_KB, "{before} KB before, {after} KB at its peak");

    drop(slow);
    bench.until_at("&slow", 0);
}

#[test]
fn silence_ends_nothing_and_a_consul_that_stopped_is_noticed() {
    let bench = Bench::start();
    // Says nothing while there is nothing wrong.
    let mut silent = bench.begin("/v1/agent/monitor?loglevel=err");
    read_until(&mut silent, "\r\n\r\n");
    // Says what Consul is asked.
    let mut loud = bench.begin("/v1/agent/monitor?loglevel=debug");
    bench.until_at("/v1/agent/monitor", 2);
    http(bench.consul.http, "GET", "/v1/status/leader?mark-of-this-test", "").unwrap();
    read_until(&mut loud, "mark-of-this-test");

    // Who goes away is forgotten at Consul too.
    let waiting = bench.begin("/v1/health/state/any?index=1000000&wait=10m");
    let mut staying = bench.begin("/v1/health/state/critical?index=1000000&wait=10m");
    bench.until_at("/v1/health/state/critical", 1);
    bench.until_at("/v1/health/state/any", 1);
    drop((waiting, loud));
    bench.until_at("/v1/health/state/any", 0);
    bench.until_at("/v1/agent/monitor", 1);

    // The agent asks whether Consul is there, and then leaves the silent one alone.
    until("Consul is asked whether it is there", || bench.relay.has_seen("GET / HTTP/1.1").then_some(()));
    silent.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let nothing = silent.read(&mut [0; 1]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "the stream goes on");

    let pid = nix::unistd::Pid::from_raw(i32::try_from(bench.consul.pid()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it broke off and did not end: {rest:?}");
    let told = read_until(&mut staying, "no answer within");
    assert!(told.starts_with("HTTP/1.1 500"), "{told}");
    kill(pid, Signal::SIGCONT).unwrap();
    until("Consul is asked again", || {
        (bench.ask("GET", "/v1/status/leader", "").status == 200).then_some(())
    });
}

#[test]
fn requests_have_bounds_and_each_is_told() {
    let bench = Bench::start();
    // Consul's own words where Consul has the bound.
    let verbs = |prefix: &str, count: usize| {
        let verb = |n| json!({ "KV": { "Verb": "set", "Key": format!("{prefix}{n}"), "Value": "" } });
        json!((0..count).map(verb).collect::<Vec<_>>()).to_string()
    };
    let consuls = http(bench.consul.http, "PUT", "/v1/txn", &verbs("plain/", 65)).unwrap();
    let ours = bench.ask("PUT", "/v1/txn", &verbs("plain/", 65));
    assert_eq!((ours.status, &ours.body), (consuls.status, &consuls.body));
    assert_eq!(consuls.status, 413);
    // Where replication has one, its own.
    let ours = bench.ask("PUT", "/v1/txn", &verbs("config/", 65));
    assert!(ours.status == 413 && ours.body.contains("65 operations, and the limit is"), "{ours:?}");
    let ours = bench.ask("PUT", "/v1/kv/config/large", &"x".repeat(300_000));
    assert!(ours.status == 413 && ours.body.contains("300000 bytes, and the limit is 262144"), "{ours:?}");
    // What no interface takes: a body beyond 1 MiB, a path beyond 64 KiB, and a header far beyond.
    let (body, long) = ("x".repeat(1_100_000), "x".repeat(100_000));
    for (line, headers, body, status) in [
        ("PUT /v1/kv/config/large", format!("Content-Length: {}\r\n", body.len()), body.as_str(), "413"),
        (&format!("GET /v1/kv/config/{long}"), String::new(), "", "414"),
        ("GET /v1/kv/config/a", format!("X-Long: {body}\r\n"), "", "431"),
    ] {
        let to = bench.agent.home.http;
        let mut stream = TcpStream::connect(to).unwrap();
        // Who is refused may be cut off in the middle of what it sends.
        let _ = write!(stream, "{line} HTTP/1.1\r\nHost: {to}\r\n{headers}\r\n{body}");
        let told = read_until(&mut stream, "\r\n");
        assert!(told.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {told}");
    }
    // The rest goes on, up to the bound.
    assert_eq!(bench.ask("PUT", "/v1/kv/config/fits", &"x".repeat(262_144)).status, 200);
    assert_eq!(
        bench.ask("GET", "/v1/kv/config/large", "").status,
        404,
        "nothing of what was refused is there"
    );
}

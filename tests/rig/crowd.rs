//! A catalog of many services, and what it costs to watch one: connections, requests, CPU.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use causeway::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::client::Client,
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::rig::parts::{Agent, Consul};

/// A write to a Consul that has much to do.
const DEADLINE: Duration = Duration::from_secs(10);

/// Nodes that the services are spread over. Each comes with the first service on it.
pub(crate) const NODES: usize = 20;

pub(crate) fn name(number: usize) -> String {
    format!("svc-{number:03}")
}

/// A sidecar of a service as an external node registers it, with its check's status.
pub(crate) fn sidecar(number: usize, port: u16, status: &str) -> Value {
    let (service, node) = (name(number), format!("n{:02}", number % NODES));
    let sidecar = format!("{service}-sidecar-proxy");
    json!({
        "Node": node, "Address": format!("10.1.0.{}", 1 + number % NODES), "SkipNodeUpdate": number >= NODES,
        "Service": {"Kind": "connect-proxy", "ID": sidecar, "Service": sidecar, "Port": port,
            "Proxy": {"DestinationServiceName": service, "DestinationServiceID": service}},
        "Check": {"Node": node, "CheckID": format!("c-{sidecar}"), "Name": "alive", "ServiceID": sidecar, "Status": status},
    })
}

/// A client that keeps its connection, as a thousand writes over one each would run into the cap.
pub(crate) fn client(consul: &Consul) -> Client {
    let address = ConsulAddress::Http { authority: consul.http.to_string() };
    Client::new(ConsulSettings { address, ..ConsulSettings::default() }).unwrap()
}

pub(crate) async fn register(client: &Client, entry: Value) {
    client.put("/v1/catalog/register", &[], Some(entry), DEADLINE).await.unwrap().ok().unwrap();
}

pub(crate) async fn add(client: &Client, number: usize) {
    let service = name(number);
    register(client, sidecar(number, 20_000, "passing")).await;
    let entry = json!({
        "Node": format!("n{:02}", number % NODES), "Address": format!("10.1.0.{}", 1 + number % NODES),
        "SkipNodeUpdate": true, "Service": {"ID": service, "Service": service, "Port": 8080},
    });
    register(client, entry).await;
}

/// Adds so many, a few at once.
pub(crate) async fn fill(client: &Client, services: usize) {
    const AT_ONCE: usize = 8;
    let nodes = services.min(NODES);
    for number in 0..nodes {
        add(client, number).await;
    }
    stream::iter(nodes..services).for_each_concurrent(AT_ONCE, |number| add(client, number)).await;
}

/// Connections to `server` that are open, seen from the clients' side.
pub(crate) fn connections(server: SocketAddr) -> usize {
    let IpAddr::V4(ip) = server.ip() else { panic!("IPv4") };
    let remote = format!("{:08X}:{:04X}", u32::from(ip).swap_bytes(), server.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_open = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next() == Some(remote.as_str()) && fields.next() == Some("01")
    };
    table.lines().filter(is_open).count()
}

/// The most connections that were open at once, sampled until it is dropped.
pub(crate) struct Watcher {
    pub(crate) most: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Watcher {
    pub(crate) fn of(server: SocketAddr) -> Self {
        let watcher = Self { most: Arc::default(), is_over: Arc::default() };
        let (most, is_over) = (watcher.most.clone(), watcher.is_over.clone());
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(connections(server), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        watcher
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// CPU time that a process has taken.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Requests of the agent to Consul, all and failed.
pub(crate) fn requests(agent: &Agent) -> (u64, u64) {
    let (mut all, mut failed) = (0, 0);
    let text = agent.get("/metrics").body;
    for line in text.lines().filter(|line| line.starts_with("causeway_consul_requests_total{")) {
        let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        all += count;
        if line.contains("failed") {
            failed += count;
        }
    }
    (all, failed)
}

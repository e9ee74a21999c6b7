//! A mesh gateway of a large datacenter on real Consuls: 500 services in each of three datacenters, and no more
//! connections than Consul's plain HTTP allows. What takes time is printed.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::atomic::Ordering, time::Duration};

use causeway::{consul::client::Client, lifecycle, xds::resource::Kind};
use envoy_types::pb::envoy::config::{
    core::v3::{HealthStatus, address::Address, socket_address::PortSpecifier},
    endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier},
};
use serde_json::{Value, json};

use crate::rig::{
    crowd::{Watcher, add, client, cpu, fill, name, register, requests, sidecar},
    parts::{Agent, Consul, http, until},
    stream::Stream,
};

const HOST: Ipv4Addr = Ipv4Addr::new(127, 50, 1, 11);
const SERVICES: usize = 500;
/// Consul 1.8 closes what a client opens beyond `limits.http_max_conns_per_client`.
const CONSUL_CAP: usize = 200;
/// A change that one look at a service would show must be there much sooner than a rotation of all polls takes.
const BOUND: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_secs(8);
const DATACENTERS: [&str; 3] = ["dc1", "dc2", "dc3"];

/// Three servers, each of its own datacenter, that know each other over the WAN pool.
fn federation() -> Vec<Consul> {
    let start = |dc: &&str| Consul::start(HOST, json!({ "datacenter": dc, "node_name": format!("{dc}-s1") }));
    let consuls: Vec<Consul> = DATACENTERS.iter().map(start).collect();
    for consul in &consuls[1..] {
        let port = consul.get("/v1/agent/self")["DebugConfig"]["SerfPortWAN"].clone();
        consuls[0].put(&format!("/v1/agent/join/{HOST}:{port}?wan=1"), &json!({}));
    }
    until("all datacenters know each other", || {
        let know =
            |consul: &Consul| consul.get("/v1/catalog/datacenters").as_array().map(Vec::len) == Some(3);
        let reach = |dc: &&str| {
            http(consuls[0].http, "GET", &format!("/v1/catalog/nodes?dc={dc}"), "")
                .is_ok_and(|r| r.status == 200)
        };
        (consuls.iter().all(know) && DATACENTERS.iter().all(reach)).then_some(())
    });
    consuls
}

fn gateway(address: &str) -> Value {
    json!({"Kind": "mesh-gateway", "Name": "mesh-gateway", "ID": "mesh-gateway", "Address": address, "Port": 8443,
        "TaggedAddresses": {"wan": {"Address": address, "Port": 8443}}})
}

/// The time from the return of each write to the endpoints that it changes, sorted.
async fn changes(
    client: &Client,
    stream: &mut Stream,
    numbers: impl Iterator<Item = usize>,
    (port, status): (u16, &str),
) -> Vec<Duration> {
    let health = if status == "passing" { HealthStatus::Healthy } else { HealthStatus::Unhealthy };
    let is_seen = |assigned: &ClusterLoadAssignment| {
        let all: Vec<&LbEndpoint> = assigned.endpoints.iter().flat_map(|group| &group.lb_endpoints).collect();
        matches!(all[..], [one] if one.health_status() == health && port_of(one) == Some(port.into()))
    };
    let mut times = Vec::new();
    for number in numbers {
        register(client, sidecar(number, port, status)).await;
        let written = lifecycle::now();
        let cluster = format!("{}.default.dc1.internal.", name(number));
        stream.until_endpoints(&cluster, is_seen).await.unwrap();
        times.push(written.elapsed());
    }
    times.sort();
    times
}

fn port_of(endpoint: &LbEndpoint) -> Option<u32> {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { return None };
    let Some(Address::SocketAddress(at)) = &endpoint.address.as_ref()?.address else { return None };
    match at.port_specifier {
        Some(PortSpecifier::PortValue(port)) => Some(port),
        _ => None,
    }
}

fn shown(times: &[Duration]) -> String {
    let (half, last) = (times[times.len() / 2], times[times.len() - 1]);
    format!("median {half:.1?}, longest {last:.1?} of {}", times.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_services_in_three_datacenters() {
    let consuls = federation();
    let clients: Vec<Client> = consuls.iter().map(client).collect();
    tokio::join!(fill(&clients[0], SERVICES), fill(&clients[1], SERVICES), fill(&clients[2], SERVICES));
    for (number, consul) in consuls.iter().enumerate() {
        consul.register(&gateway(&format!("192.0.2.{}", 1 + number)));
    }
    let consul = &consuls[0];
    let watcher = Watcher::of(consul.http);

    let started = lifecycle::now();
    let agent = Agent::start(HOST, consul);
    let mut stream = Stream::over_unix(&agent.home.socket(), "mesh-gateway").await.unwrap();
    let clusters = (0..SERVICES).map(|number| format!("{}.default.dc1.internal.", name(number)));
    let wanted: Vec<String> =
        clusters.clone().chain(["dc2", "dc3"].map(|dc| format!("{dc}.internal."))).collect();
    let beginnings: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let came = stream.until(&beginnings).await.unwrap();
    let (took, spent) = (started.elapsed(), cpu(agent.process.pid()));
    println!("from the agent's start to all {} clusters: {took:.1?}, {spent:.1?} of CPU", came.len());
    let local: BTreeSet<String> = came.into_iter().filter(|name| name.contains(".default.dc1.")).collect();
    assert_eq!(local.len(), SERVICES);
    stream.subscribe(Kind::Endpoints, local.iter().cloned()).await;
    stream.until(&local.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
    until("the snapshot is complete", || {
        let status = agent.get("/status").json();
        (status["proxies"][0]["complete"] == true).then_some(())
    });

    let agent_cpu = cpu(agent.process.pid());
    let picked = || (0..SERVICES).step_by(SERVICES / 25);
    let critical = changes(&clients[0], &mut stream, picked(), (20_000, "critical")).await;
    println!("a check turns critical: {}", shown(&critical));
    let moved = changes(&clients[0], &mut stream, picked(), (21_000, "critical")).await;
    println!("a port changes: {}", shown(&moved));
    let back = changes(&clients[0], &mut stream, picked(), (21_000, "passing")).await;
    println!("a check turns passing: {}", shown(&back));

    add(&clients[0], SERVICES).await;
    let written = lifecycle::now();
    stream.until(&[&format!("{}.default.dc1.internal.", name(SERVICES))]).await.unwrap();
    let new = written.elapsed();
    println!("a new service: {new:.1?}");

    let spent = (cpu(agent.process.pid()) - agent_cpu) / 76;
    println!("each change costs the agent {spent:.1?} of CPU");
    let (before, consul_pid) = (requests(&agent).0, consul.pid());
    let (agent_cpu, consul_cpu) = (cpu(agent.process.pid()), cpu(consul_pid));
    tokio::time::sleep(REST).await;
    let percent = |now: Duration, before: Duration| 100.0 * (now - before).as_secs_f64() / REST.as_secs_f64();
    let (all, failed) = requests(&agent);
    println!(
        "at rest: agent {:.1} % CPU, Consul {:.1} %, {:.1} requests a second",
        percent(cpu(agent.process.pid()), agent_cpu),
        percent(cpu(consul_pid), consul_cpu),
        (all - before) as f64 / REST.as_secs_f64(),
    );
    let most = watcher.most.load(Ordering::Relaxed);
    println!("connections to Consul: {most} at most; requests: {all}, failed: {failed}");
    assert!(most < CONSUL_CAP, "{most}");
    assert_eq!(failed, 0, "{}", agent.log().text());
    for times in [critical, moved, back, vec![new]] {
        assert!(times[times.len() / 2] < BOUND, "{times:?}");
    }
}

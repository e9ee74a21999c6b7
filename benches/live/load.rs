//! Load on the whole agent: changes without end in Consul's catalog, for a thousand streams of one proxy, and thousands of
//! clients at once.

use std::{fmt::Write as _, time::Duration};

use causeway::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::client::Client,
    lifecycle,
    xds::resource::Kind,
};
use serde_json::Value;

use crate::{
    DEADLINE, World, api,
    clients::{Clients, Moments, Nodes, Orders, Ready, Said, clock_us},
    cpu_us, kib,
    parts::{Agent, Consul},
    ports::port_of,
};

const PROXY: &str = "web-sidecar-proxy";
const STREAMS: usize = 1_000;
/// Changes each second that are wanted; Consul may not take as many.
const RATES: [u32; 3] = [10, 100, 1_000];
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_secs(5);
/// No client lacks a change for longer.
const BOUND_MS: u32 = 1_000;
const HERD: usize = 5_000;

/// Measures all of it.
pub(crate) fn measure(runtime: &tokio::runtime::Runtime, world: &World, report: &mut String) {
    let World { consul, agent, .. } = world;
    let _ = writeln!(
        report,
        "One changed endpoint to the last of {STREAMS} streams of one proxy, {ROUNDS} rounds of {} s each; from the return of \
         the Consul write, in ms\n\n{:<20} {:>10} {:>8} {:>8} {:>8} {:>12} {:>8} {:>14}",
        ROUND.as_secs(),
        "wanted a second",
        "written",
        "p50",
        "p99",
        "max",
        "responses",
        "CPU s",
        "memory after"
    );
    for rate in RATES {
        churn(runtime, consul, agent, rate, report);
    }
    let _ = writeln!(report, "{:<20} {:>38}", "to reach", BOUND_MS);
    let Ready { from_us, at_us, .. } = Clients::start(&orders(agent, HERD)).ready();
    let _ = writeln!(
        report,
        "\n{HERD} clients at once: the last has everything after {:.2} s; {} of them are admitted in a second",
        (at_us - from_us) as f64 / 1_000_000.0,
        causeway::config::xds::XdsSettings::default().new_streams_per_second,
    );
}

/// What a client of the proxy asks for, as its Envoy would.
fn orders(agent: &Agent, clients: usize) -> Orders {
    let mut first = Orders {
        socket: agent.home.socket(),
        clients,
        names: [Kind::Cluster, Kind::Listener].map(|kind| (kind.short().to_owned(), vec![])).into(),
        resources: 0,
        reconnect: false,
        nodes: Nodes::One(PROXY.to_owned()),
        watched: None,
    };
    let config = agent.get(&format!("/status/proxies/{PROXY}/config")).json();
    for kind in [Kind::Endpoints, Kind::Secret] {
        let names = names(&config, kind);
        first.watched = first.watched.or_else(|| names.iter().find(|name| name.starts_with("api.")).cloned());
        first.names.insert(kind.short().to_owned(), names);
    }
    let kinds = [Kind::Cluster, Kind::Endpoints, Kind::Secret, Kind::Listener];
    first.resources = kinds.iter().map(|kind| names(&config, *kind).len()).sum();
    first
}

fn names(config: &Value, kind: Kind) -> Vec<String> {
    let of_kind = config["resources"].as_array().unwrap().iter().filter(|one| one["kind"] == kind.short());
    of_kind.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

fn churn(runtime: &tokio::runtime::Runtime, consul: &Consul, agent: &Agent, rate: u32, report: &mut String) {
    // A port that is none of a change.
    consul.put("/v1/catalog/register", &api(8080));
    let pid = agent.process.pid();
    let mut clients = Clients::start(&orders(agent, STREAMS));
    clients.ready();
    let mut first = 0;
    for _ in 0..ROUNDS {
        let cpu = cpu_us(pid);
        let changed_us = runtime.block_on(write(consul, rate, first));
        let written = changed_us.len();
        let Said::Stale { p50, p99, max, responses, current } = clients.stale(Moments { first, changed_us })
        else {
            panic!("the clients tell how stale they were")
        };
        assert_eq!(current, STREAMS, "every client has the last change");
        first += written;
        let ms = |us: u64| us as f64 / 1_000.0;
        let _ = writeln!(
            report,
            "{rate:<20} {:>10.0} {:>8.1} {:>8.1} {:>8.1} {responses:>12} {:>8.2} {:>11.1} MB",
            written as f64 / ROUND.as_secs_f64(),
            ms(p50),
            ms(p99),
            ms(max),
            (cpu_us(pid) - cpu) as f64 / 1_000_000.0,
            kib(pid, "VmRSS") as f64 / 1_024.0,
        );
    }
}

/// Changes for one round, one after the other, each when it is due or as soon as Consul has taken the one before. Gives when
/// each was written.
async fn write(consul: &Consul, rate: u32, first: usize) -> Vec<u64> {
    let address = ConsulAddress::Http { authority: consul.http.to_string() };
    let client = Client::new(ConsulSettings { address, ..ConsulSettings::default() }).unwrap();
    let (start, mut changed_us) = (lifecycle::now(), Vec::new());
    while start.elapsed() < ROUND {
        let due = start + Duration::from_secs(1) * u32::try_from(changed_us.len()).unwrap() / rate;
        tokio::time::sleep_until(due).await;
        let body = api(port_of(first + changed_us.len()));
        client.put("/v1/catalog/register", &[], Some(body), DEADLINE).await.unwrap().ok().unwrap();
        changed_us.push(clock_us());
    }
    changed_us
}

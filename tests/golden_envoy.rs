//! Every golden is served to a real Envoy, which must acknowledge all of it. There listeners are moved to where this
//! machine has room for them; addresses that Envoy could not bind here are judged as they are in its validation, which
//! binds none.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use causeway::xds::{
    json::to_json,
    resource::{
        Key, Kind, Resource,
        address::{Address, Pipe},
        custom::CustomListener,
        secret::{Secret, SecretContent},
    },
    server::Offer,
    snapshot::{Draft, Snapshot},
    status::{ResourceState, StreamStatus},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    golden::{self, case::Case},
    xds_envoy::{bootstrap, envoy_binary, run},
    xds_rig::{Server, Source, certificates},
};

/// An Envoy starts and takes a snapshot within a fraction of a second; a busy machine gets time.
const DEADLINE: Duration = Duration::from_secs(15);
/// The machines that run this have two cores.
const AT_ONCE: usize = 2;

/// Where a listener can be on this machine, of the kind that it is.
fn moved(address: &Address, at: u8, dir: &Path) -> Address {
    match address {
        // Each on its own, so that two of one case never meet.
        Address::Socket(SocketAddr::V4(_)) => SocketAddr::from(([127, 0, 1, at], 0)).into(),
        Address::Socket(SocketAddr::V6(_)) => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into(),
        Address::Pipe(pipe) => {
            let path = dir.join(format!("{at}.sock")).to_str().unwrap().to_owned();
            Address::Pipe(Pipe { path, mode: pipe.mode })
        }
    }
}

fn address_json(address: &Address) -> Value {
    match address {
        Address::Socket(at) => json!({"socket_address": {"address": at.ip(), "port_value": at.port()}}),
        Address::Pipe(pipe) => json!({"pipe": {"path": pipe.path}}),
    }
}

/// What an Envoy on this machine can take: listeners on free ports of loopback or in a folder of its own, certificates
/// whose keys exist.
fn servable(snapshot: &Snapshot, dir: &Path) -> Arc<Snapshot> {
    let mut draft = Draft { complete: snapshot.is_complete(), ..Draft::default() };
    let leaf = snapshot.of_kind(Kind::Secret).find_map(|entry| entry.key.name.strip_prefix("leaf/"));
    let id = format!("spiffe://td.consul/ns/default/dc/primary/svc/{}", leaf.unwrap_or("none"));
    let [leaf, roots] = certificates(&id);
    for (at, entry) in (1..).zip(snapshot.iter()) {
        let resource = match &*entry.resource {
            Resource::Secret(Secret { name, content }) => {
                let is_leaf = matches!(content, SecretContent::Leaf { .. });
                let content = if is_leaf { leaf.clone() } else { roots.clone() };
                Resource::Secret(Secret { name: name.clone(), content })
            }
            Resource::Listener(listener) => {
                let mut listener = listener.clone();
                listener.address = moved(&listener.address, at, dir);
                Resource::Listener(listener)
            }
            Resource::CustomListener(listener) => {
                let mut json = listener.message.json().clone();
                json["address"] = address_json(&moved(&listener.address, at, dir));
                let moved = CustomListener::parse(&json.to_string(), listener.guard.clone()).unwrap();
                Resource::CustomListener(Box::new(moved))
            }
            other => other.clone(),
        };
        if entry.partial {
            draft.partial.insert(entry.key.clone());
        }
        draft.resources.insert(entry.key.clone(), resource.into());
    }
    Snapshot::empty().next(draft)
}

/// Whatever Envoy asks for: clusters and listeners all, and what they name.
fn expected(snapshot: &Snapshot) -> BTreeSet<Key> {
    let roots: Vec<_> =
        [Kind::Cluster, Kind::Listener].into_iter().flat_map(|kind| snapshot.of_kind(kind)).collect();
    let named = roots.iter().flat_map(|entry| &entry.refers_to).cloned();
    roots.iter().map(|entry| entry.key.clone()).chain(named).collect()
}

/// The names that Envoy has acknowledged in the intended version, or its refusal.
fn progress(status: &StreamStatus) -> Result<BTreeSet<(String, String)>, String> {
    let mut synced = BTreeSet::new();
    for of_type in &status.types {
        if of_type.nacks > 0 {
            let message = of_type.last_nack.as_ref().map(|nack| nack.message.as_str());
            return Err(format!("Envoy refuses {}: {}", of_type.kind, message.unwrap_or("?")));
        }
        let current = of_type.resources.iter().filter(|it| it.state == ResourceState::Synced);
        synced.extend(current.map(|it| (of_type.kind.clone(), it.name.clone())));
    }
    Ok(synced)
}

/// Serves a snapshot to an Envoy of its own until all of it is acknowledged.
async fn serve(proxy: &str, snapshot: &Snapshot) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = &servable(snapshot, dir.path());
    let socket = dir.path().join("xds.sock");
    let source = Source::default();
    source.offer(proxy, Offer::Ready(snapshot.clone()));
    let server = Server::start(&socket, &source);
    let mut envoy = run(dir.path(), &bootstrap(proxy, &socket));
    let wanted: BTreeSet<_> =
        expected(snapshot).into_iter().map(|key| (key.kind.short().to_owned(), key.name)).collect();
    let mut changes = server.board.changes();
    let look = || match server.board.streams().first() {
        Some(status) => progress(status),
        None => Ok(BTreeSet::new()),
    };
    let is_over = |seen: &Result<BTreeSet<_>, String>| seen.as_ref().map_or(true, |s| s.is_superset(&wanted));
    let is_seen = || !server.board.streams().is_empty() && is_over(&look());
    let waited = tokio::time::timeout(DEADLINE, changes.wait_for(|_| is_seen()));
    let is_late = waited.await.is_err();
    let seen = look();
    envoy.kill().await.unwrap();
    server.stop().await;
    let log = || std::fs::read_to_string(dir.path().join("envoy.log")).unwrap_or_default();
    match seen {
        Err(refusal) => Err(refusal),
        Ok(seen) if is_late => {
            let missing: Vec<_> = wanted.difference(&seen).collect();
            Err(format!("not acknowledged within {DEADLINE:?}: {missing:?}\n{}", log()))
        }
        Ok(_) => Ok(wanted.len()),
    }
}

async fn served(name: String, case: Case) -> (String, Result<Option<usize>, String>) {
    let outcome = match golden::make(&case) {
        Err(problems) => Err(problems.join("\n")),
        Ok(made) if !made.is_offered => Ok(None),
        Ok(made) => serve(case.proxy.as_str(), &made.snapshot).await.map(Some),
    };
    (name, outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_acknowledges_every_golden() {
    let cases = golden::all_cases().into_iter().map(|(name, case)| served(name, case));
    let outcomes: BTreeMap<_, _> = stream::iter(cases).buffer_unordered(AT_ONCE).collect().await;
    let acknowledged: Vec<usize> = outcomes.values().filter_map(|it| it.clone().ok().flatten()).collect();
    println!(
        "goldens served to Envoy: {} with {} resources; not offered: {}",
        acknowledged.len(),
        acknowledged.iter().sum::<usize>(),
        outcomes.values().filter(|outcome| **outcome == Ok(None)).count()
    );
    let failing: Vec<String> = outcomes
        .iter()
        .filter_map(|(name, outcome)| Some(format!("{name}: {}", outcome.as_ref().err()?)))
        .collect();
    assert!(failing.is_empty(), "{} cases\n{}", failing.len(), failing.join("\n\n"));
}

/// The check itself is checked: what Envoy refuses is told with Envoy's words.
#[tokio::test]
async fn a_golden_that_envoy_refuses_is_reported() {
    let case = &golden::all_cases()["recorded/tcp-local"];
    let mut draft = Draft { complete: true, ..Draft::default() };
    for entry in golden::make(case).unwrap().snapshot.iter() {
        let mut resource = Resource::clone(&entry.resource);
        if let Resource::Listener(listener) = &mut resource {
            listener.chains.clear();
        }
        draft.resources.insert(entry.key.clone(), resource.into());
    }
    let refusal = serve(case.proxy.as_str(), &Snapshot::empty().next(draft)).await.unwrap_err();
    assert!(refusal.contains("Envoy refuses LDS") && refusal.contains("no filter chains"), "{refusal}");
}

/// Clusters and listeners as static resources of a bootstrap, which Envoy judges without binding anything.
fn as_bootstrap(proxy: &str, snapshot: &Snapshot) -> Value {
    let mut config = bootstrap(proxy, Path::new("/nowhere/xds.sock"));
    for name in ["cds_config", "lds_config"] {
        config["dynamic_resources"].as_object_mut().unwrap().remove(name);
    }
    let of_kind = |kind| snapshot.of_kind(kind).map(|entry| to_json(entry.type_url, &entry.any).unwrap());
    let resources = &mut config["static_resources"];
    resources["clusters"].as_array_mut().unwrap().extend(of_kind(Kind::Cluster));
    resources["listeners"] = of_kind(Kind::Listener).collect();
    config
}

/// What Envoy says against the snapshot.
async fn objection(proxy: &str, snapshot: &Snapshot) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("envoy.json");
    std::fs::write(&config, as_bootstrap(proxy, snapshot).to_string()).unwrap();
    let args = ["--mode", "validate", "--disable-hot-restart", "--log-level", "warn", "--config-path"];
    let out = Command::new(envoy_binary()).args(args).arg(&config).output().await.unwrap();
    (!out.status.success()).then(|| String::from_utf8_lossy(&out.stderr).into_owned())
}

/// Where the listeners of a case are, all that `servable` would change by more than an IPv4 port.
fn odd_addresses(snapshot: &Snapshot) -> Vec<Address> {
    let listeners = snapshot.of_kind(Kind::Listener).flat_map(|entry| match &*entry.resource {
        Resource::Listener(listener) => vec![listener.address.clone()],
        Resource::CustomListener(custom) => {
            [vec![custom.address.clone()], custom.additional_addresses.clone()].concat()
        }
        _ => Vec::new(),
    });
    let is_odd = |address: &Address| match address {
        Address::Socket(at) => at.is_ipv6() || at.port() < 1024,
        Address::Pipe(_) => true,
    };
    listeners.filter(is_odd).collect()
}

#[tokio::test]
async fn envoy_takes_the_addresses_of_goldens_as_they_are() {
    let mut judged = BTreeSet::new();
    for (name, case) in golden::all_cases() {
        let snapshot = golden::make(&case).unwrap().snapshot;
        let odd = odd_addresses(&snapshot);
        if odd.is_empty() {
            continue;
        }
        assert_eq!(objection(case.proxy.as_str(), &snapshot).await, None, "{name}: {odd:?}");
        judged.extend(odd);
    }
    println!("addresses judged as they are: {judged:?}");
    assert!(judged.iter().any(|at| matches!(at, Address::Pipe(Pipe { mode: Some(_), .. }))), "{judged:?}");
    for ip in ["::", "::1", "2001:db8::2"] {
        let is_there = |at: &Address| matches!(at, Address::Socket(at) if at.ip().to_string() == ip);
        assert!(judged.iter().any(is_there), "{ip}: {judged:?}");
    }
}

/// The check itself is checked: a path that no Unix socket can have.
#[tokio::test]
async fn an_address_that_envoy_refuses_is_reported() {
    let case = &golden::all_cases()["handmade/sockets"];
    let mut draft = Draft { complete: true, ..Draft::default() };
    for entry in golden::make(case).unwrap().snapshot.iter() {
        let mut resource = Resource::clone(&entry.resource);
        if let Resource::Listener(listener) = &mut resource
            && let Address::Pipe(pipe) = &mut listener.address
        {
            pipe.path = format!("/run/{}", "n".repeat(200));
        }
        draft.resources.insert(entry.key.clone(), resource.into());
    }
    let refusal = objection(case.proxy.as_str(), &Snapshot::empty().next(draft)).await.unwrap();
    assert!(refusal.contains("exceeds maximum UNIX domain socket path size"), "{refusal}");
}

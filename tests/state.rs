//! What was last known, on real parts: an agent that starts while Consul is away serves what it served, to Envoys that
//! were there and to new ones.

mod files;

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use causeway::{
    api::wire::{ProxyConfig, Status},
    lifecycle::{self, Task, spawn},
    mesh::{
        self, Options, Proxy,
        world::{Assembled, World},
    },
    model::{
        catalog::{Catalog, Topics},
        name::ProxyId,
    },
    state::{format::Kind, store::Store},
    xds::{
        snapshot::{Draft, Snapshot},
        status::ResourceState,
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpListener, process::Child};

use crate::{
    rig::parts::{Agent, Consul, Home, PATIENCE, free_ports, until},
    xds_envoy,
};

fn host(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 59, 0, last)
}

fn now_s() -> u64 {
    lifecycle::wall_clock().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// `web`, which reaches `api` through both their sidecars, with all that this needs but the Envoys.
struct Mesh {
    host: Ipv4Addr,
    consul: Consul,
    agent: Option<Agent>,
    settings: String,
    /// Where `web`'s sidecar listens for `api`.
    upstream: SocketAddr,
    services: [Value; 2],
    _api: Task<()>,
}

impl Mesh {
    async fn start(host: Ipv4Addr, more: &str) -> Self {
        let [app, api, web, upstream] = free_ports(host);
        let consul = Consul::start(host, json!({}));
        let services = [
            service("api", host, app, api, json!([])),
            service("web", host, app, web, json!([upstream_to("api", host, upstream)])),
        ];
        services.iter().for_each(|service| consul.register(service));
        let listener = TcpListener::bind((host, app)).await.unwrap();
        let _api = spawn("test.api", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(b"pong").await;
            }
        });
        let home = Home::new(host);
        let settings = format!("state.dir = \"{}\"\n{more}", home.path("state").display());
        let agent = Agent::with(home, &consul.address(), &settings, &[]);
        agent.until_ready();
        let upstream = (host, upstream).into();
        Self { host, consul, agent: Some(agent), settings, upstream, services, _api }
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    fn state(&self) -> PathBuf {
        self.agent().home.path("state")
    }

    /// Kills the agent and Consul as `kill -9` does, and starts the agent alone.
    fn restart_without_consul(&mut self) {
        self.restart_after(Consul::kill);
    }

    /// Kills the agent, does something to Consul, and starts the agent.
    fn restart_after(&mut self, act: impl FnOnce(&mut Consul)) {
        let Agent { mut process, home } = self.agent.take().unwrap();
        process.signal(Signal::SIGKILL);
        process.ended();
        act(&mut self.consul);
        self.agent = Some(Agent::with(home, &self.consul.address(), &self.settings, &[]));
        self.agent().until_ready();
    }

    fn envoy(&self, service: &str) -> Envoy {
        let dir = tempfile::tempdir().unwrap();
        let proxy = format!("{service}-sidecar-proxy");
        let bootstrap = xds_envoy::bootstrap(&proxy, &self.agent().home.socket());
        let _process = xds_envoy::run(dir.path(), &bootstrap);
        Envoy { dir, _process }
    }

    fn status(&self) -> Status {
        serde_json::from_value(self.agent().get("/status").json()).unwrap()
    }

    /// Waits until both proxies are connected and have all they are meant to have.
    fn until_synced(&self) {
        until("both Envoys are synced", || {
            let proxies = self.status().proxies;
            let is_synced = proxies.iter().all(|proxy| {
                let types = || proxy.streams.iter().flat_map(|stream| &stream.types);
                let mut resources = types().flat_map(|kind| &kind.resources);
                types().count() >= 3 && resources.all(|it| it.state == ResourceState::Synced)
            });
            (proxies.len() == 2 && is_synced).then_some(())
        });
    }

    /// The resources of a proxy, with their versions.
    fn intended(&self, proxy: &str) -> Vec<String> {
        let config: ProxyConfig =
            serde_json::from_value(self.agent().get(&format!("/status/proxies/{proxy}/config")).json())
                .unwrap();
        config.resources.into_iter().map(|it| format!("{} {} {}", it.kind, it.name, it.version)).collect()
    }

    /// What the Envoy of a proxy has as it is meant to be.
    fn synced(&self, proxy: &str) -> BTreeSet<String> {
        let streams =
            self.status().proxies.into_iter().filter(|it| it.proxy == proxy).flat_map(|it| it.streams);
        let types = streams.flat_map(|stream| stream.types);
        let resources =
            types.flat_map(|kind| kind.resources.into_iter().map(move |it| (kind.kind.clone(), it)));
        let synced = resources.filter(|(_, it)| it.state == ResourceState::Synced);
        synced.map(|(kind, it)| format!("{kind} {}", it.name)).collect()
    }

    /// Waits until all that is known is on disk, and makes just what is intended.
    fn until_kept(&self) {
        until("what is served is on disk", || {
            let kept = catalog_of(&Store::new(&self.state()).load(true, now_s()).topics);
            let is_kept =
                |proxy: &str| versions(&kept, &proxy.into(), Options::default()) == self.intended(proxy);
            ["web-sidecar-proxy", "api-sidecar-proxy"].into_iter().all(is_kept).then_some(())
        });
    }

    fn reach(&self) -> Option<()> {
        let mut stream = TcpStream::connect(self.upstream).ok()?;
        // A connection that was opened too early decides nothing.
        stream.set_read_timeout(Some(PATIENCE / 9)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        (text == "pong").then_some(())
    }

    fn until_flowing(&self, envoys: &[&Envoy]) {
        let logs = || envoys.iter().map(|envoy| envoy.log()).collect::<String>();
        let flowing =
            std::panic::catch_unwind(AssertUnwindSafe(|| until("web reaches api", || self.reach())));
        assert!(flowing.is_ok(), "web does not reach api:\n{}\n{}", logs(), self.agent().log().text());
    }

    /// The sum over all labels of a metric.
    fn metric(&self, name: &str) -> u64 {
        metric(self.agent(), name)
    }
}

/// The catalog of these topics alone.
fn catalog_of(topics: &Topics) -> Catalog {
    let mut catalog = Catalog::default();
    for (topic, heard) in topics {
        catalog.hear(topic.clone(), heard.clone());
    }
    catalog
}

/// What is made of a proxy, with versions.
fn versions(catalog: &Catalog, proxy: &ProxyId, options: Options) -> Vec<String> {
    let Proxy::Built(built) = mesh::build(catalog, proxy, options) else { return Vec::new() };
    let Assembled { resources, partial, complete, .. } = World::default().assemble(built);
    let snapshot = Snapshot::empty().next(Draft { resources, partial, complete });
    snapshot.iter().map(|it| format!("{} {} {}", it.key.kind.short(), it.key.name, it.version)).collect()
}

fn metric(agent: &Agent, name: &str) -> u64 {
    let text = agent.get("/metrics").body;
    let of_it = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
    let values: Vec<u64> = of_it.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(!values.is_empty(), "no metric {name} in\n{text}");
    values.iter().sum()
}

fn service(name: &str, host: Ipv4Addr, app: u16, sidecar: u16, upstreams: Value) -> Value {
    let address = host.to_string();
    json!({"Name": name, "ID": name, "Address": address, "Port": app, "Connect": {"SidecarService": {
        "Address": address, "Port": sidecar, "Checks": [],
        "Proxy": {"LocalServiceAddress": address, "Upstreams": upstreams}}}})
}

fn upstream_to(name: &str, host: Ipv4Addr, port: u16) -> Value {
    json!({"DestinationName": name, "LocalBindAddress": host.to_string(), "LocalBindPort": port})
}

/// A real Envoy; dropping it kills it.
struct Envoy {
    dir: TempDir,
    _process: Child,
}

impl Envoy {
    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("envoy.log")).unwrap()
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_starts_while_consul_is_away_serves_what_it_served() {
    let mut mesh = Mesh::start(host(1), "").await;
    let (web, api) = (mesh.envoy("web"), mesh.envoy("api"));
    mesh.until_synced();
    mesh.until_flowing(&[&web, &api]);
    mesh.until_kept();
    assert_eq!(mesh.metric("causeway_consul_topics_from_disk"), 0);

    let before = mesh.intended("web-sidecar-proxy");
    let killed_at = lifecycle::now();
    mesh.restart_without_consul();
    println!("from kill -9 to ready without Consul: {:?}", killed_at.elapsed());
    mesh.until_synced();
    assert_eq!(mesh.intended("web-sidecar-proxy"), before);
    let sent = mesh.metric("causeway_xds_resources_sent_total");
    assert_eq!(sent, 0, "Envoys that were there are sent nothing:\n{}", mesh.agent().proxy_status(&[]).out);
    mesh.until_flowing(&[&web, &api]);

    drop(web);
    let started_at = lifecycle::now();
    let web = mesh.envoy("web");
    mesh.until_flowing(&[&web, &api]);
    println!("from the start of a new Envoy to traffic, without Consul: {:?}", started_at.elapsed());
    assert!(mesh.metric("causeway_consul_topics_from_disk") > 10);
    let said = mesh.agent().proxy_status(&[]).out;
    for part in
        ["Silent sources:", "(value from disk)", "note: proxy web-sidecar-proxy: is served by what was"]
    {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    mesh.agent().log().line(&["WARN", "values from disk are in use"]);

    mesh.consul.run();
    until("nothing is from disk", || {
        (mesh.metric("causeway_consul_topics_from_disk") == 0
            && mesh.status().topics.iter().all(|topic| topic.trouble.is_none()))
        .then_some(())
    });
    assert_eq!(mesh.status().proxies.iter().flat_map(|proxy| &proxy.notes).count(), 0);
    let [port] = free_ports(mesh.host);
    let mut changed = mesh.services[1].clone();
    changed["Connect"]["SidecarService"]["Proxy"]["Upstreams"] =
        json!([upstream_to("api", mesh.host, mesh.upstream.port()), upstream_to("db", mesh.host, port)]);
    mesh.consul.register(&changed);
    until("a change reaches Envoy", || TcpStream::connect((mesh.host, port)).ok());
    mesh.until_flowing(&[&web, &api]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consul_that_takes_connections_and_says_nothing_is_not_waited_for_long() {
    let mut mesh = Mesh::start(host(5), "").await;
    let (web, api) = (mesh.envoy("web"), mesh.envoy("api"));
    mesh.until_synced();
    mesh.until_flowing(&[&web, &api]);
    mesh.until_kept();
    drop(web);

    let tell =
        |consul: &Consul, signal| kill(Pid::from_raw(consul.pid().try_into().unwrap()), signal).unwrap();
    let killed_at = lifecycle::now();
    mesh.restart_after(|consul| tell(consul, Signal::SIGSTOP));
    let ready_after = killed_at.elapsed();
    let given_up = Duration::from_secs(10);
    assert!(ready_after < given_up, "ready after {ready_after:?}; a request is given up after {given_up:?}");
    let web = mesh.envoy("web");
    mesh.until_flowing(&[&web, &api]);
    println!(
        "stopped Consul: ready after {ready_after:?}, traffic of a new Envoy after {:?}",
        killed_at.elapsed()
    );
    mesh.until_synced();
    tell(&mesh.consul, Signal::SIGCONT);
    until("nothing is from disk", || (mesh.metric("causeway_consul_topics_from_disk") == 0).then_some(()));
    mesh.until_flowing(&[&web, &api]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_private_keys_a_new_envoy_waits_for_its_certificates() {
    let mut mesh = Mesh::start(host(2), "state.persist_keys = false").await;
    let (web, api) = (mesh.envoy("web"), mesh.envoy("api"));
    mesh.until_synced();
    mesh.until_flowing(&[&web, &api]);
    until("what is no key is on disk", || {
        let kept = Store::new(&mesh.state()).load(true, now_s()).topics;
        let mut known =
            mesh.status().topics.into_iter().filter(|it| it.known && !it.topic.starts_with("leaf/"));
        known.all(|it| kept.keys().any(|topic| topic.to_string() == it.topic)).then_some(())
    });
    assert!(!names(&mesh.state()).contains(Kind::Keys.file_name()));

    mesh.restart_without_consul();
    until("both Envoys are back", || {
        let proxies = mesh.status().proxies;
        (proxies.len() == 2 && proxies.iter().all(|proxy| !proxy.streams.is_empty())).then_some(())
    });
    mesh.until_flowing(&[&web, &api]);
    let waits: Vec<String> = mesh.status().proxies.into_iter().flat_map(|proxy| proxy.waiting_for).collect();
    assert!(waits.iter().any(|topic| topic.starts_with("leaf/web: ")), "{waits:?}");

    drop(web);
    until("the old one is gone", || {
        let web = mesh.status().proxies.into_iter().find(|it| it.proxy == "web-sidecar-proxy");
        web.is_none_or(|proxy| proxy.streams.is_empty()).then_some(())
    });
    let web = mesh.envoy("web");
    let has = until("the new Envoy has what needs no certificate", || {
        let has = mesh.synced("web-sidecar-proxy");
        (!has.is_empty()).then_some(has)
    });
    assert_eq!(has, BTreeSet::from(["CDS local_app".to_owned()]));
    assert!(TcpStream::connect(mesh.upstream).is_err(), "it does not listen for what it could not send on");
    mesh.consul.run();
    mesh.until_flowing(&[&web, &api]);
}

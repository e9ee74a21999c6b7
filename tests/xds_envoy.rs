//! The real Envoy takes what is sent, in time, and nothing twice.

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use causeway::{
    envoy::admin::Admin,
    lifecycle,
    xds::{
        resource::{Resource, cluster::Cluster, endpoints::Endpoints},
        server::{Limits, Listeners, Offer, bind_tcp},
        snapshot::Snapshot,
        status::{ResourceState, ResourceStatus, StreamStatus, TypeStatus},
    },
};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::xds_rig::{Server, Source, draft, secrets, snapshot, tcp, world};

const PROXY: &str = "web-sidecar-proxy";

/// A cluster whose endpoints do not follow warms for 15 s.
const NO_WARMING: Duration = Duration::from_secs(8);

/// The file in which an Envoy tells its admin interface's address.
const ADMIN: &str = "admin.txt";

/// How often a change is tried: a machine with other work is slow at times, warming is slow each time.
const TRIES: u64 = 5;

/// How an Envoy gets its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    DeltaAds,
    SotwAds,
    Delta,
    Sotw,
}

impl Transport {
    fn api_type(self) -> &'static str {
        match self {
            Self::DeltaAds | Self::Delta => "DELTA_GRPC",
            Self::SotwAds | Self::Sotw => "GRPC",
        }
    }

    fn is_ads(self) -> bool {
        matches!(self, Self::DeltaAds | Self::SotwAds)
    }
}

pub(crate) fn envoy_binary() -> PathBuf {
    let local = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/envoy/envoy");
    let on_path =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(|dir| dir.join("envoy")).collect();
    let candidates =
        [env::var_os("ENVOY_BIN").into_iter().map(PathBuf::from).collect(), vec![local], on_path];
    let found = candidates.into_iter().flat_map(|paths: Vec<PathBuf>| paths).find(|path| path.exists());
    found.expect("no Envoy: run `make tools`, or set ENVOY_BIN")
}

pub(crate) fn bootstrap(proxy: &str, socket: &Path) -> serde_json::Value {
    bootstrap_over(Transport::DeltaAds, None, proxy, socket)
}

fn bootstrap_over(
    transport: Transport,
    token: Option<&str>,
    proxy: &str,
    socket: &Path,
) -> serde_json::Value {
    let mut api = json!({
        "api_type": transport.api_type(), "transport_api_version": "V3", "set_node_on_first_message_only": true,
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
    });
    if let Some(token) = token {
        api["grpc_services"][0]["initial_metadata"] = json!([{"key": "x-consul-token", "value": token}]);
    }
    let mut source = json!({"resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    let mut dynamic = json!({});
    if transport.is_ads() {
        source["ads"] = json!({});
        dynamic["ads_config"] = api;
    } else {
        source["api_config_source"] = api;
    }
    dynamic["cds_config"] = source.clone();
    dynamic["lds_config"] = source;
    json!({
        "node": {"id": proxy, "cluster": "web", "metadata": {"xds_cluster": "xds"}},
        "admin": {"address": {"socket_address": {"address": "127.51.0.8", "port_value": 0}}},
        "dynamic_resources": dynamic,
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"pipe": {"path": socket}}}},
            ]}]},
        }]},
    })
}

/// An Envoy with that bootstrap; it ends with the returned value.
pub(crate) fn run(dir: &Path, bootstrap: &serde_json::Value) -> Child {
    let config = dir.join("envoy.json");
    std::fs::write(&config, bootstrap.to_string()).unwrap();
    let log = std::fs::File::create(dir.join("envoy.log")).unwrap();
    Command::new(envoy_binary())
        .args(["--disable-hot-restart", "--concurrency", "1", "-l", "warn", "-c"])
        .arg(&config)
        .arg("--admin-address-path")
        .arg(dir.join(ADMIN))
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// An Envoy with a server of its own.
pub(crate) struct Rig {
    dir: TempDir,
    source: Source,
    snapshot: Arc<Snapshot>,
    server: Option<Server>,
    _envoy: Child,
}

impl Rig {
    pub(crate) async fn start(resources: Vec<Resource>) -> Self {
        Self::over(Transport::DeltaAds, resources).await
    }

    pub(crate) async fn over(transport: Transport, resources: Vec<Resource>) -> Self {
        Self::presenting(None, transport, resources).await
    }

    /// With a token in its bootstrap, without which it is given nothing.
    async fn presenting(token: Option<&str>, transport: Transport, resources: Vec<Resource>) -> Self {
        let count = resources.len();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("xds.sock");
        let source = token.map(Source::demanding).unwrap_or_default();
        let server = Server::start(&socket, &source);
        let envoy = run(dir.path(), &bootstrap_over(transport, token, PROXY, &socket));
        let snapshot = Arc::new(Snapshot::empty());
        let mut rig = Self { dir, source, snapshot, server: Some(server), _envoy: envoy };
        rig.offer(resources);
        rig.has_all(count).await;
        rig
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Envoy's admin interface; it has one once it has been given anything.
    pub(crate) fn admin(&self) -> Admin {
        let address = std::fs::read_to_string(self.dir.path().join(ADMIN)).unwrap();
        Admin::new(format!("http://{}", address.trim()))
    }

    pub(crate) fn offer(&mut self, resources: Vec<Resource>) {
        self.snapshot = self.snapshot.next(draft(resources));
        assert_eq!(self.snapshot.dangling(), []);
        self.source.offer(PROXY, Offer::Ready(self.snapshot.clone()));
    }

    /// Waits until Envoy has so many resources, each in the offered version, and all over one stream.
    pub(crate) async fn settled(&self, resources: usize) -> Arc<StreamStatus> {
        let streams = self.has_all(resources).await;
        assert_eq!(streams.len(), 1, "{streams:#?}");
        streams[0].clone()
    }

    /// Waits until Envoy has so many resources and each in the offered version, over whatever streams.
    async fn has_all(&self, resources: usize) -> Vec<Arc<StreamStatus>> {
        let current = |name: &str, version: Option<&str>| {
            self.snapshot.iter().any(|e| e.key.name == name && Some(e.version.as_str()) == version)
        };
        let synced = |streams: &[Arc<StreamStatus>]| {
            let types = streams.iter().flat_map(|stream| &stream.types);
            let all: Vec<_> = types.flat_map(|t| t.resources.iter().map(move |r| (&t.kind, r))).collect();
            let distinct: BTreeSet<_> = all.iter().map(|(kind, r)| (*kind, &r.name)).collect();
            let is_synced = |r: &ResourceStatus| {
                r.state == ResourceState::Synced && current(&r.name, r.intended.as_deref())
            };
            distinct.len() == resources && all.iter().all(|(_, r)| is_synced(r))
        };
        let refused = |s: &[Arc<StreamStatus>]| s.iter().flat_map(|s| &s.types).any(|t| t.nacks > 0);
        let streams = self.server().until(|streams| synced(streams) || refused(streams)).await;
        let log = std::fs::read_to_string(self.dir.path().join("envoy.log")).unwrap();
        assert!(!refused(&streams), "{streams:#?}\n{log}");
        streams
    }
}

fn acks(status: &StreamStatus) -> Vec<(String, u64)> {
    status.types.iter().map(|t: &TypeStatus| (t.kind.clone(), t.acks)).collect()
}

fn slower_db(resources: &[Resource]) -> Vec<Resource> {
    with_timeout(resources, 7_000)
}

fn with_timeout(resources: &[Resource], connect_timeout_ms: u64) -> Vec<Resource> {
    let change = |resource: &Resource| match resource {
        Resource::Cluster(cluster) if cluster.name == "db" => {
            Resource::Cluster(Cluster { connect_timeout_ms, ..cluster.clone() })
        }
        other => other.clone(),
    };
    resources.iter().map(change).collect()
}

/// Everything that named `db` names `db2`.
fn moved(resources: &[Resource]) -> Vec<Resource> {
    let moved = |resource: &Resource| match resource.clone() {
        Resource::Cluster(cluster) if cluster.name == "db" => {
            Resource::Cluster(Cluster { name: "db2".into(), ..cluster })
        }
        Resource::Endpoints(endpoints) if endpoints.cluster == "db" => {
            Resource::Endpoints(Endpoints { cluster: "db2".into(), ..endpoints })
        }
        Resource::Listener(mut listener) => {
            for filter in listener.chains.iter_mut().flat_map(|chain| &mut chain.filters) {
                if *filter == tcp("db") {
                    *filter = tcp("db2");
                }
            }
            Resource::Listener(listener)
        }
        other => other,
    };
    resources.iter().map(moved).collect()
}

#[tokio::test]
async fn envoy_moves_to_a_new_cluster_before_the_old_one_goes() {
    let resources = world();
    let mut rig = Rig::start(resources.clone()).await;
    let before = lifecycle::now();
    rig.offer(moved(&resources));
    let status = rig.settled(13).await;
    assert!(before.elapsed() < NO_WARMING, "took {:?}", before.elapsed());
    let listeners = status.types.iter().find(|t| t.kind == "LDS").unwrap();
    assert_eq!(listeners.acks, 2);
}

#[tokio::test]
async fn envoy_moves_in_the_same_order_in_state_of_the_world() {
    let resources = world();
    let mut rig = Rig::over(Transport::SotwAds, resources.clone()).await;
    let before = lifecycle::now();
    rig.offer(moved(&resources));
    rig.settled(13).await;
    assert!(before.elapsed() < NO_WARMING, "took {:?}", before.elapsed());
}

#[tokio::test]
async fn envoy_takes_every_kind_of_resource() {
    let rig = Rig::start(world()).await;
    let status = rig.settled(13).await;
    assert_eq!(status.proxy, PROXY);
    assert!(status.envoy_version.as_deref().is_some_and(|v| v.starts_with("1.")), "{status:?}");
    let kinds: Vec<&str> = status.types.iter().map(|t| t.kind.as_str()).collect();
    assert_eq!(kinds, ["SDS", "CDS", "EDS", "LDS", "RDS"]);
    assert!(rig.server().metrics().contains(r#"causeway_xds_acks_total{type="CDS"} 1"#));
}

#[tokio::test]
async fn envoy_warms_a_changed_cluster_at_once() {
    let resources = world();
    let mut rig = Rig::start(resources.clone()).await;
    let before = lifecycle::now();
    rig.offer(slower_db(&resources));
    rig.settled(13).await;
    assert!(before.elapsed() < NO_WARMING, "took {:?}", before.elapsed());
}

#[tokio::test]
async fn envoy_takes_a_rotated_secret_and_nothing_else() {
    let mut resources = world();
    let mut rig = Rig::start(resources.clone()).await;
    let before = acks(&*rig.settled(13).await);
    resources.truncate(resources.len() - 2);
    resources.extend(secrets());
    rig.offer(resources);
    let after = acks(&*rig.settled(13).await);
    assert_eq!(after[0], ("SDS".to_owned(), before[0].1 + 1));
    assert_eq!(after[1..], before[1..]);
}

#[tokio::test]
async fn envoy_is_sent_nothing_by_a_restarted_agent() {
    let mut rig = Rig::start(world()).await;
    rig.server.take().unwrap().stop().await;
    rig.server = Some(Server::start(&rig.dir.path().join("xds.sock"), &rig.source));
    let status = rig.settled(13).await;
    assert!(status.types.iter().all(|t| t.sent_at_ms.is_none()), "{status:#?}");
}

#[tokio::test]
async fn envoy_gets_what_changed_while_the_agent_was_away() {
    let resources = world();
    let mut rig = Rig::start(resources.clone()).await;
    rig.server.take().unwrap().stop().await;
    rig.offer(slower_db(&resources));
    rig.server = Some(Server::start(&rig.dir.path().join("xds.sock"), &rig.source));
    rig.server().until(|streams| streams.len() == 1).await;
    let connected = lifecycle::now();
    let status = rig.settled(13).await;
    assert!(connected.elapsed() < NO_WARMING, "took {:?}", connected.elapsed());
    let sent: Vec<&str> =
        status.types.iter().filter(|t| t.sent_at_ms.is_some()).map(|t| t.kind.as_str()).collect();
    assert_eq!(sent, ["CDS", "EDS"]);
}

/// Takes the whole world, then a changed cluster again and again.
async fn follows_over(transport: Transport) {
    let resources = world();
    let mut rig = Rig::over(transport, resources.clone()).await;
    let streams = rig.server().board.streams().len();
    let mut took = Vec::new();
    for n in 0..TRIES {
        let before = lifecycle::now();
        rig.offer(with_timeout(&resources, 7_000 + n));
        rig.has_all(13).await;
        took.push(before.elapsed());
    }
    println!("{transport:?}: {streams} streams; a changed cluster was taken within {took:?}");
    assert_eq!(streams == 1, transport.is_ads());
    assert!(took.iter().all(|took| *took < NO_WARMING), "{took:?}");
}

#[tokio::test]
async fn envoy_follows_over_delta_ads() {
    follows_over(Transport::DeltaAds).await;
}

#[tokio::test]
async fn envoy_follows_over_state_of_the_world_ads() {
    follows_over(Transport::SotwAds).await;
}

#[tokio::test]
async fn envoy_follows_over_delta_without_ads() {
    follows_over(Transport::Delta).await;
}

#[tokio::test]
async fn envoy_follows_over_state_of_the_world_without_ads() {
    follows_over(Transport::Sotw).await;
}

/// Endpoints, routes and secrets come over streams that resources name: on those too the token is presented.
#[tokio::test]
async fn envoy_presents_its_token_on_every_stream_without_ads() {
    for transport in [Transport::Delta, Transport::Sotw] {
        let rig = Rig::presenting(Some("of-this-envoy"), transport, world()).await;
        let streams = rig.server().board.streams();
        let kinds: BTreeSet<_> = streams.iter().flat_map(|it| &it.types).map(|it| it.kind.as_str()).collect();
        assert_eq!(kinds, BTreeSet::from(["CDS", "EDS", "LDS", "RDS", "SDS"]), "{transport:?}");
        let metrics = rig.server().metrics();
        assert!(metrics.contains("causeway_xds_streams_refused_total 0"), "{transport:?}: {metrics}");
    }
}

#[tokio::test]
async fn envoy_whose_connection_is_old_comes_back_and_is_sent_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let listener = bind_tcp(([127, 51, 0, 24], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let source = Source::default();
    source.offer(PROXY, Offer::Ready(snapshot(world())));
    let limits = Limits { tcp_max_age: Some(Duration::from_secs(1)), ..Limits::default() };
    let server = Server::start_within(Listeners { unix: None, tcp: Some(listener) }, &source, limits);
    let mut config = bootstrap(PROXY, Path::new(""));
    let endpoint = "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
    *config.pointer_mut(endpoint).unwrap() =
        json!({"socket_address": {"address": address.ip(), "port_value": address.port()}});
    let _envoy = run(dir.path(), &config);
    let has_all = |streams: &[Arc<StreamStatus>]| {
        let all: Vec<_> = streams.iter().flat_map(|s| &s.types).flat_map(|t| &t.resources).collect();
        all.len() == 13 && all.iter().all(|r| r.state == ResourceState::Synced)
    };
    let first = server.until(has_all).await[0].stream;
    let later = server.until(|streams| has_all(streams) && streams[0].stream > first).await;
    assert!(later[0].types.iter().all(|t| t.sent_at_ms.is_none()), "{later:#?}");
    server.stop().await;
}

//! The real Envoy takes what is sent, in time, and nothing twice.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use causeway::{
    lifecycle,
    xds::{
        resource::{Resource, cluster::Cluster, endpoints::Endpoints},
        server::Offer,
        snapshot::Snapshot,
        status::{ResourceState, StreamStatus, TypeStatus},
    },
};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::xds_rig::{Server, Source, draft, secrets, tcp, world};

const PROXY: &str = "web-sidecar-proxy";

/// A cluster whose endpoints do not follow warms for 15 s.
const NO_WARMING: Duration = Duration::from_secs(1);

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
    let ads = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    json!({
        "node": {"id": proxy, "cluster": "web"},
        "admin": {"address": {"socket_address": {"address": "127.51.0.8", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "cds_config": ads, "lds_config": ads,
        },
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
        let count = resources.len();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("xds.sock");
        let source = Source::default();
        let server = Server::start(&socket, &source);
        let config = dir.path().join("envoy.json");
        std::fs::write(&config, bootstrap(PROXY, &socket).to_string()).unwrap();
        let log = std::fs::File::create(dir.path().join("envoy.log")).unwrap();
        let envoy = Command::new(envoy_binary())
            .args(["--disable-hot-restart", "--concurrency", "1", "-l", "warn", "-c"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let snapshot = Arc::new(Snapshot::empty());
        let mut rig = Self { dir, source, snapshot, server: Some(server), _envoy: envoy };
        rig.offer(resources);
        rig.settled(count).await;
        rig
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn offer(&mut self, resources: Vec<Resource>) {
        self.snapshot = self.snapshot.next(draft(resources));
        assert_eq!(self.snapshot.dangling(), []);
        self.source.offer(PROXY, Offer::Ready(self.snapshot.clone()));
    }

    /// Waits until Envoy has so many resources and each in the offered version.
    pub(crate) async fn settled(&self, resources: usize) -> Arc<StreamStatus> {
        let synced = |status: &StreamStatus| {
            let all: Vec<_> = status.types.iter().flat_map(|t| &t.resources).collect();
            let current = |name: &str, version: Option<&str>| {
                self.snapshot.iter().any(|e| e.key.name == name && Some(e.version.as_str()) == version)
            };
            all.len() == resources
                && all
                    .iter()
                    .all(|r| r.state == ResourceState::Synced && current(&r.name, r.intended.as_deref()))
        };
        let refused = |status: &StreamStatus| status.types.iter().any(|t| t.nacks > 0);
        let streams = self.server().until(|s| s.len() == 1 && (synced(&s[0]) || refused(&s[0]))).await;
        let status = streams[0].clone();
        let log = std::fs::read_to_string(self.dir.path().join("envoy.log")).unwrap();
        assert!(!refused(&status), "{status:#?}\n{log}");
        status
    }
}

fn acks(status: &StreamStatus) -> Vec<(String, u64)> {
    status.types.iter().map(|t: &TypeStatus| (t.kind.clone(), t.acks)).collect()
}

fn slower_db(resources: &[Resource]) -> Vec<Resource> {
    let change = |resource: &Resource| match resource {
        Resource::Cluster(cluster) if cluster.name == "db" => {
            Resource::Cluster(Cluster { connect_timeout_ms: 7_000, ..cluster.clone() })
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

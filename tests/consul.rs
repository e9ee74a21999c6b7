//! The watches on a real Consul: what a recorded answer cannot show, above all time.

mod filter;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use causeway::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::{
        client::Client,
        metrics::ConsulMetrics,
        watch::{self, Watches},
    },
    lifecycle::{self, Stop},
    model::{
        agent::DefaultPolicy,
        catalog::{Catalog, Topic, View},
        chain::ChainRequest,
        instance::{Health, ServiceKind},
        secret::SecretText,
    },
};
use serde_json::json;

const HOST: Ipv4Addr = Ipv4Addr::new(127, 50, 0, 11);
const DEADLINE: Duration = Duration::from_secs(10);

/// A Consul server of its own folder and ports; dropping it ends it.
struct Server {
    child: Child,
    config: PathBuf,
    http: u16,
    https: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts one; `more` is laid over its settings.
    fn start(more: serde_json::Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let [http, https, serf_lan, serf_wan, server] = free_ports();
        let config = folder.path().join("consul.json");
        let mut settings = json!({
            "datacenter": "dc1", "node_name": "s1", "server": true, "bootstrap": true,
            "data_dir": folder.path().join("data"), "bind_addr": HOST.to_string(), "client_addr": HOST.to_string(),
            "ports": {"http": http, "https": -1, "serf_lan": serf_lan, "serf_wan": serf_wan, "server": server, "dns": -1, "grpc": -1},
            "connect": {"enabled": true}, "performance": {"raft_multiplier": 1}, "disable_update_check": true,
        });
        if let (Some(settings), serde_json::Value::Object(more)) = (settings.as_object_mut(), more) {
            if more.contains_key("cert_file") {
                settings["ports"]["https"] = json!(https);
            }
            settings.extend(more);
        }
        std::fs::write(&config, settings.to_string()).expect("the folder can be written");
        let child = spawn(&config);
        Self { child, config, http, https, _folder: folder }
    }

    fn settings(&self) -> ConsulSettings {
        let authority = format!("{HOST}:{}", self.http);
        ConsulSettings { address: ConsulAddress::Http { authority }, ..ConsulSettings::default() }
    }

    fn kill(&mut self) {
        self.child.kill().expect("Consul can be killed");
        self.child.wait().expect("Consul ends");
    }

    fn restart(&mut self) {
        self.child = spawn(&self.config);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(config: &Path) -> Child {
    Command::new(consul())
        .args(["agent", "-config-file"])
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("Consul starts; run `make tools` if there is none")
}

fn consul() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/consul/consul");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::var_os("CONSUL_BIN")
        .map(PathBuf::from)
        .or_else(|| tools.is_file().then_some(tools))
        .or_else(|| std::env::split_paths(&path).map(|dir| dir.join("consul")).find(|file| file.is_file()))
        .expect("no Consul found: run `make tools`, or set CONSUL_BIN")
}

/// Ports that were free a moment ago, all different.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind((HOST, 0)).expect("a port is free"));
    held.each_ref().map(|listener| listener.local_addr().expect("it is bound").port())
}

async fn until(watches: &Watches, seen: impl Fn(&Catalog) -> bool) -> Arc<Catalog> {
    let mut catalog = watches.catalog();
    let found =
        tokio::time::timeout(Duration::from_secs(30), catalog.wait_for(|catalog| seen(catalog))).await;
    match found {
        Ok(found) => found.expect("the watches go on").clone(),
        Err(_) => panic!("the catalog never said so: {:#?}", watches.catalog().borrow()),
    }
}

fn service(id: &str) -> serde_json::Value {
    json!({"Name": "web", "ID": id, "Port": 8080, "Check": {"CheckID": format!("c-{id}"), "TTL": "1h", "Status": "passing"},
        "Connect": {"SidecarService": {"Port": 20000, "Checks": []}}})
}

fn healths(catalog: &Catalog) -> Vec<Health> {
    let found = catalog.health(&"dc1".into(), &"web".into());
    found.known().map_or_else(Vec::new, |instances| instances.iter().map(|i| i.health).collect())
}

fn topics() -> BTreeSet<Topic> {
    let chain = ChainRequest {
        service: "web".into(),
        datacenter: "dc1".into(),
        gateway_mode: None,
        protocol: None,
        connect_timeout_ms: None,
    };
    BTreeSet::from([
        Topic::Agent,
        Topic::Registration("w1-sidecar-proxy".into()),
        Topic::Roots,
        Topic::Leaf("web".into()),
        Topic::Chain(chain),
        Topic::Connect { dc: "dc1".into(), service: "web".into() },
        Topic::Health { dc: "dc1".into(), service: "web".into() },
        Topic::Services { dc: "dc1".into(), kind: None },
        Topic::Services { dc: "dc1".into(), kind: Some(ServiceKind::MeshGateway) },
        Topic::Services { dc: "dc1".into(), kind: Some(ServiceKind::Typical) },
        Topic::Intentions,
        Topic::IntentionEntries,
        Topic::Datacenters,
        Topic::FederationStates,
        Topic::ProxyDefaults,
        Topic::ServiceDefaults("web".into()),
        Topic::Resolvers,
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_topic_of_a_real_consul_is_followed() {
    let mut server = Server::start(json!({}));
    let client = Client::new(server.settings()).unwrap();
    let (_source, stop) = Stop::pair();
    let (watches, _task) = watch::start(client.clone(), ConsulMetrics::default(), stop);
    // Asked while Consul is still starting: topics come as it becomes able to answer.
    watches.want("test", topics()).await;
    until(&watches, |catalog| catalog.roots().known().is_some()).await;
    client.register_service(service("w1")).await.unwrap();
    let complete = |catalog: &Catalog| {
        topics().iter().all(|topic| catalog.heard(topic).is_some_and(|heard| heard.stale.is_none()))
            && matches!(catalog.registration(&"w1-sidecar-proxy".into()), View::Known(Some(_)))
    };
    let catalog = until(&watches, complete).await;
    assert!(catalog.topics().all(|(_, heard)| heard.notes.is_empty()), "{catalog:#?}");

    until(&watches, |catalog| healths(catalog) == [Health::Passing]).await;
    let mut times = Vec::new();
    for round in 0..6 {
        let (act, want) = if round % 2 == 0 { ("fail", Health::Critical) } else { ("pass", Health::Passing) };
        let path = causeway::consul::client::path(&["v1", "agent", "check", act, "c-w1"]);
        client.put(&path, &[], None, DEADLINE).await.unwrap().ok().unwrap();
        let returned = lifecycle::now();
        until(&watches, |catalog| healths(catalog) == [want]).await;
        times.push(returned.elapsed());
    }
    println!("from the return of a check's update to the published catalog: {times:?}");

    server.kill();
    let is_blocking_stale = |catalog: &Catalog| {
        let topic = Topic::Health { dc: "dc1".into(), service: "web".into() };
        catalog.heard(&topic).is_some_and(|heard| heard.stale.is_some())
    };
    let catalog = until(&watches, is_blocking_stale).await;
    assert_eq!(healths(&catalog), [Health::Passing]);
    server.restart();
    let since = lifecycle::now();
    until(&watches, |catalog| !is_blocking_stale(catalog) && catalog.heard(&Topic::Roots).is_some()).await;
    println!("from Consul's restart to a fresh catalog: {:?}", since.elapsed());

    assert!(client.agent_service("w1").await.unwrap().is_some());
    for id in ["w1", "w1-sidecar-proxy"] {
        client.deregister_service(id).await.unwrap();
    }
    until(&watches, |catalog| {
        healths(catalog).is_empty()
            && catalog.registration(&"w1-sidecar-proxy".into()) == View::Known(&None)
            && catalog.connect(&"dc1".into(), &"web".into()).known().is_some_and(Vec::is_empty)
    })
    .await;
    assert_eq!(client.agent_service("w1").await.unwrap(), None);
}

/// A policy with these rules and a token that has it.
async fn token(client: &Client, name: &str, rules: &str) -> SecretText {
    let ask = async |kind: &str, body| {
        let path = causeway::consul::client::path(&["v1", "acl", kind]);
        let reply = client.put(&path, &[], Some(body), DEADLINE).await.expect("Consul answers");
        reply.ok().expect("Consul agrees").json::<serde_json::Value>().expect("Consul answers in JSON")
    };
    ask("policy", json!({"Name": name, "Rules": rules})).await;
    let made = ask("token", json!({"Policies": [{"Name": name}]})).await;
    SecretText::from(made["SecretID"].as_str().expect("a token has a secret"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_with_few_rights_is_served_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["server.dc1.consul".into()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let root = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8a001";
    let server = Server::start(json!({
        "ca_file": cert, "cert_file": cert, "key_file": key,
        "acl": {"enabled": true, "default_policy": "deny", "tokens": {"master": root, "agent": root}},
    }));
    let mut settings = server.settings();
    settings.address = ConsulAddress::Https { authority: format!("{HOST}:{}", server.https) };
    settings.token = Some(SecretText::from(root));
    settings.tls.ca_file = Some(cert);
    settings.tls.server_name = Some("server.dc1.consul".into());
    let rooted = Client::new(settings.clone()).unwrap();

    let (_source, stop) = Stop::pair();
    let (watches, _task) = watch::start(rooted.clone(), ConsulMetrics::default(), stop.clone());
    watches.want("root", BTreeSet::from([Topic::Agent, Topic::Roots])).await;
    let ready = |catalog: &Catalog| catalog.agent().known().is_some() && catalog.roots().known().is_some();
    let catalog = until(&watches, ready).await;
    assert_eq!(catalog.agent().known().map(|facts| facts.default_policy), Some(DefaultPolicy::Deny));

    let rules = r#"service_prefix "web" { policy = "write" } node_prefix "" { policy = "read" }"#;
    settings.token = Some(token(&rooted, "web", rules).await);
    let client = Client::new(settings).unwrap();
    client.register_service(service("w1")).await.unwrap();
    let (watches, _task) = watch::start(client, ConsulMetrics::default(), stop);
    watches.want("web", topics()).await;
    let catalog =
        until(&watches, |catalog| topics().iter().all(|topic| catalog.heard(topic).is_some())).await;
    let facts = catalog.agent().known().unwrap();
    assert_eq!((facts.datacenter.as_str(), facts.node.as_str()), ("dc1", "s1"));
    assert_eq!(facts.default_policy, DefaultPolicy::Unreadable);

    watches.want("web", BTreeSet::from([Topic::Leaf("other".into())])).await;
    let catalog = until(&watches, |catalog| catalog.trouble(&Topic::Leaf("other".into())).is_some()).await;
    assert!(
        catalog.trouble(&Topic::Leaf("other".into())).unwrap().contains("give the token the right it lacks")
    );
}

//! Statistics and their tags, as a real Envoy has them.

use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Child, time::Duration,
};

use super::*;
use crate::envoy::admin::Admin;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const DOMAIN: &str = "11111111-2222-3333-4444-555555555555.consul";

fn http_listener(stat_prefix: &str) -> Value {
    let mut json = listener(stat_prefix);
    json["filter_chains"][0]["filters"][0]["typed_config"] = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": stat_prefix, "route_config": {}, "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]});
    json
}

/// The clusters of each form of name.
fn clusters() -> Vec<String> {
    vec![
        format!("counting.default.dc2.internal.{DOMAIN}"),
        format!("0a1b2c3d~v2.counting.default.dc2.internal.{DOMAIN}"),
        format!("failover-target~1~0a1b2c3d~counting.default.dc2.internal.{DOMAIN}"),
        format!("dc3.internal.{DOMAIN}"),
        "local_app".into(),
        "server.dc4.consul".into(),
    ]
}

/// Starts a real Envoy with this sidecar's bootstrap and static resources instead of an agent.
async fn start(folder: &Path, clusters: &[String]) -> (Running, Admin) {
    let admin = AdminAddress::Tcp("127.0.0.1:0".parse().unwrap());
    let mut json = bootstrap(&BootstrapParams { admin, ..sidecar() });
    json.as_object_mut().unwrap().remove("dynamic_resources");
    json["static_resources"]["clusters"]
        .as_array_mut()
        .unwrap()
        .extend(clusters.iter().map(|name| cluster(name)));
    json["static_resources"]["listeners"] = json!([
        listener("upstream.counting.default.dc2"),
        http_listener("upstream.api.default.dc1"),
        listener("public_listener"),
    ]);
    let (config, address) = (folder.join("envoy.json"), folder.join("admin"));
    fs::write(&config, json.to_string()).unwrap();
    let running = run(&config, &["--admin-address-path", address.to_str().unwrap()]);
    for _ in 0..200 {
        // The file is the only sign that Envoy gives of the port it chose.
        match fs::read_to_string(&address) {
            Ok(at) if at.contains(':') => {
                let admin = Admin::new(format!("http://{at}"));
                if admin.get("/ready").await.is_ok() {
                    return (running, admin);
                }
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("Envoy did not start");
}

fn run(config: &Path, more: &[&str]) -> Running {
    let child = Command::new(envoy())
        .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "--config-path"])
        .arg(config)
        .args(more)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    Running(child)
}

/// Consul's tags on the line of `metric` that has `marker` in it.
fn tags(metrics: &str, metric: &str, marker: &str) -> BTreeMap<String, String> {
    let line = metrics
        .lines()
        .find(|line| line.starts_with(&format!("{metric}{{")) && line.contains(marker))
        .unwrap_or_else(|| panic!("no {metric} with {marker} in\n{metrics}"));
    let labels = &line[metric.len() + 1..line.rfind('}').unwrap()];
    labels
        .split("\",")
        .filter_map(|label| label.split_once("=\""))
        .filter_map(|(name, value)| {
            let name = name.strip_prefix("consul_")?;
            Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
        })
        .collect()
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let source = [("source_datacenter", "dc1"), ("source_namespace", "default"), ("source_service", "web")];
    pairs.iter().chain(&source).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_real_envoys_metrics_carry_consuls_tags() {
    let folder = tempfile::tempdir().unwrap();
    let (_envoy, admin) = start(folder.path(), &clusters()).await;
    let metrics = String::from_utf8(admin.get("/stats/prometheus").await.unwrap().to_vec()).unwrap();
    let connections = "envoy_cluster_upstream_cx_total";

    let full = format!("counting.default.dc2.internal.{DOMAIN}");
    let plain = [
        ("destination_service", "counting"),
        ("destination_namespace", "default"),
        ("destination_datacenter", "dc2"),
        ("destination_routing_type", "internal"),
        ("destination_trust_domain", DOMAIN),
        ("destination_target", "counting.default.dc2"),
        ("destination_full_target", &full),
    ];
    let unmarked = [("destination_custom_hash", ""), ("destination_service_subset", "")];
    let marked = [&plain[..], &unmarked].concat();
    assert_eq!(tags(&metrics, connections, &format!("\"{full}\"")), expected(&marked));

    let full = format!("0a1b2c3d~v2.counting.default.dc2.internal.{DOMAIN}");
    let customised = [
        &plain[..5],
        &[
            ("destination_custom_hash", "0a1b2c3d"),
            ("destination_service_subset", "v2"),
            ("destination_target", "v2.counting.default.dc2"),
            ("destination_full_target", &full),
        ],
    ]
    .concat();
    assert_eq!(tags(&metrics, connections, &format!("\"{full}\"")), expected(&customised));

    let full = format!("failover-target~1~0a1b2c3d~counting.default.dc2.internal.{DOMAIN}");
    let hash = [("destination_custom_hash", "0a1b2c3d"), ("destination_service_subset", "")];
    let failover = [&plain[..6], &hash, &[("destination_full_target", &full)]].concat();
    assert_eq!(tags(&metrics, connections, &format!("\"{full}\"")), expected(&failover));

    let full = format!("dc3.internal.{DOMAIN}");
    let datacenter = [
        ("destination_datacenter", "dc3"),
        ("destination_routing_type", "internal"),
        ("destination_trust_domain", DOMAIN),
        ("destination_full_target", &full),
    ];
    assert_eq!(tags(&metrics, connections, &format!("\"{full}\"")), expected(&datacenter));
    assert_eq!(tags(&metrics, connections, "local_app"), expected(&[]));

    let upstream =
        [("upstream_service", "counting"), ("upstream_namespace", "default"), ("upstream_datacenter", "dc2")];
    assert_eq!(tags(&metrics, "envoy_tcp_downstream_cx_total", "upstream_service"), expected(&upstream));
    let upstream =
        [("upstream_service", "api"), ("upstream_namespace", "default"), ("upstream_datacenter", "dc1")];
    assert_eq!(tags(&metrics, "envoy_http_downstream_cx_total", "\"api\""), expected(&upstream));
    assert!(metrics.contains("local_cluster=\"web\""));
}

#[tokio::test]
async fn the_admin_client_reads_statistics_by_their_full_names() {
    let folder = tempfile::tempdir().unwrap();
    let (_envoy, admin) = start(folder.path(), &clusters()).await;
    let name = format!("cluster.counting.default.dc2.internal.{DOMAIN}.upstream_cx_total");
    assert_eq!(admin.stat(&name).await.unwrap(), Some(0));
    assert_eq!(admin.stat("no.such_statistic").await.unwrap(), None);
    assert_eq!(admin.stat("server.state").await.unwrap(), Some(0), "0 is live");
    let connections = admin.stats(r"^cluster\..*\.upstream_cx_total$").await.unwrap();
    assert_eq!(connections.len(), clusters().len() + 1);
    let dump = admin.json("/config_dump").await.unwrap();
    assert_eq!(dump["configs"][0]["bootstrap"]["node"]["id"], "web-1-sidecar-proxy");
}

/// The processor time of a process's first thread, which in Envoy takes in all configuration.
fn main_thread_ms(process: &Running) -> u64 {
    let told = fs::read_to_string(format!("/proc/{0}/task/{0}/schedstat", process.0.id())).unwrap();
    let ns: u64 = told.split(' ').next().unwrap().parse().unwrap();
    ns / 1_000_000
}

/// Patterns written without care cost 13 to 17 ms for each cluster: minutes, at a gateway with thousands of services, in
/// which Envoy takes no change. These cost 3.
#[tokio::test]
async fn tags_cost_little_where_clusters_are_many() {
    const CLUSTERS: u64 = 100;
    const MOST_MS: u64 = 8 * CLUSTERS;
    let cost = async |clusters: u64| {
        let names: Vec<_> =
            (0..clusters).map(|n| format!("service-{n}.default.dc2.internal.{DOMAIN}")).collect();
        let folder = tempfile::tempdir().unwrap();
        let (envoy, _admin) = start(folder.path(), &names).await;
        main_thread_ms(&envoy)
    };
    let (at_rest_ms, all_ms) = (cost(1).await, cost(CLUSTERS + 1).await);
    let took_ms = all_ms.saturating_sub(at_rest_ms);
    println!("{CLUSTERS} clusters took {took_ms} ms of Envoy's main thread");
    assert!(took_ms < MOST_MS, "{took_ms} ms");
}

#[tokio::test]
async fn an_admin_interface_on_a_unix_socket_is_for_its_own_user_and_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (config, socket) = (folder.path().join("envoy.json"), folder.path().join("admin.sock"));
    let pages = Pages { ready: Some("127.0.0.1:0".parse().unwrap()), ..Pages::default() };
    let admin = AdminAddress::Unix(socket.clone());
    let mut json = bootstrap(&BootstrapParams { admin, ..with(json!({}), &pages) });
    json.as_object_mut().unwrap().remove("dynamic_resources");
    fs::write(&config, json.to_string()).unwrap();
    let admin = Admin::on_socket(socket.clone());
    for _ in ["at first", "with the socket of the one that was killed"] {
        let _envoy = run(&config, &[]);
        let mut id = admin.node_id().await;
        for _ in 0..200 {
            if id.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            id = admin.node_id().await;
        }
        assert_eq!(id.unwrap(), "web-1-sidecar-proxy");
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        admin.post("/healthcheck/fail").await.unwrap();
        let refused = admin.get("/ready").await.unwrap_err().to_string();
        assert!(refused.contains("/ready at unix:/") && refused.contains("503"), "{refused}");
    }
}

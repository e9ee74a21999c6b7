mod statistics;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    extras::{Extras, Pages},
    *,
};
use crate::model::{note::Note, settings::Settings};

fn sidecar() -> BootstrapParams {
    BootstrapParams {
        proxy_id: "web-1-sidecar-proxy".into(),
        service: "web".into(),
        datacenter: "dc1".into(),
        node_name: "node-1".into(),
        admin: AdminAddress::Tcp("127.0.0.1:19000".parse().unwrap()),
        admin_access_log: "/dev/null".into(),
        xds: "unix:/run/causeway/xds.sock".parse().unwrap(),
        token: Some("e95b599e-166e-7d80-08ad-aee76e7ddf19".into()),
        extras: Extras::default(),
    }
}

fn gateway() -> BootstrapParams {
    BootstrapParams {
        proxy_id: "mesh-gateway".into(),
        service: "mesh-gateway".into(),
        admin: AdminAddress::Tcp("[::1]:19001".parse().unwrap()),
        xds: "127.0.0.1:18502".parse().unwrap(),
        token: None,
        ..sidecar()
    }
}

fn settings(json: Value) -> Settings {
    serde_json::from_value(json).map(Settings).unwrap()
}

/// A sidecar with these settings, none of which is told to be wrong.
fn with(json: Value, pages: &Pages) -> BootstrapParams {
    let env = |name: &str| (name == "HOST_IP").then(|| "10.0.0.9".to_owned());
    let (extras, notes) = Extras::read("web-1-sidecar-proxy", &settings(json), pages, &env);
    assert_eq!(notes, []);
    BootstrapParams { extras, ..sidecar() }
}

fn cluster(name: &str) -> Value {
    json!({"name": name, "alt_stat_name": name, "type": "STATIC",
           "load_assignment": {"cluster_name": name, "endpoints": []}})
}

fn listener(stat_prefix: &str) -> Value {
    json!({"name": stat_prefix,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": stat_prefix, "cluster": "local_app"}}]}]})
}

fn metrics() -> BootstrapParams {
    let pages = Pages { ready: Some("127.0.0.1:9104".parse().unwrap()), ..Pages::default() };
    let settings = json!({
        "envoy_prometheus_bind_addr": "0.0.0.0:9102",
        "envoy_stats_bind_addr": "[::1]:9103",
        "envoy_statsd_url": "udp://${HOST_IP}:8125",
        "envoy_dogstatsd_url": "unix:///run/dogstatsd.sock",
        "envoy_stats_tags": ["team=net", "empty="],
        "envoy_stats_flush_interval": "1m",
    });
    with(settings, &pages)
}

fn tracing() -> BootstrapParams {
    let zipkin = json!({"http": {"name": "envoy.tracers.zipkin", "typedConfig": {
        "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
        "collector_cluster": "zipkin", "collector_endpoint": "/api/v2/spans",
        "collector_endpoint_version": "HTTP_JSON"}}});
    let sink = json!({"name": "envoy.stat_sinks.hystrix", "typed_config": {
        "@type": "type.googleapis.com/envoy.config.metrics.v3.HystrixSink", "num_buckets": 10}});
    let settings = json!({
        "envoy_tracing_json": zipkin.to_string(),
        "envoy_extra_static_clusters_json": format!("{},{}", cluster("zipkin"), cluster("other")),
        "envoy_extra_static_listeners_json": listener("extra").to_string(),
        "envoy_extra_stats_sinks_json": sink.to_string(),
        "envoy_stats_config_json": json!({"use_all_default_tags": false}).to_string(),
        "envoy_prometheus_bind_addr": "127.0.0.1:9102",
    });
    with(settings, &Pages { prometheus_backend: Some(20100), ..Pages::default() })
}

fn cases() -> [(&'static str, BootstrapParams); 4] {
    [("sidecar", sidecar()), ("gateway", gateway()), ("metrics", metrics()), ("tracing", tracing())]
}

#[test]
fn settings_that_cannot_be_read_are_told_each() {
    let wrong = settings(json!({
        "envoy_bootstrap_json_tpl": "{}",
        "envoy_dogstatsd_url": "tcp://10.0.0.1:1",
        "envoy_extra_static_clusters_json": json!({"name": "a", "hosts": []}).to_string(),
        "envoy_extra_static_listeners_json": "{",
        "envoy_extra_stats_sinks_json": json!({"name": "envoy.statsd", "config": {}}).to_string(),
        "envoy_prometheus_bind_addr": "host:9102",
        "envoy_stats_bind_addr": "9103",
        "envoy_stats_config_json": 7,
        "envoy_stats_flush_interval": "often",
        "envoy_stats_tags": ["team"],
        "envoy_statsd_url": "udp://$NOWHERE:8125",
        "envoy_tracing_json": json!({"http": {"name": "envoy.zipkin", "config": {}}}).to_string(),
    }));
    let (extras, notes) = Extras::read("web", &wrong, &Pages::default(), &|_| None);
    assert_eq!(extras, Extras::default());
    let told = notes.iter().map(Note::to_string).collect::<Vec<_>>();
    insta::assert_snapshot!(told.join("\n"), @r"
    bootstrap of web: its envoy_statsd_url names $NOWHERE, which is not in the environment, and Envoy starts without it; set NOWHERE where Envoy is started
    bootstrap of web: its envoy_dogstatsd_url is no address of a statistics server, and Envoy starts without it; give udp://ip:port or unix:///path
    bootstrap of web: its envoy_extra_stats_sinks_json is written for Envoy's v2 API, which is gone: it has `config`, and Envoy starts without it; write `typed_config`, with its `@type` instead, and the rest after the v3 API
    bootstrap of web: its envoy_stats_tags is not a list of texts like name=value, and Envoy starts without it; write it so
    bootstrap of web: its envoy_stats_config_json is not a text, and Envoy starts without it; write it as one
    bootstrap of web: its envoy_stats_flush_interval is no duration, and Envoy starts without it; write for example 10s
    bootstrap of web: its envoy_tracing_json is written for Envoy's v2 API, which is gone: it has `config`, and Envoy starts without it; write `typed_config`, with its `@type` instead, and the rest after the v3 API
    bootstrap of web: its envoy_extra_static_clusters_json is written for Envoy's v2 API, which is gone: it has `hosts`, and Envoy starts without it; write `load_assignment` instead, and the rest after the v3 API
    bootstrap of web: its envoy_extra_static_listeners_json is no JSON: key must be a string at line 1 column 3, and Envoy starts without it; correct it
    bootstrap of web: its envoy_prometheus_bind_addr is a host name, and Envoy starts without it; give an IP address and a port, for example 127.0.0.1:9102 or [::1]:9102
    bootstrap of web: its envoy_stats_bind_addr is no address, and Envoy starts without it; give an IP address and a port, for example 127.0.0.1:9102 or [::1]:9102
    bootstrap of web: its envoy_bootstrap_json_tpl is a template for Consul's own xDS, and Envoy starts without it; use the other settings of the bootstrap instead
    ");
    let elsewhere: Vec<_> = Extras::notes("web", &wrong).iter().map(Note::to_string).collect();
    assert_eq!(elsewhere, told[1..], "only Envoy's own environment knows the variable");
}

/// The real Envoy, without which these tests prove nothing.
fn envoy() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/envoy/envoy");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("envoy"));
    std::env::var_os("ENVOY_BIN")
        .map(PathBuf::from)
        .or_else(|| std::iter::once(own).chain(on_path).find(|path| path.is_file()))
        .expect("no Envoy found: run `make tools`, or name one in ENVOY_BIN")
}

#[test]
fn bootstraps_are_as_recorded() {
    for (name, params) in cases() {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/envoy/bootstrap/golden/{name}.json"));
        let text = format!("{:#}\n", bootstrap(&params));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &text).unwrap();
        }
        let recorded = fs::read_to_string(&file).unwrap_or_default();
        assert!(recorded == text, "{name}: rewrite with UPDATE_GOLDEN=1 and read the difference\n{text}");
    }
}

#[test]
fn a_real_envoy_takes_every_bootstrap() {
    let folder = tempfile::tempdir().unwrap();
    for (name, params) in cases() {
        let file = folder.path().join(format!("{name}.json"));
        fs::write(&file, bootstrap(&params).to_string()).unwrap();
        let out = Command::new(envoy())
            .args(["--mode", "validate", "--disable-hot-restart", "--config-path"])
            .arg(&file)
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{name}: {log}");
        // Consul's `envoy_tracing_json` is this one field, which Envoy 1.40 still takes.
        let is_told = |line: &&str| line.contains("eprecated") && !line.contains("Bootstrap.tracing");
        assert_eq!(log.lines().find(is_told), None, "{name}: {log}");
    }
}

#[test]
fn the_token_shows_only_where_envoy_needs_it() {
    let params = sidecar();
    let json = bootstrap(&params);
    let service = &json["dynamic_resources"]["ads_config"]["grpc_services"][0];
    assert_eq!(service["initial_metadata"][0]["value"], "e95b599e-166e-7d80-08ad-aee76e7ddf19");
    assert!(!format!("{params:?}").contains("e95b599e"));
    for params in [gateway(), BootstrapParams { token: Some("".into()), ..sidecar() }] {
        let service = &bootstrap(&params)["dynamic_resources"]["ads_config"]["grpc_services"][0];
        assert!(service.get("initial_metadata").is_none(), "no token, no metadata");
    }
}

#[test]
fn addresses_are_read_or_refused_with_an_example() {
    let endpoint = |text: &str| text.parse::<Endpoint>().map(|it| (it.host, it.port));
    assert_eq!(endpoint("[::1]:80").unwrap(), ("::1".into(), 80));
    assert_eq!(endpoint("host.name:80").unwrap(), ("host.name".into(), 80));
    for wrong in ["", ":80", "host", "host:", "host:99999", "::1:80", "[host]:80", "http://host:80"] {
        assert!(endpoint(wrong).unwrap_err().contains("127.0.0.1:19000"), "{wrong}");
    }
    assert_eq!("unix:///a/b".parse(), Ok(XdsAddress::Unix("/a/b".into())));
    assert!("unix:a".parse::<XdsAddress>().unwrap_err().contains("absolute"));
    assert!("a".parse::<XdsAddress>().unwrap_err().contains("neither"));
    assert_eq!("localhost:1".parse(), Ok(XdsAddress::Tcp("127.0.0.1:1".parse().unwrap())));
    assert_eq!("[::1]:1".parse(), Ok(XdsAddress::Tcp("[::1]:1".parse().unwrap())));
    for remote in ["10.0.0.1:18502", "agent.internal:18502", "0.0.0.0:18502"] {
        let problem = remote.parse::<XdsAddress>().unwrap_err();
        assert!(problem.contains("plain text") && problem.contains(DEFAULT_XDS_SOCKET), "{problem}");
    }
}

//! Odd things in the catalog: a note names each, and all others are served.

use serde_json::{Value, json};

use super::{assert_says, host, web};
use crate::rig::{
    parts::{Agent, Consul, run, until},
    stream::Stream,
};

/// Plants an instance of `api` on a node of its own, past the checks of Consul's agents.
fn plant(consul: &Consul, node: &str, address: &str, service: Value) {
    consul.put(
        "/v1/catalog/register",
        &json!({"Node": node, "Address": address, "SkipNodeUpdate": false, "Service": service}),
    );
}

fn native(id: &str, address: &str, port: i64) -> Value {
    json!({"ID": id, "Service": "api", "Address": address, "Port": port, "Connect": {"Native": true}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_noted_and_the_rest_is_served() {
    let consul = Consul::start(host(70), json!({}));
    plant(&consul, "good", "10.0.0.1", native("api-good", "10.0.0.1", 8443));
    plant(&consul, "n-zero", "10.0.0.2", native("api-zero", "", 0));
    plant(&consul, "n-huge", "10.0.0.3", native("api-huge", "", 70_000));
    plant(&consul, "n/slash", "10.0.0.5", native("api slash", "10.0.0.5", 8443));
    plant(
        &consul,
        "n-name",
        "10.0.0.6",
        json!({"Kind": "connect-proxy", "ID": "api-name", "Service": "bad name/x", "Port": 8443,
            "Proxy": {"DestinationServiceName": "api"}}),
    );
    let mut registration = web();
    let proxy = &mut registration["Connect"]["SidecarService"]["Proxy"];
    proxy["Config"] = json!({"protocol": ["tcp"], "local_connect_timeout_ms": "soon", "bind_port": "x", "bind_address": "everywhere",
        "envoy_bootstrap_json_tpl": "{}"});
    proxy["Upstreams"] = json!([
        {"DestinationName": "api", "LocalBindPort": 5000, "Config": {"connect_timeout_ms": {"a": 1}}},
        {"DestinationName": "no such/service", "LocalBindPort": 5001},
        {"DestinationName": "other", "LocalBindPort": 70_000},
    ]);
    consul.register(&registration);

    let mut agent = Agent::start(host(70), &consul);
    let mut stream = Stream::over_unix(&agent.home.socket(), "web-sidecar-proxy").await.unwrap();
    stream.until(&["local_app", "api.default.dc1"]).await.unwrap();
    let noted = [
        "api-zero",
        "api-huge",
        "api slash",
        "bad name/x",
        "no such/service",
        "70000",
        "setting protocol",
        "setting local_connect_timeout_ms",
        "setting bind_port",
        "bind_address",
        "envoy_bootstrap_json_tpl",
        "setting connect_timeout_ms",
    ];
    let table = until("everything odd is noted", || {
        Some(agent.proxy_status(&[]).out).filter(|text| noted.iter().all(|part| text.contains(part)))
    });
    println!("{table}");
    for note in table.lines().filter(|line| line.trim_start().starts_with("note: ")) {
        assert_says(note, &["; "]);
    }
    let url = format!("http://{}", agent.home.http);
    let served = run(&["proxy", "config", "web-sidecar-proxy", "--type", "eds", "--http-addr", &url]);
    assert_says(&served.out, &["10.0.0.1"]);
    for odd in ["10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6"] {
        assert!(!served.out.contains(odd), "{}", served.out);
    }
    assert!(agent.process.is_running());
}

//! Escape hatches: listeners, clusters and tracing as a user wrote them, in Envoy's own JSON, take the place of ours. What
//! the mesh demands of them they are given nevertheless.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::{Context, ensure};
use axum::{Router, http::Uri};
use causeway::{lab::demo::counting::Count, lifecycle};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::lab::{
    actors::{Api, change_sidecar},
    features::{settled, told},
    live::restore,
    load::Load,
    rig::{Rig, eventually},
    settings::ask,
};

const NODE: &str = "primary-services";
/// Where spans are told.
const COLLECTOR: &str = "/api/v2/spans";

const TYPE: &str = "type.googleapis.com/envoy.extensions.filters";

pub(super) async fn all(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let at = |port: u16| anyhow::Ok(SocketAddr::from((rig.lab.node(NODE)?.address, port)));
    upstream_listener(rig, api).await.context("an upstream's listener")?;
    upstream_cluster(rig, api, at(21_102)?).await.context("an upstream's cluster")?;
    local_cluster(rig, api, at(9102)?).await.context("the local application's cluster")?;
    public_listener(rig, api, at(21_101)?).await.context("the public listener")?;
    tracing(rig, api).await.context("tracing")
}

/// Answers by itself.
async fn upstream_listener(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let listener = answering(api.address()?, "a hatch").to_string();
    api.reach(rig, json!({ "Config": { "envoy_listener_json": listener } })).await?;
    let load = settled(api, &["a hatch"]).await?;
    told("an upstream's listener by a user answers", load)?;
    api.reach(rig, json!({})).await?;
    settled(api, &["api-1", "api-2"]).await.map(drop)
}

/// Leads to one instance alone, over the mesh's TLS.
async fn upstream_cluster(rig: &Rig, api: &Api, sidecar: SocketAddr) -> anyhow::Result<()> {
    let cluster = leading("of_a_user", sidecar).to_string();
    let load = Load::start(&api.url);
    api.reach(rig, json!({ "Config": { "envoy_cluster_json": cluster } })).await?;
    load.answered_by(&["api-2"]).await?;
    api.reach(rig, json!({})).await?;
    load.answered_by(&["api-1", "api-2"]).await?;
    told("an upstream's cluster by a user leads to one instance", load)
}

/// The sidecar of the one instance leads to the other one's application.
async fn local_cluster(rig: &Rig, api: &Api, application: SocketAddr) -> anyhow::Result<()> {
    let cluster = leading("local_app", application).to_string();
    let load = Load::start(&api.url);
    let plain = change_sidecar(rig, "api-1", |sidecar| {
        sidecar["Proxy"]["Config"] = json!({ "envoy_local_cluster_json": cluster });
    })
    .await?;
    api.turn(rig, "api-2", "fail").await?;
    load.answered_by(&["api-2"]).await?;
    restore(rig, plain).await?;
    load.answered_by(&["api-1"]).await?;
    api.turn(rig, "api-2", "pass").await?;
    load.answered_by(&["api-1", "api-2"]).await?;
    told("a sidecar's cluster by a user leads to another application", load)
}

/// Answers callers of the mesh, and nobody else.
async fn public_listener(rig: &Rig, api: &Api, at: SocketAddr) -> anyhow::Result<()> {
    let listener = answering(at, "a hatch").to_string();
    let load = Load::start(&api.url);
    let plain = change_sidecar(rig, "api-1", |sidecar| {
        sidecar["Proxy"]["Config"] = json!({ "envoy_public_listener_json": listener });
    })
    .await?;
    load.answered_by(&["a hatch", "api-2"]).await?;
    let stranger = ask(at).await;
    ensure!(stranger.is_err(), "a caller without a certificate is answered: {stranger:?}");
    restore(rig, plain).await?;
    load.answered_by(&["api-1", "api-2"]).await?;
    told("a public listener by a user answers the mesh alone", load)
}

/// The sidecar tells of each request where the user says: to the application, which stands for a collector.
async fn tracing(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let listener = TcpListener::bind((rig.lab.node(NODE)?.address, 0)).await?;
    let port = listener.local_addr()?.port();
    let spans = Arc::new(Mutex::new(Vec::new()));
    let told = spans.clone();
    let collector = Router::new().fallback(async move |uri: Uri, body: String| {
        if uri.path() == COLLECTOR {
            told.lock().unwrap().push(body);
        }
    });
    let _collector = lifecycle::spawn("test.collector", async move {
        let _ = axum::serve(listener, collector).await;
    });
    let plain = change_sidecar(rig, "api-1", |sidecar| {
        let tracing = json!({ "protocol": "http", "envoy_listener_tracing_json": zipkin().to_string() });
        sidecar["Proxy"]["Config"] = tracing;
        sidecar["Proxy"]["LocalServicePort"] = json!(port);
    })
    .await?;
    eventually("a span of a request", async || {
        ask(api.address()?).await?;
        let spans = spans.lock().unwrap();
        Ok(spans.iter().any(|span| span.contains("\"http.method\":\"GET\"")).then_some(()))
    })
    .await?;
    println!("  a sidecar's tracing by a user: {} reports of spans", spans.lock().unwrap().len());
    restore(rig, plain).await?;
    settled(api, &["api-1", "api-2"]).await.map(drop)
}

/// Tells the application of every request.
fn zipkin() -> Value {
    let config = json!({
        "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
        "collector_cluster": "local_app", "collector_endpoint": COLLECTOR, "collector_endpoint_version": "HTTP_JSON",
    });
    json!({
        "@type": format!("{TYPE}.network.http_connection_manager.v3.HttpConnectionManager.Tracing"),
        "provider": { "name": "envoy.tracers.zipkin", "typed_config": config },
        "random_sampling": { "value": 100.0 },
    })
}

/// A cluster of one address.
fn leading(name: &str, to: SocketAddr) -> Value {
    let endpoint = json!({ "endpoint": { "address": socket(to) } });
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
    })
}

/// A listener that answers as the demo's counter does.
fn answering(at: SocketAddr, instance: &str) -> Value {
    let count = Count { count: 1, instance: instance.to_owned(), datacenter: "primary".to_owned() };
    let answer = json!({ "status": 200, "body": { "inline_string": json!(count).to_string() } });
    let hosts = json!({
        "name": "all", "domains": ["*"],
        "routes": [{ "match": { "prefix": "/" }, "direct_response": answer }],
    });
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{TYPE}.http.router.v3.Router") },
    });
    let manager = json!({
        "@type": format!("{TYPE}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "of_a_user", "http_filters": [router],
        "route_config": { "name": "of_a_user", "virtual_hosts": [hosts] },
    });
    let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    json!({ "name": "of_a_user", "address": socket(at), "filter_chains": [{ "filters": [filter] }] })
}

fn socket(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip(), "port_value": at.port() } })
}

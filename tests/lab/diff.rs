//! `causeway proxy diff` on the whole: what is healthy shows no difference, and what is not shows as what it is.

use std::net::TcpListener;

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use causeway::{
    api::wire::ProxyConfig,
    cli::proxy::diff::look,
    envoy::report::{Actual, Intended, Report, State, Wanted, compare},
    xds::{
        json,
        resource::{Key, Kind},
    },
};
use serde_json::{Value, json};

use crate::lab::{
    live::{DASHBOARD, change_upstreams, restore},
    rig::{ENVOYS, Rig, eventually},
};

const NODE: &str = "primary-services";

/// The name of the cluster and of the listener that users write here.
const CUSTOM: &str = "custom";

/// What the node's Envoy has against what its agent intends for it.
pub(crate) async fn report(rig: &Rig, node: &str) -> anyhow::Result<Report> {
    let agent = rig.lab.node(node)?.causeway_http.clone().context("the node has no agent")?;
    let envoy = rig.envoy(node)?;
    look(&agent, &envoy, &envoy.node_id().await?).await
}

/// Sidecars and gateways, in both datacenters; and once as people ask.
pub(super) async fn every_envoy_has_what_is_intended(rig: &mut Rig) -> anyhow::Result<()> {
    for node in ENVOYS {
        let compared = eventually(&format!("{node}'s Envoy is as intended"), async || {
            let report = report(rig, node).await?;
            ensure!(report.equal, "{report:#?}");
            Ok(Some(report.compared))
        })
        .await?;
        ensure!(compared > 3, "{node}: only {compared} resources were compared");
        println!("  {node}: {compared} resources, no difference");
        asked_by_people(rig, node).await?;
    }
    Ok(())
}

async fn asked_by_people(rig: &Rig, node: &str) -> anyhow::Result<()> {
    let planned = rig.lab.node(node)?;
    let admin = planned.envoy_admin.clone().context("the node has no Envoy")?;
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_causeway"))
        .args(["proxy", "diff", "--admin", admin.trim_start_matches("http://")])
        .args(["--http-addr", planned.causeway_http.as_deref().context("the node has no agent")?])
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(0), "{}\n{text}", output.status);
    ensure!(text.contains("as intended"), "{text}");
    Ok(())
}

pub(super) async fn what_is_not_as_intended_is_told(rig: &mut Rig) -> anyhow::Result<()> {
    let plain = rig.consul(NODE)?.agent_service(DASHBOARD).await?.context("dashboard's sidecar")?;
    let outcome = all_states(rig).await;
    restore(rig, plain).await?;
    eventually("all is as intended again", async || Ok(report(rig, NODE).await?.equal.then_some(()))).await?;
    outcome
}

async fn all_states(rig: &Rig) -> anyhow::Result<()> {
    another_intent_is_told_by_field(rig).await?;
    // Envoy wants two choices at least.
    custom_cluster(
        rig,
        json!({"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 1}}),
        9,
    )
    .await?;
    let reason = state_of_custom(rig, State::Refused).await?;
    ensure!(reason.contains("ChoiceCount") && !reason.contains("connect_timeout"), "{reason}");
    // Takes connections and never answers: the first health check has no outcome.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let check = json!({"timeout": "600s", "interval": "600s", "unhealthy_threshold": 1, "healthy_threshold": 1,
        "http_health_check": {"path": "/"}});
    custom_cluster(rig, json!({"health_checks": [check]}), silent.local_addr()?.port()).await?;
    state_of_custom(rig, State::Warming).await?;
    Ok(())
}

/// An upstream whose cluster and listener the user writes.
async fn custom_cluster(rig: &Rig, more: Value, port: u16) -> anyhow::Result<()> {
    let socket = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": socket(port)}}]}]);
    let mut cluster = json!({"name": CUSTOM, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": CUSTOM, "endpoints": endpoints}});
    let fields = cluster.as_object_mut().context("an object")?;
    fields.extend(more.as_object().context("an object")?.clone());
    let bind = rig.lab.node(NODE)?.address.to_string();
    let upstream = json!({"DestinationName": "dashboard", "LocalBindPort": 5003, "LocalBindAddress": bind,
        "Config": {"envoy_cluster_json": cluster.to_string(), "envoy_listener_json": listener(&bind).to_string()}});
    change_upstreams(rig, |upstreams| {
        upstreams.retain(|upstream| upstream["LocalBindPort"] != 5003);
        upstreams.push(upstream);
    })
    .await
}

fn listener(bind: &str) -> Value {
    let proxy = json!({"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": CUSTOM, "cluster": CUSTOM});
    let filter = json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy});
    json!({"name": CUSTOM, "address": {"socket_address": {"address": bind, "port_value": 5003}},
        "filter_chains": [{"filters": [filter]}]})
}

/// Waits until the custom cluster is told to be so; gives the reason that is told.
async fn state_of_custom(rig: &Rig, wanted: State) -> anyhow::Result<String> {
    let what = format!("the custom cluster is {wanted:?}");
    eventually(&what, async || {
        let report = report(rig, NODE).await?;
        let mut found = report.differences.iter();
        let found = found.find(|it| it.kind == Kind::Cluster && it.name == CUSTOM && it.state == wanted);
        let found = found.with_context(|| format!("{report:#?}"))?;
        println!("  {what}: {:?}", found.reason);
        Ok(Some(found.reason.clone().unwrap_or_default()))
    })
    .await
}

/// Everything as the agent intends it, but for the time that one cluster's connections may take.
async fn another_intent_is_told_by_field(rig: &Rig) -> anyhow::Result<()> {
    let page = format!("/status/proxies/{DASHBOARD}/config");
    let config: ProxyConfig = serde_json::from_slice(&rig.causeway(NODE, &page).await?)?;
    let mut edited = None;
    let mut resources = Vec::new();
    for resource in config.resources {
        let kind = Kind::of_type_url(&resource.type_url).context("a kind")?;
        let mut message = BASE64_STANDARD.decode(&resource.value)?;
        if kind == Kind::Cluster && edited.is_none() {
            let mut json = json::to_json(&resource.type_url, &message)?;
            json["connect_timeout"] = "123s".into();
            message = json::from_json(&resource.type_url, &json)?;
            edited = Some(resource.name.clone());
        }
        resources.push(Wanted { key: Key::new(kind, resource.name), version: resource.version, message });
    }
    let intended = Intended::new(DASHBOARD, resources, &[], Vec::new())?;
    let envoy = rig.envoy(NODE)?;
    let (dump, clusters) =
        (envoy.json("/config_dump?include_eds").await?, envoy.json("/clusters?format=json").await?);
    let report = compare(&intended, &Actual::read(&dump, &clusters)?);
    let [difference] = &report.differences[..] else { anyhow::bail!("{report:#?}") };
    let [field] = &difference.fields[..] else { anyhow::bail!("{report:#?}") };
    ensure!(Some(&difference.name) == edited.as_ref() && difference.state == State::Different, "{report:#?}");
    ensure!(field.path == "connect_timeout" && field.intended == Some("123s".into()), "{report:#?}");
    Ok(())
}

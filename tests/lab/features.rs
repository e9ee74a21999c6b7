//! What Consul's configuration can ask of upstreams, seen by who answers: ways through gateways, redirects, failover to
//! services and subsets, prepared queries, protocols and exposed paths.

use std::time::Duration;

use anyhow::{Context, ensure};
use causeway::fetch;
use serde_json::{Value, json};

use crate::lab::{
    actors::Api,
    load::Load,
    protocols,
    rig::{Rig, eventually},
};

const SERVER: &str = "primary-server";
const NODE: &str = "primary-services";

/// Where a path of an instance is exposed.
const EXPOSED: u16 = 21_500;

/// All of it, while `api` is there.
pub(super) async fn all(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    ways_to_the_other_datacenter(rig, api).await.context("gateway modes")?;
    redirects(rig, api).await.context("redirects")?;
    subset_of_the_other_datacenter(rig, api).await.context("a subset of the other datacenter")?;
    failover_to_a_service(rig, api).await.context("failover to a service")?;
    failover_to_a_subset(rig, api).await.context("failover to a subset")?;
    prepared_query(rig, api).await.context("a prepared query")?;
    protocols::all(rig, api).await.context("protocols")?;
    exposed_path(rig).await.context("an exposed path")
}

/// Through the local gateway, through that of the other datacenter alone, and past both.
async fn ways_to_the_other_datacenter(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let load = Load::start(&api.url);
    for mode in ["local", "remote", "none"] {
        let way = json!({ "Datacenter": "secondary", "MeshGateway": { "Mode": mode } });
        api.reach(rig, way).await?;
        let wanted = match mode {
            "local" => format!("{}:8443", rig.lab.node("primary-gateway")?.address),
            "remote" => {
                format!("{}:8443", rig.lab.node("secondary-gateway")?.wan_address.context("WAN address")?)
            }
            _ => format!("{}:21103", rig.lab.node("secondary-services")?.address),
        };
        leads_to(rig, "api.default.secondary", &wanted).await.with_context(|| format!("mode {mode}"))?;
        load.answered_by(&["api-3"]).await?;
    }
    api.reach(rig, json!({})).await?;
    load.answered_by(&["api-1", "api-2"]).await?;
    told("through the local gateway, the other one alone, and neither", load)
}

/// Waits until connections of a cluster of the dashboard's Envoy went to an address.
pub(super) async fn leads_to(rig: &Rig, cluster: &str, address: &str) -> anyhow::Result<()> {
    leads_from(rig, NODE, cluster, address).await
}

/// The same of another node's Envoy.
pub(super) async fn leads_from(rig: &Rig, node: &str, cluster: &str, address: &str) -> anyhow::Result<()> {
    eventually(&format!("{cluster} leads to {address}"), async || {
        let text = rig.envoy(node)?.get("/clusters").await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let is_wanted =
            |line: &str| line.contains(cluster) && line.contains(&format!("::{address}::cx_total::"));
        let used = text.lines().filter(|line| is_wanted(line)).any(|line| !line.ends_with("::0"));
        Ok(used.then_some(()))
    })
    .await
}

/// Another name for the service, for one of its subsets, and for the one in the other datacenter.
async fn redirects(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let alias = json!({ "DestinationName": "alias" });
    config(rig, json!({ "Kind": "service-resolver", "Name": "alias", "Redirect": { "Service": "api" } }))
        .await?;
    api.reach(rig, alias).await?;
    let load = settled(api, &["api-1", "api-2"]).await?;
    let second = json!({ "v2": { "Filter": "Service.Meta.version == 2" } });
    config(rig, json!({ "Kind": "service-resolver", "Name": "api", "Subsets": second })).await?;
    let subset = json!({ "Service": "api", "ServiceSubset": "v2" });
    config(rig, json!({ "Kind": "service-resolver", "Name": "alias", "Redirect": subset })).await?;
    load.answered_by(&["api-2"]).await?;
    let elsewhere = json!({ "Service": "api", "Datacenter": "secondary" });
    config(rig, json!({ "Kind": "service-resolver", "Name": "alias", "Redirect": elsewhere })).await?;
    load.answered_by(&["api-3"]).await?;
    told("redirected to another service, to a subset of it and to another datacenter", load)?;
    api.reach(rig, json!({})).await?;
    rig.delete(SERVER, "/v1/config/service-resolver/alias").await?;
    rig.delete(SERVER, "/v1/config/service-resolver/api").await
}

/// Through the gateways, which tell subsets apart by their server names. One that selects nothing is answered by nobody.
async fn subset_of_the_other_datacenter(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let subset = |version: &str| json!({ "Filter": format!("Service.Meta.version == {version}") });
    let subsets = json!({ "v1": subset("1"), "v2": subset("2") });
    let resolver = json!({ "Kind": "service-resolver", "Name": "api", "Subsets": subsets });
    config_everywhere(rig, &resolver).await?;
    let lead = async |subset: &str| {
        let there = json!({ "Service": "api", "ServiceSubset": subset, "Datacenter": "secondary" });
        config(rig, json!({ "Kind": "service-resolver", "Name": "alias", "Redirect": there })).await
    };
    lead("v1").await?;
    api.reach(rig, json!({ "DestinationName": "alias" })).await?;
    let load = settled(api, &["api-3"]).await?;
    let gateway = format!("{}:8443", rig.lab.node("primary-gateway")?.address);
    leads_to(rig, "v1.api.default.secondary", &gateway).await?;
    told("a subset of the other datacenter", load)?;
    lead("v2").await?;
    let load = Load::start(&api.url);
    load.fails().await?;
    lead("v1").await?;
    load.answered_by(&["api-3"]).await?;
    println!("  the same after one that selects nothing: {}", load.tally());
    api.reach(rig, json!({})).await?;
    rig.delete(SERVER, "/v1/config/service-resolver/alias").await?;
    rig.delete(SERVER, "/v1/config/service-resolver/api").await
}

/// Writes an entry until the other datacenter has it, whose gateways read it there. What names its subsets is written after
/// that: Consul's replication goes by names, and fails again and again when one such entry comes before it (1.8.7).
async fn config_everywhere(rig: &Rig, entry: &Value) -> anyhow::Result<()> {
    const ASK: Duration = Duration::from_secs(10);
    const PATIENCE: Duration = Duration::from_secs(2);
    let path = format!("/v1/config/{}/{}", text(entry, "Kind")?, text(entry, "Name")?);
    let is_there = async || {
        let answer = rig.consul("secondary-server")?.get(&path, &[], ASK).await?;
        let there: Value = answer.ok()?.json()?;
        let subsets = there["Subsets"].as_object().map(|it| it.keys().collect::<Vec<_>>());
        let wanted = entry["Subsets"].as_object().map(|it| it.keys().collect());
        Ok((subsets == wanted).then_some(()))
    };
    eventually(&format!("the secondary has {path}"), async || {
        config(rig, entry.clone()).await?;
        let seen = tokio::time::timeout(PATIENCE, eventually(&path, is_there)).await;
        seen.ok().transpose()
    })
    .await
}

fn text<'a>(entry: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    entry[field].as_str().with_context(|| format!("an entry without {field}"))
}

/// A service without any instance.
async fn failover_to_a_service(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let failover = json!({ "*": { "Service": "api" } });
    config(rig, json!({ "Kind": "service-resolver", "Name": "nobody", "Failover": failover })).await?;
    api.reach(rig, json!({ "DestinationName": "nobody" })).await?;
    let load = settled(api, &["api-1", "api-2"]).await?;
    told("failed over to another service", load)?;
    api.reach(rig, json!({})).await?;
    rig.delete(SERVER, "/v1/config/service-resolver/nobody").await
}

async fn failover_to_a_subset(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let subset = |version: &str| json!({ "Filter": format!("Service.Meta.version == {version}") });
    let subsets = json!({ "v1": subset("1"), "v2": subset("2") });
    let failover = json!({ "v1": { "ServiceSubset": "v2" } });
    let load = Load::start(&api.url);
    config(
        rig,
        json!({ "Kind": "service-resolver", "Name": "api", "DefaultSubset": "v1", "Subsets": subsets, "Failover": failover }),
    )
    .await?;
    load.answered_by(&["api-1"]).await?;
    api.turn(rig, "api-1", "fail").await?;
    load.answered_by(&["api-2"]).await?;
    api.turn(rig, "api-1", "pass").await?;
    load.answered_by(&["api-1"]).await?;
    rig.delete(SERVER, "/v1/config/service-resolver/api").await?;
    load.answered_by(&["api-1", "api-2"]).await?;
    told("failed over to another subset and back", load)
}

async fn prepared_query(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    const ASK: Duration = Duration::from_secs(10);
    let query = json!({ "Name": "nearest-api", "Service": { "Service": "api", "Connect": true, "OnlyPassing": true } });
    let made: Value = rig.consul(SERVER)?.post("/v1/query", &[], Some(query), ASK).await?.ok()?.json()?;
    api.reach(rig, json!({ "DestinationType": "prepared_query", "DestinationName": "nearest-api" })).await?;
    let load = settled(api, &["api-1", "api-2"]).await?;
    told("a prepared query", load)?;
    api.reach(rig, json!({})).await?;
    rig.delete(SERVER, &format!("/v1/query/{}", made["ID"].as_str().context("the query's id")?)).await
}

/// One path of an instance without TLS, and no other one.
async fn exposed_path(rig: &Rig) -> anyhow::Result<()> {
    const ASK: Duration = Duration::from_secs(3);
    let consul = rig.consul(NODE)?;
    let plain = consul.agent_service("api-1-sidecar-proxy").await?.context("the sidecar of api-1")?;
    let mut exposing = plain.clone();
    exposing["Proxy"]["Expose"] = json!({ "Paths": [{ "Path": "/health", "LocalPathPort": 9101, "ListenerPort": EXPOSED, "Protocol": "http" }] });
    crate::lab::live::restore(rig, exposing).await?;
    let address = rig.lab.node(NODE)?.address;
    let status = async |path: &str| {
        fetch::get(&format!("http://{address}:{EXPOSED}{path}"), ASK)
            .await
            .map(|answer| answer.status.as_u16())
    };
    eventually("the path is served", async || Ok((status("/health").await == Ok(200)).then_some(()))).await?;
    ensure!(status("/").await == Ok(404), "{:?}", status("/").await);
    println!("  an exposed path: 200, any other 404");
    crate::lab::live::restore(rig, plain).await
}

/// The load on the upstream once these answer it.
pub(super) async fn settled(api: &Api, instances: &[&str]) -> anyhow::Result<Load> {
    // What is under way until then goes to an upstream that is only being made.
    Load::start(&api.url).answered_by(instances).await?;
    let load = Load::start(&api.url);
    load.answered_by(instances).await?;
    Ok(load)
}

pub(super) fn told(what: &str, load: Load) -> anyhow::Result<()> {
    println!("  {what}: 0 of {} requests failed", load.none_failed()?);
    Ok(())
}

pub(super) async fn config(rig: &Rig, entry: Value) -> anyhow::Result<()> {
    rig.put(SERVER, "/v1/config", Some(entry)).await
}

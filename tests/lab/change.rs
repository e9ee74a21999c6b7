//! Changes under load: no request fails, whatever is renamed, moved or rotated.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use causeway::envoy::admin::Admin;
use serde_json::{Value, json};

use crate::lab::{
    actors::Api,
    features,
    load::Load,
    rig::{Rig, eventually},
};

const NODE: &str = "primary-services";

/// All of it in one scenario, since `api` is started for it.
pub(super) async fn no_request_fails(rig: &mut Rig) -> anyhow::Result<()> {
    let api = Api::start(rig).await?;
    let outcome = async {
        changes(rig, &api).await?;
        features::all(rig, &api).await
    }
    .await;
    let stopped = api.stop(rig).await;
    let removed = rig.delete("primary-server", "/v1/config/service-resolver/api").await;
    outcome.and(stopped).and(removed)
}

async fn changes(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    failover(rig, api).await.context("failover")?;
    gateway_dies(rig, api).await.context("the other datacenter's gateway dies")?;
    last_way_stays(rig, api).await.context("the last way comes back")?;
    subsets(rig, api).await.context("subsets")?;
    cluster_renamed(rig, api).await.context("a cluster is renamed")?;
    listener_renamed(rig, api).await.context("a listener is renamed")?;
    leaf_rotated(rig, api).await.context("leaves rotate")?;
    ca_rotated(rig, api).await.context("the CA rotates")
}

/// The last local instance turns critical: traffic goes to the other datacenter, and comes back.
async fn failover(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let load = Load::start(&api.url);
    resolver(rig, json!({ "Failover": { "*": { "Datacenters": ["secondary"] } } })).await?;
    load.answered_by(&["api-1", "api-2"]).await?;
    api.turn(rig, "api-1", "fail").await?;
    load.answered_by(&["api-2"]).await?;
    api.turn(rig, "api-2", "fail").await?;
    load.answered_by(&["api-3"]).await?;
    api.turn(rig, "api-1", "pass").await?;
    load.answered_by(&["api-1"]).await?;
    api.turn(rig, "api-2", "pass").await?;
    load.answered_by(&["api-1", "api-2"]).await?;
    told("failover to the other datacenter and back", load)
}

/// The way to the other datacenter ends behind a gateway that itself still answers: no health check tells, so requests
/// fail until Envoy has counted enough of them.
async fn gateway_dies(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    resolver(rig, json!({ "Failover": { "*": { "Datacenters": ["primary"] } } })).await?;
    api.reach(rig, json!({ "Datacenter": "secondary" })).await?;
    let load = Load::start(&api.url);
    load.answered_by(&["api-3"]).await?;
    rig.lab.kill("secondary-gateway", "envoy").await?;
    let taken_over = load.answered_by(&["api-1", "api-2"]).await;
    println!("  failover past a dead gateway: {}", load.tally());
    rig.lab.restart("secondary-gateway", "envoy").await?;
    taken_over?;
    rig.link(true).await?;
    api.reach(rig, json!({})).await?;
    resolver(rig, json!({})).await
}

/// Where nothing is left to take over, requests that fail eject nothing: the way is used as soon as it is there again.
async fn last_way_stays(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    resolver(rig, json!({ "Failover": { "*": { "Datacenters": ["secondary"] } } })).await?;
    for instance in ["api-1", "api-2"] {
        api.turn(rig, instance, "fail").await?;
    }
    let load = Load::start(&api.url);
    load.answered_by(&["api-3"]).await?;
    rig.lab.kill("secondary-gateway", "envoy").await?;
    let failed = load.fails().await;
    rig.lab.restart("secondary-gateway", "envoy").await?;
    failed?;
    load.answered_by(&["api-3"]).await?;
    println!("  the last way away and back: {}", load.tally());
    const EJECTIONS: &str = r"cluster\.failover-target~.*\.outlier_detection\.ejections_(detected_consecutive_5xx|enforced_total)";
    let seen = rig.envoy(NODE)?.stats(EJECTIONS).await?;
    let sum = |what: &str| {
        seen.iter().filter(|(name, _)| name.ends_with(what)).map(|(_, count)| count).sum::<u64>()
    };
    ensure!(sum("detected_consecutive_5xx") > 0, "too few requests failed to eject anything: {seen:?}");
    ensure!(sum("enforced_total") == 0, "{seen:?}");
    for instance in ["api-1", "api-2"] {
        api.turn(rig, instance, "pass").await?;
    }
    resolver(rig, json!({})).await?;
    load.answered_by(&["api-1", "api-2"]).await?;
    rig.link(true).await
}

/// The resolver changes, and with it the subset that takes the traffic.
async fn subsets(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let load = Load::start(&api.url);
    let subset = |version: &str| json!({ "Filter": format!("Service.Meta.version == {version}") });
    for (default, instance) in [("v1", "api-1"), ("v2", "api-2")] {
        let subsets = json!({ "v1": subset("1"), "v2": subset("2") });
        resolver(rig, json!({ "DefaultSubset": default, "Subsets": subsets })).await?;
        load.answered_by(&[instance]).await?;
    }
    resolver(rig, json!({})).await?;
    load.answered_by(&["api-1", "api-2"]).await?;
    told("subsets", load)
}

/// An override of the proxy makes Consul put a hash before the cluster's name.
async fn cluster_renamed(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let load = Load::start(&api.url);
    let mut names = clusters(rig).await?;
    for timeout_ms in [1000, 2000, 3000, 4000, 6000, 7000, 8000, 9000] {
        api.reach(rig, json!({ "Config": { "connect_timeout_ms": timeout_ms } })).await?;
        let name = eventually("the cluster has another name", async || {
            let found = clusters(rig).await?.into_iter().find(|name| !names.contains(name));
            Ok(found)
        })
        .await?;
        names.insert(name);
        eventually("the one before is gone", async || Ok((clusters(rig).await?.len() == 1).then_some(())))
            .await?;
    }
    api.reach(rig, json!({})).await?;
    load.answered_by(&["api-1", "api-2"]).await?;
    told(&format!("a cluster renamed, {} names", names.len()), load)
}

/// Another datacenter makes it another upstream, on the same address.
async fn listener_renamed(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let load = Load::start(&api.url);
    for _ in 0..10 {
        api.reach(rig, json!({ "Datacenter": "secondary" })).await?;
        load.answered_by(&["api-3"]).await?;
        api.reach(rig, json!({})).await?;
        load.answered_by(&["api-1", "api-2"]).await?;
    }
    told("a listener renamed on its address, 20 times", load)
}

/// Consul's agent keeps leaves in memory: one that starts anew has new ones made.
async fn leaf_rotated(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    const AGENT: &str = "secondary-services";
    // Only a state that was told is kept over a restart.
    api.turn(rig, "api-3", "pass").await?;
    api.reach(rig, json!({ "Datacenter": "secondary" })).await?;
    let load = Load::start(&api.url);
    load.answered_by(&["api-3"]).await?;
    let envoy = api.envoy(rig, "api-3")?;
    let before = serials(&envoy).await?;
    rig.lab.kill(AGENT, "consul").await?;
    rig.lab.restart(AGENT, "consul").await?;
    changed(&envoy, &before).await?;
    load.answered_by(&["api-3"]).await?;
    told("a leaf rotated, with its Consul agent killed and started", load)?;
    api.reach(rig, json!({})).await
}

/// A new key makes a new root; the old one stays trusted, and leaves follow within half a minute.
async fn ca_rotated(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let load = Load::start(&api.url);
    let envoys = [rig.envoy(NODE)?, api.envoy(rig, "api-1")?, api.envoy(rig, "api-3")?];
    let mut before = Vec::new();
    for envoy in &envoys {
        before.push(serials(envoy).await?);
    }
    let key = rcgen::KeyPair::generate()?.serialize_pem();
    let config = json!({ "Provider": "consul", "Config": { "PrivateKey": key } });
    rig.put("primary-server", "/v1/connect/ca/configuration", Some(config)).await?;
    for (envoy, before) in envoys.iter().zip(&before) {
        changed(envoy, before).await?;
    }
    load.answered_by(&["api-1", "api-2"]).await?;
    told("the CA rotated", load)
}

/// Waits until Envoy has another leaf.
async fn changed(envoy: &Admin, before: &BTreeSet<String>) -> anyhow::Result<()> {
    eventually("another leaf at Envoy", async || {
        let now = serials(envoy).await?;
        Ok((!now.is_empty() && now.is_disjoint(before)).then_some(()))
    })
    .await
}

fn told(what: &str, load: Load) -> anyhow::Result<()> {
    let answers = load.none_failed()?;
    println!("  {what}: 0 of {answers} requests failed");
    Ok(())
}

pub(super) async fn resolver(rig: &Rig, fields: Value) -> anyhow::Result<()> {
    let mut entry = json!({ "Kind": "service-resolver", "Name": "api" });
    entry.as_object_mut().context("entry")?.extend(fields.as_object().context("fields")?.clone());
    rig.put("primary-server", "/v1/config", Some(entry)).await
}

/// The clusters of `api` at the dashboard's Envoy.
pub(super) async fn clusters(rig: &Rig) -> anyhow::Result<BTreeSet<String>> {
    let all = rig.envoy(NODE)?.json("/clusters?format=json").await?;
    let names = all["cluster_statuses"].as_array().context("cluster_statuses")?.iter();
    let names = names.filter_map(|cluster| cluster["name"].as_str());
    Ok(names.filter(|name| name.contains("api.default.")).map(str::to_owned).collect())
}

/// The serial numbers of the leaf certificates that an Envoy has.
async fn serials(envoy: &Admin) -> anyhow::Result<BTreeSet<String>> {
    let all = envoy.json("/certs").await?;
    let certificates = all["certificates"].as_array().context("certificates")?.iter();
    let chains = certificates.filter_map(|entry| entry["cert_chain"].as_array());
    let serials = chains.filter_map(|chain| chain.first()?["serial_number"].as_str().map(str::to_owned));
    Ok(serials.collect())
}

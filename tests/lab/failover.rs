//! Failover with traffic: what answers an upstream when its first target is gone.

use anyhow::{Context, ensure};
use serde_json::json;

use crate::lab::{
    acl,
    live::{ASK, DASHBOARD, change_upstreams, restore},
    rig::{Rig, eventually},
};

const DASHBOARD_ANSWERS: char = '<';
const COUNTER_ANSWERS: char = '{';

/// So many answers in a row tell where all requests go.
const MANY: usize = 20;

/// The dashboard, reached over the mesh, fails over to the counter in the other datacenter through both gateways.
pub(super) async fn the_other_datacenter_takes_over_and_gives_back(rig: &mut Rig) -> anyhow::Result<()> {
    let plain =
        rig.consul("primary-services")?.agent_service(DASHBOARD).await?.context("dashboard's sidecar")?;
    let bind = rig.lab.node("primary-services")?.address.to_string();
    let at = format!("{bind}:5003");
    let allowed = acl::allow_dashboard(rig, "dashboard").await?;
    put_failover(rig, "dashboard", json!({ "Service": "counting", "Datacenters": ["secondary"] })).await?;
    let added = json!({
        "DestinationName": "dashboard", "LocalBindPort": 5003, "LocalBindAddress": bind,
        "MeshGateway": { "Mode": "local" },
    });
    change_upstreams(rig, |upstreams| upstreams.push(added)).await?;
    all_answered_by(DASHBOARD_ANSWERS, &at).await?;
    for (enable, by) in [("true", COUNTER_ANSWERS), ("false", DASHBOARD_ANSWERS)] {
        let maintenance = format!("/v1/agent/service/maintenance/{DASHBOARD}?enable={enable}");
        rig.put("primary-services", &maintenance, None).await?;
        all_answered_by(by, &at).await?;
    }
    restore(rig, plain).await?;
    acl::disallow(rig, allowed).await?;
    delete_failover(rig, "dashboard").await
}

/// The counter in the other datacenter fails over to the dashboard here when the gateway there dies: its one address
/// is that of the local gateway, which still takes connections, and the catalog over there can tell nothing new.
pub(super) async fn a_dead_gateway_on_the_way_is_given_up_for_the_next_target(
    rig: &mut Rig,
) -> anyhow::Result<()> {
    let sidecar =
        rig.consul("primary-services")?.agent_service(DASHBOARD).await?.context("dashboard's sidecar")?;
    let upstream = &sidecar["Proxy"]["Upstreams"][0];
    let at = format!(
        "{}:{}",
        upstream["LocalBindAddress"].as_str().context("address")?,
        upstream["LocalBindPort"]
    );
    let allowed = acl::allow_dashboard(rig, "dashboard").await?;
    put_failover(rig, "counting", json!({ "Service": "dashboard", "Datacenters": ["primary"] })).await?;
    eventually("the aggregate at Envoy", async || {
        let stats =
            rig.envoy("primary-services")?.stats(r"cluster\.failover-target~1~.*membership_healthy").await?;
        Ok(stats.values().any(|healthy| *healthy == 1).then_some(()))
    })
    .await?;
    all_answered_by(COUNTER_ANSWERS, &at).await?;
    rig.lab.kill("secondary-gateway", "envoy").await?;
    all_answered_by(DASHBOARD_ANSWERS, &at).await?;
    delete_failover(rig, "counting").await?;
    acl::disallow(rig, allowed).await?;
    rig.lab.restart("secondary-gateway", "envoy").await?;
    rig.link(true).await
}

async fn put_failover(rig: &Rig, service: &str, to: serde_json::Value) -> anyhow::Result<()> {
    let entry = json!({ "Kind": "service-resolver", "Name": service, "Failover": { "*": to } });
    rig.put("primary-services", "/v1/config", Some(entry)).await
}

async fn delete_failover(rig: &Rig, service: &str) -> anyhow::Result<()> {
    let consul = rig.consul("primary-services")?;
    consul.delete(&format!("/v1/config/service-resolver/{service}"), &[], ASK).await?.ok()?;
    Ok(())
}

/// Waits until an answer begins so, and then looks at many more: all do.
async fn all_answered_by(begins: char, at: &str) -> anyhow::Result<()> {
    eventually(&format!("an answer of {at} that begins with {begins}"), async || {
        Ok((first(at).await? == Some(begins)).then_some(()))
    })
    .await?;
    for _ in 0..MANY {
        let is = first(at).await?;
        ensure!(is == Some(begins), "an answer of {at} begins with {is:?}, not {begins}");
    }
    Ok(())
}

/// What an answer begins with.
async fn first(at: &str) -> anyhow::Result<Option<char>> {
    let answer = causeway::fetch::get(&format!("http://{at}/"), ASK).await.map_err(anyhow::Error::msg)?;
    Ok(String::from_utf8_lossy(&answer.body).trim_start().chars().next())
}

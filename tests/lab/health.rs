//! What checks, weights and failures say of instances, seen by who answers.

use anyhow::{Context, ensure};
use serde_json::json;

use crate::lab::{
    actors::{Api, change_sidecar},
    change::resolver,
    features::told,
    live::restore,
    load::Load,
    rig::{Rig, eventually},
    settings::sum,
};

const NODE: &str = "primary-services";

pub(super) async fn all(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    warning(rig, api).await.context("a warning")?;
    weights(rig, api).await.context("weights")?;
    ejection(rig, api).await.context("passive health checks")
}

/// An instance with a warning takes requests, but for a subset of those that pass.
async fn warning(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let load = Load::start(&api.url);
    api.turn(rig, "api-1", "warn").await?;
    let passing = json!({ "DefaultSubset": "sound", "Subsets": { "sound": { "OnlyPassing": true } } });
    resolver(rig, passing).await?;
    load.answered_by(&["api-2"]).await?;
    resolver(rig, json!({})).await?;
    load.answered_by(&["api-1", "api-2"]).await?;
    api.turn(rig, "api-1", "pass").await?;
    rig.delete("primary-server", "/v1/config/service-resolver/api").await?;
    told("a warning, with and without OnlyPassing", load)
}

/// An instance of nine, or with a warning three, beside one of one.
async fn weights(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let load = Load::start(&api.url);
    let weighty =
        |sidecar: &mut serde_json::Value| sidecar["Weights"] = json!({ "Passing": 9, "Warning": 3 });
    let plain = change_sidecar(rig, "api-1", weighty).await?;
    let mut shares = Vec::new();
    for (to, weight, least, most) in [("pass", 9, 85, 95), ("warn", 3, 70, 80)] {
        api.turn(rig, "api-1", to).await?;
        weighs(rig, weight).await?;
        let share = load.share_of("api-1").await?;
        ensure!((least..=most).contains(&share), "{share} % of the answers at a weight of {weight} to 1");
        shares.push(share);
    }
    api.turn(rig, "api-1", "pass").await?;
    restore(rig, plain).await?;
    weighs(rig, 1).await?;
    told(&format!("weights of 9 to 1, and with a warning 3 to 1, give {shares:?} % of the answers"), load)
}

/// Waits until the dashboard's Envoy has this weight of `api-1`.
async fn weighs(rig: &Rig, weight: u32) -> anyhow::Result<()> {
    let wanted = format!("{}:21101::weight::{weight}", rig.lab.node(NODE)?.address);
    eventually(&wanted, async || {
        let clusters = rig.envoy(NODE)?.get("/clusters").await?;
        let clusters = String::from_utf8_lossy(&clusters).into_owned();
        Ok(clusters.lines().any(|line| line.ends_with(&wanted)).then_some(()))
    })
    .await
}

/// An instance that no check calls unhealthy and that answers nothing is left out after some failures.
async fn ejection(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    const NOBODY: u16 = 1;
    let broken = |sidecar: &mut serde_json::Value| sidecar["Proxy"]["LocalServicePort"] = json!(NOBODY);
    let plain = change_sidecar(rig, "api-1", broken).await?;
    let failing = Load::start(&api.url);
    failing.fails().await?;
    let check = json!({ "interval": "1s", "max_failures": 3, "max_ejection_percent": 50 });
    api.reach(rig, json!({ "Config": { "protocol": "http", "passive_health_check": check } })).await?;
    eventually("an ejection", async || {
        Ok((sum(rig, r"[^.]*~api\.default\..*\.outlier_detection\.ejections_active").await? == 1)
            .then_some(()))
    })
    .await?;
    let until = failing.tally();
    drop(failing);
    let load = Load::start(&api.url);
    load.answered_by(&["api-2"]).await?;
    told(&format!("an instance ejected by a passive health check, until then {until}; afterwards"), load)?;
    restore(rig, plain).await?;
    api.reach(rig, json!({})).await?;
    Load::start(&api.url).answered_by(&["api-1", "api-2"]).await
}

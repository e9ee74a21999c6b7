//! Processes die, and the mesh comes back by itself.

use anyhow::ensure;

use crate::lab::rig::{Rig, eventually};

pub(super) async fn the_other_gateway_goes_and_comes_back(rig: &mut Rig) -> anyhow::Result<()> {
    rig.lab.kill("secondary-gateway", "envoy").await?;
    rig.link(false).await?;
    rig.lab.restart("secondary-gateway", "envoy").await?;
    rig.link(true).await
}

pub(super) async fn the_counter_goes_and_comes_back(rig: &mut Rig) -> anyhow::Result<()> {
    rig.lab.kill("secondary-services", "counting").await?;
    rig.link(false).await?;
    rig.lab.restart("secondary-services", "counting").await?;
    rig.link(true).await
}

/// Versions are taken from content: an agent that starts anew has the same ones, and Envoy tells what it holds.
pub(super) async fn an_agent_killed_and_restarted_sends_nothing_again(rig: &mut Rig) -> anyhow::Result<()> {
    const NODE: &str = "secondary-gateway";
    settled(rig, NODE).await?;
    let updates = |all: &std::collections::BTreeMap<String, u64>| all.values().sum::<u64>();
    const UPDATES: &str = r"(cluster_manager\.cds|listener_manager\.lds|cluster\..*)\.update_success";
    let before = updates(&rig.envoy(NODE)?.stats(UPDATES).await?);
    rig.lab.kill(NODE, "causeway").await?;
    rig.link(true).await?;
    rig.lab.restart(NODE, "causeway").await?;
    settled(rig, NODE).await?;
    let after = updates(&rig.envoy(NODE)?.stats(UPDATES).await?);
    ensure!(before == after, "Envoy took {} updates after the agent's restart", after - before);
    rig.link(true).await
}

/// Waits until the node's one proxy is connected and has everything.
async fn settled(rig: &Rig, node: &str) -> anyhow::Result<()> {
    eventually(&format!("{node}'s Envoy is synced"), async || {
        let status = rig.status(node).await?;
        let is_synced = |proxy: &causeway::api::wire::ProxyStatus| {
            let resources = proxy.streams.iter().flat_map(|s| &s.types).flat_map(|t| &t.resources);
            proxy.complete
                && proxy.streams.len() == 1
                && proxy.streams[0].types.len() >= 3
                && resources.into_iter().all(|r| r.state == causeway::xds::status::ResourceState::Synced)
        };
        Ok((status.proxies.len() == 1 && status.proxies.iter().all(is_synced)).then_some(()))
    })
    .await
}

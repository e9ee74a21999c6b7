//! Processes die, and the mesh comes back by itself.

use std::time::Duration;

use anyhow::{Context, ensure};
use causeway::{
    api::wire::{ProxyStatus, Status},
    fetch,
    lab::plan::ProcessPlan,
    xds::status::ResourceState,
};

use crate::lab::rig::{ENVOYS, Rig, eventually};

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
    for node in ENVOYS {
        let before = Taken::now(rig, node).await?;
        rig.lab.kill(node, "causeway").await?;
        rig.link(true).await?;
        rig.lab.restart(node, "causeway").await?;
        settled(rig, node).await?;
        before.nothing_since(rig, node).await?;
    }
    rig.link(true).await
}

/// Neither does one whose Consul is away: what its predecessor knew is on disk.
pub(super) async fn an_agent_restarted_without_its_consul_sends_nothing_again(
    rig: &mut Rig,
) -> anyhow::Result<()> {
    for node in ENVOYS {
        eventually(&format!("{node}'s agent has kept all it knows"), async || {
            let metrics = String::from_utf8(rig.causeway(node, "/metrics").await?)?;
            Ok(metrics.contains("\ncauseway_state_pending 0").then_some(()))
        })
        .await?;
        let before = Taken::now(rig, node).await?;
        rig.lab.kill(node, "causeway").await?;
        rig.lab.kill(node, "consul").await?;
        rig.lab.restart(node, "causeway").await?;
        settled(rig, node).await?;
        before.nothing_since(rig, node).await?;
        let is_from_disk = |status: &Status| status.topics.iter().any(|topic| topic.from_disk);
        ensure!(is_from_disk(&rig.status(node).await?), "{node}'s agent has asked somebody");
        rig.lab.restart(node, "consul").await?;
        eventually(&format!("{node}'s agent has heard Consul"), async || {
            let status = rig.status(node).await?;
            let is_heard =
                !is_from_disk(&status) && status.topics.iter().all(|topic| topic.trouble.is_none());
            Ok(is_heard.then_some(()))
        })
        .await?;
    }
    rig.link(true).await
}

/// Another agent with the same catalog has the same versions too.
pub(super) async fn a_second_agent_sends_nothing_again(rig: &mut Rig) -> anyhow::Result<()> {
    const NODE: &str = "primary-services";
    let node = rig.lab.node(NODE)?;
    let socket =
        node.xds.as_deref().and_then(|xds| xds.strip_prefix("unix:")).context("the agent's socket")?;
    let (other, state) = (format!("{socket}2"), node.dir.join("state").display().to_string());
    let first = node.process("causeway").context("the agent")?;
    let http = format!("{}:18501", node.address);
    let config = std::fs::read_to_string(node.dir.join("causeway.toml"))?
        .replace(socket, &other)
        .replace(&state, &format!("{state}2"))
        .replace(&format!("{}:18500", node.address), &http);
    let file = node.dir.join("second.toml");
    std::fs::write(&file, config)?;
    let second = ProcessPlan {
        name: "second".to_owned(),
        args: vec!["agent".to_owned(), "--config".to_owned(), file.display().to_string()],
        log: node.dir.join("second.log"),
        ..first.clone()
    };

    let before = Taken::now(rig, NODE).await?;
    rig.lab.start_process(NODE, &second)?;
    let ready = format!("http://{http}/readyz");
    let ask = Duration::from_secs(3);
    eventually("the second agent is ready", async || {
        Ok(fetch::get(&ready, ask).await.is_ok_and(|answer| answer.status.is_success()).then_some(()))
    })
    .await?;
    // Envoy finds the other agent where it looks for the first.
    rig.lab.kill(NODE, "causeway").await?;
    std::fs::remove_file(socket)?;
    std::os::unix::fs::symlink(&other, socket)?;
    let status = format!("http://{http}/status");
    eventually("Envoy is synced by the second agent", async || {
        let status: Status = fetch::get_json(&status, ask).await.map_err(anyhow::Error::msg)?;
        Ok(is_settled(&status).then_some(()))
    })
    .await?;
    before.nothing_since(rig, NODE).await?;

    rig.lab.kill(NODE, "second").await?;
    std::fs::remove_file(socket)?;
    rig.lab.restart(NODE, "causeway").await?;
    settled(rig, NODE).await?;
    rig.link(true).await
}

/// No ACK was held back, as Envoy does for 15 s while a cluster lacks something.
pub(super) async fn no_cluster_warmed_for_long(rig: &mut Rig) -> anyhow::Result<()> {
    for node in ENVOYS {
        let metrics = String::from_utf8(rig.causeway(node, "/metrics").await?)?;
        for kind in ["CDS", "LDS"] {
            let upto = |limit: &str| -> anyhow::Result<u64> {
                let series =
                    format!("causeway_xds_ack_delay_seconds_bucket{{le=\"{limit}\",type=\"{kind}\"}}");
                let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
                Ok(line.with_context(|| format!("{series} in\n{metrics}"))?.trim().parse()?)
            };
            let (quick, slow, all) = (upto("0.1")?, upto("5.0")?, upto("+Inf")?);
            println!("  {node}: {quick} of {all} {kind} ACKs within 100 ms");
            ensure!(slow == all, "{node}: {} {kind} ACKs took more than 5 s", all - slow);
        }
    }
    Ok(())
}

/// What an Envoy had taken at some time.
struct Taken {
    updates: u64,
    bytes: u64,
}

impl Taken {
    async fn now(rig: &Rig, node: &str) -> anyhow::Result<Self> {
        settled(rig, node).await?;
        Self::told(rig, node).await
    }

    async fn told(rig: &Rig, node: &str) -> anyhow::Result<Self> {
        let envoy = rig.envoy(node)?;
        let sum = |all: std::collections::BTreeMap<String, u64>| all.values().sum::<u64>();
        const UPDATES: &str = r"(cluster_manager\.cds|listener_manager\.lds|cluster\..*)\.update_success";
        const BYTES: &str = r"cluster\.causeway_xds\.upstream_cx_rx_bytes_total";
        let bytes = envoy.stats(BYTES).await?;
        ensure!(bytes.len() == 1, "{bytes:?}");
        Ok(Self { updates: sum(envoy.stats(UPDATES).await?), bytes: sum(bytes) })
    }

    /// No resource, and little more than the frames that open a connection.
    async fn nothing_since(&self, rig: &Rig, node: &str) -> anyhow::Result<()> {
        const FRAMES_BYTES: u64 = 2_000;
        let now = Self::told(rig, node).await?;
        let bytes = now.bytes - self.bytes;
        println!("  {node}: {bytes} bytes from the agent, {} updates", now.updates - self.updates);
        ensure!(now.updates == self.updates, "{node} took {} updates", now.updates - self.updates);
        ensure!(bytes < FRAMES_BYTES, "{node} was sent {bytes} bytes");
        Ok(())
    }
}

/// Waits until the node's first proxy is connected and has everything.
async fn settled(rig: &Rig, node: &str) -> anyhow::Result<()> {
    eventually(&format!("{node}'s Envoy is synced"), async || {
        Ok(is_settled(&rig.status(node).await?).then_some(()))
    })
    .await
}

fn is_settled(status: &Status) -> bool {
    let is_synced = |proxy: &ProxyStatus| {
        let mut resources = proxy.streams.iter().flat_map(|s| &s.types).flat_map(|t| &t.resources);
        proxy.complete
            && proxy.streams.len() == 1
            && proxy.streams[0].types.len() >= 3
            && resources.all(|r| r.state == ResourceState::Synced)
    };
    status.proxies.len() == 1 && status.proxies.iter().all(is_synced)
}

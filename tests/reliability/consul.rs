//! Consul's own processes: agents beside the proxies, single servers, and its past.

use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use causeway::{consul::client::Client, fetch};
use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::reliability::{
    watch::Spared,
    world::{CLIENT, Fault, Whole, World},
};

/// A question that every server of a working datacenter answers at once.
const ASK: Duration = Duration::from_secs(5);
/// A snapshot of the lab is small; its restore waits for the raft.
const SNAPSHOT: Duration = Duration::from_secs(30);

pub(super) async fn all(world: &mut World) {
    agent_killed(world).await;
    agent_stopped(world).await;
    leader_lost(world, "the primary's leader of three killed", Signal::SIGKILL).await;
    leader_lost(world, "the primary's leader of three stopped (SIGSTOP)", Signal::SIGSTOP).await;
    all_servers_lost(world, "all servers of the client's datacenter killed and started", "primary", CLIENT)
        .await;
    let gateway = "secondary-gateway";
    all_servers_lost(world, "all servers of the other datacenter killed and started", "secondary", gateway)
        .await;
    older_state_restored(world).await;
}

/// Whoever leads first afterwards answers before it has applied its log, as if nothing were registered.
async fn all_servers_lost(world: &mut World, name: &'static str, datacenter: &str, seen_at: &str) {
    let fault = Fault { name, whole: Whole::Both, spared: &[] };
    let servers: Vec<String> =
        world.rig.lab.plan().servers(datacenter).map(|server| server.name.clone()).collect();
    let begin = async |world: &World| -> anyhow::Result<String> {
        for server in &servers {
            world.rig.lab.kill(server, "consul").await?;
        }
        world.silence_at(seen_at).await?;
        world.more(20).await?;
        Ok("Causeway says that Consul is silent; Envoy keeps what it has".to_owned())
    };
    let end = async |world: &World| -> anyhow::Result<()> {
        for server in &servers {
            world.rig.lab.restart(server, "consul").await?;
        }
        Ok(())
    };
    world.fault(fault, begin, end).await;
}

async fn agent_killed(world: &mut World) {
    let fault = Fault { name: "Consul agent of the client's VM killed", whole: Whole::Both, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        world.rig.lab.kill(CLIENT, "consul").await?;
        world.silence_at(CLIENT).await?;
        world.more(20).await?;
        Ok("Causeway says that Consul is silent; Envoy keeps what it has".to_owned())
    };
    world.fault(fault, begin, async |world| Ok(world.rig.lab.restart(CLIENT, "consul").await?)).await;
}

/// Stopped, it answers nothing and breaks nothing, and the others hold its node for dead: a gateway's.
async fn agent_stopped(world: &mut World) {
    const NODE: &str = "primary-gateway";
    let fault = Fault {
        name: "Consul agent of the client's gateway stopped (SIGSTOP)",
        whole: Whole::Both,
        spared: &[],
    };
    let begin = async |world: &World| -> anyhow::Result<String> {
        world.rig.lab.signal(NODE, "consul", Signal::SIGSTOP)?;
        health_of(world, NODE, "critical").await?;
        world.overdue_at(NODE).await?;
        world.more(20).await?;
        Ok("the gateway's node is critical in the catalog, and its Causeway's questions hang until their deadline; traffic goes on through it".to_owned())
    };
    let end = async |world: &World| -> anyhow::Result<()> {
        world.rig.lab.signal(NODE, "consul", Signal::SIGCONT)?;
        health_of(world, NODE, "passing").await
    };
    world.fault(fault, begin, end).await;
}

/// Waits until the catalog has this of a node.
async fn health_of(world: &World, node: &str, wanted: &str) -> anyhow::Result<()> {
    world
        .until(&format!("{node} is {wanted} in the catalog"), async |world| {
            let path = format!("/v1/health/node/{node}");
            let checks: Value = leader(world, "primary").await?.get(&path, &[], ASK).await?.ok()?.json()?;
            let checks = checks.as_array().context("checks")?;
            Ok(checks.iter().any(|it| it["CheckID"] == "serfHealth" && it["Status"] == wanted).then_some(()))
        })
        .await
}

/// Whoever leads now.
async fn leader(world: &World, datacenter: &str) -> anyhow::Result<Client> {
    let name = world.rig.lab.leader(datacenter).await?.name.clone();
    world.rig.consul(&name)
}

async fn leader_lost(world: &mut World, name: &'static str, signal: Signal) {
    let fault = Fault { name, whole: Whole::Both, spared: &[] };
    let lost = match world.rig.lab.leader("primary").await.map(|node| node.name.clone()) {
        Ok(lost) => lost,
        Err(error) => return world.note(name, &error.into()),
    };
    let begin = async |world: &World| -> anyhow::Result<String> {
        match signal {
            Signal::SIGKILL => world.rig.lab.kill(&lost, "consul").await?,
            _ => world.rig.lab.signal(&lost, "consul", signal)?,
        }
        let began = causeway::lifecycle::now();
        world
            .until("another server leads", async |world| {
                let others: Vec<_> =
                    world.rig.lab.plan().servers("primary").filter(|it| it.name != lost).collect();
                for other in others {
                    let url = format!("{}/v1/status/leader", other.consul_http);
                    let leader: String = fetch::get_json(&url, ASK).await.map_err(|error| anyhow!(error))?;
                    let address = world.rig.lab.node(&lost)?.address;
                    if leader.is_empty() || leader.starts_with(&format!("{address}:")) {
                        return Ok(None);
                    }
                }
                Ok(Some(()))
            })
            .await?;
        let took = began.elapsed().as_secs_f32();
        world.more(20).await?;
        Ok(format!("another server leads after {took:.1} s"))
    };
    let end = async |world: &World| -> anyhow::Result<()> {
        match signal {
            Signal::SIGKILL => Ok(world.rig.lab.restart(&lost, "consul").await?),
            _ => Ok(world.rig.lab.signal(&lost, "consul", Signal::SIGCONT)?),
        }
    };
    world.fault(fault, begin, end).await;
}

/// What was changed since the snapshot is as it was, and Causeway follows: indexes that go back are no reason to wait.
async fn older_state_restored(world: &mut World) {
    let fault = Fault {
        name: "`consul snapshot restore` to an older state",
        whole: Whole::Both,
        spared: &[
            Spared { envoy: CLIENT, lists: "api." },
            Spared { envoy: "primary-gateway", lists: "api." },
        ],
    };
    let begin = async |world: &World| -> anyhow::Result<String> {
        let server = world.rig.lab.leader("primary").await?.name.clone();
        let consul = world.rig.consul(&server)?;
        let url = format!("{}/v1/snapshot", world.rig.lab.node(&server)?.consul_http);
        let snapshot = world
            .until("a snapshot", async |_| {
                let snapshot = fetch::get(&url, SNAPSHOT).await.map_err(|error| anyhow!(error))?;
                let said = String::from_utf8_lossy(&snapshot.body);
                ensure!(snapshot.status.is_success(), "{}: {said}", snapshot.status);
                Ok(Some(snapshot.body))
            })
            .await?;
        let entry = json!({
            "Kind": "service-resolver", "Name": "api", "DefaultSubset": "v1",
            "Subsets": { "v1": { "Filter": "Service.Meta.version == 1" } },
        });
        consul.put("/v1/config", &[], Some(entry), ASK).await?.ok()?;
        world
            .until("the subset alone answers", async |world| {
                Ok((world.near.answered_by().into_iter().eq(["api-1".to_owned()])).then_some(()))
            })
            .await?;
        let restored = fetch::send(Method::PUT, &url, &[], snapshot, SNAPSHOT).await;
        let restored = restored.map_err(|error| anyhow!(error))?;
        ensure!(restored.status.is_success(), "{}", restored.status);
        world
            .until("both instances answer again", async |world| {
                Ok((world.near.answered_by().len() == 2).then_some(()))
            })
            .await?;
        world
            .until("the gateway has no cluster of the subset", async |world| {
                let clusters = world.rig.envoy("primary-gateway")?.get("/clusters").await?;
                Ok((!String::from_utf8_lossy(&clusters).contains("v1.api.")).then_some(()))
            })
            .await?;
        Ok("the subset made since is gone, and Envoy follows".to_owned())
    };
    world.fault(fault, begin, async |_| Ok(())).await;
}

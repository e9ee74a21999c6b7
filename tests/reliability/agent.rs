//! Our own agent, and the Envoys that it configures.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, ensure};
use causeway::{fetch, xds::status::ResourceState};
use serde_json::json;

use crate::{
    lab::live,
    reliability::world::{CLIENT, Fault, Whole, World},
};

/// No address of this machine (RFC 5737): Envoy cannot listen there.
const NOWHERE: &str = "192.0.2.1";
/// An agent that can answer does so long before.
const NO_ANSWER: Duration = Duration::from_secs(2);
/// More than the agent of a lab ever opens.
const MANY: u64 = 65_536;

const HOUR: i64 = 3_600;

pub(super) async fn all(world: &mut World) {
    killed(world).await;
    restarted_without_consul(world).await;
    out_of_descriptors(world).await;
    clock_stepped(world, "the clock of Causeway steps ahead by an hour", HOUR).await;
    clock_stepped(world, "the clock of Causeway steps back by an hour", -HOUR).await;
    one_resource_refused(world).await;
    envoy_killed(world).await;
}

async fn killed(world: &mut World) {
    let fault = Fault { name: "Causeway killed (SIGKILL)", whole: Whole::Both, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        world.rig.lab.kill(CLIENT, "causeway").await?;
        world.more(20).await?;
        Ok("Envoy keeps what it has".to_owned())
    };
    world.fault(fault, begin, async |world| Ok(world.rig.lab.restart(CLIENT, "causeway").await?)).await;
}

async fn restarted_without_consul(world: &mut World) {
    let fault = Fault {
        name: "Causeway killed and restarted while its Consul is down",
        whole: Whole::Both,
        spared: &[],
    };
    let begin = async |world: &World| -> anyhow::Result<String> {
        world
            .until("all that the agent knows is on disk", async |world| {
                let metrics = String::from_utf8(world.rig.causeway(CLIENT, "/metrics").await?)?;
                Ok(metrics.contains("\ncauseway_state_pending 0").then_some(()))
            })
            .await?;
        world.rig.lab.kill(CLIENT, "causeway").await?;
        world.rig.lab.kill(CLIENT, "consul").await?;
        world.rig.lab.restart(CLIENT, "causeway").await?;
        world
            .until("the agent serves what it had kept", async |world| {
                let status = world.rig.status(CLIENT).await?;
                let serves = status.topics.iter().any(|it| it.from_disk)
                    && status.proxies.iter().all(|it| it.complete);
                Ok((serves && !status.proxies.is_empty()).then_some(()))
            })
            .await?;
        world.more(20).await?;
        Ok("it serves what it had kept on disk".to_owned())
    };
    world.fault(fault, begin, async |world| Ok(world.rig.lab.restart(CLIENT, "consul").await?)).await;
}

/// What is open goes on: the stream to Envoy, the questions to Consul.
async fn out_of_descriptors(world: &mut World) {
    let fault = Fault { name: "Causeway out of file descriptors", whole: Whole::Both, spared: &[] };
    let open = match streams(world).await {
        Ok(open) => open,
        Err(error) => return world.note(fault.name, &error),
    };
    let begin = async |world: &World| -> anyhow::Result<String> {
        let pid = world.rig.lab.pid(CLIENT, "causeway")?;
        let url = world.rig.lab.node(CLIENT)?.causeway_http.clone().context("the agent's address")?;
        world
            .until("nobody new is answered", async |_| {
                limit(pid, lowest_free(pid)?)?;
                Ok(fetch::get(&format!("{url}/healthz"), NO_ANSWER).await.is_err().then_some(()))
            })
            .await?;
        world.more(20).await?;
        Ok("nobody new is answered; what is connected stays so".to_owned())
    };
    let end = async |world: &World| -> anyhow::Result<()> {
        let pid = world.rig.lab.pid(CLIENT, "causeway")?;
        limit(pid, hard_limit(pid)?)?;
        let now = streams(world).await?;
        ensure!(open.is_subset(&now), "a stream ended: {open:?} were open, {now:?} are");
        Ok(())
    };
    world.fault(fault, begin, end).await;
}

/// The numbers of the streams that proxies have open at the client's agent.
async fn streams(world: &World) -> anyhow::Result<BTreeSet<u64>> {
    let status = world.rig.status(CLIENT).await?;
    Ok(status.proxies.iter().flat_map(|it| &it.streams).map(|it| it.stream).collect())
}

/// The number that the next descriptor of a process gets: with that as its limit it opens none, until it closes one.
fn lowest_free(pid: u32) -> anyhow::Result<u64> {
    let mut open = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    (0..MANY).find(|number| !open.contains(number)).context("all descriptors are open")
}

/// As far as its soft limit can go back.
fn hard_limit(pid: u32) -> anyhow::Result<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    Ok(files.and_then(|line| line.split_whitespace().nth(1)).context("the limit of open files")?.parse()?)
}

/// Sets the soft limit of another process.
fn limit(pid: u32, descriptors: u64) -> anyhow::Result<()> {
    let mut command = std::process::Command::new("prlimit");
    let done = command.args(["--pid", &pid.to_string(), &format!("--nofile={descriptors}:")]).output();
    let done = done.context("run prlimit, of util-linux")?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// While it runs, and while an instance goes and comes: what is sent then is of the stepped time.
async fn clock_stepped(world: &mut World, name: &'static str, seconds: i64) {
    let fault = Fault { name, whole: Whole::Both, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        let before = world.rig.status(CLIENT).await?.now_ms;
        world.rig.lab.step_clock(CLIENT, seconds)?;
        let after = world.rig.status(CLIENT).await?.now_ms;
        let stepped = i64::try_from(after)? - i64::try_from(before)?;
        ensure!((stepped - seconds * 1_000).abs() < HOUR * 100, "the clock stepped by {stepped} ms");
        world.turn_second("fail").await?;
        world.turn_second("pass").await?;
        Ok("an instance goes and comes back, and Envoy follows".to_owned())
    };
    world.fault(fault, begin, async |world| Ok(world.rig.lab.step_clock(CLIENT, 0)?)).await;
}

/// An upstream that asks for an address that the machine does not have. All else of the proxy goes on changing.
async fn one_resource_refused(world: &mut World) {
    let fault = Fault { name: "Envoy refuses one resource (NACK)", whole: Whole::Both, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        let bad =
            json!({ "DestinationName": "counting", "LocalBindPort": 5004, "LocalBindAddress": NOWHERE });
        live::change_upstreams(&world.rig, |upstreams| upstreams.push(bad)).await?;
        world
            .until("the listener is refused", async |world| {
                let status = world.rig.status(CLIENT).await?;
                let mut resources = status
                    .proxies
                    .iter()
                    .flat_map(|it| &it.streams)
                    .flat_map(|it| &it.types)
                    .flat_map(|it| &it.resources);
                Ok(resources.any(|it| it.state == ResourceState::Rejected).then_some(()))
            })
            .await?;
        world.turn_second("fail").await?;
        world.turn_second("pass").await?;
        Ok("the resource is shown as rejected; the proxy's other changes arrive".to_owned())
    };
    let end = async |world: &World| world.api.reach(&world.rig, json!({})).await;
    world.fault(fault, begin, end).await;
}

async fn envoy_killed(world: &mut World) {
    let fault = Fault { name: "the client's Envoy killed", whole: Whole::Neither, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        world.rig.lab.kill(CLIENT, "envoy").await?;
        world.envoy_ended(CLIENT);
        world.far_fails().await?;
        Ok("its requests fail until it is started again".to_owned())
    };
    world.fault(fault, begin, async |world| Ok(world.rig.lab.restart(CLIENT, "envoy").await?)).await;
}

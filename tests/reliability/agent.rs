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

const DAY: i64 = 86_400;
/// Beyond what has an age here: Consul's leaf certificates are valid for three days, and a token's verdict for one.
const STEP: i64 = 4 * DAY;
/// What may pass between two looks at a clock.
const LOOKS: i64 = 60;

pub(super) async fn all(world: &mut World) {
    killed(world).await;
    restarted_without_consul(world).await;
    out_of_descriptors(world).await;
    clock_stepped(world, "the clock of Causeway steps ahead by four days", STEP).await;
    clock_stepped(world, "the clock of Causeway steps back by four days", -STEP).await;
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
        // The questions that are open are answered, and their connections ask the next ones.
        world.turn_second("fail").await?;
        world.turn_second("pass").await?;
        Ok("nobody new is answered; what is connected stays so, and changes arrive".to_owned())
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

/// While it runs, and before it starts: its certificates and what it kept on disk are then of another age, or of a time to
/// come. What is sent meanwhile is of the stepped time.
async fn clock_stepped(world: &mut World, name: &'static str, seconds: i64) {
    let fault = Fault { name, whole: Whole::Both, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        let before = now_s(world).await?;
        world.rig.lab.step_clock(CLIENT, seconds)?;
        let stepped = now_s(world).await?;
        ensure!((stepped - before - seconds).abs() < LOOKS, "the clock went from {before} to {stepped}");
        let valid = leaf_valid_for(world).await?;
        ensure!(
            valid < STEP,
            "a leaf certificate is valid for {valid} s, and the clock stepped by {seconds} s"
        );
        world.turn_second("fail").await?;
        world.turn_second("pass").await?;
        // Stopped in order it would take its peer service out of the catalog, and so out of lists.
        world.rig.lab.kill(CLIENT, "causeway").await?;
        world.rig.lab.restart(CLIENT, "causeway").await?;
        world.heard().await.context("started under the stepped clock")?;
        let started = now_s(world).await?;
        ensure!(started >= stepped && started - stepped < DAY, "the clock went from {stepped} to {started}");
        world.turn_second("fail").await?;
        world.turn_second("pass").await?;
        Ok("an instance goes and comes back, and Envoy follows; so it does after a restart of Causeway"
            .to_owned())
    };
    world.fault(fault, begin, async |world| Ok(world.rig.lab.step_clock(CLIENT, 0)?)).await;
}

/// What the client's agent takes for the time, in seconds since the Unix epoch.
async fn now_s(world: &World) -> anyhow::Result<i64> {
    Ok(i64::try_from(world.rig.status(CLIENT).await?.now_ms / 1_000)?)
}

/// For how long every leaf certificate is valid at most that the client's Envoy has, in seconds.
async fn leaf_valid_for(world: &World) -> anyhow::Result<i64> {
    let all = world.rig.envoy(CLIENT)?.json("/certs").await?;
    let certificates = all["certificates"].as_array().context("certificates")?.iter();
    let leaves = certificates.filter_map(|entry| entry["cert_chain"].as_array()?.first());
    // Whole days, in a text since they are 64 bits wide.
    let days =
        leaves.map(|leaf| Ok(leaf["days_until_expiration"].as_str().context("days")?.parse::<i64>()?));
    let days: Vec<i64> = days.collect::<anyhow::Result<_>>()?;
    Ok((days.into_iter().max().context("Envoy has a leaf certificate")? + 1) * DAY)
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

//! The way between the datacenters, and the gateways at its ends.

use std::time::Duration;

use anyhow::Context;
use causeway::lab::relay::{Direction, LinkState, Slow};

use crate::{
    lab::live,
    reliability::{
        watch::Spared,
        world::{CLIENT, Fault, Whole, World},
    },
};

/// Into the datacenter with the service that requests over the link want.
const LINK: &str = "secondary";
const DELAY: Duration = Duration::from_millis(80);

pub(super) async fn all(world: &mut World) {
    broken_links(world).await;
    other_link_cut(world).await;
    slow_link(world).await;
    for gateway in ["primary-gateway", "secondary-gateway"] {
        gateway_killed(world, gateway).await;
    }
    gateway_moves(world).await;
}

async fn broken_links(world: &mut World) {
    let faults = [
        ("link cut", LinkState::Cut),
        ("link passes nothing to the gateway", LinkState::OneWay { stalled: Direction::In }),
        ("link passes nothing from the gateway", LinkState::OneWay { stalled: Direction::Out }),
        ("link resets and refuses", LinkState::Reset),
    ];
    for (name, state) in faults {
        let fault = Fault { name, whole: Whole::Near, spared: &[] };
        let begin = async |world: &World| -> anyhow::Result<String> {
            world.rig.lab.link(LINK)?.set(state).await?;
            world.far_fails().await?;
            if state == LinkState::Reset {
                return Ok("requests over the link fail".to_owned());
            }
            if state == LinkState::Cut {
                // Consul has no deadline of its own on the way: until Causeway's is over no read has failed.
                world.overdue_at(CLIENT).await?;
                return Ok(
                    "requests over the link fail; Causeway's reads hang until their deadline".to_owned()
                );
            }
            // What Consul still hears or can send may tell it sooner.
            world.silence_at(CLIENT).await?;
            Ok("requests over the link fail; Causeway's reads hang, and fail in the end".to_owned())
        };
        world.fault(fault, begin, open).await;
    }
}

/// The way back: what the other datacenter reads in the client's.
async fn other_link_cut(world: &mut World) {
    let fault = Fault { name: "link into the client's datacenter cut", whole: Whole::Both, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        world.rig.lab.link("primary")?.set(LinkState::Cut).await?;
        world.silence_at("secondary-gateway").await?;
        Ok("the other gateway's reads hang, and fail in the end; requests pass".to_owned())
    };
    let end = async |world: &World| -> anyhow::Result<()> {
        Ok(world.rig.lab.link("primary")?.set(LinkState::Open).await?)
    };
    world.fault(fault, begin, end).await;
}

async fn slow_link(world: &mut World) {
    let fault = Fault { name: "link slow, 80 ms each way", whole: Whole::Both, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        let slow = LinkState::Slow(Slow { delay: DELAY, bytes_per_second: None });
        world.rig.lab.link(LINK)?.set(slow).await?;
        world
            .until("a slow request", async |world| Ok((world.far.tally().slowest >= 2 * DELAY).then_some(())))
            .await?;
        world.more(10).await?;
        Ok("requests over the link take longer".to_owned())
    };
    world.fault(fault, begin, open).await;
}

async fn open(world: &World) -> anyhow::Result<()> {
    Ok(world.rig.lab.link(LINK)?.set(LinkState::Open).await?)
}

async fn gateway_killed(world: &mut World, gateway: &'static str) {
    let name = match gateway {
        "primary-gateway" => "the client's gateway killed",
        _ => "the other datacenter's gateway killed",
    };
    let fault = Fault { name, whole: Whole::Near, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        world.rig.lab.kill(gateway, "envoy").await?;
        world.envoy_ended(gateway);
        world.far_fails().await?;
        Ok("requests over the link fail".to_owned())
    };
    let end =
        async |world: &World| -> anyhow::Result<()> { Ok(world.rig.lab.restart(gateway, "envoy").await?) };
    world.fault(fault, begin, end).await;
}

/// To where it listens itself, past its link, and back.
async fn gateway_moves(world: &mut World) {
    let fault = Fault {
        name: "the other datacenter's gateway changes its address",
        whole: Whole::Both,
        spared: &[Spared { envoy: "primary-gateway", lists: "secondary." }],
    };
    let begin = async |world: &World| -> anyhow::Result<String> {
        let node = world.rig.lab.node("secondary-gateway")?;
        let (from, to) = (node.wan_address.context("WAN address")?, node.wan_listen.context("WAN listener")?);
        live::move_gateway(&world.rig, from, to).await?;
        let (old, new) = (format!("{from}:8443"), format!("{to}:8443"));
        world
            .until("the other gateway knows the new address alone", async |world| {
                let known = live::every_endpoint(&world.rig, "primary-gateway").await?;
                let has = |address: &str| known.iter().any(|it| it.starts_with(address));
                Ok((has(&new) && !has(&old)).then_some(()))
            })
            .await?;
        world.more(10).await?;
        Ok("the other gateway follows".to_owned())
    };
    let end = async |world: &World| -> anyhow::Result<()> {
        let address = world.rig.lab.node("secondary-gateway")?.wan_address.context("WAN address")?;
        live::move_gateway(&world.rig, address, address).await
    };
    world.fault(fault, begin, end).await;
}

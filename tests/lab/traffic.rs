//! What passes through the mesh, and what does not.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::{Context, ensure};

use crate::lab::rig::{ENVOYS, Rig, eventually};

pub(super) async fn the_dashboard_counts_over_the_mesh(rig: &mut Rig) -> anyhow::Result<()> {
    rig.link(true).await?;
    let state = rig.dashboard().await?;
    let hops = state["path"].as_array().context("path")?;
    let kinds: Vec<_> = hops.iter().filter_map(|hop| hop["kind"].as_str()).collect();
    ensure!(
        kinds == ["dashboard", "envoy", "mesh-gateway", "mesh-gateway", "envoy", "counting"],
        "{kinds:?}"
    );
    ensure!(hops.iter().all(|hop| hop["observed"] == true), "{hops:?}");
    Ok(())
}

pub(super) async fn bytes_pass_both_gateways_and_both_sidecars_speak_mtls(
    rig: &mut Rig,
) -> anyhow::Result<()> {
    let looks = [
        ("primary-gateway", r"cluster\.secondary\.internal\..*\.upstream_cx_(rx|tx)_bytes_total"),
        (
            "secondary-gateway",
            r"cluster\.counting\.default\.secondary\.internal\..*\.upstream_cx_(rx|tx)_bytes_total",
        ),
        // Consul's hash of the overrides stands before the name: this upstream has a gateway mode of its own.
        (
            "primary-services",
            r"cluster\.[0-9a-f]{8}~counting\.default\.secondary\.internal\..*\.ssl\.handshake",
        ),
        ("secondary-services", r"listener\..*\.ssl\.handshake"),
        ("secondary-services", r".*connect_authz\.rbac\.(allowed|denied)"),
    ];
    for (node, filter) in looks {
        let before = rig.envoy(node)?.stats(filter).await?;
        ensure!(!before.is_empty(), "{node} has no statistics like {filter}");
        eventually(&format!("{node}: {filter} grow"), async || {
            let now = rig.envoy(node)?.stats(filter).await?;
            let moving: Vec<_> = now.iter().filter(|(name, value)| before.get(*name) < Some(value)).collect();
            // Of allowed and denied only one moves.
            let wanted = if filter.contains("denied") { 1 } else { before.len() };
            if moving.len() < wanted {
                return Ok(None);
            }
            println!("  {node}: {moving:?}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

pub(super) async fn servers_know_each_other_only_through_the_gateways(rig: &mut Rig) -> anyhow::Result<()> {
    let servers = [rig.lab.node("primary-server")?.address, rig.lab.node("secondary-server")?.address];
    let gateways: BTreeSet<Ipv4Addr> = rig
        .lab
        .plan()
        .nodes
        .iter()
        .flat_map(|n| n.wan_address.map(|wan| [wan, n.address]))
        .flatten()
        .collect();
    // The observer must be able to see: a connection made on purpose between the two is caught.
    let planted = plant(servers).await?;
    ensure!(direct(servers)? > 0, "a planted connection between the servers was not observed");
    drop(planted);
    eventually("the planted connection is gone", async || Ok((direct(servers)? == 0).then_some(()))).await?;

    let mut through = 0;
    for round in 0..20 {
        for (from, to) in [("primary-server", "secondary"), ("secondary-server", "primary")] {
            let nodes = rig.consul(from)?.get("/v1/catalog/nodes", &[("dc", to)], ASK).await?.ok()?;
            ensure!(
                !nodes.json::<Vec<serde_json::Value>>()?.is_empty(),
                "round {round}: {from} sees {to} empty"
            );
        }
        ensure!(direct(servers)? == 0, "round {round}: the servers are connected directly");
        let between = |(a, b): &(Ipv4Addr, Ipv4Addr)| servers.contains(a) && gateways.contains(b);
        through += established()?.iter().filter(|pair| between(pair)).count();
    }
    ensure!(through > 0, "no connection of a server with a gateway was observed");
    println!("  connections of servers with gateways seen in 20 looks: {through}; between the servers: 0");
    Ok(())
}

const ASK: std::time::Duration = std::time::Duration::from_secs(10);

async fn plant([a, b]: [Ipv4Addr; 2]) -> anyhow::Result<(tokio::net::TcpStream, tokio::net::TcpStream)> {
    let listener = tokio::net::TcpListener::bind((b, 0)).await?;
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((a, 0).into())?;
    let (client, server) = tokio::join!(socket.connect(listener.local_addr()?), listener.accept());
    Ok((client?, server?.0))
}

fn direct([a, b]: [Ipv4Addr; 2]) -> anyhow::Result<usize> {
    Ok(established()?.iter().filter(|pair| **pair == (a, b) || **pair == (b, a)).count())
}

/// Both ends of every established TCP connection of this machine.
fn established() -> anyhow::Result<Vec<(Ipv4Addr, Ipv4Addr)>> {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let ends = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) = (fields.next()?, fields.next()?);
        (fields.next()? == ESTABLISHED).then_some((address(local)?, address(remote)?))
    };
    Ok(table.lines().skip(1).filter_map(ends).collect())
}

fn address(field: &str) -> Option<Ipv4Addr> {
    let hex = field.split(':').next()?;
    Some(Ipv4Addr::from(u32::from_str_radix(hex, 16).ok()?.to_ne_bytes()))
}

pub(super) async fn every_envoy_is_synced(rig: &mut Rig) -> anyhow::Result<()> {
    for node in ENVOYS {
        let url = rig.lab.node(node)?.causeway_http.clone().context("no agent")?;
        eventually(&format!("{node}: `proxy status` is 0"), async || {
            let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_causeway"))
                .args(["proxy", "status", "--http-addr", &url])
                .output()
                .await?;
            let text = String::from_utf8_lossy(&command.stdout).into_owned();
            ensure!(command.status.code() == Some(0), "{:?}\n{text}", command.status);
            ensure!(text.contains("Envoy 1."), "{text}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

pub(super) async fn no_private_key_is_shown(rig: &mut Rig) -> anyhow::Result<()> {
    const KEY: &str = "PRIVATE KEY";
    for node in ENVOYS {
        let mut shown = Vec::new();
        for page in ["/status", "/metrics"] {
            shown.push((page.to_owned(), rig.causeway(node, page).await?));
        }
        for proxy in rig.status(node).await?.proxies {
            let page = format!("/status/proxies/{}/config", proxy.proxy);
            let config: causeway::api::wire::ProxyConfig =
                serde_json::from_slice(&rig.causeway(node, &page).await?)?;
            for resource in config.resources {
                let json = causeway::xds::json::to_json(&resource.type_url, &decode(&resource.value)?)?;
                shown.push((format!("{page} {}", resource.name), json.to_string().into_bytes()));
            }
        }
        shown.push(("/config_dump".to_owned(), rig.envoy(node)?.get("/config_dump").await?.to_vec()));
        let log = rig.lab.node(node)?.process("causeway").context("no agent")?.log.clone();
        shown.push((log.display().to_string(), std::fs::read(&log)?));
        for (place, text) in shown {
            ensure!(!String::from_utf8_lossy(&text).contains(KEY), "{node}: a private key is in {place}");
        }
    }
    Ok(())
}

fn decode(base64: &str) -> anyhow::Result<Vec<u8>> {
    use base64::Engine;
    Ok(base64::prelude::BASE64_STANDARD.decode(base64)?)
}

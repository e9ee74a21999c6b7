//! Where instances and upstreams are, and by what name an instance is asked for: host names, IPv6, other addresses of
//! this machine, external server names.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use anyhow::Context;
use causeway::lifecycle::{self, Task};
use serde_json::{Value, json};
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    lab::{
        actors::{Api, UPSTREAM_PORT, change_sidecar},
        features::{config, leads_from, leads_to, settled, told},
        live::{register_gateway, restore, restore_at},
        load::Load,
        rig::{Rig, eventually},
        settings::ask,
    },
    xds_rig::FreeAddress,
};

const NODE: &str = "primary-services";

pub(super) async fn all(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    // All instances have host names, or none: those that have none are passed over.
    instance_at(rig, api, "localhost", Ipv4Addr::LOCALHOST.into(), &["api-1"])
        .await
        .context("an instance under a host name")?;
    instance_at(rig, api, "::1", Ipv6Addr::LOCALHOST.into(), &["api-1", "api-2"])
        .await
        .context("an instance on IPv6")?;
    host_names_behind_gateways(rig, api).await.context("host names behind gateways")?;
    upstreams_elsewhere(rig, api).await.context("upstreams bound elsewhere")?;
    external_name(rig, api).await.context("an external server name")
}

/// A port of this machine that is free on an address.
fn free(ip: IpAddr) -> anyhow::Result<FreeAddress> {
    FreeAddress::take(ip).with_context(|| format!("{ip} cannot be bound; this machine needs it on loopback"))
}

/// `api-1` registered under another address, where its sidecar listens too.
async fn instance_at(
    rig: &Rig,
    api: &Api,
    registered: &str,
    bound: IpAddr,
    answer: &[&str],
) -> anyhow::Result<()> {
    let free = free(bound)?;
    let plain = change_sidecar(rig, "api-1", |sidecar| move_to(sidecar, registered, free.at)).await?;
    eventually("the other address answers", async || {
        Load::start(&api.url).answered_by(answer).await?;
        Ok(Some(()))
    })
    .await?;
    leads_to(rig, "api.default.primary", &free.at.to_string()).await?;
    let load = settled(api, answer).await?;
    told(&format!("an instance registered at {registered}"), load)?;
    restore(rig, plain).await?;
    settled(api, &["api-1", "api-2"]).await.map(drop)
}

/// Registers a sidecar under an address, and has it listen where that leads to: a host name is nowhere to listen.
fn move_to(sidecar: &mut Value, registered: &str, bound: SocketAddr) {
    sidecar["Address"] = json!(registered);
    sidecar["Port"] = json!(bound.port());
    sidecar["Proxy"]["Config"] = json!({ "bind_address": bound.ip(), "bind_port": bound.port() });
}

/// The other datacenter's gateway finds an instance by its host name, and is itself found by one.
async fn host_names_behind_gateways(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let taken = [free(Ipv4Addr::LOCALHOST.into())?, free(Ipv4Addr::LOCALHOST.into())?];
    let [instance, gateway] = [taken[0].at, taken[1].at];
    let plain = change_sidecar(rig, "api-3", |sidecar| move_to(sidecar, "localhost", instance)).await?;
    let old =
        SocketAddr::from((rig.lab.node("secondary-gateway")?.wan_address.context("WAN address")?, 8443));
    let (from, to) = (old.to_string(), format!("localhost:{}", gateway.port()));
    let change = |arg: &str| match arg.strip_prefix("wan=") {
        Some(bind) => format!("wan={}", bind.replace(&from, &gateway.to_string())),
        None => arg.replace(&from, &to),
    };
    register_gateway(rig, change).await?;
    api.reach(rig, json!({ "Datacenter": "secondary" })).await?;
    let asking = Load::start(&api.url);
    leads_from(rig, "primary-gateway", "secondary.internal", &gateway.to_string()).await?;
    leads_from(rig, "secondary-gateway", "api.default.secondary", &instance.to_string()).await?;
    drop(asking);
    let load = settled(api, &["api-3"]).await?;
    told("an instance and a gateway at localhost in the other datacenter", load)?;
    register_gateway(rig, str::to_owned).await?;
    restore_at(rig, "secondary-services", plain).await?;
    let load = Load::start(&api.url);
    leads_from(rig, "primary-gateway", "secondary.internal", &from).await?;
    load.answered_by(&["api-3"]).await?;
    api.reach(rig, json!({})).await?;
    settled(api, &["api-1", "api-2"]).await.map(drop)
}

/// On another IPv4 address with the same port, and on IPv6.
async fn upstreams_elsewhere(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    let next = Ipv4Addr::from(u32::from(rig.lab.node(NODE)?.address) + 1);
    let v6 = free(Ipv6Addr::LOCALHOST.into())?;
    for at in [SocketAddr::from((next, UPSTREAM_PORT)), v6.at] {
        api.reach(rig, json!({ "LocalBindAddress": at.ip(), "LocalBindPort": at.port() })).await?;
        eventually(&format!("{at} answers"), async || Ok(ask(at).await.ok())).await?;
        let load = Load::start(&format!("http://{at}/"));
        load.answered_by(&["api-1", "api-2"]).await?;
        eventually("nobody where it was", async || Ok(ask(api.address()?).await.err())).await?;
        told(&format!("an upstream bound at {}", at.ip()), load)?;
    }
    api.reach(rig, json!({})).await?;
    settled(api, &["api-1", "api-2"]).await.map(drop)
}

/// The name that `service-defaults` give goes over the wire in the place of the mesh's own, and past the gateways. The
/// instance's identity is looked at as ever.
async fn external_name(rig: &Rig, api: &Api) -> anyhow::Result<()> {
    const EXTERNAL: &str = "api.example.com";
    let node = rig.lab.node(NODE)?.address;
    let tap = Tap::before((node, 21_101).into()).await?;
    let plain = change_sidecar(rig, "api-1", |sidecar| {
        sidecar["Port"] = json!(tap.at.port());
        sidecar["Proxy"]["Config"] = json!({ "bind_port": 21_101 });
    })
    .await?;
    let load = Load::start(&api.url);
    tap.hears("api.default.primary.internal.").await?;
    config(rig, json!({ "Kind": "service-defaults", "Name": "api", "ExternalSNI": EXTERNAL })).await?;
    tap.hears(EXTERNAL).await?;
    load.answered_by(&["api-1", "api-2"]).await?;
    told(&format!("asked for as {EXTERNAL}"), load)?;
    api.reach(rig, json!({ "Datacenter": "secondary" })).await?;
    drop(settled(api, &["api-3"]).await?);
    let there = rig.lab.node("secondary-services")?.address;
    leads_to(rig, "api.default.secondary", &format!("{there}:21103")).await?;
    rig.delete("primary-server", "/v1/config/service-defaults/api").await?;
    api.reach(rig, json!({})).await?;
    let load = Load::start(&api.url);
    tap.hears("api.default.primary.internal.").await?;
    drop(load);
    restore(rig, plain).await?;
    settled(api, &["api-1", "api-2"]).await.map(drop)
}

/// Passes connections on, and keeps what the last client said first.
struct Tap {
    at: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    _task: Task<()>,
}

impl Tap {
    async fn before(behind: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((behind.ip(), 0)).await?;
        let (at, heard) = (listener.local_addr()?, Arc::new(Mutex::new(Vec::new())));
        let shared = heard.clone();
        let task = lifecycle::spawn("test.tap", async move {
            let mut passing = Vec::new();
            while let Ok((client, _)) = listener.accept().await {
                passing.push(lifecycle::spawn("test.tap.pass", pass(client, behind, shared.clone())));
            }
        });
        Ok(Self { at, heard, _task: task })
    }

    /// Waits until a client's first words hold this.
    async fn hears(&self, name: &str) -> anyhow::Result<()> {
        self.heard.lock().unwrap().clear();
        eventually(&format!("a client asks for {name}"), async || {
            let heard = self.heard.lock().unwrap();
            Ok(heard.windows(name.len()).any(|part| part == name.as_bytes()).then_some(()))
        })
        .await
    }
}

async fn pass(mut client: TcpStream, to: SocketAddr, heard: Arc<Mutex<Vec<u8>>>) -> io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    let mut first = vec![0; 4096];
    let said = client.read(&mut first).await?;
    first.truncate(said);
    server.write_all(&first).await?;
    *heard.lock().unwrap() = first;
    io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

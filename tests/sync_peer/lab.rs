//! Two agents in the two datacenters of a lab, registered with real Consul, who reach each other through real mesh gateways
//! only: the primary's through its own, the secondary's through the other's.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, ensure};
use causeway::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::{self, client::Client, metrics::ConsulMetrics, watch::Watches},
    envoy::admin::Admin,
    lab::{Lab, LabOptions, plan::port},
    lifecycle::{Stop, StopSource, Task, now, spawn},
    model::{ca::Leaf, chain::GatewayMode, name::ServiceName},
    sync::peer::{
        PORT, PeerError, Peers, SERVICE, Target,
        facts::{self, PeerSettings},
        grpc::{GrpcPeers, Tcp},
        register::{self, Registered},
        serve::serve,
    },
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use super::{
    double::Double,
    following::{Items, next},
    rig::{PATIENCE, datacenters, eventually, header, hello, request},
    strangers::speak,
};

/// The host number of an agent's address in its datacenter's network; the lab takes others.
const HOST: u8 = 30;
/// A plain question to a process on this machine.
const ANSWER: Duration = Duration::from_secs(10);
/// Of one call.
const DEADLINE: Duration = Duration::from_secs(5);

/// An agent's peer service on the gateway's machine.
struct Site {
    dc: &'static str,
    other: &'static str,
    consul: Client,
    watches: Watches,
    double: Double,
    peers: GrpcPeers<Tcp>,
    stop: StopSource,
    registration: Task<()>,
    _tasks: Vec<Task<()>>,
}

impl Site {
    async fn start(lab: &Lab, dc: &'static str, gateways: GatewayMode) -> anyhow::Result<Self> {
        let node = lab.node(&format!("{dc}-gateway"))?;
        let address = ConsulAddress::parse(&node.consul_http).map_err(anyhow::Error::msg)?;
        let consul = Client::new(ConsulSettings { address, ..ConsulSettings::default() })?;
        let (stop, stopped) = Stop::pair();
        let (watches, watching) =
            consul::watch::start(consul.clone(), ConsulMetrics::default(), stopped.clone());
        let settings = PeerSettings { datacenter: dc.into(), datacenters: datacenters(), gateways };
        let (facts, keeping) = facts::start(settings, watches.clone(), consul.clone(), stopped.clone());
        let [a, b, c, _] = node.address.octets();
        let address = SocketAddr::from((Ipv4Addr::new(a, b, c, HOST), PORT));
        let double = Double::new(hello(dc));
        let serving =
            serve(TcpListener::bind(address).await?, facts.clone(), double.clone(), stopped.clone());
        let registered =
            Registered { node: node.name.as_str().into(), address, http_address: None, prefixes: Vec::new() };
        let registration = spawn("test.register", register::run(registered, consul.clone(), stopped));
        Ok(Self {
            dc,
            other: if dc == "primary" { "secondary" } else { "primary" },
            consul,
            watches,
            double,
            peers: GrpcPeers::new(facts, hello(dc), Tcp),
            stop,
            registration,
            _tasks: vec![watching, keeping, spawn("test.serve", serving)],
        })
    }

    async fn ask(&self) -> Result<(), PeerError> {
        let to = Target::Datacenter(self.other.into());
        let answer = self.peers.forward(&to, request("/echo"), DEADLINE).await?;
        assert_eq!((header(&answer, "x-from"), &*answer.body), (self.dc, &b"body"[..]));
        assert_eq!(header(&answer, "x-node"), format!("{}-vm", self.other));
        Ok(())
    }

    async fn follow(&self) -> Result<(watch::Sender<causeway::model::sync::Position>, Items), PeerError> {
        let (acked, acks) = watch::channel(Default::default());
        let start = causeway::sync::peer::FollowStart {
            prefix: "config/".into(),
            at: None,
            compare: false,
            origin: None,
        };
        let mut items = self.peers.follow(&Target::Datacenter(self.other.into()), start, acks).await?;
        next(&mut items).await?;
        next(&mut items).await?;
        Ok((acked, items))
    }

    async fn leaf(&self, service: &str) -> anyhow::Result<Leaf> {
        let path = format!("/v1/agent/connect/ca/leaf/{service}");
        let reply = self.consul.get(&path, &[], ANSWER).await?.ok()?;
        Ok(consul::wire::ca::leaf(&reply.body, &ServiceName::from(service))?.0)
    }
}

struct Bench {
    lab: Lab,
    primary: Site,
    secondary: Site,
}

#[test]
fn peers_in_two_datacenters() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let binary = env!("CARGO_BIN_EXE_causeway").into();
        let options = LabOptions::new(dir.path(), binary, root, &|name| std::env::var_os(name))
            .unwrap_or_else(|error| panic!("{error}; `make tools` brings the real parts"));
        let options = LabOptions { start_services: false, ..options };
        let lab = Lab::start(options, |line| println!("{line}")).await.unwrap();
        let primary = Site::start(&lab, "primary", GatewayMode::Local).await.unwrap();
        let secondary = Site::start(&lab, "secondary", GatewayMode::Remote).await.unwrap();
        let bench = Bench { lab, primary, secondary };
        let outcome = all(&bench).await;
        let ended = bench.stop().await;
        outcome.unwrap();
        ended.unwrap();
    });
}

async fn all(bench: &Bench) -> anyhow::Result<()> {
    let began = now();
    let done = |what: &str| println!("{what}: ok (after {:.1} s)", began.elapsed().as_secs_f32());
    bench.through_the_gateways().await.context("through the gateways")?;
    done("calls pass the gateways in both directions");
    bench.strangers().await.context("strangers")?;
    done("strangers are refused");
    bench.intentions().await.context("intentions")?;
    done("an intention denies and allows");
    bench.authority().await.context("the authority")?;
    done("the authority rotates without a failed call");
    bench.a_gateway_dies().await.context("a gateway dies")?;
    done("a gateway dies and comes back");
    bench.a_gateway_hangs().await.context("a gateway hangs")?;
    done("a gateway hangs and goes on");
    Ok(())
}

impl Bench {
    fn sites(&self) -> [&Site; 2] {
        [&self.primary, &self.secondary]
    }

    async fn reached(&self) {
        for site in self.sites() {
            eventually(&format!("{} reaches the other", site.dc), async || site.ask().await.is_ok()).await;
        }
    }

    async fn through_the_gateways(&self) -> anyhow::Result<()> {
        self.reached().await;
        for (site, gateway) in [(&self.primary, "secondary-gateway"), (&self.secondary, "primary-gateway")] {
            let url = self.lab.node(gateway)?.envoy_admin.clone().context("its Envoy")?;
            let cluster = format!(
                "cluster\\.causeway-sync\\.default\\.{}\\.internal\\..*\\.upstream_cx_total",
                site.other
            );
            let stats: BTreeMap<String, u64> = Admin::new(url).stats(&cluster).await?;
            ensure!(stats.len() == 1 && stats.values().all(|count| *count > 0), "{gateway}: {stats:?}");
            let (_acked, _items) = site.follow().await?;
            let path = format!("/v1/health/checks/{SERVICE}");
            let checks: Value = site.consul.get(&path, &[], ANSWER).await?.ok()?.json()?;
            ensure!(checks[0]["Status"] == "passing" && checks[0]["Type"] == "ttl", "{checks}");
        }
        Ok(())
    }

    async fn strangers(&self) -> anyhow::Result<()> {
        let node = self.lab.node("secondary-gateway")?;
        let gateway = SocketAddr::from((node.address, port::MESH_GATEWAY));
        let catalog = self.primary.watches.catalog().borrow().clone();
        let domain = &catalog.roots().known().context("roots")?.trust_domain;
        let sni = format!("causeway-sync.default.primary.internal.{domain}");
        let begun = self.primary.double.begun();
        let peer = self.secondary.leaf(SERVICE).await?;
        speak(gateway, &sni, Some(&peer)).await.context("a peer is answered through the gateways")?;
        let another = self.secondary.leaf("web").await?;
        for (who, leaf) in [("another service", Some(&another)), ("nobody", None)] {
            let refused = speak(gateway, &sni, leaf).await;
            let told = refused.as_ref().err().map(ToString::to_string).unwrap_or_default();
            ensure!(told.contains("alert"), "{who}: {refused:?}");
        }
        ensure!(self.primary.double.begun() == begun);
        Ok(())
    }

    async fn intentions(&self) -> anyhow::Result<()> {
        let (_acked, mut items) = self.secondary.follow().await?;
        let deny = json!({ "SourceName": SERVICE, "DestinationName": SERVICE, "Action": "deny" });
        let consul = &self.primary.consul;
        let made: Value =
            consul.post("/v1/connect/intentions", &[], Some(deny), ANSWER).await?.ok()?.json()?;
        let id = made["ID"].as_str().context("the intention's id")?;
        let end = next(&mut items).await;
        ensure!(matches!(end, Err(PeerError::Unknown(_))), "{end:?}");
        for site in self.sites() {
            eventually("the caller is told", async || {
                let told = site.ask().await;
                matches!(&told, Err(PeerError::Misfit(text)) if text.contains("an intention on causeway-sync"))
            })
            .await;
        }
        consul.delete(&format!("/v1/connect/intentions/{id}"), &[], ANSWER).await?.ok()?;
        self.reached().await;
        Ok(())
    }

    /// A new key makes a new root; leaves follow within half a minute.
    async fn authority(&self) -> anyhow::Result<()> {
        let before = self.leaves();
        let key = rcgen::KeyPair::generate()?.serialize_pem();
        let config = json!({ "Provider": "consul", "Config": { "PrivateKey": key } });
        let path = "/v1/connect/ca/configuration";
        self.primary.consul.put(path, &[], Some(config), ANSWER).await?.ok()?;
        let mut calls = 0;
        eventually("both have leaves of the new root", async || {
            for site in self.sites() {
                site.ask().await.unwrap();
                // A connection of its own: the handshake is done anew.
                drop(site.follow().await.unwrap());
                calls += 2;
            }
            let now = self.leaves();
            before.iter().zip(&now).all(|(before, now)| before != now)
        })
        .await;
        println!("  0 of {calls} calls failed while the authority rotated");
        for site in self.sites() {
            site.ask().await?;
            drop(site.follow().await?);
        }
        Ok(())
    }

    fn leaves(&self) -> Vec<Option<String>> {
        let leaf = |site: &Site| {
            let catalog = site.watches.catalog().borrow().clone();
            catalog.leaf(&SERVICE.into()).known().map(|leaf| leaf.chain_pem.clone())
        };
        self.sites().into_iter().map(leaf).collect()
    }

    async fn a_gateway_dies(&self) -> anyhow::Result<()> {
        let (_acked, mut items) = self.primary.follow().await?;
        self.lab.kill("secondary-gateway", "envoy").await?;
        let end = next(&mut items).await;
        ensure!(matches!(end, Err(PeerError::Unknown(_))), "{end:?}");
        let began = now();
        let error = self.primary.ask().await.err().context("an answer through a dead gateway")?;
        ensure!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        ensure!(matches!(error, PeerError::Unreached(_) | PeerError::Unknown(_)), "{error:?}");
        let error = self.primary.ask().await.err().context("an answer through a dead gateway")?;
        ensure!(matches!(error, PeerError::Unreached(_)), "{error:?}");
        // In mode remote the other datacenter's gateway is the only one on the way.
        self.secondary.ask().await?;
        self.lab.restart("secondary-gateway", "envoy").await?;
        self.reached().await;
        Ok(())
    }

    async fn a_gateway_hangs(&self) -> anyhow::Result<()> {
        let (_acked, mut items) = self.secondary.follow().await?;
        let began = now();
        self.lab.signal("primary-gateway", "envoy", Signal::SIGSTOP)?;
        let end = tokio::time::timeout(PATIENCE, items.recv()).await;
        let took = began.elapsed();
        self.lab.signal("primary-gateway", "envoy", Signal::SIGCONT)?;
        ensure!(matches!(end, Ok(Some(Err(PeerError::Unknown(_))))), "{end:?}");
        ensure!(took < Duration::from_secs(10), "{took:?}");
        println!("  a gateway that hangs was noticed after {:.1} s", took.as_secs_f32());
        self.reached().await;
        Ok(())
    }

    /// What stops takes its registration along.
    async fn stop(self) -> anyhow::Result<()> {
        let Self { lab, primary, secondary } = self;
        for mut site in [primary, secondary] {
            let id = format!("causeway-sync-{}-gateway", site.dc);
            ensure!(site.consul.agent_service(&id).await?.is_some(), "{id} is not registered");
            site.stop.stop();
            site.registration.join().await?;
            ensure!(site.consul.agent_service(&id).await?.is_none(), "{id} stays registered");
        }
        lab.stop().await?;
        Ok(())
    }
}

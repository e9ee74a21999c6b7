//! A service of the tests' own, `api`, with three instances, each behind a sidecar and an Envoy of its own: `api-1` and
//! `api-2` in the primary, `api-3` in the secondary. The dashboard's sidecar reaches it.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use causeway::{
    envoy::admin::Admin,
    fetch,
    lab::plan::{ProcessPlan, Stage},
    lifecycle,
};
use serde_json::{Value, json};

use crate::lab::{
    acl,
    live::{DASHBOARD, restore, restore_at},
    rig::{Rig, eventually},
};

/// Where the dashboard's sidecar listens for `api`.
pub(crate) const UPSTREAM_PORT: u16 = 5003;

/// Of each instance's Envoy.
pub(crate) const WORKERS: usize = 2;

/// Id, node, ports of service, sidecar and Envoy's admin interface, and version.
const INSTANCES: [(&str, &str, [u16; 3], &str); 3] = [
    ("api-1", "primary-services", [9101, 21101, 19101], "1"),
    ("api-2", "primary-services", [9102, 21102, 19102], "2"),
    ("api-3", "secondary-services", [9103, 21103, 19103], "1"),
];

/// `api` while it is there.
pub(crate) struct Api {
    sidecar: Value,
    /// Where the dashboard's sidecar listens for it.
    pub(crate) url: String,
    /// The intention made for it.
    allowed: Option<String>,
}

impl Api {
    /// Starts and registers all of it, and waits until it answers.
    pub(crate) async fn start(rig: &Rig) -> anyhow::Result<Self> {
        for instance in INSTANCES {
            start(rig, instance).await?;
        }
        let allowed = acl::allow_dashboard(rig, "api").await?;
        let consul = rig.consul("primary-services")?;
        let sidecar = consul.agent_service(DASHBOARD).await?.context("the dashboard's sidecar")?;
        let url = format!("http://{}:{UPSTREAM_PORT}/", rig.lab.node("primary-services")?.address);
        let api = Self { sidecar, url, allowed };
        api.reach(rig, json!({})).await?;
        for instance in INSTANCES {
            eventually("every instance and its sidecar work", async || works(rig, instance).await).await?;
        }
        if rig.has_acls() {
            api.dashboard_is_let_in(rig).await?;
        }
        eventually("the other gateway leads to api", async || leads_to_api(rig).await).await?;
        eventually("api answers", async || Ok(answers(&api.url).await.then_some(()))).await?;
        Ok(api)
    }

    /// Waits until every instance's Envoy knows the intention: it comes to the secondary when its leader asks for it, and
    /// one that has just missed the primary does so seconds later.
    async fn dashboard_is_let_in(&self, rig: &Rig) -> anyhow::Result<()> {
        let since = lifecycle::now();
        for (id, ..) in INSTANCES {
            eventually(&format!("{id} lets the dashboard in"), async || {
                let listeners = self.envoy(rig, id)?.get("/config_dump?resource=dynamic_listeners").await?;
                Ok(String::from_utf8_lossy(&listeners).contains("svc/dashboard$").then_some(()))
            })
            .await?;
        }
        println!("  api's instances know its intention after {} ms", since.elapsed().as_millis());
        Ok(())
    }

    /// Registers the dashboard's sidecar with an upstream to `api` of these fields.
    pub(crate) async fn reach(&self, rig: &Rig, fields: Value) -> anyhow::Result<()> {
        let mut upstream = json!({
            "DestinationName": "api", "LocalBindPort": UPSTREAM_PORT, "MeshGateway": { "Mode": "local" },
            "LocalBindAddress": rig.lab.node("primary-services")?.address.to_string(),
        });
        let fields = fields.as_object().context("fields")?;
        upstream.as_object_mut().context("upstream")?.extend(fields.clone());
        let mut sidecar = self.sidecar.clone();
        sidecar["Proxy"]["Upstreams"].as_array_mut().context("upstreams")?.push(upstream);
        restore(rig, sidecar).await
    }

    /// Where the dashboard's sidecar listens for it.
    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        let address = self.url.strip_prefix("http://").context("a URL")?.trim_end_matches('/');
        Ok(address.parse()?)
    }

    /// Turns an instance's check.
    pub(crate) async fn turn(&self, rig: &Rig, id: &str, to: &str) -> anyhow::Result<()> {
        let (_, node, ..) = INSTANCES.into_iter().find(|(known, ..)| *known == id).context("instance")?;
        rig.put(node, &format!("/v1/agent/check/{to}/{id}"), None).await
    }

    /// The admin interface of an instance's Envoy.
    pub(crate) fn envoy(&self, rig: &Rig, id: &str) -> anyhow::Result<Admin> {
        let (_, node, [.., admin], _) =
            INSTANCES.into_iter().find(|(known, ..)| *known == id).context("instance")?;
        Ok(Admin::new(format!("http://{}:{admin}", rig.lab.node(node)?.address)))
    }

    /// Takes all of it away again.
    pub(crate) async fn stop(self, rig: &Rig) -> anyhow::Result<()> {
        restore(rig, self.sidecar.clone()).await?;
        acl::disallow(rig, self.allowed).await?;
        for (id, node, ..) in INSTANCES {
            rig.put(node, &format!("/v1/agent/service/deregister/{id}-sidecar-proxy"), None).await?;
            rig.put(node, &format!("/v1/agent/service/deregister/{id}"), None).await?;
            rig.lab.terminate(node, &format!("envoy-{id}")).await?;
            rig.lab.terminate(node, id).await?;
        }
        Ok(())
    }
}

/// Registers the sidecar of an instance changed, and gives it as it was.
pub(crate) async fn change_sidecar(
    rig: &Rig,
    id: &str,
    change: impl FnOnce(&mut Value),
) -> anyhow::Result<Value> {
    let (_, node, ..) = INSTANCES.into_iter().find(|(known, ..)| *known == id).context("instance")?;
    let sidecar = format!("{id}-sidecar-proxy");
    let plain = rig.consul(node)?.agent_service(&sidecar).await?.context(sidecar)?;
    let mut changed = plain.clone();
    change(&mut changed);
    restore_at(rig, node, changed).await?;
    Ok(plain)
}

async fn start(
    rig: &Rig,
    (id, node, [port, sidecar, admin], version): (&str, &str, [u16; 3], &str),
) -> anyhow::Result<()> {
    let plan = rig.lab.node(node)?;
    let address = plan.address.to_string();
    let service = json!({
        "ID": id, "Name": "api", "Address": address, "Port": port, "Meta": { "version": version },
        "Connect": { "SidecarService": {
            "Address": address, "Port": sidecar, "Meta": { "version": version },
            "Checks": [{ "CheckID": id, "Name": id, "TTL": "1h", "Status": "passing" }],
            "Proxy": { "LocalServiceAddress": address },
        }},
    });
    rig.put(node, "/v1/agent/service/register", Some(service)).await?;
    let envoy = plan.process("envoy").context("the node's Envoy")?;
    let mut env = envoy.env.clone();
    if let Some(file) = acl::token_of(rig, "api", id, node).await? {
        env.insert("CONSUL_HTTP_TOKEN_FILE".to_owned(), file.display().to_string());
    }
    let process = |name: String, stage, args: Vec<String>| ProcessPlan {
        log: plan.dir.join(format!("{name}.log")),
        name,
        stage,
        program: envoy.program.clone(),
        args,
        env: env.clone(),
    };
    let listen = format!("{address}:{port}");
    let demo =
        ["demo", "counting", "--listen", &listen, "--name", id, "--datacenter", plan.datacenter.as_str()];
    let demo = demo.map(str::to_owned).to_vec();
    rig.lab.start_process(node, &process(id.to_owned(), Stage::Service, demo))?;
    let args = envoy.args.iter().map(|arg| match arg.as_str() {
        "dashboard" | "counting" => id.to_owned(),
        other => other.replace(":19000", &format!(":{admin}")),
    });
    let mut args: Vec<String> = args.collect();
    let concurrency = args.iter().position(|arg| arg == "--concurrency").context("Envoy's concurrency")?;
    *args.get_mut(concurrency + 1).context("its value")? = WORKERS.to_string();
    rig.lab.start_process(node, &process(format!("envoy-{id}"), Stage::Envoy, args))?;
    Ok(())
}

/// Whether the service answers and its Envoy listens for callers.
async fn works(
    rig: &Rig,
    (_, node, [port, sidecar, admin], _): (&str, &str, [u16; 3], &str),
) -> anyhow::Result<Option<()>> {
    let address = rig.lab.node(node)?.address;
    let listeners = Admin::new(format!("http://{address}:{admin}")).get("/listeners").await?;
    let listens = String::from_utf8_lossy(&listeners).contains(&format!("{address}:{sidecar}"));
    Ok((listens && answers(&format!("http://{address}:{port}/health")).await).then_some(()))
}

/// Whether the secondary's gateway knows the instance there. Its agent hears of a service that was just registered up to a
/// second later, when much else is registered at the same time.
async fn leads_to_api(rig: &Rig) -> anyhow::Result<Option<()>> {
    let (_, node, [_, port, _], _) = INSTANCES[2];
    let clusters = rig.envoy("secondary-gateway")?.get("/clusters").await?;
    let wanted = format!("::{}:{port}::health_flags::healthy", rig.lab.node(node)?.address);
    let clusters = String::from_utf8_lossy(&clusters).into_owned();
    let is_wanted = |line: &str| line.starts_with("api.default.secondary.") && line.ends_with(&wanted);
    Ok(clusters.lines().any(is_wanted).then_some(()))
}

async fn answers(url: &str) -> bool {
    fetch::get(url, Duration::from_secs(3)).await.is_ok_and(|answer| answer.status.is_success())
}

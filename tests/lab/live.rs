//! Changes of the catalog, live at Envoy.

use anyhow::{Context, ensure};
use causeway::consul::client::Client;
use serde_json::{Value, json};

use crate::lab::{
    acl,
    rig::{ENVOYS, Rig, eventually},
};

pub(super) async fn an_instance_comes_and_goes_in_the_other_datacenter(rig: &mut Rig) -> anyhow::Result<()> {
    let address = rig.lab.node("secondary-services")?.address;
    let wanted = format!("{address}:21001 HEALTHY");
    // In mode none the sidecar in the other datacenter dials the instances themselves, so it sees them too.
    let plain =
        rig.consul("primary-services")?.agent_service(DASHBOARD).await?.context("dashboard's sidecar")?;
    change_upstreams(rig, |upstreams| upstreams[0]["MeshGateway"]["Mode"] = "none".into()).await?;
    eventually("the sidecar has the instances themselves", async || {
        let all = every_endpoint(rig, "primary-services").await?;
        Ok(all.contains(&format!("{address}:21000 HEALTHY")).then_some(()))
    })
    .await?;

    for (node, what) in
        [("secondary-gateway", "its gateway"), ("primary-services", "the other datacenter's sidecar")]
    {
        rig.live(
            &format!("instance registered, at {what}"),
            node,
            "EDS",
            async |rig| register_second(rig).await,
            async |rig| Ok(every_endpoint(rig, node).await?.contains(&wanted)),
        )
        .await?;
        rig.live(
            &format!("instance deregistered, at {what}"),
            node,
            "EDS",
            async |rig| deregister_second(rig).await,
            async |rig| Ok(!every_endpoint(rig, node).await?.contains(&wanted)),
        )
        .await?;
    }
    restore(rig, plain).await
}

pub(super) async fn a_check_turns_critical_and_back(rig: &mut Rig) -> anyhow::Result<()> {
    let address = rig.lab.node("secondary-services")?.address;
    register_second(rig).await?;
    let is = |health: &str| format!("{address}:21001 {health}");
    let healthy = is("HEALTHY");
    eventually("the second instance", async || {
        Ok(every_endpoint(rig, "secondary-gateway").await?.contains(&healthy).then_some(()))
    })
    .await?;
    for (update, health) in [("fail", "UNHEALTHY"), ("pass", "HEALTHY")] {
        let wanted = is(health);
        rig.live(
            &format!("check turned to {update}, at the gateway"),
            "secondary-gateway",
            "EDS",
            async |rig| {
                rig.put("secondary-services", &format!("/v1/agent/check/{update}/second"), None).await
            },
            async |rig| Ok(every_endpoint(rig, "secondary-gateway").await?.contains(&wanted)),
        )
        .await?;
    }
    deregister_second(rig).await
}

/// A gateway has the health of what is behind it: with no healthy instance left the sidecar in the other datacenter
/// stops sending there.
pub(super) async fn no_healthy_instance_is_left_in_the_other_datacenter(rig: &mut Rig) -> anyhow::Result<()> {
    let gateway = rig.lab.node("primary-gateway")?.address;
    for (enable, health) in [("true", "UNHEALTHY"), ("false", "HEALTHY")] {
        let path = format!("/v1/agent/service/maintenance/counting-sidecar-proxy?enable={enable}");
        let wanted = format!("{gateway}:8443 {health}");
        rig.live(
            &format!("maintenance of the only instance: {enable}, at the other datacenter's sidecar"),
            "primary-services",
            "EDS",
            async |rig| rig.put("secondary-services", &path, None).await,
            async |rig| Ok(every_endpoint(rig, "primary-services").await?.contains(&wanted)),
        )
        .await?;
        rig.link(enable == "false").await?;
    }
    Ok(())
}

pub(super) async fn an_intention_denies_and_allows(rig: &mut Rig) -> anyhow::Result<()> {
    let consul = rig.consul("primary-services")?;
    // Where the default is to deny, the lab itself allowed it.
    let (id, is_ours) = match find_intention(&consul, "counting").await? {
        Some(id) => (id, false),
        None => (create_intention(&consul, "counting").await?, true),
    };
    let path = format!("/v1/connect/intentions/{id}");
    // Of a default that allows, Envoy is told who is denied; of one that denies, who is allowed.
    let names_the_allowed = rig.has_acls();
    for (action, up) in [("deny", false), ("allow", true)] {
        rig.live(
            &format!("intention set to {action} in the other datacenter"),
            "secondary-services",
            "LDS",
            async |rig| rig.put("primary-services", &path, Some(intention("counting", action))).await,
            async |rig| {
                let listeners =
                    rig.envoy("secondary-services")?.get("/config_dump?resource=dynamic_listeners").await?;
                let text = String::from_utf8_lossy(&listeners).into_owned();
                Ok(text.contains("svc/dashboard$") == (up == names_the_allowed))
            },
        )
        .await?;
        rig.link(up).await?;
    }
    if is_ours {
        consul.delete(&path, &[], ASK).await?.ok()?;
    }
    Ok(())
}

/// What lets, or does not let, the dashboard speak to a service.
fn intention(destination: &str, action: &str) -> Value {
    json!({ "SourceName": "dashboard", "DestinationName": destination, "SourceType": "consul", "Action": action })
}

pub(super) async fn create_intention(consul: &Client, destination: &str) -> anyhow::Result<String> {
    let body = intention(destination, "allow");
    let created = consul.post("/v1/connect/intentions", &[], Some(body), ASK).await?.ok()?;
    Ok(created.json::<Value>()?["ID"].as_str().context("the intention's id")?.to_owned())
}

async fn find_intention(consul: &Client, destination: &str) -> anyhow::Result<Option<String>> {
    let all = consul.get("/v1/connect/intentions", &[], ASK).await?.ok()?.json::<Vec<Value>>()?;
    let found = all.iter().find(|it| it["SourceName"] == "dashboard" && it["DestinationName"] == destination);
    Ok(found.and_then(|it| it["ID"].as_str()).map(str::to_owned))
}

pub(super) async fn an_upstream_is_added_and_removed(rig: &mut Rig) -> anyhow::Result<()> {
    let plain =
        rig.consul("primary-services")?.agent_service(DASHBOARD).await?.context("dashboard's sidecar")?;
    let address = format!("{}:5002", rig.lab.node("primary-services")?.address);
    let allowed = acl::allow_dashboard(rig, "dashboard").await?;
    rig.live(
        "upstream added",
        "primary-services",
        "LDS",
        async |rig| {
            let bind = rig.lab.node("primary-services")?.address.to_string();
            let added =
                json!({ "DestinationName": "dashboard", "LocalBindPort": 5002, "LocalBindAddress": bind });
            change_upstreams(rig, |upstreams| upstreams.push(added)).await
        },
        async |rig| listens(rig, &address).await,
    )
    .await?;
    eventually("the new upstream answers", async || {
        let answer = causeway::fetch::get(&format!("http://{address}/"), ASK).await;
        let answer = answer.map_err(anyhow::Error::msg)?;
        ensure!(answer.status.is_success(), "the new upstream answers {}", answer.status);
        Ok(Some(()))
    })
    .await?;
    an_upstream_becomes_unreadable(rig, &address).await?;
    acl::disallow(rig, allowed).await?;
    rig.live(
        "upstream removed",
        "primary-services",
        "LDS",
        async |rig| restore(rig, plain).await,
        async |rig| Ok(!listens(rig, &address).await?),
    )
    .await
}

/// What Consul 1.8.7 takes and nobody can listen on: the upstream goes on as it was, and a note tells.
async fn an_upstream_becomes_unreadable(rig: &Rig, address: &str) -> anyhow::Result<()> {
    let change = |upstreams: &mut Vec<Value>| {
        for upstream in upstreams.iter_mut().filter(|upstream| upstream["LocalBindPort"] == 5002) {
            upstream["LocalBindPort"] = json!(70_000);
        }
    };
    change_upstreams(rig, change).await?;
    eventually("the note on the upstream", async || {
        let status = rig.status("primary-services").await?;
        let mut notes = status.proxies.iter().flat_map(|proxy| &proxy.notes);
        Ok(notes.any(|note| note.contains("the local port 70000 is impossible")).then_some(()))
    })
    .await?;
    let answer = causeway::fetch::get(&format!("http://{address}/"), ASK).await;
    let answer = answer.map_err(anyhow::Error::msg)?;
    ensure!(answer.status.is_success() && listens(rig, address).await?, "{}", answer.status);
    Ok(())
}

pub(super) async fn the_gateway_of_the_other_datacenter_moves(rig: &mut Rig) -> anyhow::Result<()> {
    let old = rig.lab.node("secondary-gateway")?.wan_address.context("the gateway's WAN address")?;
    let new = std::net::Ipv4Addr::from(u32::from(old) + 1);
    for (from, to) in [(old, new), (new, old)] {
        let wanted = format!("{to}:8443 HEALTHY");
        rig.live(
            &format!("gateway's address changed to {to}, at the other gateway"),
            "primary-gateway",
            "EDS",
            async |rig| move_gateway(rig, old, to).await,
            async |rig| Ok(every_endpoint(rig, "primary-gateway").await?.contains(&wanted)),
        )
        .await?;
        let stale = format!("{from}:8443 HEALTHY");
        eventually("the old address is gone", async || {
            Ok((!every_endpoint(rig, "primary-gateway").await?.contains(&stale)).then_some(()))
        })
        .await?;
        rig.link(true).await?;
    }
    Ok(())
}

pub(super) async fn no_envoy_was_restarted(rig: &mut Rig) -> anyhow::Result<()> {
    ensure!(rig.first_envoys == rig.envoys()?, "{:?} became {:?}", rig.first_envoys, rig.envoys()?);
    for node in ENVOYS {
        let rejected = rig.envoy(node)?.stats(r".*update_rejected").await?;
        ensure!(rejected.values().all(|count| *count == 0), "{node}: {rejected:?}");
    }
    Ok(())
}

pub(crate) const DASHBOARD: &str = "dashboard-sidecar-proxy";
const ASK: std::time::Duration = std::time::Duration::from_secs(10);

/// A second instance of the counter: only its registration, which is what this is about.
async fn register_second(rig: &Rig) -> anyhow::Result<()> {
    let address = rig.lab.node("secondary-services")?.address.to_string();
    let service = json!({
        "ID": "counting-2", "Name": "counting", "Address": address, "Port": 9003,
        "Connect": { "SidecarService": {
            "Address": address, "Port": 21001,
            "Checks": [{ "CheckID": "second", "Name": "second", "TTL": "1h", "Status": "passing" }],
        }},
    });
    rig.put("secondary-services", "/v1/agent/service/register", Some(service)).await
}

async fn deregister_second(rig: &Rig) -> anyhow::Result<()> {
    rig.put("secondary-services", "/v1/agent/service/deregister/counting-2", None).await
}

/// Registers the dashboard's sidecar with other upstreams.
pub(crate) async fn change_upstreams(rig: &Rig, change: impl FnOnce(&mut Vec<Value>)) -> anyhow::Result<()> {
    let mut service = rig.consul("primary-services")?.agent_service(DASHBOARD).await?.context("sidecar")?;
    change(service["Proxy"]["Upstreams"].as_array_mut().context("upstreams")?);
    restore(rig, service).await
}

/// Registers a sidecar as `/v1/agent/service/:id` told it.
pub(crate) async fn restore(rig: &Rig, service: Value) -> anyhow::Result<()> {
    restore_at(rig, "primary-services", service).await
}

/// The same of another node.
pub(crate) async fn restore_at(rig: &Rig, node: &str, service: Value) -> anyhow::Result<()> {
    let definition = json!({
        "Kind": service["Kind"], "ID": service["ID"], "Name": service["Service"], "Address": service["Address"],
        "Port": service["Port"], "Meta": service["Meta"], "Proxy": service["Proxy"], "Weights": service["Weights"],
    });
    rig.put(node, "/v1/agent/service/register", Some(definition)).await
}

/// Registers the gateway with another WAN address, as an operator would; its Envoy is left alone.
pub(crate) async fn move_gateway(
    rig: &Rig,
    old: std::net::Ipv4Addr,
    to: std::net::Ipv4Addr,
) -> anyhow::Result<()> {
    register_gateway(rig, |arg| arg.replace(&old.to_string(), &to.to_string())).await
}

/// Registers it with other arguments than the lab's.
pub(crate) async fn register_gateway(rig: &Rig, change: impl Fn(&str) -> String) -> anyhow::Result<()> {
    let plan = rig.lab.node("secondary-gateway")?.process("envoy").context("the gateway's Envoy")?;
    let args = plan.args.iter().take_while(|arg| *arg != "--").map(|arg| change(arg));
    let command = tokio::process::Command::new(&plan.program)
        .args(args)
        .arg("--bootstrap")
        .envs(&plan.env)
        .output()
        .await?;
    ensure!(command.status.success(), "{}", String::from_utf8_lossy(&command.stderr));
    Ok(())
}

pub(crate) async fn every_endpoint(rig: &Rig, node: &str) -> anyhow::Result<Vec<String>> {
    let all = rig.envoy(node)?.json("/clusters?format=json").await?;
    let clusters = all["cluster_statuses"].as_array().context("cluster_statuses")?;
    let hosts = clusters.iter().flat_map(|c| c["host_statuses"].as_array().into_iter().flatten());
    Ok(hosts.map(crate::lab::rig::endpoint).collect())
}

async fn listens(rig: &Rig, address: &str) -> anyhow::Result<bool> {
    let listeners = rig.envoy("primary-services")?.get("/listeners").await?;
    Ok(String::from_utf8_lossy(&listeners).contains(address))
}

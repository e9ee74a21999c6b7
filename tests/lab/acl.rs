//! What ACLs add. Without them these have little to look at.

use std::{io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use causeway::{config::consul::ConsulSettings, consul::client::Client};
use serde_json::{Value, json};

use crate::lab::{
    live,
    rig::{ENVOYS, Rig, eventually},
};

pub(super) async fn no_token_is_shown(rig: &mut Rig) -> anyhow::Result<()> {
    let mut shown = Vec::new();
    for node in &rig.lab.plan().nodes {
        for process in &node.processes {
            let pid = rig.lab.pid(&node.name, &process.name)?;
            shown.push((
                format!("arguments of {}/{}", node.name, process.name),
                format!("/proc/{pid}/cmdline"),
            ));
            shown.push((process.log.display().to_string(), process.log.display().to_string()));
        }
    }
    let mut texts = Vec::new();
    for (place, file) in shown {
        texts.push((place, std::fs::read(&file).with_context(|| file.clone())?));
    }
    for node in ENVOYS {
        for page in ["/status", "/metrics"] {
            texts.push((format!("{node}{page}"), rig.causeway(node, page).await?));
        }
    }
    let tokens = rig.tokens()?;
    ensure!(tokens.is_empty() != rig.has_acls(), "{} tokens", tokens.len());
    for (name, secret) in &tokens {
        for (place, text) in &texts {
            ensure!(!String::from_utf8_lossy(text).contains(secret), "the token {name} is in {place}");
        }
    }
    println!("  {} tokens looked for in {} places", tokens.len(), texts.len());
    Ok(())
}

/// Nothing was left out of an answer, and nothing refused.
pub(super) async fn least_rights_are_enough(rig: &mut Rig) -> anyhow::Result<()> {
    for node in ENVOYS {
        eventually(&format!("{node}'s agent reads all it needs"), async || {
            let status = rig.status(node).await?;
            let notes = status.proxies.iter().flat_map(|proxy| &proxy.notes);
            let troubles = status.topics.iter().filter_map(|topic| topic.trouble.as_ref());
            let all: Vec<_> = notes.chain(troubles).collect();
            ensure!(all.is_empty(), "{all:?}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

/// Lets the dashboard speak to a service where the default is to deny. Gives the intention's id.
pub(super) async fn allow_dashboard(rig: &Rig, service: &str) -> anyhow::Result<Option<String>> {
    match rig.has_acls() {
        true => Ok(Some(live::create_intention(&rig.consul("primary-services")?, service).await?)),
        false => Ok(None),
    }
}

/// Takes back what [`allow_dashboard`] made.
pub(super) async fn disallow(rig: &Rig, intention: Option<String>) -> anyhow::Result<()> {
    match intention {
        Some(id) => rig.delete("primary-server", &format!("/v1/connect/intentions/{id}")).await,
        None => Ok(()),
    }
}

/// A token for one more sidecar's Envoy, in a file, made once; none without ACLs.
pub(super) async fn token_of(
    rig: &Rig,
    service: &str,
    name: &str,
    node: &str,
) -> anyhow::Result<Option<PathBuf>> {
    if !rig.has_acls() {
        return Ok(None);
    }
    let file = rig.lab.plan().dir.join("tokens").join(name);
    if file.exists() {
        return Ok(Some(file));
    }
    const ASK: Duration = Duration::from_secs(10);
    let rules = include_str!("../../policies/sidecar.hcl");
    let rules = rules.replace("{{node}}", node).replace("{{service}}", service);
    let consul = rig.consul("primary-server")?;
    let policy = json!({ "Name": name, "Rules": rules });
    consul.put("/v1/acl/policy", &[], Some(policy), ASK).await?.ok()?;
    let token = json!({ "Policies": [{ "Name": name }] });
    let made: Value = consul.put("/v1/acl/token", &[], Some(token), ASK).await?.ok()?.json()?;
    let secret = made["SecretID"].as_str().context("the token's secret")?;
    let server = format!("{}-server", rig.lab.node(node)?.datacenter);
    let copied = Client::new(ConsulSettings {
        token: Some(secret.into()),
        token_file: None,
        ..rig.consul(&server)?.settings().clone()
    })?;
    eventually("the datacenter knows the token", async || {
        copied.get("/v1/acl/token/self", &[], ASK).await?.ok()?;
        Ok(Some(()))
    })
    .await?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(&file)?.write_all(secret.as_bytes())?;
    Ok(Some(file))
}

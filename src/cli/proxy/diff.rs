//! `causeway proxy diff`: what a proxy is meant to have against what its Envoy has.
//!
//! This file asks both; `envoy::report` compares, `shown` makes the text. Tests ask by [`look`].

mod shown;

#[cfg(test)]
mod tests;

use std::{io::ErrorKind, path::Path, process::ExitCode};

use anyhow::{Context, anyhow, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args;

use crate::{
    api::wire::{IntendedResource, ProxyConfig, Status},
    cli::{
        fail, instance, print,
        proxy::{
            AgentFlags, admin_address, admin_at, ask, config, mismatch, path_segment, status::printable,
        },
    },
    envoy::{
        admin::Admin,
        report::{Actual, Intended, Report, Wanted, compare},
    },
    xds::resource::{Key, Kind},
};

pub(super) const HELP: &str = "\
Examples:
  causeway proxy diff
  causeway proxy diff web-sidecar-proxy --admin 127.0.0.1:19001
  causeway proxy diff web-sidecar-proxy --json

Private keys are never shown; certificates appear as serial number and SHA-256 fingerprint. What
Envoy has from its bootstrap, and what it only lets drain, is no difference.

Exit codes, as of diff: 0 when Envoy has all that is intended and nothing else; 1 when something is
refused, missing, warming, different or unknown to the agent, or the agent does not know everything
yet; 2 when one of them cannot be asked, and for a wrong command line.";

/// Something differs.
const EXIT_DIFFERENT: u8 = 1;

/// It cannot be told.
const EXIT_TROUBLE: u8 = 2;

/// Where Envoy's admin interface is unless something else is known.
const DEFAULT_ADMIN: &str = "127.0.0.1:19000";

/// The folder in which each systemd instance has its admin interface.
const INSTANCES: &str = "/run/causeway-envoy";

/// How often both sides are asked while the intended side changes in between.
const LOOKS: usize = 5;

#[derive(Args, Clone, Debug)]
pub(super) struct DiffArgs {
    /// The proxy's service id [default: that of the Envoy at --admin]
    #[arg(value_name = "PROXY")]
    id: Option<String>,
    /// The same, as the name of a systemd instance: \xNN stands for a byte
    #[arg(long, value_name = "NAME", conflicts_with = "id", value_parser = named)]
    instance: Option<String>,
    /// Envoy's admin interface: HOST:PORT or unix:/path [default: the systemd instance's socket if it is there, else
    /// 127.0.0.1:19000]
    #[arg(long, value_name = "ADDRESS", value_parser = admin_address)]
    admin: Option<String>,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentFlags,
}

/// The name as it was written: it is also that of a folder.
fn named(text: &str) -> Result<String, String> {
    instance::unescape(text).map(|_| text.to_owned())
}

pub(super) async fn run(args: DiffArgs) -> ExitCode {
    let (text, code) = match outcome(&args).await {
        Ok(outcome) => outcome,
        Err(error) => return fail(EXIT_TROUBLE, &error),
    };
    match print(&text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            fail(EXIT_TROUBLE, &anyhow!(error).context("write to standard output"))
        }
        _ => code,
    }
}

async fn outcome(args: &DiffArgs) -> anyhow::Result<(String, ExitCode)> {
    let wanted = match &args.instance {
        Some(name) => Some(instance::unescape(name).map_err(|problem| anyhow!(problem))?),
        None => args.id.clone(),
    };
    let name = args.instance.as_ref().or(wanted.as_ref());
    let address = args.admin.clone().unwrap_or_else(|| usual_admin(Path::new(INSTANCES), name));
    let admin = admin_at(&address);
    let found = admin.node_id().await.context(
        "name its admin interface with `--admin`; under systemd it is unix:/run/causeway-envoy/INSTANCE/admin.sock, \
         root's and that instance's alone",
    )?;
    let proxy = match wanted {
        Some(wanted) => match mismatch(&address, &wanted, &found) {
            Some(problem) => bail!(problem),
            None => wanted,
        },
        None if found.is_empty() => bail!("the Envoy at {address} has no node id; name its proxy"),
        None => found,
    };
    let report = look(&args.agent.http_addr, &admin, &proxy).await?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&report).context("write the comparison as JSON")?)
    } else {
        shown::text(&report)
    };
    Ok((text, if report.equal { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DIFFERENT) }))
}

/// The socket of a systemd instance, where there is one of that name.
fn usual_admin(instances: &Path, name: Option<&String>) -> String {
    let socket = name.map(|name| instances.join(name).join("admin.sock")).filter(|socket| socket.exists());
    socket.map_or_else(|| DEFAULT_ADMIN.to_owned(), |socket| format!("unix:{}", socket.display()))
}

/// Compares what the agent at `agent` (the address of its HTTP interface) intends for a proxy with what the Envoy at
/// `admin` has. The two are asked one after the other; while the intended side changes meanwhile, both are asked again.
///
/// # Errors
/// One of them cannot be asked, the agent does not know the proxy, or an answer cannot be read.
pub async fn look(agent: &str, admin: &Admin, proxy: &str) -> anyhow::Result<Report> {
    let agent = AgentFlags { http_addr: agent.to_owned() };
    let path = format!("/status/proxies/{}/config", path_segment(proxy));
    let mut config: ProxyConfig = ask(&agent, &path).await?;
    let mut looks = 1;
    loop {
        let intended = intended(&config, ask(&agent, "/status").await?)?;
        let dump = admin.json("/config_dump?include_eds").await?;
        let clusters = admin.json("/clusters?format=json").await?;
        let report = compare(&intended, &Actual::read(&dump, &clusters)?);
        if report.equal || looks == LOOKS {
            return Ok(report);
        }
        let later = ask(&agent, &path).await?;
        if later == config {
            return Ok(report);
        }
        config = later;
        looks += 1;
    }
}

/// The agent's two documents as one side of a comparison.
fn intended(config: &ProxyConfig, status: Status) -> anyhow::Result<Intended> {
    let proxies: Vec<_> = status.proxies.iter().map(|proxy| proxy.proxy.clone()).collect();
    let Some(proxy) = status.proxies.into_iter().find(|proxy| proxy.proxy == config.proxy) else {
        bail!("the agent knows no proxy `{}`; {}", config.proxy, config::known(&proxies, "proxies it knows"));
    };
    let mut waiting_for = proxy.waiting_for;
    if !proxy.complete && waiting_for.is_empty() {
        waiting_for.push("what the proxy needs".to_owned());
    }
    let resources = config.resources.iter().map(wanted).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Intended::new(&*config.proxy, resources, &proxy.streams, waiting_for)?)
}

fn wanted(resource: &IntendedResource) -> anyhow::Result<Wanted> {
    let IntendedResource { kind, name, version, type_url, value } = resource;
    let Some(kind) = Kind::of_type_url(type_url) else {
        bail!(
            "the agent intends {} `{}` of a type that this command does not know ({}); are both of one version?",
            printable(kind),
            printable(name),
            printable(type_url)
        );
    };
    let message = BASE64_STANDARD.decode(value).with_context(|| format!("read {} {name}", kind.short()))?;
    Ok(Wanted { key: Key::new(kind, name), version: version.clone(), message })
}

//! `causeway proxy`: what each Envoy was sent, took and refused, and what it is meant to run, as the agent tells it;
//! and the ends of an Envoy's service, which service managers call.
//!
//! This file asks the agent; `status` and `config` turn its answers into text, purely. `diff` compares them with what
//! Envoy has. `ready` and `drain` speak with Envoy and, through `maintenance`, with Consul.

mod config;
pub mod diff;
mod drain;
mod maintenance;
mod ready;
mod status;

#[cfg(test)]
mod tests;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;

use self::{
    config::{Selection, TypeName},
    maintenance::Maintenance,
};
use crate::{
    api::wire::{ProxyConfig, Status},
    cli::{duration, envoy::token_in_bootstrap, instance, print},
    config::consul::ConsulSettings,
    envoy::{
        admin::{Admin, AdminError},
        bootstrap::{Endpoint, socket_path},
    },
    fetch::{self, path_segment},
};

/// The agent answers from memory.
const DEADLINE: Duration = Duration::from_secs(10);

/// Some proxy does not run what it is meant to.
const EXIT_NOT_SYNCED: u8 = 3;

const STATUS_HELP: &str = "\
Examples:
  causeway proxy status
  causeway proxy status web-sidecar-proxy --json

Exit codes: 0 when every Envoy shown runs everything it is meant to; 1 when the agent cannot be
asked or does not know the proxy; 2 for a wrong command line; 3 when something is rejected, sent
but not yet acknowledged, waiting or still unknown, or when the proxy that was named has no Envoy
connected.";

const CONFIG_HELP: &str = "\
Examples:
  causeway proxy config web-sidecar-proxy
  causeway proxy config web-sidecar-proxy --type cds
  causeway proxy config mesh-gateway --type lds --name default

Exit codes: 1 when the agent cannot be asked, does not know the proxy, or the proxy has no such
resource; 2 for a wrong command line.";

/// Show what the Envoys of this agent were sent and what they are meant to run
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  causeway proxy status\n  causeway proxy config web-sidecar-proxy --type cds"
)]
pub struct ProxyArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Per Envoy and type: what was sent, acknowledged, refused, and how long ago
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// The resources a proxy is meant to have, as the JSON that Envoy reads; private keys are redacted
    #[command(after_help = CONFIG_HELP)]
    Config(ConfigArgs),
    /// Whether an Envoy has what it is meant to have, by resource and field
    #[command(after_help = diff::HELP)]
    Diff(diff::DiffArgs),
    /// Wait until an Envoy serves, and end the maintenance that `drain` began
    #[command(after_help = ready::HELP)]
    Ready(ready::ReadyArgs),
    /// Send others elsewhere, then wait until an Envoy has nothing left to do; stop it afterwards
    #[command(after_help = drain::HELP)]
    Drain(drain::DrainArgs),
}

#[derive(Args, Clone, Debug)]
struct StatusArgs {
    /// Only the proxy with this service id
    id: Option<String>,
    /// Print the agent's document as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentFlags,
}

#[derive(Args, Clone, Debug)]
struct ConfigArgs {
    /// The proxy's service id
    id: String,
    /// Only resources of this type
    #[arg(long = "type", value_enum, value_name = "TYPE", default_value = "all")]
    kind: TypeName,
    /// Only resources of this name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    agent: AgentFlags,
}

#[derive(Args, Clone, Debug)]
struct AgentFlags {
    /// The causeway agent's HTTP interface
    #[arg(long, value_name = "URL", env = "CAUSEWAY_HTTP_ADDR", default_value = "http://127.0.0.1:18500")]
    http_addr: String,
}

/// Which Envoy, for the commands that speak with it.
#[derive(Args, Clone, Debug)]
struct EnvoyFlags {
    /// The proxy's service id: the Envoy must be that proxy's, and Consul, reached as the CONSUL_* variables say, sends
    /// others elsewhere
    id: Option<String>,
    /// The same, as the name of a systemd instance: \xNN stands for a byte
    #[arg(long, value_name = "NAME", conflicts_with = "id", value_parser = instance::unescape)]
    instance: Option<String>,
    /// Envoy's admin interface: HOST:PORT or unix:/path
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:19000", value_parser = admin_address)]
    admin: String,
    /// The folder of its bootstrap, whose token is used where no variable gives one
    #[arg(long, value_name = "DIR")]
    bootstrap_dir: Option<PathBuf>,
}

impl EnvoyFlags {
    fn admin(&self) -> Admin {
        admin_at(&self.admin)
    }

    fn proxy_id(&self) -> Option<&String> {
        self.id.as_ref().or(self.instance.as_ref())
    }

    /// What is wrong when the Envoy that answers is not that of the proxy that was named.
    async fn mismatch(&self, admin: &Admin) -> Result<Option<String>, AdminError> {
        let found = admin.node_id().await?;
        Ok(self.proxy_id().and_then(|wanted| mismatch(&self.admin, wanted, &found)))
    }

    /// Consul's side of the proxy that was named; none if none was.
    fn maintenance(&self, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Option<Maintenance>> {
        let Some(id) = self.proxy_id() else { return Ok(None) };
        let mut settings = ConsulSettings::from_env(env).map_err(|problems| anyhow!(problems.join("\n")))?;
        if let Some(folder) = &self.bootstrap_dir
            && settings.token.is_none()
            && settings.token_file.is_none()
        {
            settings.token = token_in_bootstrap(folder, id)?;
        }
        Maintenance::of(id, settings).map(Some)
    }
}

/// What is wrong with the Envoy at this address, if its node id is not the proxy's that is wanted.
fn mismatch(address: &str, wanted: &str, found: &str) -> Option<String> {
    (found != wanted).then(|| {
        format!(
            "the Envoy at {address} is that of `{}`, not of `{wanted}`; name its own admin interface with `--admin`, or by \
             ENVOY_ADMIN in the instance's env file",
            status::printable(found)
        )
    })
}

/// The admin interface at an address of the form that [`admin_address`] takes.
fn admin_at(address: &str) -> Admin {
    match socket_path(address) {
        Some(Ok(path)) => Admin::on_socket(path),
        Some(Err(_)) | None => Admin::new(format!("http://{address}")),
    }
}

fn admin_address(text: &str) -> Result<String, String> {
    match socket_path(text) {
        Some(path) => path.map(|_| text.to_owned()),
        None => text.parse::<Endpoint>().map(|_| text.to_owned()),
    }
}

/// Runs the command.
pub async fn run(args: ProxyArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Status(args) => show_status(args).await,
        Command::Config(args) => show_config(args).await,
        Command::Diff(args) => Ok(diff::run(args).await),
        Command::Ready(args) => ready::run(args, env).await,
        Command::Drain(args) => drain::run(args, env).await,
    }
}

async fn show_status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let mut document: Status = ask(&args.agent, "/status").await?;
    if let Some(id) = &args.id {
        let known: Vec<_> = document.proxies.iter().map(|proxy| proxy.proxy.clone()).collect();
        document.proxies.retain(|proxy| proxy.proxy == *id);
        if document.proxies.is_empty() {
            bail!("the agent knows no proxy `{id}`; {}", config::known(&known, "proxies it knows"));
        }
    }
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&document).context("write the status as JSON")?)
    } else {
        status::table(&document)
    };
    print(&text).context("write to standard output")?;
    let is_synced = status::is_synced(&document, args.id.is_some());
    Ok(if is_synced { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_SYNCED) })
}

async fn show_config(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    let document: ProxyConfig =
        ask(&args.agent, &format!("/status/proxies/{}/config", path_segment(&args.id))).await?;
    let selection = Selection { kind: args.kind, name: args.name };
    let json = config::document(&document, &selection)?;
    print(&format!("{json:#}\n")).context("write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

async fn ask<T: DeserializeOwned>(agent: &AgentFlags, path: &str) -> anyhow::Result<T> {
    let address = agent.http_addr.trim_end_matches('/');
    let url =
        if address.contains("://") { format!("{address}{path}") } else { format!("http://{address}{path}") };
    let answer = fetch::get(&url, DEADLINE).await.map_err(|reason| {
        anyhow::anyhow!(
            "ask the causeway agent at {url}: {reason}; is `causeway agent` running? Name its address with \
             `--http-addr` or CAUSEWAY_HTTP_ADDR"
        )
    })?;
    if !answer.status.is_success() {
        let body = String::from_utf8_lossy(&answer.body);
        bail!("the causeway agent answered {url} with {}: {}", answer.status, status::printable(body.trim()));
    }
    serde_json::from_slice(&answer.body).with_context(|| {
        format!(
            "read the answer to {url}; is it a causeway agent of this version ({})?",
            env!("CARGO_PKG_VERSION")
        )
    })
}

//! `causeway envoy`: finds (or registers) the proxy, writes Envoy's bootstrap and becomes Envoy.
//!
//! What to start is decided in `request` and `choose`, what to register in `register`, all pure; this file asks
//! Consul in the right order, and `launch` touches the machine.

mod args;
mod caveats;
mod choose;
mod consul;
mod launch;
mod register;
mod request;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;
use tracing::{info, warn};

pub use self::args::EnvoyArgs;
pub(super) use self::launch::token_in_bootstrap;
use self::{
    choose::{LocalService, MESH_GATEWAY, choose},
    consul::{ConsulAgent, HttpAgent, LocalAgent},
    register::GatewayRegistration,
    request::{GatewayPlan, Request},
};
use crate::{
    cli::{EXIT_NO_INPUT, EXIT_UNAVAILABLE, complain, consul_flags, fail, print},
    config::consul::ConsulSettings,
    envoy::bootstrap::{BootstrapParams, XdsAddress, bootstrap, extras::Extras},
    lifecycle,
    model::secret::SecretText,
};

/// A wrong command line, as clap exits as well.
const EXIT_USAGE: u8 = 2;

/// A unit that gives up sooner reaches its limit of 30 starts in five minutes, and stays `failed` when Consul is back.
const LEAST_OF_AN_INSTANCE: Duration = Duration::from_secs(10);

/// Consul may be starting, or the proxy about to be registered.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Runs the command. Returns only with `--bootstrap` or on an error: otherwise this process becomes Envoy.
pub async fn run(args: EnvoyArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let read = Request::read(&args).and_then(|request| Ok((request, args.consul.settings(env)?)));
    let (request, consul) = match read {
        Ok(read) => read,
        Err(problems) => {
            for problem in problems {
                complain(&format!("causeway: {problem}"));
            }
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let parts = match Parts::read(&args, consul, env) {
        Ok(parts) => parts,
        Err(error) => return Ok(fail(EXIT_NO_INPUT, &error)),
    };
    let asking =
        patiently(patience(&args), async || prepare(&request, &parts.agent, &parts.token, env).await);
    let params = match asking.await {
        Ok(params) => params,
        Err(error) => return Ok(fail(EXIT_UNAVAILABLE, &error)),
    };
    let json = bootstrap(&params);
    match parts.binary {
        Some(binary) => start(&args, &binary, &params, &json, env),
        None => {
            print(&format!("{json:#}\n")).context("write the bootstrap to standard output")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What must be there before Consul is asked.
struct Parts {
    token: Option<SecretText>,
    /// Found before anything is registered: a gateway that cannot be started must not be in the catalog.
    binary: Option<PathBuf>,
    agent: HttpAgent,
}

impl Parts {
    fn read(
        args: &EnvoyArgs,
        consul: ConsulSettings,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let consul = consul_flags::with_credential(consul, env)?;
        let token = read_token(&consul)?;
        let is_started = !args.bootstrap;
        let binary = is_started.then(|| launch::find_envoy(args.envoy_binary.as_deref(), env)).transpose()?;
        Ok(Self { token, binary, agent: HttpAgent::new(consul)? })
    }
}

/// How long Consul is asked.
fn patience(args: &EnvoyArgs) -> Duration {
    if args.instance.is_some() { args.retry_for.max(LEAST_OF_AN_INSTANCE) } else { args.retry_for }
}

/// Tries until it works or the time is over. Each reason is told once.
async fn patiently<T>(time: Duration, attempt: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let until = lifecycle::now() + time;
    let mut told = String::new();
    loop {
        let error = match attempt().await {
            Err(error) if lifecycle::now() < until => error,
            done => return done,
        };
        let reason = format!("{error:#}");
        if reason != told {
            warn!(%reason, seconds = time.as_secs(), "not ready to start Envoy, asking Consul again");
            told = reason;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The token for the xDS stream: the same with which Consul is asked.
fn read_token(consul: &ConsulSettings) -> anyhow::Result<Option<SecretText>> {
    if let Some(token) = consul.token.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Some(token.clone()));
    }
    let Some(path) = &consul.token_file else { return Ok(None) };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("read the token file {}", path.display()))?;
    let token = text.trim();
    if token.is_empty() {
        bail!("the token file {} is empty; write the ACL token into it, or leave it out", path.display());
    }
    Ok(Some(token.into()))
}

/// Registers what is to be registered, finds the proxy, and says what its bootstrap is made of.
async fn prepare(
    request: &Request,
    agent: &impl ConsulAgent,
    token: &Option<SecretText>,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<BootstrapParams> {
    let facts = agent.facts().await?;
    let services = agent.services().await?;
    let (proxy_id, service) = match &request.register {
        Some(plan) => register(plan, &facts, &services, agent).await?,
        None => {
            let chosen = choose(&services, &request.wanted)?;
            (chosen.id.clone(), chosen.stands_for().to_owned())
        }
    };
    // A registration keeps the settings of the one before it. Consul's agent merges central ones in since 1.9 only.
    let own = services.iter().find(|service| service.id == proxy_id).map(LocalService::settings);
    let settings = own.unwrap_or_default().over(&agent.proxy_defaults().await?);
    let (extras, notes) = Extras::read(&proxy_id, &settings, &request.pages, env);
    tell(notes);
    Ok(BootstrapParams {
        proxy_id,
        service,
        datacenter: facts.datacenter,
        node_name: facts.node_name,
        admin: request.admin.clone(),
        admin_access_log: request.admin_access_log.clone(),
        xds: request.xds.clone(),
        token: token.clone(),
        extras,
    })
}

async fn register(
    plan: &GatewayPlan,
    facts: &LocalAgent,
    services: &[LocalService],
    agent: &impl ConsulAgent,
) -> anyhow::Result<(String, String)> {
    let registration = plan.registration(&facts.address);
    let present = services.iter().find(|service| service.id == registration.id);
    if let Some(other) = present.filter(|service| service.kind != MESH_GATEWAY) {
        bail!(
            "service id `{}` is already registered for service `{}`, which is no mesh gateway; choose another id \
             with `--proxy-id`, or another name with `--service`",
            other.id,
            other.service
        );
    }
    check_bindable(&registration)?;
    tell(caveats::of_addresses(&registration));
    agent.register(register::body(&registration, present, can_bind_both(&registration))).await?;
    info!(proxy = registration.id, service = registration.service, "registered the mesh gateway");
    Ok((registration.id, registration.service))
}

fn tell(caveats: impl IntoIterator<Item = impl fmt::Display>) {
    for caveat in caveats {
        warn!(%caveat, "not everything that was asked of Envoy is done");
    }
}

/// Envoy will listen on the LAN address unless it is told others: an address of another machine (of a router that
/// forwards, say) is found out here, not in Envoy's refusal of the listener.
fn check_bindable(registration: &GatewayRegistration) -> anyhow::Result<()> {
    let Some(ip) = registration.address.as_ref().and_then(|host| host.parse::<IpAddr>().ok()) else {
        return Ok(());
    };
    if registration.bind.is_empty() && !can_bind(ip) {
        bail!(
            "the LAN address {ip} is none of this machine's addresses; give one of its own with `--address`, or \
             where Envoy is to listen with `--bind-address NAME=HOST:PORT`"
        );
    }
    Ok(())
}

/// Whether both the LAN and the WAN address are given and this machine's own: Envoy then listens on both, as with
/// Consul. A host name is none that Envoy could listen on.
fn can_bind_both(registration: &GatewayRegistration) -> bool {
    let wan = registration.wan.as_ref().map(|wan| &wan.host);
    [registration.address.as_ref(), wan]
        .into_iter()
        .all(|host| host.and_then(|host| host.parse().ok()).is_some_and(can_bind))
}

fn can_bind(ip: IpAddr) -> bool {
    TcpListener::bind((ip, 0)).is_ok()
}

fn start(
    args: &EnvoyArgs,
    binary: &Path,
    params: &BootstrapParams,
    json: &Value,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<ExitCode> {
    let file = launch::write_bootstrap(
        args.bootstrap_dir.as_deref(),
        env,
        &params.proxy_id,
        &format!("{json:#}\n"),
    )?;
    warn_if_nobody_serves(&params.xds);
    info!(proxy = params.proxy_id, bootstrap = %file.display(), envoy = %binary.display(), "starting Envoy");
    Err(launch::exec(binary, &file, &args.envoy_args))
}

fn warn_if_nobody_serves(xds: &XdsAddress) {
    if let XdsAddress::Unix(path) = xds
        && !path.exists()
    {
        warn!(socket = %path.display(), "no agent serves this socket yet; Envoy waits until one does");
    }
}

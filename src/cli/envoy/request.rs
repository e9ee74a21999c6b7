//! The command line, checked as a whole. Pure; all problems are told at once.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    cli::{
        envoy::{args::EnvoyArgs, choose::Wanted, register::GatewayRegistration},
        instance,
    },
    envoy::bootstrap::{AdminAddress, Endpoint, XdsAddress, extras::Pages, socket_path},
};

/// The port of a gateway when none is given, as Consul has it since 1.9.
const GATEWAY_PORT: u16 = 8443;
/// The service name of a gateway that is registered when none is given, as Consul has it.
const GATEWAY_SERVICE: &str = "mesh-gateway";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) wanted: Wanted,
    pub(super) register: Option<GatewayPlan>,
    pub(super) admin: AdminAddress,
    pub(super) admin_access_log: String,
    pub(super) xds: XdsAddress,
    pub(super) pages: Pages,
}

/// A gateway to register, as far as the command line tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GatewayPlan {
    id: String,
    service: String,
    lan: PartialAddress,
    wan: Option<PartialAddress>,
    bind: BTreeMap<String, SocketAddr>,
    exposes_servers: bool,
    deregister_after_critical: String,
    check_interval: String,
}

/// An address whose host or port may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PartialAddress {
    host: Option<String>,
    port: Option<u16>,
}

impl Request {
    /// Reads the command line, or tells everything that is wrong with it.
    pub(super) fn read(args: &EnvoyArgs) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let wanted = wanted(args, &mut problems);
        check_gateway_flags(args, &mut problems);
        let id = wanted.as_ref().and_then(Wanted::proxy_id);
        let register = args.register.then(|| plan(args, id, &mut problems));
        let admin = keep(admin(&args.admin_bind), "--admin-bind", &mut problems);
        let xds = keep(args.xds.parse::<XdsAddress>(), "--xds", &mut problems);
        let pages = pages(args, &mut problems);
        match (wanted, admin, xds) {
            (Some(wanted), Some(admin), Some(xds)) if problems.is_empty() => {
                let admin_access_log = args.admin_access_log_path.clone();
                Ok(Self { wanted, register, admin, admin_access_log, xds, pages })
            }
            _ => Err(problems),
        }
    }
}

impl GatewayPlan {
    /// The registration. Only Consul's check needs an address in any case: the local Consul agent's where none was
    /// given.
    pub(super) fn registration(&self, agent_address: &str) -> GatewayRegistration {
        let address = self.lan.host.clone();
        let port = self.lan.port.unwrap_or(GATEWAY_PORT);
        let wan = self.wan.as_ref().and_then(|wan| {
            let host = wan.host.clone().or_else(|| address.clone())?;
            Some(Endpoint { host, port: wan.port.unwrap_or(port) })
        });
        GatewayRegistration {
            id: self.id.clone(),
            service: self.service.clone(),
            checked_host: address.clone().unwrap_or_else(|| agent_address.to_owned()),
            address,
            port,
            wan,
            bind: self.bind.clone(),
            exposes_servers: self.exposes_servers,
            deregister_after_critical: self.deregister_after_critical.clone(),
            check_interval: self.check_interval.clone(),
        }
    }
}

fn pages(args: &EnvoyArgs, problems: &mut Vec<String>) -> Pages {
    let prometheus_path = args.prometheus_scrape_path.clone();
    if !prometheus_path.starts_with('/') {
        problems.push(format!(
            "--prometheus-scrape-path: `{prometheus_path}` is no path; write for example /metrics"
        ));
    }
    let ready = args.envoy_ready_bind_address.zip(args.envoy_ready_bind_port);
    let prometheus_backend = args.prometheus_backend_port;
    Pages { prometheus_path, prometheus_backend, ready: ready.map(SocketAddr::from) }
}

fn wanted(args: &EnvoyArgs, problems: &mut Vec<String>) -> Option<Wanted> {
    let proxy_id = proxy_id(args, problems);
    match (&args.sidecar_for, &proxy_id, args.gateway) {
        (Some(id), None, None) => Some(Wanted::SidecarFor(id.clone())),
        (None, Some(id), None) => Some(Wanted::Proxy(id.clone())),
        (None, Some(id), Some(_)) => Some(Wanted::GatewayId(id.clone())),
        (None, None, Some(_)) => Some(Wanted::Gateway(args.service.clone())),
        (None, None, None) if args.instance.is_some() => None,
        (None, None, None) => {
            problems.push(
                "say which proxy to start: `--sidecar-for ID`, `--proxy-id ID` or `--gateway mesh`".into(),
            );
            None
        }
        // The command line's own grammar refuses these already.
        (Some(_), _, _) => {
            problems.push("`--sidecar-for` cannot be used with `--proxy-id` or `--gateway`".into());
            None
        }
    }
}

/// The id that was given, plainly or as an instance's name.
fn proxy_id(args: &EnvoyArgs, problems: &mut Vec<String>) -> Option<String> {
    match &args.instance {
        Some(name) => keep(instance::unescape(name), "--instance", problems),
        None => args.proxy_id.clone(),
    }
}

fn check_gateway_flags(args: &EnvoyArgs, problems: &mut Vec<String>) {
    if args.register && args.gateway.is_none() {
        problems.push(
            "`--register` is for gateways only; add `--gateway mesh`, or register the sidecar with \
             `consul services register`"
                .into(),
        );
    }
    if args.expose_servers && args.gateway.is_none() {
        problems.push("`--expose-servers` is for mesh gateways only; add `--gateway mesh`".into());
    }
    if args.service.is_some() && args.gateway.is_none() {
        problems.push("`--service` names a gateway; add `--gateway mesh`, or use `--sidecar-for ID`".into());
    }
    let needs_register = [
        ("--expose-servers", args.expose_servers),
        ("--address", args.address.is_some()),
        ("--wan-address", args.wan_address.is_some()),
        ("--bind-address", !args.bind_address.is_empty()),
    ];
    for (flag, is_given) in needs_register {
        if is_given && !args.register {
            problems.push(format!("`{flag}` is part of a registration; add `--register`"));
        }
    }
}

fn plan(args: &EnvoyArgs, id: Option<&str>, problems: &mut Vec<String>) -> GatewayPlan {
    let service = args.service.clone().unwrap_or_else(|| GATEWAY_SERVICE.into());
    let mut bind = BTreeMap::new();
    for text in &args.bind_address {
        match text.split_once('=').filter(|(name, _)| !name.is_empty()) {
            Some((name, at)) => {
                let at = keep(bindable(at), "--bind-address", problems);
                if at.is_some_and(|at| bind.insert(name.to_owned(), at).is_some()) {
                    problems.push(format!(
                        "--bind-address: `{name}` is given twice; give each address its own name"
                    ));
                }
            }
            None => problems.push(format!("--bind-address: `{text}` is not NAME=HOST:PORT")),
        }
    }
    for (flag, text) in [
        ("--deregister-after-critical", &args.deregister_after_critical),
        ("--check-interval", &args.check_interval),
    ] {
        if !is_duration(text) {
            problems.push(format!("{flag}: `{text}` is not a duration; write for example 10s, 30m or 6h"));
        }
    }
    let mut address = |given: &Option<String>, flag| {
        given.as_deref().and_then(|text| keep(PartialAddress::parse(text), flag, problems))
    };
    let lan = address(&args.address, "--address").unwrap_or_default();
    let wan = address(&args.wan_address, "--wan-address");
    if lan.host.is_none() && wan.as_ref().is_some_and(|wan| wan.host.is_none()) {
        problems.push("--wan-address: a port alone needs the host in `--address`; write HOST:PORT".into());
    }
    GatewayPlan {
        id: id.unwrap_or(&service).to_owned(),
        service,
        lan,
        wan,
        bind,
        exposes_servers: args.expose_servers,
        deregister_after_critical: args.deregister_after_critical.clone(),
        check_interval: args.check_interval.clone(),
    }
}

impl PartialAddress {
    /// `HOST:PORT`, `HOST`, `:PORT` or an IPv6 address.
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(whole) = text.parse::<Endpoint>() {
            return Ok(Self { host: Some(whole.host), port: Some(whole.port) });
        }
        if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
            return Ok(Self { host: None, port: Some(port) });
        }
        let host = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let is_host = host.parse::<std::net::Ipv6Addr>().is_ok()
            || (!host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)));
        if is_host {
            return Ok(Self { host: Some(host.to_owned()), port: None });
        }
        Err(format!("`{text}` is not HOST:PORT; write for example 10.0.1.5:8443"))
    }
}

fn admin(text: &str) -> Result<AdminAddress, String> {
    match socket_path(text) {
        Some(path) => path.map(AdminAddress::Unix),
        None => bindable(text).map(AdminAddress::Tcp),
    }
}

/// An address that Envoy can listen on.
fn bindable(text: &str) -> Result<SocketAddr, String> {
    let at: Endpoint = text.parse()?;
    at.ip().map(|ip| SocketAddr::new(ip, at.port)).ok_or_else(|| {
        format!(
            "`{}` is a host name, and Envoy listens on IP addresses only; give one of this machine's",
            at.host
        )
    })
}

/// Whether Consul reads `text` as a duration (Go's form).
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let after = &rest[digits..];
        let unit = ["ns", "us", "ms", "h", "m", "s"].into_iter().find(|unit| after.starts_with(unit));
        let (true, Some(unit)) = (rest[..digits].parse::<f64>().is_ok(), unit) else { return false };
        rest = &after[unit.len()..];
    }
    !text.is_empty()
}

fn keep<T>(read: Result<T, String>, flag: &str, problems: &mut Vec<String>) -> Option<T> {
    read.map_err(|problem| problems.push(format!("{flag}: {problem}"))).ok()
}

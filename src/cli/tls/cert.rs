//! `causeway tls cert create`.

use std::{net::IpAddr, path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::{ArgGroup, Args, Subcommand};

use crate::{
    cli::{
        complain,
        tls::{AuthorityFlags, Placement, authority, days, name, now, output, prepare},
    },
    tls::{
        authority::Issued,
        store::StoreError,
        x509::{
            lifetime::DAY,
            profile::{self, Place, Profile},
        },
    },
};

/// More certificates of one kind in one folder than this is a loop gone wrong.
const LAST_NUMBER: u32 = 99_999;

const HELP: &str = "\
Examples:
  causeway tls cert create --server --dc dc1 --node consul-1
  causeway tls cert create --client --dc dc1
  causeway tls cert create --agent --dc dc1 --node gateway-1 --owner causeway
  causeway tls cert create --cli --additional-dnsname ci.example.com

Writes DC-KIND-DOMAIN-N.pem and DC-KIND-DOMAIN-N-key.pem (mode 0600) with the first free number N.
Consul with verify_server_hostname takes a server only with `server.DC.DOMAIN`; datacenters federated
through mesh gateways need `NODE.server.DC.DOMAIN` too, which --node adds.";

/// Make a certificate of a CA
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  causeway tls cert create --server --node consul-1")]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Make a new certificate and its private key
    #[command(after_help = HELP)]
    Create(Box<CreateArgs>),
}

#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("kind").required(true).args(["server", "client", "cli", "agent"]))]
struct CreateArgs {
    /// For a Consul server
    #[arg(long)]
    server: bool,
    /// For a Consul client agent
    #[arg(long)]
    client: bool,
    /// For a person or a script that calls Consul's HTTPS API
    #[arg(long)]
    cli: bool,
    /// For a Causeway agent, beside services or beside a gateway
    #[arg(long)]
    agent: bool,
    /// The datacenter
    #[arg(long, default_value = "dc1", value_parser = name)]
    dc: String,
    /// Consul's domain
    #[arg(long, default_value = "consul", value_parser = name)]
    domain: String,
    /// The node's name, for --server and --agent
    #[arg(long, value_name = "NAME", value_parser = name)]
    node: Option<String>,
    /// For how many days it is valid; it ends with its CA at the latest [default: 365]
    #[arg(long, value_parser = days)]
    days: Option<u32>,
    /// One more DNS name; may be repeated
    #[arg(long, value_name = "NAME")]
    additional_dnsname: Vec<String>,
    /// One more IP address; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    additional_ipaddress: Vec<IpAddr>,
    /// [default: DOMAIN-agent-ca.pem and DOMAIN-agent-ca-key.pem in --dir]
    #[command(flatten)]
    authority: AuthorityFlags,
    #[command(flatten)]
    placement: Placement,
}

impl CreateArgs {
    fn profile(&self) -> Option<&'static Profile> {
        let kinds =
            [(self.server, "server"), (self.client, "client"), (self.cli, "cli"), (self.agent, "agent")];
        kinds.into_iter().find(|(is_asked, _)| *is_asked).and_then(|(_, name)| profile::named(name))
    }
}

pub(crate) fn run(args: &CertArgs) -> anyhow::Result<ExitCode> {
    let Command::Create(args) = &args.command;
    let Some(profile) = args.profile() else { bail!("say what the certificate is for, such as `--server`") };
    if args.node.is_some() && !profile.takes_node() {
        bail!("`--node` goes with `--server` and `--agent`: a {} certificate names no node", profile.name);
    }
    let place = Place { datacenter: args.dc.clone(), domain: args.domain.clone(), node: args.node.clone() };
    let mut names = profile.issued(&place);
    names.dns.extend(args.additional_dnsname.iter().cloned());
    names.addresses.extend(&args.additional_ipaddress);
    let beside = |ending: &str| args.placement.dir.join(format!("{}-agent-{ending}", args.domain));
    let ca = args.authority.ca.clone().unwrap_or_else(|| beside("ca.pem"));
    let key = args.authority.key.clone().unwrap_or_else(|| beside("ca-key.pem"));
    let signer = authority(&ca, &key)?;
    let days = args.days.map_or(profile.days, u64::from);
    let lifetime = DAY * u32::try_from(days).unwrap_or(u32::MAX);
    let issued = signer.issue(profile, &names, lifetime, now())?;
    prepare(&args.placement.dir)?;
    let (certificate, key) = save(args, &profile.file_stem(&place), &issued)?;
    output::tell(&[&certificate, &key])?;
    if let Some(caution) = &profile.caution {
        complain(&format!("note: {caution}"));
    }
    if issued.is_cut_short {
        let end = issued.certificate.not_after;
        complain(&format!("warning: it ends on {end}, with its CA: make a new CA soon and roll over to it"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes the first number that no file has, as `consul tls` does.
fn save(args: &CreateArgs, stem: &str, issued: &Issued) -> anyhow::Result<(PathBuf, PathBuf)> {
    for number in 0..=LAST_NUMBER {
        let file = |ending: &str| args.placement.dir.join(format!("{stem}-{number}{ending}"));
        let (certificate, key) = (file(".pem"), file("-key.pem"));
        if certificate.exists() || key.exists() {
            continue;
        }
        match output::save(&args.placement, &certificate, &key, issued) {
            // Somebody was faster.
            Err(StoreError::Exists { .. }) => {}
            done => return done.map(|()| (certificate, key)).map_err(Into::into),
        }
    }
    bail!("{} is full of {stem} files; move old ones away", args.placement.dir.display())
}

//! `causeway tls ca create`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::{
    cli::tls::{Placement, days, name, now, output, prepare},
    tls::{
        authority::{Authority, NewAuthority},
        x509::lifetime::DAY,
    },
};

const HELP: &str = "\
Examples:
  causeway tls ca create
  causeway tls ca create --domain consul --name-constraint --additional-name-constraint ui.example.com

Writes DOMAIN-agent-ca.pem, which every agent gets, and DOMAIN-agent-ca-key.pem (mode 0600), which stays
where certificates are made. Files that are there already are never replaced.";

/// Make a CA for Consul's certificates
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  causeway tls ca create --dir ca")]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Make a new CA: its certificate and its private key
    #[command(after_help = HELP)]
    Create(CreateArgs),
}

#[derive(Args, Clone, Debug)]
struct CreateArgs {
    /// For how many days it is valid
    #[arg(long, default_value = "1825", value_parser = days)]
    days: u32,
    /// Consul's domain
    #[arg(long, default_value = "consul", value_parser = name)]
    domain: String,
    /// Let it issue only for names below the domain and localhost; this cannot be changed later
    #[arg(long)]
    name_constraint: bool,
    /// One more name below which it may issue, such as that of Consul's UI; may be repeated
    #[arg(long, value_name = "NAME", value_parser = name, requires = "name_constraint")]
    additional_name_constraint: Vec<String>,
    #[command(flatten)]
    placement: Placement,
}

pub(crate) fn run(args: &CaArgs) -> anyhow::Result<ExitCode> {
    let Command::Create(args) = &args.command;
    let mut request = NewAuthority { lifetime: DAY * args.days, constraints: Vec::new() };
    if args.name_constraint {
        request.constraints = vec![args.domain.clone(), "localhost".into()];
        request.constraints.extend(args.additional_name_constraint.iter().cloned());
    }
    let (_, issued) = Authority::create(&request, now())?;
    prepare(&args.placement.dir)?;
    let certificate = args.placement.dir.join(format!("{}-agent-ca.pem", args.domain));
    let key = args.placement.dir.join(format!("{}-agent-ca-key.pem", args.domain));
    output::save(&args.placement, &certificate, &key, &issued)?;
    output::tell(&[&certificate, &key])?;
    Ok(ExitCode::SUCCESS)
}

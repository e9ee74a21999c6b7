//! The command line: one file per command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod demo;
pub mod lab;

/// Live Envoy configuration from a Consul catalog that spans several datacenters
#[derive(Debug, Parser)]
#[command(name = "causeway", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring up a lab of two federated datacenters on this machine
    Lab(lab::Args),
    #[command(hide = true)]
    Demo(demo::Args),
}

/// Runs the command.
///
/// Errors: as the command says.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Lab(args) => Box::pin(lab::run(args)).await,
        Command::Demo(args) => demo::run(args).await,
    }
}

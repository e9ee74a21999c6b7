//! `causeway sync`: how replication stands, whether two datacenters hold the same, and the orders that people give it.
//!
//! This file asks the agent; `document` and `compare` decide, purely.

mod compare;
mod document;
mod verify;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;

use crate::cli::{
    endpoint::{DEADLINE, Endpoint, EndpointFlags},
    print,
    sync::document::Document,
};

/// Some prefix is not served or not followed.
const EXIT_NOT_SYNCED: u8 = 3;

const HELP: &str = "\
Examples:
  causeway sync status
  causeway sync verify --with dc2
  causeway sync diff --with dc2 config/
  causeway sync approve config/";

const STATUS_HELP: &str = "\
Examples:
  causeway sync status
  causeway sync status --json

Exit codes: 0 when every prefix is served or followed; 1 when the agent cannot be asked; 2 for a
wrong command line; 3 when a prefix is on hold, not followed or not served.";

const APPROVE_HELP: &str = "\
Example:
  causeway sync approve config/

Ends the hold of a replica whose home was restored, or which would lose many keys: look at
`causeway sync diff` first. Keys that the home does not have are deleted here. Needs a token with
operator = \"write\". Exit codes: 0 done; 1 the agent refused or cannot be asked; 2 for a wrong
command line.";

const RESYNC_HELP: &str = "\
Example:
  causeway sync resync config/

Needs a token with operator = \"write\". Exit codes: 0 it began; 1 the agent refused or cannot be
asked; 2 for a wrong command line.";

/// Show how replication stands, compare datacenters, and end a hold
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct SyncArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Per prefix: its home, who does the work, how far it is
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Tell whether two datacenters hold the same keys and values
    #[command(after_help = verify::VERIFY_HELP)]
    Verify(verify::VerifyArgs),
    /// List the keys in which two datacenters differ
    #[command(after_help = verify::DIFF_HELP)]
    Diff(verify::VerifyArgs),
    /// Let a replica that is on hold take the home's data as it is
    #[command(after_help = APPROVE_HELP)]
    Approve(OrderArgs),
    /// Have a replica compare all its data with the home's
    #[command(after_help = RESYNC_HELP)]
    Resync(OrderArgs),
}

#[derive(Args, Clone, Debug)]
struct StatusArgs {
    /// Print the agent's document as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    endpoint: EndpointFlags,
}

#[derive(Args, Clone, Debug)]
struct OrderArgs {
    /// The prefix, as it is configured
    prefix: String,
    /// The datacenter whose replica is meant [default: the agent's own]
    #[arg(long, value_name = "DC")]
    datacenter: Option<String>,
    #[command(flatten)]
    endpoint: EndpointFlags,
}

/// Runs the command.
pub async fn run(args: SyncArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Status(args) => status(&args, env).await,
        Command::Verify(args) => verify::run(&args, verify::Detail::Sum, env).await,
        Command::Diff(args) => verify::run(&args, verify::Detail::Keys, env).await,
        Command::Approve(args) => order("approve", &args, env).await,
        Command::Resync(args) => order("resync", &args, env).await,
    }
}

async fn status(args: &StatusArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let (body, document) = ask(&args.endpoint.endpoint(env)?).await?;
    if args.json {
        let json: serde_json::Value = serde_json::from_slice(&body).context("read the status")?;
        print(&format!("{json:#}\n")).context("write to standard output")?;
    } else {
        print(&document.table()).context("write to standard output")?;
    }
    Ok(if document.is_synced() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_SYNCED) })
}

/// The agent's status, as it is and as it is understood.
async fn ask(endpoint: &Endpoint) -> anyhow::Result<(Bytes, Document)> {
    let answer = endpoint.get("/v1/sync/status", &[], DEADLINE).await?.ok()?;
    let document = serde_json::from_slice(&answer.body).with_context(|| {
        format!(
            "read /v1/sync/status; is it a causeway agent of this version ({})?",
            env!("CARGO_PKG_VERSION")
        )
    })?;
    Ok((answer.body, document))
}

async fn order(
    act: &str,
    args: &OrderArgs,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<ExitCode> {
    let endpoint = args.endpoint.endpoint(env)?;
    let mut query = vec![("prefix", Some(args.prefix.as_str()))];
    query.extend(args.datacenter.as_deref().map(|datacenter| ("dc", Some(datacenter))));
    let path = format!("/v1/sync/{act}");
    endpoint.ask(Method::POST, &path, &query, &[], Bytes::new()).await?.ok()?;
    print(&format!("{act}: the order for {} was taken; see `causeway sync status`\n", args.prefix))
        .context("write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

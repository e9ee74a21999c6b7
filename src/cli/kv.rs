//! `causeway kv`: keys and values through the agent, with the flags of `consul kv`.
//!
//! Keys below a replicated prefix are read here and written at their home; all others are those of the local Consul. One
//! file per command; `shown` is what pairs look like.

mod delete;
mod export;
mod get;
mod import;
mod list;
mod put;
mod shown;
mod watch;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::endpoint::{Answer, EndpointFlags};

const HELP: &str = "\
Examples:
  causeway kv put config/greeting hello
  causeway kv get config/greeting
  causeway kv export config/ > config.json

Flags are those of `consul kv`, with two dashes, and files those of `consul kv export`.";

/// Read, write, watch and copy keys, wherever their home is
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct KvArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    Get(get::GetArgs),
    Put(put::PutArgs),
    Delete(delete::DeleteArgs),
    List(list::ListArgs),
    Watch(watch::WatchArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
}

/// Where a read is answered.
#[derive(Args, Clone, Debug)]
struct ReadFlags {
    /// The datacenter to read in [default: the agent's own]
    #[arg(long, value_name = "DC")]
    datacenter: Option<String>,
    /// Let any Consul server answer, however old what it knows is
    #[arg(long, conflicts_with = "consistent")]
    stale: bool,
    /// Ask the key's home, which makes sure that nothing is newer
    #[arg(long)]
    consistent: bool,
    #[command(flatten)]
    endpoint: EndpointFlags,
}

impl ReadFlags {
    fn query(&self) -> Vec<(&str, Option<&str>)> {
        let mut query = Vec::new();
        query.extend(self.datacenter.as_deref().map(|dc| ("dc", Some(dc))));
        query.extend(self.stale.then_some(("stale", None)));
        query.extend(self.consistent.then_some(("consistent", None)));
        query
    }
}

/// How a write is sent.
#[derive(Args, Clone, Debug)]
struct WriteFlags {
    /// The datacenter to write in: of a replicated key only its home is taken [default: where the key is at home]
    #[arg(long, value_name = "DC")]
    datacenter: Option<String>,
    #[command(flatten)]
    endpoint: EndpointFlags,
}

/// How one write is sent, which may be sent again.
#[derive(Args, Clone, Debug)]
struct OneWriteFlags {
    #[command(flatten)]
    each: WriteFlags,
    /// The id of a request whose outcome is unknown: it is executed once at most, however often it is sent
    #[arg(long, value_name = "ID", help_heading = "Options")]
    request_id: Option<String>,
}

impl WriteFlags {
    fn query(&self) -> Vec<(&str, Option<&str>)> {
        self.datacenter.as_deref().map(|dc| ("dc", Some(dc))).into_iter().collect()
    }
}

impl OneWriteFlags {
    fn headers(&self) -> Vec<(&'static str, &str)> {
        self.request_id.as_deref().map(|id| ("x-sync-request-id", id)).into_iter().collect()
    }
}

/// Runs the command.
pub async fn run(args: KvArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Get(args) => get::run(&args, env).await,
        Command::Put(args) => put::run(&args, env).await,
        Command::Delete(args) => delete::run(&args, env).await,
        Command::List(args) => list::run(&args, env).await,
        Command::Watch(args) => watch::run(&args, env).await,
        Command::Import(args) => import::run(&args, env).await,
        Command::Export(args) => export::run(&args, env).await,
    }
}

/// A key as it was typed: a leading slash names the same key, as with `consul kv`.
fn key(typed: &str) -> &str {
    typed.trim_start_matches('/')
}

/// What a person should know of a write that was done.
fn remark(answer: &Answer) -> Option<&'static str> {
    let is_late = answer.header("x-sync-applied") == Some("false");
    is_late.then_some("causeway: it is written at its home; the replica here does not have it yet")
}

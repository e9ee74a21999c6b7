//! `causeway kv list`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::cli::{
    endpoint::{DEADLINE, Endpoint, key_path},
    kv::{ReadFlags, key},
    print,
};

const HELP: &str = "\
Examples:
  causeway kv list
  causeway kv list config/
  causeway kv list --separator=/ config/

Exit codes: 0 done, also when there are none; 1 the agent cannot be asked; 2 for a wrong command
line.";

/// Print the keys below a prefix
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct ListArgs {
    /// What the keys begin with [default: all]
    #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Fold what is behind the next one of these
    #[arg(long)]
    separator: Option<String>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadFlags,
}

pub(crate) async fn run(args: &ListArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let endpoint = args.read.endpoint.endpoint(env)?;
    keys(&endpoint, key(&args.prefix), args.separator.as_deref(), args.json, &args.read).await
}

/// Prints the keys that begin so.
pub(crate) async fn keys(
    endpoint: &Endpoint,
    prefix: &str,
    separator: Option<&str>,
    is_json: bool,
    read: &ReadFlags,
) -> anyhow::Result<ExitCode> {
    let mut query = read.query();
    query.push(("keys", None));
    query.extend(separator.filter(|it| !it.is_empty()).map(|it| ("separator", Some(it))));
    let answer = endpoint.get(&key_path(prefix), &query, DEADLINE).await?;
    let keys: Vec<String> = if answer.is_nothing() {
        Vec::new()
    } else {
        serde_json::from_slice(&answer.ok()?.body).context("read the list of keys")?
    };
    let text = if is_json {
        format!("{}\n", serde_json::to_string_pretty(&keys)?)
    } else {
        keys.iter().map(|key| format!("{key}\n")).collect()
    };
    print(&text).context("write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

//! `causeway kv delete`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http::Method;
use serde_json::json;

use crate::cli::{
    complain,
    endpoint::key_path,
    kv::{OneWriteFlags, key, remark},
    print,
};

const HELP: &str = "\
Examples:
  causeway kv delete config/greeting
  causeway kv delete --recurse config/old/
  causeway kv delete --cas --modify-index=7 config/greeting

Exit codes: 0 it is not there any more; 1 the key was changed meanwhile (--cas), or the agent
refused or cannot be asked; 2 for a wrong command line.";

/// Delete a key, or all below a prefix
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct DeleteArgs {
    /// The key, or with --recurse what keys begin with
    #[arg(value_name = "KEY_OR_PREFIX")]
    key: String,
    /// All keys that begin so
    #[arg(long, conflicts_with = "cas")]
    recurse: bool,
    /// Only if the key's index is still that of --modify-index
    #[arg(long, requires = "modify_index")]
    cas: bool,
    /// The index that the key must have, at least 1
    #[arg(long, value_name = "INDEX", requires = "cas", value_parser = clap::value_parser!(u64).range(1..))]
    modify_index: Option<u64>,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    write: OneWriteFlags,
}

pub(crate) async fn run(args: &DeleteArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let endpoint = args.write.each.endpoint.endpoint(env)?;
    let key = key(&args.key);
    if key.is_empty() && !args.recurse {
        bail!("no key is given; to delete all keys use --recurse");
    }
    let index = args.modify_index.map(|index| index.to_string());
    let mut query = args.write.each.query();
    query.extend(args.recurse.then_some(("recurse", None)));
    query.extend(args.cas.then_some(("cas", index.as_deref())));
    let headers = args.write.headers();
    let answer = endpoint.ask(Method::DELETE, &key_path(key), &query, &headers, Bytes::new()).await?.ok()?;
    let is_done = match answer.body.trim_ascii() {
        b"true" => true,
        b"false" => false,
        _ => bail!("the agent did not say whether {key} was deleted"),
    };
    let text = match (args.json, is_done) {
        (true, _) => {
            format!("{}\n", json!({"key": key, "deleted": is_done, "seq": answer.header("x-sync-seq")}))
        }
        (false, false) => bail!("did not delete {key}: its index is another one"),
        (false, true) if args.recurse => format!("Success! Deleted keys with prefix: {key}\n"),
        (false, true) => format!("Success! Deleted key: {key}\n"),
    };
    print(&text).context("write to standard output")?;
    remark(&answer).into_iter().for_each(complain);
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

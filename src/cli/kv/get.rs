//! `causeway kv get`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use tokio::sync::mpsc;

use crate::{
    cli::{
        endpoint::{DEADLINE, Endpoint, key_path},
        kv::{ReadFlags, key, list, shown},
        print,
    },
    consul::wire,
    model::kv::Pair,
};

const HELP: &str = "\
Examples:
  causeway kv get config/greeting
  causeway kv get --recurse config/
  causeway kv get --keys --separator=/ config/

Exit codes: 0 found, or a tree that may be empty; 1 no such key, or the agent cannot be asked;
2 for a wrong command line.";

/// Print a value, or the pairs below a prefix
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct GetArgs {
    /// The key, or with --recurse or --keys what keys begin with
    #[arg(value_name = "KEY_OR_PREFIX", default_value = "", hide_default_value = true)]
    key: String,
    /// All pairs that begin so
    #[arg(long)]
    recurse: bool,
    /// Only the keys that begin so
    #[arg(long, conflicts_with = "recurse")]
    keys: bool,
    /// With --keys: fold what is behind the next one of these
    #[arg(long, default_value = "/", requires = "keys")]
    separator: String,
    /// Print values in Base64
    #[arg(long)]
    base64: bool,
    /// Print indexes, flags and session too
    #[arg(long)]
    detailed: bool,
    /// Print Consul's JSON, values in Base64
    #[arg(long, conflicts_with_all = ["base64", "detailed"])]
    json: bool,
    #[command(flatten)]
    read: ReadFlags,
}

pub(crate) async fn run(args: &GetArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let endpoint = args.read.endpoint.endpoint(env)?;
    if args.keys {
        return list::keys(&endpoint, key(&args.key), Some(&args.separator), args.json, &args.read).await;
    }
    if args.recurse {
        return tree(&endpoint, args).await;
    }
    if key(&args.key).is_empty() {
        bail!("no key is given; name one, or use --recurse or --keys");
    }
    let answer = endpoint.get(&key_path(key(&args.key)), &args.read.query(), DEADLINE).await?;
    if answer.is_nothing() {
        bail!("no key exists at {}", key(&args.key));
    }
    let pair = wire::kv::only(&answer.ok()?.body)?;
    let mut out = io::stdout().lock();
    let written = match (args.json, args.detailed) {
        (true, _) => writeln!(out, "{}", serde_json::to_string_pretty(&shown::Json::from(&pair))?),
        (false, true) => write!(out, "{}", shown::detailed(&pair, args.base64)),
        (false, false) if args.base64 => writeln!(out, "{}", shown::value(&pair, true)),
        // The bytes as they are: a value need not be text.
        (false, false) => out.write_all(&pair.value).and_then(|()| writeln!(out)),
    };
    written.context("write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

async fn tree(endpoint: &Endpoint, args: &GetArgs) -> anyhow::Result<ExitCode> {
    let (pages, mut coming) = mpsc::channel::<Vec<Pair>>(4);
    let query = args.read.query();
    let show = async {
        let mut place = 0_u64;
        while let Some(page) = coming.recv().await {
            let mut text = String::new();
            for pair in &page {
                text.push_str(&shown_in_tree(pair, args, place)?);
                place += 1;
            }
            print(&text).context("write to standard output")?;
        }
        if args.json {
            print(if place == 0 { "[]\n" } else { "\n]\n" }).context("write to standard output")?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let (scanned, shown) = tokio::join!(endpoint.scan(key(&args.key), &query, DEADLINE, pages), show);
    shown?;
    scanned?;
    Ok(ExitCode::SUCCESS)
}

fn shown_in_tree(pair: &Pair, args: &GetArgs, place: u64) -> anyhow::Result<String> {
    Ok(match (args.json, args.detailed) {
        (true, _) => {
            let before = if place == 0 { "[\n" } else { ",\n" };
            format!("{before}{}", serde_json::to_string(&shown::Json::from(pair))?)
        }
        (false, true) => {
            let before = if place == 0 { "" } else { "\n" };
            format!("{before}{}", shown::detailed(pair, args.base64))
        }
        (false, false) => format!("{}:{}\n", pair.key, shown::value(pair, args.base64)),
    })
}

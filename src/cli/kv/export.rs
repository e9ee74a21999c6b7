//! `causeway kv export`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::sync::mpsc;

use crate::{
    cli::{
        endpoint::DEADLINE,
        kv::{ReadFlags, key, shown::Entry},
        print,
        progress::Progress,
    },
    model::kv::Pair,
};

const HELP: &str = "\
Examples:
  causeway kv export config/ > config.json
  causeway kv export --consistent > all.json

`consul kv import` reads it too. What was cut off by an error ends without the closing bracket, so
that nobody takes it for all. Exit codes: 0 done; 1 the agent cannot be asked or the list ended
early; 2 for a wrong command line.";

/// Print all pairs below a prefix as JSON, for `import`
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct ExportArgs {
    /// What the keys begin with [default: all]
    #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    #[command(flatten)]
    read: ReadFlags,
}

pub(crate) async fn run(args: &ExportArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let endpoint = args.read.endpoint.endpoint(env)?;
    let (pages, mut coming) = mpsc::channel::<Vec<Pair>>(4);
    let query = args.read.query();
    let write = async {
        let mut is_first = true;
        let mut progress = Progress::beside_output("keys");
        while let Some(page) = coming.recv().await {
            let mut text = String::new();
            for pair in &page {
                text.push_str(if is_first { "[\n" } else { ",\n" });
                text.push_str(&indented(&serde_json::to_string_pretty(&Entry::of(pair))?));
                is_first = false;
            }
            print(&text).context("write to standard output")?;
            progress.advance(page.len() as u64);
        }
        Ok::<_, anyhow::Error>(is_first)
    };
    let (scanned, written) = tokio::join!(endpoint.scan(key(&args.prefix), &query, DEADLINE, pages), write);
    let is_empty = written?;
    scanned?;
    print(if is_empty { "[]\n" } else { "\n]\n" }).context("write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// By a tab, and its own steps by tabs too, as `consul kv export` writes it.
fn indented(json: &str) -> String {
    let lines: Vec<String> = json.lines().map(|line| format!("\t{}", line.replacen("  ", "\t", 1))).collect();
    lines.join("\n")
}

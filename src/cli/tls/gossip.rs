//! `causeway tls gossip`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde_json::json;

use crate::{
    cli::{print, tls::output},
    tls::{
        gossip,
        owner::Owner,
        store::{self, KEY_MODE},
    },
};

const HELP: &str = "\
Examples:
  causeway tls gossip
  causeway tls gossip --out /etc/consul.d/gossip.json --owner consul

One key for all datacenters that are federated. To change it later, use `consul keyring`.";

/// Make a key that encrypts Consul's gossip, like `consul keygen`
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct GossipArgs {
    /// Write a file for Consul's configuration folder (mode 0600) instead of showing the key
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
    /// Who the file belongs to [default: who runs this]
    #[arg(long, value_name = "USER[:GROUP]", value_parser = Owner::parse, requires = "out")]
    owner: Option<Owner>,
}

pub(crate) fn run(args: &GossipArgs) -> anyhow::Result<ExitCode> {
    let key = gossip::key().map_err(|_| anyhow!("make a gossip key: the system gave no randomness"))?;
    match &args.out {
        None => print(&format!("{}\n", key.expose())).context("write to standard output")?,
        Some(path) if path.extension().is_some_and(|ending| ending == "json") => {
            let text = format!("{:#}\n", json!({"encrypt": key.expose()}));
            store::create(path, &text, KEY_MODE, args.owner)?;
            output::tell(&[path])?;
        }
        Some(path) => bail!("{}: Consul reads it as JSON; name a file that ends in .json", path.display()),
    }
    Ok(ExitCode::SUCCESS)
}

//! `causeway proxy ready`: what follows an Envoy's start.

use std::{process::ExitCode, time::Duration};

use anyhow::{anyhow, bail};
use clap::Args;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    cli::proxy::{
        EnvoyFlags, duration,
        maintenance::{Holder, Maintenance},
    },
    envoy::{
        admin::{Admin, AdminError},
        work,
    },
    lifecycle,
};

pub(super) const HELP: &str = "\
Examples:
  causeway proxy ready --admin 127.0.0.1:19001 --wait 30s
  causeway proxy ready web-sidecar-proxy --admin 127.0.0.1:19001

Exit codes: 0 when Envoy serves; 1 when it does not within --wait, or Consul cannot be told; 2 for a
wrong command line.";

/// Envoy is up within a tenth of a second; its configuration arrives in about as much.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Consul may just be starting again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Args, Clone, Debug)]
pub(super) struct ReadyArgs {
    #[command(flatten)]
    envoy: EnvoyFlags,
    /// Give up after this long [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    wait: Option<Duration>,
}

pub(super) async fn run(args: ReadyArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let until = args.wait.map(|wait| lifecycle::now() + wait);
    until_serving(&args.envoy.admin(), until).await?;
    // The bootstrap with its token is there only now.
    if let Some(maintenance) = args.envoy.maintenance(env)? {
        end(&maintenance, until).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn until_serving(admin: &Admin, until: Option<Instant>) -> anyhow::Result<()> {
    loop {
        let problem = match serves(admin).await {
            Ok(true) => break,
            Ok(false) => anyhow!("Envoy has no listener yet"),
            Err(error) => error.into(),
        };
        if is_over(until) {
            return Err(problem.context("Envoy does not serve; `causeway proxy status` says why"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    info!("Envoy serves");
    Ok(())
}

async fn serves(admin: &Admin) -> Result<bool, AdminError> {
    admin.get("/ready").await?;
    Ok(work::serves(&admin.stats(work::LISTENERS).await?))
}

async fn end(maintenance: &Maintenance, until: Option<Instant>) -> anyhow::Result<()> {
    let mut is_told = false;
    loop {
        match maintenance.end().await {
            Ok(Holder::Nobody) => return Ok(()),
            Ok(Holder::Us) => {
                info!("ended the maintenance that the drain began");
                return Ok(());
            }
            Ok(Holder::SomebodyElse) => {
                warn!("the proxy stays in maintenance, which somebody else began; `consul maint` tells more");
                return Ok(());
            }
            Err(error) if is_over(until) => bail!(error),
            Err(error) if !is_told => warn!("asking again: {error:#}"),
            Err(_) => {}
        }
        is_told = true;
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn is_over(until: Option<Instant>) -> bool {
    until.is_some_and(|until| lifecycle::now() >= until)
}

//! `causeway proxy drain`: what comes before an Envoy's end.
//!
//! Others are sent elsewhere first, while Envoy still takes whoever comes; then HTTP clients are asked to leave; then,
//! when nothing is under way, the listeners close. What still came in between is waited for as well.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Args;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    cli::proxy::{EnvoyFlags, duration, maintenance::Maintenance},
    envoy::{
        admin::{Admin, AdminError},
        work::{FILTER, Work},
    },
    lifecycle,
};

pub(super) const HELP: &str = "\
Examples:
  causeway proxy drain web-sidecar-proxy --admin 127.0.0.1:19001 --wait 30s
  causeway proxy drain --admin 127.0.0.1:19000 --wait 5s

With an id, the Envoy must be that proxy's own, and the proxy is put into Consul's maintenance mode
first, so that other proxies choose another instance or gateway; `causeway proxy ready` ends that,
or `consul maint -disable -service=ID`. When Consul cannot be told, the drain goes on without. Idle
HTTP connections are not waited for.

Exit codes: 0 when nothing is left to do; 1 when Envoy cannot be asked, or is another proxy's;
2 for a wrong command line; 3 when requests or connections are left after --wait.";

/// Something was still under way at the end.
const EXIT_LEFT_OVER: u8 = 3;

const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long whoever came just before the listeners closed is waited for, whatever `--wait` says.
const STRAGGLERS: Duration = Duration::from_secs(1);

#[derive(Args, Clone, Debug)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    envoy: EnvoyFlags,
    /// The longest wait for requests and connections to end
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    wait: Duration,
    /// How long other proxies take to hear of the maintenance, also those of other datacenters
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    settle: Duration,
}

pub(super) async fn run(args: DrainArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let admin = args.envoy.admin();
    let until = lifecycle::now() + args.wait;
    // Nobody is sent elsewhere for an Envoy that is not there, and no other proxy's is drained.
    if let Some(problem) = args.envoy.mismatch(&admin).await? {
        bail!("nothing is drained: {problem}");
    }
    if is_elsewhere(args.envoy.maintenance(env)).await {
        tokio::time::sleep(args.settle.min(args.wait)).await;
    }
    // From here on Envoy's HTTP answers close their connections, and its readiness page fails.
    admin.post("/healthcheck/fail").await?;
    until_idle(&admin, until).await?;
    admin.post("/drain_listeners").await?;
    let left = until_idle(&admin, until.max(lifecycle::now() + STRAGGLERS)).await?;
    if left.is_none() {
        info!("drained");
        return Ok(ExitCode::SUCCESS);
    }
    warn!(requests = left.requests, connections = left.connections, "not drained in time; these will be cut");
    Ok(ExitCode::from(EXIT_LEFT_OVER))
}

/// Whether others are being sent elsewhere. A drain without that is better than none.
async fn is_elsewhere(maintenance: anyhow::Result<Option<Maintenance>>) -> bool {
    let begun = match maintenance {
        Ok(None) => return false,
        Ok(Some(maintenance)) => maintenance.begin().await,
        Err(error) => Err(error),
    };
    match begun {
        Ok(()) => true,
        Err(error) => {
            warn!(error = format!("{error:#}"), "others are not sent elsewhere while this proxy drains");
            false
        }
    }
}

/// Waits until nothing is under way, or the time is over; gives what is left.
async fn until_idle(admin: &Admin, until: Instant) -> Result<Work, AdminError> {
    loop {
        let work = Work::read(&admin.stats(FILTER).await?);
        if work.is_none() || lifecycle::now() >= until {
            return Ok(work);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

//! `causeway proxy ready`: what follows an Envoy's start.

use std::{process::ExitCode, time::Duration};

use anyhow::{anyhow, bail};
use clap::Args;
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
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

With an id, the Envoy must be that proxy's own, and the maintenance that `causeway proxy drain`
began is ended. When Consul cannot be told for a minute, that is left to
`consul maint -disable -service=ID`.

Exit codes: 0 when Envoy serves; 1 when it does not within --wait, has ended, or Consul cannot be
told within --wait; 2 for a wrong command line.";

/// Envoy is up within a tenth of a second; its configuration arrives in about as much.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Consul may just be starting again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Envoy serves already: what starts it must not wait for ever for a Consul that is perhaps not where it is looked for.
const ASK_FOR: Duration = Duration::from_secs(60);

#[derive(Args, Clone, Debug)]
pub(super) struct ReadyArgs {
    #[command(flatten)]
    envoy: EnvoyFlags,
    /// Give up after this long [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    wait: Option<Duration>,
    /// Give up when this process, Envoy or what is to become it, has ended
    #[arg(long)]
    pid: Option<u32>,
}

pub(super) async fn run(args: ReadyArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let limit = Limit { until: args.wait.map(|wait| lifecycle::now() + wait), pid: args.pid };
    until_serving(&args.envoy, limit).await?;
    // The bootstrap with its token is there only now.
    if let Some(maintenance) = args.envoy.maintenance(env)? {
        end(&maintenance, limit).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn until_serving(envoy: &EnvoyFlags, limit: Limit) -> anyhow::Result<()> {
    let admin = envoy.admin();
    let mut is_told = false;
    loop {
        let problem = match state(envoy, &admin).await {
            Ok(State::Serves) => break,
            Ok(State::NoListener) => anyhow!("Envoy has no listener yet"),
            Ok(State::Another(problem)) => {
                if !is_told {
                    warn!(
                        error = problem,
                        "another Envoy answers at this admin address; waiting for the one that was named"
                    );
                    is_told = true;
                }
                anyhow!(problem)
            }
            Err(error) => error.into(),
        };
        if limit.is_reached() {
            return Err(problem.context("Envoy does not serve; `causeway proxy status` says why"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    info!("Envoy serves");
    Ok(())
}

/// What answers as Envoy.
enum State {
    Serves,
    NoListener,
    /// It is another proxy's; what is wrong.
    Another(String),
}

async fn state(envoy: &EnvoyFlags, admin: &Admin) -> Result<State, AdminError> {
    if let Some(problem) = envoy.mismatch(admin).await? {
        return Ok(State::Another(problem));
    }
    admin.get("/ready").await?;
    let has_listeners = work::serves(&admin.stats(work::LISTENERS).await?);
    Ok(if has_listeners { State::Serves } else { State::NoListener })
}

async fn end(maintenance: &Maintenance, limit: Limit) -> anyhow::Result<()> {
    let until = lifecycle::now() + ASK_FOR;
    let mut is_told = false;
    loop {
        match maintenance.end().await {
            Ok(Holder::Nobody) => return Ok(()),
            Ok(Holder::Us) => {
                info!("ended the maintenance that the drain began");
                return Ok(());
            }
            Ok(Holder::SomebodyElse) => {
                warn!("the proxy stays in maintenance, which somebody else began; consul maint tells more");
                return Ok(());
            }
            Err(error) if limit.is_reached() => bail!(error),
            Err(error) if lifecycle::now() >= until => {
                warn!(
                    error = format!("{error:#}"),
                    remedy = maintenance.remedy(),
                    "Consul not told that the proxy serves; if it was drained, it stays in maintenance"
                );
                return Ok(());
            }
            Err(error) if !is_told => {
                warn!(error = format!("{error:#}"), "maintenance not ended yet, asking Consul again")
            }
            Err(_) => {}
        }
        is_told = true;
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// When the wait is over.
#[derive(Clone, Copy)]
struct Limit {
    until: Option<Instant>,
    pid: Option<u32>,
}

impl Limit {
    fn is_reached(self) -> bool {
        self.pid.is_some_and(is_gone) || self.until.is_some_and(|until| lifecycle::now() >= until)
    }
}

/// Asked by a signal that does nothing: a sandbox hides in /proc what runs in another user namespace.
fn is_gone(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::consul::{ConsulAddress, ConsulSettings};

    #[tokio::test(start_paused = true)]
    async fn a_consul_that_is_not_there_is_asked_for_a_minute_and_no_longer() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = ConsulAddress::Http { authority: closed.to_string() };
        let settings = ConsulSettings { address, ..ConsulSettings::default() };
        let maintenance = Maintenance::of("web-sidecar-proxy", settings).unwrap();
        let begun = lifecycle::now();
        let forever = Limit { until: None, pid: None };
        tokio::time::timeout(ASK_FOR * 3, end(&maintenance, forever)).await.unwrap().unwrap();
        assert!(begun.elapsed() >= ASK_FOR, "{:?}", begun.elapsed());
    }
}

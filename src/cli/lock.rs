//! `causeway lock`: a command under a lock that holds in all datacenters.
//!
//! `guard` runs it, `client` speaks with the agent, `child` is the command. When to renew and when the lock is lost is
//! decided in `sync::lock::lease`.

mod child;
mod client;
mod guard;

use std::{ffi::OsString, fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;

use self::{client::Client, guard::Plan};
use crate::{
    cli::{EXIT_NO_INPUT, duration, fail},
    lifecycle,
    model::secret::SecretText,
    sync::lock::wire::{AcquireBody, MAX_HOLDERS, MAX_LOCK_DELAY, TTL},
};

/// The lock was another's for all of `--wait`: `EX_TEMPFAIL` of sysexits(3).
const EXIT_HELD: u8 = 75;
/// The lock was lost while the command ran: `EX_PROTOCOL` of sysexits(3), which no command is likely to use itself.
const EXIT_LOST: u8 = 76;

const HELP: &str = "\
Examples:
  causeway lock locks/deploy -- ./deploy.sh
  causeway lock locks/deploy --wait 0 -- ./deploy.sh || test $? -eq 75
  causeway lock locks/batch --n 3 --ttl 30s -- ./batch.sh
  causeway lock locks/deploy -- sh -c 'curl -T new.json -H \"X-Lock: $CAUSEWAY_LOCK_NAME\" \\
      -H \"X-Lock-Token: $CAUSEWAY_LOCK_TOKEN\" http://127.0.0.1:18500/v1/kv/locks/deploy-state'

The command finds the token in CAUSEWAY_LOCK_TOKEN and the key that is held in CAUSEWAY_LOCK_NAME.
When the lock is lost the command gets SIGTERM and, after --grace, SIGKILL: sooner when others may
have the lock from then on, which is --lock-delay after the end of the TTL, or after the last
renewal when the home says that the lock is lost; at once when this process was paused past the
TTL. SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to the command. An ACL
token is taken from --token-file or the CONSUL_HTTP_TOKEN and CONSUL_HTTP_TOKEN_FILE variables.

`consul lock P` holds the key P/.lock: name that key to exclude its holders. Semaphores of the two
never meet.

Exit codes: that of the command, or 128 and the number of the signal that ended it; 126 when the
command cannot be started, 127 when it is not there; 75 when the lock was another's for all of
--wait; 76 when the lock was lost and the command stopped for it; 69 when the agent or the lock's
home could not be asked in time; 66 when the token file cannot be read; 2 for a wrong command
line; 1 when the request was refused, and for all else that goes wrong.";

/// Run a command while holding a lock that excludes holders in every datacenter
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct LockArgs {
    /// The lock's key, below a replicated prefix
    #[arg(value_parser = name)]
    name: String,
    /// How long the lock outlives this process at least: it is renewed at a third of this
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = ttl)]
    ttl: Duration,
    /// The longest wait for the lock; 0 to try once [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    wait: Option<Duration>,
    /// So many may hold it at a time; all who use this lock give the same number
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_HOLDERS)))]
    n: u32,
    /// The longest time from SIGTERM to SIGKILL when the lock is lost
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    grace: Duration,
    /// How long the lock stays closed to others after this process was lost
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = lock_delay)]
    lock_delay: Duration,
    /// Who holds it, as others see it [default: the host's name and the process id]
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,
    /// The causeway agent's HTTP interface
    #[arg(long, value_name = "URL", env = "CAUSEWAY_HTTP_ADDR", default_value = "http://127.0.0.1:18500", value_parser = agent)]
    http_addr: String,
    /// File that holds the ACL token [env: CONSUL_HTTP_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command under the lock.
///
/// # Errors
/// The lock was refused, or signals cannot be listened to.
pub async fn run(args: LockArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let token = match token(args.token_file.as_ref(), env) {
        Ok(token) => token,
        Err(error) => return Ok(fail(EXIT_NO_INPUT, &error)),
    };
    let ms = |time: Duration| Some(format!("{}ms", time.as_millis()));
    let body = AcquireBody {
        ttl: ms(args.ttl),
        wait: None,
        lock_delay: ms(args.lock_delay),
        id: args.id.unwrap_or_else(default_id),
        value: None,
        holders: (args.n > 1).then_some(args.n),
    };
    let agent = args.http_addr.clone();
    let plan = Plan {
        client: Client { agent, token, name: args.name },
        body,
        ttl: args.ttl,
        wait: args.wait,
        grace: args.grace,
        lock_delay: args.lock_delay,
        command: args.command,
    };
    Box::pin(guard::run(plan)).await.map(ExitCode::from)
}

/// Flag before variables, a token before a file, as with all of Consul's tools.
fn token(flag: Option<&PathBuf>, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Option<SecretText>> {
    let given = env("CONSUL_HTTP_TOKEN").filter(|token| !token.is_empty());
    if let (None, Some(token)) = (flag, &given) {
        return Ok(Some(SecretText::from(token)));
    }
    let in_env = env("CONSUL_HTTP_TOKEN_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let Some(path) = flag.cloned().or(in_env) else { return Ok(None) };
    let text =
        fs::read_to_string(&path).with_context(|| format!("read the token file {}", path.display()))?;
    Ok(Some(SecretText::from(text.trim())).filter(|token| !token.is_empty()))
}

fn default_id() -> String {
    format!("{} {}", lifecycle::host_name(), std::process::id())
}

/// The agent's address, as the other commands take it: `http://` may be left out.
fn agent(text: &str) -> Result<String, String> {
    let authority = match text.split_once("://") {
        Some(("http", authority)) => authority,
        Some(_) => return Err("the agent's interface has no TLS; name it as http://ADDRESS:PORT".into()),
        None => text,
    };
    let authority = authority.trim_end_matches('/');
    match authority.parse::<http::uri::Authority>() {
        Ok(_) => Ok(format!("http://{authority}")),
        Err(_) => Err("name it as http://ADDRESS:PORT".into()),
    }
}

fn name(text: &str) -> Result<String, String> {
    let last = text.rsplit('/').next().unwrap_or_default();
    if text.is_empty() || text.starts_with('/') || last.is_empty() {
        return Err("name the lock's key, such as locks/deploy".into());
    }
    if ["renew", "release", "leader"].contains(&last) {
        return Err(format!("a lock cannot be named `{last}`, which the agent's API uses behind a name"));
    }
    Ok(text.to_owned())
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration::parse(text)?;
    if TTL.contains(&ttl) { Ok(ttl) } else { Err("Consul takes 10s to 24h".into()) }
}

fn lock_delay(text: &str) -> Result<Duration, String> {
    let delay = duration::parse(text)?;
    if delay <= MAX_LOCK_DELAY { Ok(delay) } else { Err("Consul takes 60s at most".into()) }
}

#[cfg(test)]
mod tests;

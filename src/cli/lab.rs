//! `causeway lab up|status|down`: the two-datacenter lab from the command line.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    cli::table::{Side, lines},
    lab::{
        Lab, LabOptions, MAX_SERVERS,
        down::{self, Down},
        plan::LAST_SLOT,
        process::{Death, ProcessId},
        state::{self, LabFile, LabState, LabStatus},
    },
};

mod detach;

/// Bring up a lab of two federated datacenters on this machine
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  causeway lab up              until Ctrl-C\n  causeway lab up --detach\n  causeway lab up --acl\n  causeway lab up --servers 3  and kill the leader\n  causeway lab status --json\n  causeway lab down"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the lab, wait until it works, and stay until Ctrl-C
    #[command(
        after_help = "Example:\n  causeway lab up --detach --dir /tmp/mylab\n\nExit code: 0 when it stopped as asked, 1 when it did not come up."
    )]
    Up(UpArgs),
    /// Show what the lab is and where its parts listen
    #[command(after_help = "Example:\n  causeway lab status --json | jq -r .dashboard")]
    Status(StatusArgs),
    /// Stop the lab, and clean up what a killed one left
    #[command(after_help = "Example:\n  causeway lab down\n\nExit code: 0 also when nothing ran.")]
    Down(DirArg),
}

#[derive(Debug, clap::Args)]
struct DirArg {
    /// The lab's folder
    #[arg(long, value_name = "DIR", env = "CAUSEWAY_LAB_DIR", default_value = ".lab")]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct UpArgs {
    #[command(flatten)]
    dir: DirArg,
    /// Return once the lab works; it goes on in the background
    #[arg(long)]
    detach: bool,
    /// Turn Consul's ACLs on, denying by default, with a token of few rights for each process (docs/acl.md)
    #[arg(long)]
    acl: bool,
    /// Consul servers in each datacenter: 1, or 3, which go on when one of them is lost
    #[arg(long, value_name = "N", default_value = "1", value_parser = servers)]
    servers: u8,
    /// Take this block of addresses (block K has 127.(1+2K) and 127.(2+2K)) instead of the first free one
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(0..=i64::from(LAST_SLOT)))]
    slot: Option<u8>,
    /// What `--detach` starts itself again with
    #[arg(long, hide = true, conflicts_with = "detach")]
    background: bool,
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    dir: DirArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// Errors: the lab did not come up or cannot be stopped; the error names the remedy.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Up(args) if args.detach => detach::run(&args).await,
        Command::Up(args) => up(args).await,
        Command::Status(args) => status(&args),
        Command::Down(args) => stop(&args.dir).await,
    }
}

async fn up(args: UpArgs) -> anyhow::Result<ExitCode> {
    if args.background {
        // Away from the terminal: closing it must not end the lab.
        nix::unistd::setsid()?;
    }
    let mut signals = Signals::new()?;
    let options = options(&args)?;
    let started = tokio::select! {
        started = Lab::start(options, say) => started,
        () = signals.recv() => {
            say("stopped before the lab was up");
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut lab = started?;
    if !args.background {
        show_ready(&state::status(&lab.plan().dir)?);
        say("\nCtrl-C stops the lab.");
    }
    hold(&mut lab, &mut signals).await;
    say("stopping");
    lab.stop().await?;
    say("stopped");
    Ok(ExitCode::SUCCESS)
}

fn options(args: &UpArgs) -> anyhow::Result<LabOptions> {
    let (root, own) = (std::env::current_dir()?, std::env::current_exe()?);
    let mut options = LabOptions::new(&args.dir.dir, own, &root, &|name| std::env::var_os(name))?;
    options.has_acls = args.acl;
    options.servers = args.servers;
    if let Some(slot) = args.slot {
        options.slots = slot..=slot;
    }
    Ok(options)
}

/// Two servers stand no loss either, and fail twice as often.
fn servers(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(count @ (1 | MAX_SERVERS)) => Ok(count),
        _ => Err(format!("a lab has 1 or {MAX_SERVERS} servers in each datacenter")),
    }
}

/// Tells of deaths until a signal comes.
async fn hold(lab: &mut Lab, signals: &mut Signals) {
    loop {
        tokio::select! {
            () = signals.recv() => return,
            Some(death) = lab.next_death() => tell(lab, &death),
        }
    }
}

fn tell(lab: &Lab, death: &Death) {
    let Death { node, process, status } = death;
    let log = lab.node(node).ok().and_then(|node| node.process(process)).map(|plan| plan.log.display());
    let log = log.map(|log| format!("; see {log}")).unwrap_or_default();
    say(&format!("{node}: {process} ended ({status}); the lab is degraded{log}"));
}

/// What ends a lab in the foreground.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let of = signal;
        Ok(Self([of(SignalKind::interrupt())?, of(SignalKind::terminate())?, of(SignalKind::hangup())?]))
    }

    async fn recv(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let dir = &args.dir.dir;
    let status = state::status(dir)?;
    if args.json {
        say(&serde_json::to_string_pretty(&status)?);
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("state      {}", status.state.as_str()));
    if status.state == LabState::Stopped {
        return Ok(ExitCode::SUCCESS);
    }
    show_ready(&status);
    if status.state == LabState::Degraded {
        say_trouble(dir)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn say_trouble(dir: &Path) -> anyhow::Result<()> {
    let Some(file) = LabFile::read(dir)? else { return Ok(()) };
    let dead = file.dead(ProcessId::is_alive);
    if !dead.is_empty() {
        say(&format!("\nended: {}", dead.join(", ")));
    }
    if !file.supervisor.is_some_and(|supervisor| supervisor.is_alive()) {
        say("\nthe lab's own process is gone; `causeway lab down` cleans up");
    }
    Ok(())
}

async fn stop(dir: &Path) -> anyhow::Result<ExitCode> {
    match down::down(dir).await? {
        Down::WasStopped => say("no lab runs here"),
        Down::Stopped => say("stopped"),
        Down::Cleaned(count) => say(&format!("ended {count} processes that a killed lab had left")),
    }
    Ok(ExitCode::SUCCESS)
}

fn show_ready(status: &LabStatus) {
    if let Some(dashboard) = &status.dashboard {
        say(&format!("\ndashboard  {dashboard}\n"));
    }
    say(&nodes(status));
}

/// All nodes, one per line.
fn nodes(status: &LabStatus) -> String {
    let head = ["node", "datacenter", "role", "address", "consul", "causeway", "sync", "envoy admin"];
    let mut rows = vec![head.map(str::to_owned)];
    let or_none = |url: &Option<String>| url.clone().unwrap_or_else(|| "-".into());
    rows.extend(status.nodes.iter().map(|node| {
        [
            node.name.clone(),
            node.datacenter.clone(),
            node.role.as_str().into(),
            node.address.clone(),
            or_none(&node.consul_http),
            or_none(&node.causeway_http),
            or_none(&node.sync),
            or_none(&node.envoy_admin),
        ]
    }));
    lines(&rows, Side::Left).join("\n")
}

/// What the command says to its user. A reader that went away (`| head`) must not take the lab down.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_aligns_and_shows_what_a_node_lacks() {
        let node = state::NodeStatus {
            name: "primary-server".into(),
            datacenter: "primary".into(),
            role: crate::lab::plan::Role::Server,
            address: "127.1.0.10".into(),
            consul_http: Some("http://127.1.0.10:8500".into()),
            causeway_http: None,
            xds: None,
            sync: None,
            envoy_admin: None,
        };
        let text = nodes(&LabStatus { state: LabState::Ready, dashboard: None, nodes: vec![node] });
        assert_eq!(
            text,
            "node            datacenter  role    address     consul                  causeway  sync  envoy admin\n\
             primary-server  primary     server  127.1.0.10  http://127.1.0.10:8500  -         -     -"
        );
    }
}

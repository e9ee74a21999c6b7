//! The command line: what `causeway` understands, one file per command. It turns arguments into calls and results
//! into exit codes; it decides nothing else.
//!
//! Exit codes: 0 done, 1 an error, 2 wrong usage, [`EXIT_BAD_CONFIG`], [`EXIT_NO_INPUT`], [`EXIT_UNAVAILABLE`].

pub mod agent;
pub mod check_config;
pub mod completions;
pub mod consul_flags;
pub mod demo;
pub mod duration;
pub mod endpoint;
pub mod envoy;
pub mod instance;
pub mod kv;
pub mod lab;
pub mod lock;
pub mod manual;
mod progress;
pub mod proxy;
pub mod sync;
mod table;
pub mod tls;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{config, lifecycle};

/// The configuration has problems.
pub const EXIT_BAD_CONFIG: u8 = 64;

/// A file that was named cannot be read.
pub const EXIT_NO_INPUT: u8 = 66;

/// What is needed from elsewhere is not to be had now; asking again later may help.
pub const EXIT_UNAVAILABLE: u8 = 69;

/// One agent per VM, beside Envoy: a Consul catalog of several datacenters as live Envoy configuration.
#[derive(Debug, Parser)]
#[command(
    name = "causeway",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Example:\n  causeway lab up\n  causeway agent --config /etc/causeway/agent.toml\n  causeway envoy --sidecar-for web"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(agent::Args),
    CheckConfig(check_config::Args),
    Envoy(Box<envoy::EnvoyArgs>),
    Proxy(proxy::ProxyArgs),
    Kv(Box<kv::KvArgs>),
    Sync(sync::SyncArgs),
    Lock(Box<lock::LockArgs>),
    Tls(tls::TlsArgs),
    Lab(lab::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Demo(demo::Args),
    #[command(hide = true)]
    Manual(manual::Args),
}

/// The command line of a program that was built from this commit, of which `--version` tells.
pub fn command(commit: &str) -> clap::Command {
    let version = format!("{} ({commit})", env!("CARGO_PKG_VERSION"));
    // clap keeps names for as long as the process lives, and this is made once.
    Cli::command().version(&*version.leak())
}

/// Reads the arguments of this process, does what they say, and tells how it ended.
pub fn main(commit: &str) -> ExitCode {
    let command = command(commit);
    let cli = match Cli::from_arg_matches(&command.clone().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.format(&mut command.clone()).exit(),
    };
    match start(cli, command) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

/// Tells an error as [`main`] does, and makes the exit code that stands for it.
pub fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    complain(&format!("causeway: {error:#}"));
    ExitCode::from(code)
}

fn start(cli: Cli, line: clap::Command) -> anyhow::Result<ExitCode> {
    // Fails only when a provider is there already, which is then the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    lifecycle::runtime::runtime()?.block_on(run(cli.command, line))
}

async fn run(command: Command, line: clap::Command) -> anyhow::Result<ExitCode> {
    if !matches!(command, Command::Agent(_)) {
        // The agent's log is configured; that of the other commands is what they tell the person who typed them.
        let has_colours = io::stderr().is_terminal() && config::process_env("NO_COLOR").is_none();
        let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(has_colours);
        log.without_time().with_target(false).init();
    }
    match command {
        Command::Agent(args) => {
            // The description of all commands takes more than a quarter of what the agent itself needs.
            drop(line);
            Box::pin(agent::run(args)).await
        }
        Command::CheckConfig(args) => check_config::run(args).await,
        Command::Envoy(args) => Box::pin(envoy::run(*args, &config::process_env)).await,
        Command::Proxy(args) => proxy::run(args, &config::process_env).await,
        Command::Kv(args) => Box::pin(kv::run(*args, &config::process_env)).await,
        Command::Sync(args) => Box::pin(sync::run(args, &config::process_env)).await,
        Command::Lock(args) => Box::pin(lock::run(*args, &config::process_env)).await,
        Command::Tls(args) => tls::run(args, &config::process_env).await,
        Command::Lab(args) => Box::pin(lab::run(args)).await,
        Command::Completions(args) => completions::run(&args, &line),
        Command::Demo(args) => demo::run(args).await,
        Command::Manual(args) => manual::run(&args, line),
    }
}

/// Writes to standard output.
///
/// # Errors
/// It cannot be written. A reader that went away is an error as well; [`main`] takes it as success.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a line to standard error. When even that cannot be written there is nobody to tell.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_an_example() {
        let mut root = Cli::command();
        root.build();
        root.clone().debug_assert();
        for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
            if command.is_hide_set() {
                continue;
            }
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{} has no example:\n{help}", command.get_name());
        }
    }

    #[test]
    fn a_reader_that_went_away_is_recognised_through_its_context() {
        let pipe = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("print the table");
        assert!(is_broken_pipe(&pipe));
        let other = anyhow::Error::new(io::Error::from(io::ErrorKind::NotFound)).context("read the file");
        assert!(!is_broken_pipe(&other));
    }
}

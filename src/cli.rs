//! The command line: what people type, and what they read back.

pub mod consul_flags;
pub mod envoy;
pub mod proxy;

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand};

/// One agent per VM beside Envoy: a Consul catalog of several datacenters as live Envoy configuration.
#[derive(Debug, Parser)]
#[command(name = "causeway", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Envoy(Box<envoy::EnvoyArgs>),
    Proxy(proxy::ProxyArgs),
}

impl Cli {
    /// Runs the command.
    pub async fn run(self) -> ExitCode {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let done = match self.command {
            Command::Envoy(args) => envoy::run(*args, &env).await,
            Command::Proxy(args) => proxy::run(args).await,
        };
        done.unwrap_or_else(|error| {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        })
    }
}

/// Writes data, not messages, to standard output. A reader that went away (`| head`) is not an error.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

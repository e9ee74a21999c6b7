//! The `causeway` command.

use std::process::ExitCode;

use causeway::cli::Cli;
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false).init();
    Cli::parse().run().await
}

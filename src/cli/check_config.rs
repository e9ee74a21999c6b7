//! `causeway check-config`: every problem of a configuration file at once.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;

use crate::{
    cli::{EXIT_BAD_CONFIG, EXIT_NO_INPUT, complain, print},
    config::{self, ConfigError},
};

/// Check a configuration file: every problem with its line and remedy
///
/// The environment counts as it does for the agent: CONSUL_* variables and CAUSEWAY_LOG are checked too.
/// Exit codes: 0 the file is good, 64 it has problems, 66 it cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  causeway check-config /etc/causeway/agent.toml")]
pub struct Args {
    /// The TOML file
    file: PathBuf,
}

/// Reads the file, prints its problems to standard error or `FILE: ok` to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = args.file.clone();
    let read = tokio::task::spawn_blocking(move || config::load(Some(&file), &config::process_env));
    match read.await.context("read the configuration")? {
        Ok(_) => {
            print(&format!("{}: ok\n", args.file.display())).context("print the result")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Ok(refused(&error)),
    }
}

/// Tells what is wrong with the configuration on standard error, and gives the exit code for it.
pub fn refused(error: &ConfigError) -> ExitCode {
    match error {
        ConfigError::Invalid { .. } => {
            complain(&error.to_string());
            EXIT_BAD_CONFIG.into()
        }
        ConfigError::Unreadable { .. } => {
            complain(&format!("causeway: {error}"));
            EXIT_NO_INPUT.into()
        }
    }
}

//! `causeway agent`: the agent itself.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::Parser;

use crate::{
    app,
    cli::{EXIT_NO_INPUT, check_config::refused, fail},
    config,
    telemetry::logs,
};

/// Run the agent, which reads Consul and configures every Envoy that connects
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  causeway agent --config /etc/causeway/agent.toml\n\n\
    Without --config the defaults and the CONSUL_* variables hold.\n\
    Exit codes: 0 stopped by a signal, 1 failed, 64 bad configuration, 66 a file that is needed cannot be used.")]
pub struct Args {
    /// Configuration file (TOML); checked beforehand with `causeway check-config`
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_CONFIG")]
    config: Option<PathBuf>,
}

/// Runs until stopped.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = match config::load(args.config.as_deref(), &config::process_env) {
        Ok(config) => config,
        Err(error) => return Ok(refused(&error)),
    };
    let telemetry =
        logs::init(&config.log, &config.telemetry, &config::process_env).context("start logging")?;
    let telemetry = Arc::new(telemetry);
    let ended = app::agent::run(args.config, config, telemetry.clone()).await;
    telemetry.shutdown().await;
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let code = if error.is_about_a_file() { EXIT_NO_INPUT } else { 1 };
            // Its text holds its causes already.
            Ok(fail(code, &anyhow::Error::msg(error)))
        }
    }
}

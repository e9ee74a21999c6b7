//! The `causeway` command.

use std::process::ExitCode;

use causeway::cli::{self, Cli};
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last word of a failed command")]
            {
                eprintln!("causeway: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

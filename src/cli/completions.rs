//! `causeway completions`: what a shell needs to complete this command line.

use std::process::ExitCode;

use anyhow::Context;
use clap_complete::Shell;

use crate::cli::print;

const HELP: &str = "\
Examples:
  causeway completions bash > ~/.local/share/bash-completion/completions/causeway
  causeway completions zsh > \"${fpath[1]}/_causeway\"
  causeway completions fish > ~/.config/fish/completions/causeway.fish

The Debian package brings those of bash, zsh and fish.";

/// Print the completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The shell that shall complete
    shell: Shell,
}

/// Prints the script that completes `line`.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &Args, mut line: clap::Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut line, "causeway", &mut script);
    print(&String::from_utf8_lossy(&script)).context("print the completions")?;
    Ok(ExitCode::SUCCESS)
}

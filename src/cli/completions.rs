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
pub fn run(args: &Args, line: &clap::Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown(line), "causeway", &mut script);
    print(&String::from_utf8_lossy(&script)).context("print the completions")?;
    Ok(ExitCode::SUCCESS)
}

/// The command line without what its help hides, which the generators would offer.
fn shown(command: &clap::Command) -> clap::Command {
    // clap keeps names for as long as the process lives, which ends with the script.
    let name: &str = command.get_name().to_owned().leak();
    let mut copy = clap::Command::new(name)
        .args(command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned())
        .subcommands(command.get_subcommands().filter(|child| !child.is_hide_set()).map(shown));
    if let Some(about) = command.get_about() {
        copy = copy.about(about.clone());
    }
    match command.get_version() {
        Some(version) => copy.version(&*version.to_owned().leak()),
        None => copy,
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn no_shell_is_told_of_what_help_hides() {
        let line = crate::cli::command("abcdef123456");
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut shown(&line), "causeway", &mut script);
            let script = String::from_utf8_lossy(&script);
            for told in ["check-config", "completions", "--config", "--version"] {
                let fishes = told.trim_start_matches("--");
                assert!(script.contains(told) || script.contains(fishes), "{shell}: {told}\n{script}");
            }
            for hidden in ["demo", "manual", "--background", "-l background"] {
                assert!(!script.contains(hidden), "{shell}: {hidden}\n{script}");
            }
        }
    }
}

//! `causeway manual`: the manual pages of section 1, made from what `--help` says, for whoever packages the program.
//!
//! A page is made purely (`page`); this file walks the commands and writes the files.

mod page;

#[cfg(test)]
mod tests;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;

use self::page::page;

/// Write the manual pages of all commands
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  causeway manual target/man && man -l target/man/causeway-agent.1")]
pub struct Args {
    /// The folder to write them to; it is made if it is not there
    dir: PathBuf,
}

/// Writes a file per command that people are meant to use.
///
/// # Errors
/// A file cannot be written.
pub fn run(args: &Args, line: clap::Command) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(&args.dir).with_context(|| format!("make the folder {}", args.dir.display()))?;
    for (name, text) in pages(line) {
        let path = args.dir.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Names and texts of all pages.
fn pages(line: clap::Command) -> Vec<(String, String)> {
    let mut root = line.disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    walk(&root, None, &mut pages);
    pages
}

fn walk(command: &clap::Command, parent: Option<&str>, pages: &mut Vec<(String, String)>) {
    let name = page::name(command);
    pages.push((format!("{name}.1"), page(command, parent)));
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        walk(child, Some(&name), pages);
    }
}

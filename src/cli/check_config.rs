//! `causeway check-config`: every problem of a configuration file at once, and what it lacks on this machine.

mod advice;
mod machine;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    cli::{
        EXIT_BAD_CONFIG, EXIT_NO_INPUT,
        check_config::{advice::Machine, machine::ThisMachine},
        complain, print,
    },
    config::{self, Config, ConfigError, Place, Problem},
    consul::client::Client,
};

/// Check a configuration file: every problem with its line and remedy
///
/// The environment counts as it does for the agent: CONSUL_* variables and CAUSEWAY_LOG are checked too. What a good
/// file lacks on this machine and for this user (files, folders, groups, addresses) is told as warnings, which change
/// no exit code.
/// Exit codes: 0 the file is good, 64 it has problems, 66 it cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  causeway check-config /etc/causeway/agent.toml\n  \
                  sudo -u causeway causeway check-config --json /etc/causeway/agent.toml")]
pub struct Args {
    /// The TOML file
    file: PathBuf,
    /// Print one JSON document on standard output instead of lines
    #[arg(long)]
    json: bool,
}

/// Reads the file, prints its problems and warnings to standard error or `FILE: ok` to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = args.file.clone();
    let read = tokio::task::spawn_blocking(move || check(&file)).await.context("read the configuration")?;
    if args.json {
        let (document, code) = document(&args.file, &read);
        print(&format!("{document:#}\n")).context("print the result")?;
        return Ok(code);
    }
    match read {
        Ok(warnings) => {
            for warning in warnings {
                complain(&in_file(&args.file, &warning, "warning: "));
            }
            print(&format!("{}: ok\n", args.file.display())).context("print the result")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Ok(refused(&error)),
    }
}

/// Tells what is wrong with the configuration on standard error, and gives the exit code for it.
pub fn refused(error: &ConfigError) -> ExitCode {
    match error {
        ConfigError::Invalid { .. } => complain(&error.to_string()),
        ConfigError::Unreadable { .. } => complain(&format!("causeway: {error}")),
    }
    exit_code(error)
}

fn exit_code(error: &ConfigError) -> ExitCode {
    match error {
        ConfigError::Invalid { .. } => EXIT_BAD_CONFIG.into(),
        ConfigError::Unreadable { .. } => EXIT_NO_INPUT.into(),
    }
}

/// The warnings about a good file.
fn check(file: &Path) -> Result<Vec<Problem>, ConfigError> {
    let config = config::load(Some(file), &config::process_env)?;
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let place = |key: &str| config::origin(&text, &config::process_env, key);
    let is_inline = |key: &&str| matches!(place(key), Place::File { .. });
    let inline_secret = ["consul.token", "consul.http_auth"].into_iter().find(is_inline);
    let mut warnings: Vec<Problem> = advice::on(&config, file, inline_secret, &ThisMachine)
        .into_iter()
        .map(|it| {
            let (section, key) = it.key.split_once('.').unwrap_or((it.key, ""));
            let problem = format!("[{section}] {key} {}", it.problem);
            Problem { place: place(it.key), key: it.key.into(), problem, remedy: it.remedy }
        })
        .collect();
    warnings.sort();
    warnings.extend(unusable(&config, &warnings, &ThisMachine));
    Ok(warnings)
}

/// What the agent would say of the files at its start, when each by itself looks good. Nothing where a file is there
/// for the running agent only: systemd hides credentials from what checks a file before a reload.
fn unusable(config: &Config, warnings: &[Problem], machine: &dyn Machine) -> Option<Problem> {
    let is_told = warnings.iter().any(|warning| warning.key.starts_with("consul."));
    let is_hidden = advice::is_hidden(&config.consul, machine);
    let error = if is_told || is_hidden { None } else { Client::new(config.consul.clone()).err() };
    error.map(|error| Problem {
        place: Place::Defaults,
        key: "consul".into(),
        problem: format!("[consul] cannot be used on this machine: {error}"),
        remedy: String::new(),
    })
}

fn in_file(file: &Path, problem: &Problem, mark: &str) -> String {
    let place = match problem.place {
        Place::File { line, column } => format!("{}:{line}:{column}: ", file.display()),
        Place::Environment => "environment: ".to_owned(),
        Place::Defaults => format!("{}: ", file.display()),
    };
    let gap = if problem.remedy.is_empty() { "" } else { "; " };
    format!("{place}{mark}{}{gap}{}", problem.problem, problem.remedy)
}

/// What was found, for programs.
fn document(file: &Path, read: &Result<Vec<Problem>, ConfigError>) -> (Value, ExitCode) {
    let (found, code): (Vec<Value>, _) = match read {
        Ok(warnings) => (warnings.iter().map(|it| finding(it, "warning")).collect(), ExitCode::SUCCESS),
        Err(error @ ConfigError::Invalid { problems, .. }) => {
            (problems.iter().map(|it| finding(it, "error")).collect(), exit_code(error))
        }
        Err(error @ ConfigError::Unreadable { .. }) => {
            (vec![json!({"severity": "error", "problem": error.to_string()})], exit_code(error))
        }
    };
    (json!({"file": file.display().to_string(), "ok": read.is_ok(), "findings": found}), code)
}

fn finding(problem: &Problem, severity: &str) -> Value {
    let Problem { place, key, problem, remedy } = problem;
    let mut finding = json!({"severity": severity, "key": key, "problem": problem, "remedy": remedy});
    match place {
        Place::File { line, column } => {
            finding["source"] = "file".into();
            finding["line"] = (*line).into();
            finding["column"] = (*column).into();
        }
        Place::Environment => finding["source"] = "environment".into(),
        Place::Defaults => finding["source"] = "defaults".into(),
    }
    finding
}

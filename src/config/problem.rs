//! What can be wrong with a configuration, and how it is told. Never a value that may be secret.

use std::{fmt, io};

/// Where a problem lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file; both count from 1, columns in characters.
    File {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// In an environment variable.
    Environment,
    /// In what holds when nobody sets anything.
    Defaults,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The key, as `section.key`, the section or the variable; empty when the text is no TOML there.
    pub key: String,
    /// What is wrong, in one sentence without a full stop.
    pub problem: String,
    /// What to do about it; empty when `problem` says it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::File { line, column } => write!(f, "{line}:{column}: ")?,
            Place::Environment => f.write_str("environment: ")?,
            Place::Defaults => f.write_str("defaults: ")?,
        }
        f.write_str(&self.problem)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("read {file}: {source}; {}", unreadable_remedy(source))]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The file was read and is wrong: one line per problem, `FILE:LINE:COL: problem; remedy`.
    #[error("{}", told(file, problems))]
    Invalid {
        /// The file.
        file: String,
        /// All problems.
        problems: Vec<Problem>,
    },
}

fn told(file: &str, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| match problem.place {
            Place::File { .. } => format!("{file}:{problem}"),
            Place::Environment | Place::Defaults => problem.to_string(),
        })
        .collect();
    lines.join("\n")
}

fn unreadable_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path; docs/examples/agent.toml is a file to start from",
        io::ErrorKind::PermissionDenied => "let this user read it (chmod, chgrp) or run as its owner",
        io::ErrorKind::InvalidData => "save it as UTF-8 text",
        io::ErrorKind::IsADirectory => "name a file, not a folder",
        _ => "check the path and the disk",
    }
}

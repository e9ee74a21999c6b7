//! The `causeway` command.

use std::process::ExitCode;

use git_version::git_version;

/// The commit this was built from: what the build was told, else what git says. It is read here and nowhere in the
/// library, so a commit costs a link and not a compilation of everything.
const COMMIT: &str = match option_env!("CAUSEWAY_COMMIT") {
    Some(commit) if !commit.is_empty() => commit,
    _ => git_version!(args = ["--always", "--abbrev=12", "--exclude=*", "--dirty"], fallback = "unknown"),
};

fn main() -> ExitCode {
    causeway::cli::main(COMMIT)
}

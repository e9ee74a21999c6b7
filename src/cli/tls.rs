//! `causeway tls`: certificates for Consul and its clients. One file per command; what is decided is decided in
//! `crate::tls`.

mod ca;
mod cert;
mod gossip;
mod inspect;
mod output;
mod renew;
mod verify;
mod view;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::{
    lifecycle,
    tls::{
        authority::{self, Authority},
        folder,
        owner::Owner,
        x509::{lifetime, moment::Moment, set::FolderFacts},
    },
};

/// Something in a set is wrong, or something due could not be renewed.
const EXIT_PROBLEMS: u8 = 3;
/// Certificates were renewed, and Consul was not told.
const EXIT_NOT_RELOADED: u8 = 4;
/// All is well but the CA ends soon.
const EXIT_CA_ENDS: u8 = 5;

const HELP: &str = "\
Examples:
  causeway tls ca create
  causeway tls cert create --server --dc dc1 --node consul-1
  causeway tls verify /etc/causeway/tls
  causeway tls renew /etc/causeway/tls --reload

Files and flags are named as with `consul tls`; a CA made by it is used as it is.";

/// Make, check and renew the certificates of Consul servers, clients and their users
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct TlsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    Ca(ca::CaArgs),
    Cert(cert::CertArgs),
    Gossip(gossip::GossipArgs),
    Inspect(inspect::InspectArgs),
    Verify(verify::VerifyArgs),
    Renew(Box<renew::RenewArgs>),
}

/// Where new files go and who they belong to.
#[derive(Args, Clone, Debug)]
struct Placement {
    /// Folder for the new files [default: the current one]
    #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    dir: PathBuf,
    /// Who the new files belong to; without a group it is the user's own [default: who runs this]
    #[arg(long, value_name = "USER[:GROUP]", value_parser = Owner::parse)]
    owner: Option<Owner>,
}

/// Which CA signs.
#[derive(Args, Clone, Debug)]
struct AuthorityFlags {
    /// The CA's certificate, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The CA's private key, PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read or written, or standard output cannot.
pub async fn run(args: TlsArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Ca(args) => ca::run(&args),
        Command::Cert(args) => cert::run(&args),
        Command::Gossip(args) => gossip::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Renew(args) => renew::run(*args, env).await,
    }
}

fn now() -> Moment {
    authority::moment(lifecycle::wall_clock())
}

/// A datacenter, node or domain as a part of file names and DNS names.
fn name(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err("use letters, digits, dashes and underscores, for a domain dots as well".into())
}

fn days(text: &str) -> Result<u32, String> {
    // Certificates know no year beyond 9999; a century is a slip already.
    match text.parse() {
        Ok(days) if (1..=36_500).contains(&days) => Ok(days),
        _ => Err("give whole days, 1 to 36500".into()),
    }
}

fn span(text: &str) -> Result<std::time::Duration, String> {
    lifetime::parse(text)
}

/// The CA out of its two files. The certificate's file may hold several; the one that the key belongs to signs.
fn authority(certificate: &Path, key: &Path) -> anyhow::Result<Authority> {
    const REMEDY: &str = "make a CA with `causeway tls ca create`, or name its files with `--ca` and `--key`";
    let of = |path: &Path| {
        let facts = folder::file(path).with_context(|| format!("read the CA; {REMEDY}"))?;
        facts.contents.map_err(|reason| {
            anyhow::anyhow!("read {}: {reason}; check that this user may read it", path.display())
        })
    };
    let (certificates, keys) = (of(certificate)?, of(key)?);
    let Some(key_read) = keys.keys.into_iter().next() else {
        let reason =
            if keys.problems.is_empty() { "no private key".into() } else { keys.problems.join("; ") };
        bail!("{} holds {reason}; {REMEDY}", key.display());
    };
    let all = certificates.certificates;
    let fits = all.iter().position(|one| one.public_key == key_read.public()).unwrap_or(0);
    let Some(one) = all.into_iter().nth(fits) else {
        bail!("{} holds no certificate; {REMEDY}", certificate.display());
    };
    Authority::new(one, key_read)
        .with_context(|| format!("use {} with {}", certificate.display(), key.display()))
}

/// Reads folders, all of them or none.
fn read(folders: &[PathBuf]) -> anyhow::Result<Vec<FolderFacts>> {
    let mut found = Vec::new();
    for path in folders {
        if path.is_file() {
            bail!("{} is a file; name its folder, or look at it with `causeway tls inspect`", path.display());
        }
        found.push(folder::read(path)?);
    }
    Ok(found)
}

/// Makes the folder for new files if its parent is there.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("make the folder {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

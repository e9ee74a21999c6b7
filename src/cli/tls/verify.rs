//! `causeway tls verify`.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::{
    cli::{
        print,
        tls::{EXIT_PROBLEMS, name, now, read, span, view, view::View},
    },
    tls::{
        folder,
        owner::Owner,
        x509::{
            check::{self, Demands},
            finding::{Finding, Severity},
            renewal::Policy,
        },
    },
};

const HELP: &str = "\
Examples:
  causeway tls verify /etc/causeway/tls
  causeway tls verify vm1/ vm2/ gateway1/ --federated
  causeway tls verify /etc/consul.d/tls --owner consul --dc dc1 --json

All folders count as one set: the CAs of each must vouch for every certificate in all of them, as
machines do that talk to each other. Measured against verify_incoming, verify_outgoing and
verify_server_hostname.
Exit codes: 0 nothing that Consul would refuse and no key open to others (there may be warnings);
1 a folder cannot be read; 2 wrong command line; 3 there are problems, with --strict also warnings.";

/// Check whole sets of certificates against what Consul demands: everything wrong at once
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct VerifyArgs {
    /// Folders of certificates and keys, such as one for each machine
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// CA certificates that all folders trust, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The one datacenter that all certificates must be for
    #[arg(long, value_parser = name)]
    dc: Option<String>,
    /// The one domain that all certificates must be for
    #[arg(long, value_parser = name)]
    domain: Option<String>,
    /// Who every private key must belong to
    #[arg(long, value_name = "USER", value_parser = Owner::parse)]
    owner: Option<Owner>,
    /// The datacenters are federated through mesh gateways: a server without its node's name is a problem
    #[arg(long)]
    federated: bool,
    /// Warn so long before a certificate ends, such as 30d [default: a third of its lifetime]
    #[arg(long, value_name = "TIME", value_parser = span)]
    before: Option<Duration>,
    /// Warnings count as problems
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    problems: usize,
    warnings: usize,
    findings: Vec<Finding>,
    certificates: Vec<View>,
}

pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let folders = read(&args.folders)?;
    let policy = Policy { before: args.before, all: false };
    let trusted = match &args.ca {
        None => Vec::new(),
        Some(path) => {
            let contents = folder::file(path)?.contents.map_err(|reason| {
                anyhow::anyhow!("read {}: {reason}; check that this user may read it", path.display())
            })?;
            anyhow::ensure!(
                !contents.certificates.is_empty(),
                "{} holds no certificate; name a CA's",
                path.display()
            );
            contents.certificates
        }
    };
    let demands = Demands {
        trusted,
        datacenter: args.dc.clone(),
        domain: args.domain.clone(),
        owner: args.owner.map(|owner| (owner.uid, owner.user())),
        is_federated: args.federated,
        policy,
    };
    let findings = check::set(&folders, &demands, now());
    let (problems, warnings) = check::count(&findings);
    let certificates = folders.iter().flat_map(|folder| view::all(folder, policy)).collect();
    let report = Report { problems, warnings, findings, certificates };
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&report).context("write JSON")?)
    } else {
        text(&report, folders.len())
    };
    print(&text).context("write to standard output")?;
    let is_bad = problems > 0 || (args.strict && warnings > 0);
    Ok(if is_bad { EXIT_PROBLEMS.into() } else { ExitCode::SUCCESS })
}

fn text(report: &Report, folders: usize) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        let word = match finding.severity {
            Severity::Problem => "problem",
            Severity::Warning => "warning",
        };
        let Finding { path, problem, remedy, .. } = finding;
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{word}: {}: {problem}\n         {remedy}", path.display());
    }
    let count = |number: usize, what: &str| match number {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        more => format!("{more} {what}s"),
    };
    let ends = report.certificates.iter().map(|view| view.not_after).min();
    let ends = ends.map(|end| format!("; the first ends on {end}")).unwrap_or_default();
    let _ = writeln!(
        out,
        "{} in {}{ends}: {}, {}",
        count(report.certificates.len(), "certificate"),
        count(folders, "folder"),
        count(report.problems, "problem"),
        count(report.warnings, "warning"),
    );
    out
}

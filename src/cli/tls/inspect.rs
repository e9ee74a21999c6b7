//! `causeway tls inspect`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::{
    cli::{
        complain, print,
        tls::{now, view, view::View},
    },
    tls::{
        folder,
        x509::{
            renewal::Policy,
            set::{FileFacts, FolderFacts},
        },
    },
};

const HELP: &str = "\
Examples:
  causeway tls inspect dc1-server-consul-0.pem
  causeway tls inspect /etc/causeway/tls/*.pem --json

CA and key are looked for beside the file. Exit codes: 0 all were read; 1 one could not be read or holds
something unusable.";

/// Tell what a certificate is for, who issued it, which key fits and when it ends
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct InspectArgs {
    /// Files of certificates or keys, PEM, or folders of them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What one file holds.
#[derive(Debug, Serialize)]
struct Found {
    path: String,
    certificates: Vec<View>,
    /// The files that hold the certificate of each private key in it; empty for a key without.
    keys: Vec<Vec<String>>,
    problems: Vec<String>,
}

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    for path in &args.files {
        if path.is_dir() {
            let folder = folder::read(path)?;
            all.extend(folder.files.iter().map(|file| found(file, &folder)));
        } else {
            let (folder, name) = beside(path)?;
            all.extend(
                folder.files.iter().filter(|file| file.name() == name).map(|file| found(file, &folder)),
            );
        }
    }
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&all).context("write JSON")?)
    } else {
        all.iter().map(text).collect::<Vec<_>>().join("\n")
    };
    print(&text).context("write to standard output")?;
    for one in &all {
        one.problems.iter().for_each(|problem| complain(&format!("causeway: {}: {problem}", one.path)));
    }
    let is_whole = all.iter().all(|one| one.problems.is_empty());
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The file among its neighbours; alone where its folder cannot be read.
fn beside(path: &Path) -> anyhow::Result<(FolderFacts, String)> {
    let own = folder::file(path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut folder = folder::read(parent).unwrap_or_else(|_| FolderFacts {
        path: parent.to_owned(),
        is_open: false,
        files: Vec::new(),
    });
    let name = own.name();
    folder.files.retain(|file| file.name() != name);
    folder.files.push(own);
    Ok((folder, name))
}

fn found(file: &FileFacts, folder: &FolderFacts) -> Found {
    let path = file.path.display().to_string();
    let certificates =
        view::all(folder, Policy::default()).into_iter().filter(|view| view.path == path).collect();
    let problems = match &file.contents {
        Err(reason) => vec![format!("it cannot be read: {reason}; check that this user may read it")],
        Ok(contents) if contents.is_empty() => {
            vec!["it holds neither a certificate nor a private key in PEM form; name another file".into()]
        }
        Ok(contents) => contents.problems.iter().map(|problem| format!("it holds {problem}")).collect(),
    };
    let keys = file.keys().iter().map(|key| {
        let has = |other: &&FileFacts| other.certificates().iter().any(|one| one.public_key == key.public());
        folder.files.iter().filter(has).map(|other| other.path.display().to_string()).collect()
    });
    Found { certificates, keys: keys.collect(), problems, path }
}

fn text(found: &Found) -> String {
    let now = now();
    let mut blocks: Vec<String> = found.certificates.iter().map(|view| view.text(now)).collect();
    for certificates in &found.keys {
        let whose = if certificates.is_empty() {
            "no certificate beside it fits".to_owned()
        } else {
            format!("fits {}", certificates.join(", "))
        };
        blocks.push(format!("{}\n  {:<9} a private key; {whose}\n", found.path, "for"));
    }
    blocks.join("\n")
}

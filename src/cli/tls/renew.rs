//! `causeway tls renew`: what ends soon is issued once more and put in place, then Consul is told.

mod outcome;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;

use crate::{
    cli::{
        complain,
        consul_flags::ConsulFlags,
        print,
        tls::{
            AuthorityFlags, EXIT_CA_ENDS, EXIT_NOT_RELOADED, EXIT_PROBLEMS, authority, days, now,
            renew::outcome::{Action, Ending, Item, Outcome, Reload},
            span,
        },
    },
    config::consul::ConsulSettings,
    consul::client::Client,
    tls::{
        authority::{Authority, Issued},
        folder,
        store::{self, KEY_MODE, StoreError, Successor, Unsynced},
        x509::{
            certificate::Certificate,
            lifetime::{DAY, spoken},
            moment::Moment,
            pem,
            renewal::{self, Policy, Renewal, Signers, Step, authority_ends_soon},
            set::{FolderFacts, Leaf},
        },
    },
};

/// Says that Consul was not yet told of a renewal, so that the next run does it even if nothing is due then.
const RELOAD_DUE: &str = ".consul-reload-due";

const HELP: &str = "\
Examples:
  causeway tls renew /etc/causeway/tls
  causeway tls renew /etc/causeway/tls --reload
  causeway tls renew dc1/ --before 60d --dry-run
  causeway tls renew dc1/ --all --ca new/consul-agent-ca.pem --key new/consul-agent-ca-key.pem

Each due certificate is issued once more by its CA, whose key lies in DIR or is named, with a new private
key and with the same names, purposes, lifetime, file names, owners and modes. Both new files are
prepared first; then the key is put in place, then the certificate. A Causeway agent needs nothing
further: it reads its files again by itself. A Consul agent must reload: --reload asks it (agent:write).
Exit codes: 0 nothing is due any more; 1 an error; 2 wrong command line; 3 something due could not be
renewed; 4 renewed, but Consul did not reload (the next run with --reload asks again); 5 all is well
but the CA ends soon.";

/// Renew the certificates of a folder that end soon
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct RenewArgs {
    /// Folder of certificates and keys
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Renew what ends within this time, such as 30d [default: when a third of the lifetime is left]
    #[arg(long, value_name = "TIME", value_parser = span)]
    before: Option<Duration>,
    /// Renew everything now
    #[arg(long, conflicts_with = "before")]
    all: bool,
    /// For how many days [default: as long as before]
    #[arg(long, value_parser = days)]
    days: Option<u32>,
    /// Show what would be renewed and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Ask the Consul agent to reload when something was renewed
    #[arg(long)]
    reload: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// [default: CAs in DIR whose keys are there too]
    #[command(flatten)]
    authority: AuthorityFlags,
    #[command(flatten)]
    consul: ConsulFlags,
}

pub(crate) async fn run(args: RenewArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    // Before anything is written: settings that cannot be used are found out now.
    let settings = if args.reload { Some(consul(&args, env)?) } else { None };
    let mut outcome = renew(&args, now())?;
    if let Some(settings) = settings.filter(|_| !args.dry_run && args.dir.join(RELOAD_DUE).exists()) {
        outcome.consul = reload(settings, &args.dir).await;
    } else if outcome.has_renewed() {
        outcome.consul = Reload::NotAsked;
    }
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&outcome).context("write JSON")?)
    } else {
        outcome.text()
    };
    print(&text).context("write to standard output")?;
    outcome.warnings().iter().for_each(|line| complain(line));
    Ok(match outcome.ending() {
        Ending::Good => ExitCode::SUCCESS,
        Ending::Problems => EXIT_PROBLEMS.into(),
        Ending::NotReloaded => EXIT_NOT_RELOADED.into(),
        Ending::AuthorityEnds => EXIT_CA_ENDS.into(),
    })
}

fn consul(args: &RenewArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ConsulSettings> {
    args.consul.settings(env).map_err(|problems| anyhow::anyhow!(problems.join("\n")))
}

fn renew(args: &RenewArgs, now: Moment) -> anyhow::Result<Outcome> {
    let dir = &args.dir;
    let mut folder = folder::read(dir)?;
    let _lock = if args.dry_run { None } else { Some(store::lock(dir)?) };
    if !args.dry_run && finish(&folder)? {
        folder = folder::read(dir)?;
    }
    if folder.leaves().is_empty() {
        bail!("there is no certificate to renew in {}; name the folder that holds them", dir.display());
    }
    let (signers, how) = signers(args, &folder)?;
    let own: Vec<&Certificate> = signers.iter().map(Authority::certificate).collect();
    let policy = Policy { before: args.before, all: args.all };
    let days = args.days.map(|days| DAY * days);
    let steps = renewal::plan(&folder, &own, how, policy, days, now);
    if args.reload && !args.dry_run && steps.iter().any(|step| matches!(step, Step::Renew(_))) {
        mark(dir)?;
    }
    let mut items = Vec::new();
    for step in &steps {
        let item = match step {
            Step::Renew(renewal) if !args.dry_run => replace(renewal, &signers[renewal.signer], now),
            other => Item::of(other),
        };
        let copies = copies(step, &item);
        items.push(item);
        items.extend(copies);
    }
    let authorities = ending_authorities(&folder, &own, now);
    Ok(Outcome { folder: dir.display().to_string(), items, authorities, consul: Reload::NotNeeded })
}

/// Completes what an interrupted run left. Says whether something changed.
fn finish(folder: &FolderFacts) -> Result<bool, StoreError> {
    let finished = store::finish(folder)?;
    warn_of(&finished.unsynced);
    Ok(finished.has_changed)
}

fn warn_of(unsynced: &[Unsynced]) {
    unsynced.iter().for_each(|one| complain(&format!("warning: {one}")));
}

fn signers(args: &RenewArgs, folder: &FolderFacts) -> anyhow::Result<(Vec<Authority>, Signers)> {
    match (&args.authority.ca, &args.authority.key) {
        (Some(ca), Some(key)) => {
            let signer = authority(ca, key)?;
            must_be_trusted(&signer, ca, folder)?;
            Ok((vec![signer], Signers::Named))
        }
        (None, None) => {
            let own = folder.authorities().into_iter().filter_map(|(_, one)| {
                let (_, key) = folder.key_of(one)?;
                Authority::new(one.clone(), key.clone()).ok()
            });
            Ok((own.collect(), Signers::Found))
        }
        _ => bail!("`--ca` and `--key` belong together; give both, or neither to use the CA in DIR"),
    }
}

/// Peers that have the folder's CA file would refuse what another CA signs.
fn must_be_trusted(signer: &Authority, ca: &Path, folder: &FolderFacts) -> anyhow::Result<()> {
    let trusted = folder.authorities();
    let Some((file, _)) = trusted.first() else { return Ok(()) };
    if trusted.iter().any(|(_, one)| *one == signer.certificate()) {
        return Ok(());
    }
    bail!(
        "{} is not among the CAs of {}: who trusts only those would refuse what it signs; append it to {} everywhere, \
         reload every Consul agent, and then renew",
        ca.display(),
        folder.path.display(),
        file.path.display()
    )
}

/// What was done with the first of a certificate's files was done with all.
fn copies(step: &Step<'_>, item: &Item) -> Vec<Item> {
    let Step::Renew(renewal) = step else { return Vec::new() };
    let named = |copy: &Leaf<'_>| Item { certificate: copy.file.path.display().to_string(), ..item.clone() };
    renewal.copies.iter().map(named).collect()
}

fn replace(renewal: &Renewal<'_>, signer: &Authority, now: Moment) -> Item {
    let mut item = Item::due(renewal);
    item.action = issue(renewal, signer, now, &mut item.not_after).unwrap_or_else(|error| Action::Failed {
        reason: renewal.reason.clone(),
        problem: format!("{error:#}"),
    });
    item
}

fn issue(
    renewal: &Renewal<'_>,
    signer: &Authority,
    now: Moment,
    not_after: &mut Moment,
) -> anyhow::Result<Action> {
    let issued = signer.renew(renewal.leaf.certificate, renewal.lifetime, now)?;
    let (key, certificates) = successors(renewal, &issued);
    warn_of(&store::replace(&key, &certificates)?);
    *not_after = issued.certificate.not_after;
    let key = folder::file(&renewal.key_file.path)?;
    Ok(Action::Renewed {
        reason: renewal.reason.clone(),
        is_cut_short: issued.is_cut_short,
        key_mode: format!("{:04o}", key.mode),
        owner: key.owner.clone(),
        is_open: key.is_open(),
    })
}

/// The new text of the key's file, and of each other file of the certificate.
fn successors<'a>(renewal: &Renewal<'a>, issued: &Issued) -> (Successor<'a>, Vec<Successor<'a>>) {
    let key_place = renewal.key_file.real.as_path();
    let mut key = Successor { place: key_place, text: issued.key.clone() };
    let mut certificates: Vec<Successor<'a>> = Vec::new();
    for leaf in [&renewal.leaf].into_iter().chain(&renewal.copies) {
        let (place, chain) = (leaf.file.real.as_path(), chain(leaf, issued));
        if place == key_place {
            key.text = format!("{chain}{}", issued.key.expose()).into();
        } else if certificates.iter().all(|one| one.place != place) {
            certificates.push(Successor { place, text: chain.into() });
        }
    }
    (key, certificates)
}

/// The way from the CA to a root stays as it was, unless another CA signs now.
fn chain(leaf: &Leaf<'_>, issued: &Issued) -> String {
    let mut text = issued.pem();
    if leaf.certificate.issuer_raw == issued.certificate.issuer_raw {
        leaf.intermediates.iter().for_each(|one| text.push_str(&pem::certificate(one.der())));
    }
    text
}

fn ending_authorities(folder: &FolderFacts, own: &[&Certificate], now: Moment) -> Vec<String> {
    let leaves = folder.leaves();
    let mut all: Vec<&Certificate> = folder.authorities().into_iter().map(|(_, one)| one).collect();
    let longest = leaves.iter().map(|leaf| renewal::next_lifetime(leaf, &all)).max().unwrap_or_default();
    for one in own {
        if !all.contains(one) {
            all.push(one);
        }
    }
    // One that has issued nothing here is on its way out, or in.
    let is_used =
        |one: &&Certificate| own.contains(one) || leaves.iter().any(|leaf| leaf.issued_by(&[*one]).is_ok());
    all.into_iter()
        .filter(is_used)
        .filter_map(|one| {
            let left = authority_ends_soon(one, longest, now)?;
            let end = one.not_after;
            Some(if left.is_zero() {
                format!("the CA `{}` ENDED on {end}: everything it issued is refused", one.subject)
            } else {
                format!(
                    "the CA `{}` ENDS IN {}, on {end}, and all it issued with it",
                    one.subject,
                    spoken(left)
                )
            })
        })
        .collect()
}

fn mark(dir: &Path) -> anyhow::Result<()> {
    match store::create(&dir.join(RELOAD_DUE), "", KEY_MODE, None) {
        Ok(()) | Err(StoreError::Exists { .. }) => Ok(()),
        Err(error) => Err(error).context("note that Consul is to reload"),
    }
}

async fn reload(settings: ConsulSettings, dir: &Path) -> Reload {
    let address = settings.address.to_string();
    let asked = async { Client::new(settings)?.reload_agent().await };
    match asked.await {
        Ok(()) => {
            let mark = dir.join(RELOAD_DUE);
            if let Err(error) = fs::remove_file(&mark) {
                complain(&format!(
                    "warning: remove {}: {error}; Consul reloads once more next time",
                    mark.display()
                ));
            }
            Reload::Done { address }
        }
        Err(error) => Reload::Failed { address, problem: error.to_string() },
    }
}

//! `causeway sync verify` and `diff`: the keys of two datacenters by value, read through one agent. Both lists are
//! compared as they come, so that memory does not grow with them.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    cli::{
        EXIT_UNAVAILABLE,
        endpoint::{DEADLINE, Endpoint, EndpointFlags, key_path},
        fail, print,
        progress::Progress,
        sync::{
            ask,
            compare::{Comparison, Difference, Side, What, difference},
        },
    },
    consul::wire,
    model::kv::Pair,
};

/// Differences are looked at again so often, after a pause, since what is being written arrives a little later: only what
/// stays counts.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// More differences are told by their number alone, and not looked at again.
const MOST: usize = 10_000;

/// Pages of one list that wait for the other.
const PAGES: usize = 2;

/// What a replica's own answers have. Of trees with locks, and while it is not complete, the home answers instead.
const OF_REPLICA: &str = "x-sync-home";

pub(crate) const VERIFY_HELP: &str = "\
Examples:
  causeway sync verify --with dc2
  causeway sync verify --with dc2 config/ features/

Keys that differ are looked at again for a few seconds, so that writes on their way count as no
difference. Locks live at home only: what is above one cannot be compared. Exit codes: 0 all is
the same; 1 something differs; 2 for a wrong command line; 69 it could not be compared.";

pub(crate) const DIFF_HELP: &str = "\
Examples:
  causeway sync diff --with dc2 config/
  causeway sync diff --datacenter dc2 --with dc3 --json

A line per key: < only the first datacenter has it, > only the second, ! values differ, ~ flags
differ. Exit codes: 0 all is the same; 1 something differs; 2 for a wrong command line; 69 it
could not be compared.";

/// What to compare.
#[derive(Args, Clone, Debug)]
pub(crate) struct VerifyArgs {
    /// What the keys begin with [default: each replicated prefix]
    #[arg(value_name = "PREFIX")]
    prefixes: Vec<String>,
    /// One datacenter [default: the agent's own]
    #[arg(long, value_name = "DC")]
    datacenter: Option<String>,
    /// The other [default: the home of each prefix, and of those at home there all others]
    #[arg(long, value_name = "DC")]
    with: Option<String>,
    /// Print JSON, a document per prefix
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    endpoint: EndpointFlags,
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// How many.
    Sum,
    /// Which ones.
    Keys,
}

/// One prefix and the datacenters that are compared.
struct Pairing {
    prefix: String,
    home: String,
    first: String,
    second: String,
}

pub(crate) async fn run(
    args: &VerifyArgs,
    detail: Detail,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<ExitCode> {
    let endpoint = args.endpoint.endpoint(env)?;
    let compared = async {
        let mut is_same = true;
        for pairing in pairings(&endpoint, args).await? {
            is_same &= one(&endpoint, &pairing, args.json, detail).await?;
        }
        Ok(is_same)
    };
    Ok(match compared.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // 1 is the answer that something differs, and nothing else.
        Err(error) => fail(EXIT_UNAVAILABLE, &error),
    })
}

async fn pairings(endpoint: &Endpoint, args: &VerifyArgs) -> anyhow::Result<Vec<Pairing>> {
    let document = ask(endpoint).await?.1;
    let prefixes = match args.prefixes.is_empty() {
        true => document.prefixes.iter().map(|prefix| prefix.prefix.clone()).collect(),
        false => args.prefixes.clone(),
    };
    let first = args.datacenter.as_ref().unwrap_or(&document.datacenter);
    let mut pairings = Vec::new();
    for prefix in prefixes {
        let home = document
            .prefixes
            .iter()
            .find(|known| prefix.starts_with(&known.prefix))
            .map(|known| &known.home)
            .with_context(|| {
                format!("`{prefix}` belongs to no replicated prefix; see `causeway sync status`")
            })?;
        let seconds: Vec<&String> = match &args.with {
            Some(with) => vec![with],
            None if home != first => vec![home],
            None => document.datacenters.iter().map(|other| &other.datacenter).collect(),
        };
        if seconds.is_empty() || seconds.contains(&first) {
            bail!("there is nothing to compare {first} with; name another datacenter with `--with`");
        }
        pairings.extend(seconds.into_iter().map(|second| Pairing {
            prefix: prefix.clone(),
            home: home.clone(),
            first: first.clone(),
            second: second.clone(),
        }));
    }
    Ok(pairings)
}

/// Compares one prefix and tells of it; whether all is the same.
async fn one(endpoint: &Endpoint, pairing: &Pairing, is_json: bool, detail: Detail) -> anyhow::Result<bool> {
    let mut found = lists(endpoint, pairing).await?;
    for _ in 1..LOOKS {
        if found.differences.is_empty() || found.differences.len() > MOST {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        again(endpoint, pairing, &mut found).await?;
    }
    print(&told(pairing, &found, is_json, detail)).context("write to standard output")?;
    Ok(found.differences.is_empty())
}

async fn lists(endpoint: &Endpoint, pairing: &Pairing) -> anyhow::Result<Comparison> {
    let (first_pages, mut first) = mpsc::channel::<Vec<Pair>>(PAGES);
    let (second_pages, mut second) = mpsc::channel::<Vec<Pair>>(PAGES);
    let compare = async {
        let mut comparison = Comparison::default();
        let mut progress = Progress::counting("keys");
        while let Some(side) = comparison.wants() {
            let pages = if side == Side::First { &mut first } else { &mut second };
            match pages.recv().await {
                Some(page) => {
                    // Both lists go forward together: one tells how far.
                    progress.advance(if side == Side::First { page.len() as u64 } else { 0 });
                    comparison.page(side, page);
                }
                None => comparison.over(side),
            }
        }
        Ok(comparison)
    };
    let list = async |dc: &String, pages| {
        let told = endpoint.scan(&pairing.prefix, &[("dc", Some(dc.as_str()))], DEADLINE, pages).await;
        let headers = told.with_context(|| format!("list `{}` in {dc}", pairing.prefix))?;
        if *dc != pairing.home && !headers.contains_key(OF_REPLICA) {
            bail!(
                "the home {} answered for the replica of `{}` in {dc}, which has locks there or is not complete: nothing \
                 was compared; name what has no locks, or see `causeway sync status`",
                pairing.home,
                pairing.prefix
            );
        }
        Ok(())
    };
    let (_, _, comparison) =
        tokio::try_join!(list(&pairing.first, first_pages), list(&pairing.second, second_pages), compare)?;
    Ok(comparison)
}

/// Looks at the differences once more.
async fn again(endpoint: &Endpoint, pairing: &Pairing, found: &mut Comparison) -> anyhow::Result<()> {
    for Difference { key, .. } in std::mem::take(&mut found.differences) {
        let (first, second) =
            tokio::try_join!(read(endpoint, &key, &pairing.first), read(endpoint, &key, &pairing.second))?;
        let what = match (first, second) {
            (Some(first), Some(second)) => difference(&first, &second),
            (Some(_), None) => Some(What::OnlyFirst),
            (None, Some(_)) => Some(What::OnlySecond),
            (None, None) => continue,
        };
        match what {
            Some(what) => found.differences.push(Difference { key, what }),
            None => found.equal += 1,
        }
    }
    Ok(())
}

async fn read(endpoint: &Endpoint, key: &str, dc: &str) -> anyhow::Result<Option<Pair>> {
    let answer = endpoint.get(&key_path(key), &[("dc", Some(dc))], DEADLINE).await?;
    if answer.is_nothing() {
        return Ok(None);
    }
    Ok(Some(wire::kv::only(&answer.ok()?.body)?))
}

fn told(pairing: &Pairing, found: &Comparison, is_json: bool, detail: Detail) -> String {
    let Pairing { prefix, first, second, .. } = pairing;
    let (equal, differ) = (found.equal, found.differences.len());
    if is_json {
        let mut document =
            json!({"prefix": prefix, "first": first, "second": second, "equal": equal, "different": differ});
        if detail == Detail::Keys {
            document["differences"] = json!(found.differences);
        }
        return format!("{document}\n");
    }
    let mut text = String::new();
    if detail == Detail::Keys {
        for Difference { key, what } in &found.differences {
            let mark = match what {
                What::OnlyFirst => '<',
                What::OnlySecond => '>',
                What::Value => '!',
                What::Flags => '~',
            };
            text.push_str(&format!("{mark} {key}\n"));
        }
    }
    text.push_str(&match differ {
        0 => format!("{prefix}: {equal} keys are the same in {first} and {second}\n"),
        _ => format!("{prefix}: {differ} keys differ between {first} and {second}, {equal} are the same\n"),
    });
    text
}

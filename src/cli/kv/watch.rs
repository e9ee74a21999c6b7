//! `causeway kv watch`: prints what is there, and then each change, until it is ended.
//!
//! Changes that follow each other faster than they are asked for are seen as one.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::HeaderMap;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    cli::{
        complain,
        endpoint::{DEADLINE, Endpoint},
        kv::{ReadFlags, key, shown},
        print,
    },
    lifecycle,
    model::kv::Pair,
};

/// How long an answer waits for a change.
const WAIT: Duration = Duration::from_secs(55);

/// The least time between two questions, and the first and the longest pause after an error.
const LEAST: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

const HELP: &str = "\
Examples:
  causeway kv watch config/greeting
  causeway kv watch --recurse --json config/

What is there is printed first, then each change. Errors are told and it goes on. It runs until a
signal ends it.";

/// Print a value, or the pairs below a prefix, each time they change
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct WatchArgs {
    /// The key, or with --recurse what keys begin with
    #[arg(value_name = "KEY_OR_PREFIX")]
    key: String,
    /// All pairs that begin so
    #[arg(long)]
    recurse: bool,
    /// Print values in Base64
    #[arg(long, conflicts_with = "json")]
    base64: bool,
    /// Print a JSON object per line; a deleted key has {"Key": KEY, "Deleted": true}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadFlags,
}

/// What is known of the keys.
type Known = BTreeMap<String, Pair>;

pub(crate) async fn run(args: &WatchArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let endpoint = args.read.endpoint.endpoint(env)?;
    let (mut known, mut index, mut pause) = (Known::new(), 0, FIRST_PAUSE);
    loop {
        let asked = lifecycle::now();
        match look(&endpoint, args, index).await {
            Ok((found, headers)) => {
                print(&changes(&known, &found, args)?).context("write to standard output")?;
                index = next(index, &headers);
                (known, pause) = (found, FIRST_PAUSE);
                tokio::time::sleep_until(asked + LEAST).await;
            }
            Err(error) => {
                complain(&format!("causeway: {error:#}; trying again in {} s", pause.as_secs()));
                tokio::time::sleep(pause).await;
                // What is there now is asked for at once.
                index = 0;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// What there is, as soon as it is beyond the index.
async fn look(endpoint: &Endpoint, args: &WatchArgs, index: u64) -> anyhow::Result<(Known, HeaderMap)> {
    let (index, wait) = (index.to_string(), format!("{}s", WAIT.as_secs()));
    let mut query = args.read.query();
    let mut deadline = DEADLINE;
    if index != "0" {
        query.extend([("index", Some(index.as_str())), ("wait", Some(wait.as_str()))]);
        // Consul adds up to a sixteenth.
        deadline += WAIT + WAIT / 16;
    }
    let key = key(&args.key);
    if !args.recurse {
        let answer = endpoint.get(&crate::cli::endpoint::key_path(key), &query, deadline).await?;
        if answer.is_nothing() {
            return Ok((Known::new(), answer.headers));
        }
        let answer = answer.ok()?;
        let pair = crate::consul::wire::kv::only(&answer.body)?;
        return Ok((Known::from([(pair.key.clone(), pair)]), answer.headers));
    }
    let (pages, mut coming) = mpsc::channel::<Vec<Pair>>(4);
    let collect = async {
        let mut found = Known::new();
        while let Some(page) = coming.recv().await {
            found.extend(page.into_iter().map(|pair| (pair.key.clone(), pair)));
        }
        found
    };
    let (scanned, found) = tokio::join!(endpoint.scan(key, &query, deadline, pages), collect);
    Ok((found, scanned?))
}

/// The index to wait on. One that went back, as after a restore, is no mark any more.
fn next(index: u64, headers: &HeaderMap) -> u64 {
    let told = headers.get("x-consul-index").and_then(|text| text.to_str().ok()?.parse().ok()).unwrap_or(0);
    if told < index { 0 } else { told }
}

/// What is new, changed and gone.
fn changes(known: &Known, found: &Known, args: &WatchArgs) -> anyhow::Result<String> {
    let mut text = String::new();
    for pair in found.values().filter(|pair| known.get(&pair.key).is_none_or(|old| !is_same(old, pair))) {
        text.push_str(&match (args.json, args.recurse) {
            (true, _) => serde_json::to_string(&shown::Json::from(pair))?,
            (false, true) => format!("{}:{}", pair.key, shown::value(pair, args.base64)),
            (false, false) => shown::value(pair, args.base64),
        });
        text.push('\n');
    }
    for gone in known.keys().filter(|key| !found.contains_key(*key)) {
        match args.json {
            true => text.push_str(&format!("{}\n", json!({"Key": gone, "Deleted": true}))),
            false => complain(&format!("causeway: {gone} was deleted")),
        }
    }
    Ok(text)
}

fn is_same(old: &Pair, new: &Pair) -> bool {
    let content =
        |pair: &Pair| -> (Bytes, u64, bool) { (pair.value.clone(), pair.flags, pair.session.is_some()) };
    old.modify_index == new.modify_index && content(old) == content(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_went_back_is_not_waited_on() {
        let told = |text: &'static str| {
            HeaderMap::from_iter([("x-consul-index".parse().unwrap(), text.parse().unwrap())])
        };
        assert_eq!(next(7, &told("9")), 9);
        assert_eq!(next(7, &told("7")), 7);
        assert_eq!(next(7, &told("6")), 0);
        assert_eq!(next(7, &told("x")), 0);
        assert_eq!(next(7, &HeaderMap::new()), 0);
    }
}

//! `causeway kv import`: many keys in each transaction, several transactions at once.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    cli::{
        complain,
        endpoint::{Answer, Endpoint, key_path},
        kv::{WriteFlags, key, put::given, shown::Entry},
        print,
        progress::Progress,
    },
    consul::wire,
    model::kv::Op,
};

/// What fits every release's transactions beside what replication adds.
const MAX_OPS: usize = 56;

/// Raw bytes of keys and values: in Base64 they stay below Consul's 512 KiB, with what replication adds.
const MAX_BYTES: usize = 128 << 10;

/// Transactions under way at once.
const AT_ONCE: usize = 4;

/// How often a transaction is sent that gets no clear answer, with twice the pause each time.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

const HELP: &str = "\
Examples:
  causeway kv import @config.json
  causeway kv export config/ | causeway kv import --prefix=copy/ -

The file is one of `causeway kv export` or `consul kv export`. Keys that are there already are
overwritten, others stay. Each transaction holds whole or not at all, the import as a whole does
not: run it again after an error. Exit codes: 0 all keys are written; 1 some may not be; 2 for a
wrong command line.";

/// Write all pairs of an export
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct ImportArgs {
    /// The JSON: text, @FILE, or - for standard input
    #[arg(allow_hyphen_values = true)]
    data: String,
    /// What to put before every key
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    write: WriteFlags,
}

pub(crate) async fn run(args: &ImportArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let endpoint = args.write.endpoint.endpoint(env)?;
    let batches = batches(read(&given(&args.data)?, key(&args.prefix))?);
    let total: usize = batches.iter().map(Vec::len).sum();
    let mut progress = Progress::of(total as u64, "keys");
    let query = args.write.query();
    let mut sent = stream::iter(batches)
        .map(|batch| async { (batch.len(), send(&endpoint, &query, batch).await) })
        .buffer_unordered(AT_ONCE);
    let mut written = 0;
    while let Some((count, outcome)) = sent.next().await {
        if let Err(error) = outcome {
            return Err(
                error.context(format!("import, of which {written} of {total} keys are surely written"))
            );
        }
        written += count;
        progress.advance(count as u64);
    }
    drop(progress);
    let text = if args.json {
        format!("{}\n", json!({"imported": written}))
    } else {
        format!("Imported {written} keys\n")
    };
    print(&text).context("write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// The pairs of an export as writes. Of a key that is there twice the last one counts.
fn read(json: &[u8], prefix: &str) -> anyhow::Result<BTreeMap<String, Op>> {
    let entries: Option<Vec<Entry>> = serde_json::from_slice(json)
        .context("read the export; is it the JSON of `kv export`, and all of it?")?;
    let mut ops = BTreeMap::new();
    for entry in entries.unwrap_or_default() {
        let value = entry.value().map_err(anyhow::Error::msg)?;
        let key = format!("{prefix}{}", entry.key);
        if key.is_empty() {
            bail!("the export has a pair without a key");
        }
        ops.insert(key.clone(), Op::Set { key, value, flags: entry.flags });
    }
    Ok(ops)
}

/// In the order of their keys, so that a transaction seldom has keys of two homes.
fn batches(ops: BTreeMap<String, Op>) -> Vec<Vec<Op>> {
    let mut batches: Vec<Vec<Op>> = Vec::new();
    let mut bytes = 0;
    for op in ops.into_values() {
        let size = size(&op);
        match batches.last_mut() {
            Some(batch) if batch.len() < MAX_OPS && bytes + size <= MAX_BYTES => {
                batch.push(op);
                bytes += size;
            }
            _ => {
                batches.push(vec![op]);
                bytes = size;
            }
        }
    }
    batches
}

fn size(op: &Op) -> usize {
    let value = if let Op::Set { value, .. } = op { value.len() } else { 0 };
    op.key().len() + value
}

/// Writes a batch, in halves where it is refused as one: two homes, or too much for a limit that is smaller than ours.
async fn send(endpoint: &Endpoint, query: &[(&str, Option<&str>)], batch: Vec<Op>) -> anyhow::Result<()> {
    let mut left = vec![batch];
    while let Some(mut batch) = left.pop() {
        let answer = exchange(endpoint, query, &batch).await?;
        let is_divisible = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE].contains(&answer.status);
        if is_divisible && batch.len() > 1 {
            left.push(batch.split_off(batch.len() / 2));
            left.push(batch);
            continue;
        }
        answer.ok().with_context(|| format!("write {}", batch.first().map_or("", Op::key)))?;
    }
    Ok(())
}

/// Sends a batch until it has a clear answer, under one id, so that it is executed once at most.
async fn exchange(
    endpoint: &Endpoint,
    query: &[(&str, Option<&str>)],
    batch: &[Op],
) -> anyhow::Result<Answer> {
    let id = format!("import-{:032x}", fastrand::u128(..));
    let headers = [("content-type", "application/json"), ("x-sync-request-id", id.as_str())];
    let flags;
    let (path, body, query) = match batch {
        [Op::Set { key, value, flags: given }] => {
            flags = given.to_string();
            let query = query.iter().copied().chain([("flags", Some(flags.as_str()))]).collect();
            (key_path(key), value.clone(), query)
        }
        many => ("/v1/txn".to_owned(), wire::kv::txn(many), query.to_vec()),
    };
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        let asked = endpoint.ask(Method::PUT, &path, &query, &headers, body.clone()).await;
        let why = match &asked {
            Ok(answer) if is_clear(answer.status) => return asked,
            Ok(answer) => format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body).trim()),
            Err(error) => error.to_string(),
        };
        complain(&format!("causeway: {why}; trying again in {} ms", pause.as_millis()));
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    endpoint.ask(Method::PUT, &path, &query, &headers, body).await
}

fn is_clear(status: StatusCode) -> bool {
    !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn json(count: usize, bytes: usize) -> String {
        let value = "AAAA".repeat(bytes / 3);
        let entry = |n: usize| format!(r#"{{"key":"k/{n:05}","flags":1,"value":"{value}"}}"#);
        format!("[{}]", (0..count).map(entry).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn batches_fit_a_transaction() {
        let sizes = |count, bytes| {
            let batches = batches(read(json(count, bytes).as_bytes(), "p/").unwrap());
            batches.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(sizes(0, 0), [0_usize; 0]);
        assert_eq!(sizes(130, 30), [56, 56, 18]);
        assert_eq!(sizes(5, 60_000), [2, 2, 1]);
        assert_eq!(sizes(2, 300_000), [1, 1]);
    }

    #[test]
    fn an_export_is_read_with_its_prefix_and_the_last_of_a_key_counts() {
        let text = r#"[{"key":"a","flags":0,"value":"eA=="},{"key":"a","flags":7,"value":"eQ=="},{"key":"b","value":null}]"#;
        let ops: Vec<Op> = read(text.as_bytes(), "p/").unwrap().into_values().collect();
        let set = |key: &str, value: &'static [u8], flags| Op::Set {
            key: key.into(),
            value: Bytes::from_static(value),
            flags,
        };
        assert_eq!(ops, [set("p/a", b"y", 7), set("p/b", b"", 0)]);
        assert!(read(b"null", "").unwrap().is_empty());
        for bad in
            ["", "[", "{}", r#"[{"flags":1}]"#, r#"[{"key":"a","value":"?"}]"#, r#"[{"key":"","value":""}]"#]
        {
            assert!(read(bad.as_bytes(), "").is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_export_is_read_or_refused(at in 0_usize..120, put in proptest::collection::vec(0_u8.., 1..8)) {
            let mut text = json(2, 30).into_bytes();
            let from = at.min(text.len());
            text.splice(from..(from + put.len()).min(text.len()), put);
            if let Ok(ops) = read(&text, "p/") {
                proptest::prop_assert!(ops.keys().all(|key| key.starts_with("p/")));
                proptest::prop_assert_eq!(batches(ops.clone()).iter().map(Vec::len).sum::<usize>(), ops.len());
            }
        }
    }
}

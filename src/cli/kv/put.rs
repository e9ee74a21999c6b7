//! `causeway kv put`.

use std::{
    io::{self, Read},
    process::ExitCode,
};

use anyhow::{Context, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use clap::Args;
use http::Method;
use serde_json::json;

use crate::cli::{
    complain,
    endpoint::{Answer, key_path},
    kv::{OneWriteFlags, key, remark},
    print,
};

const HELP: &str = "\
Examples:
  causeway kv put config/greeting hello
  causeway kv put config/nginx.conf @nginx.conf
  causeway kv put --cas --modify-index=7 config/greeting servus

Exit codes: 0 written; 1 not written: the key was changed meanwhile (--cas), somebody else holds
it (--acquire), or the agent refused or cannot be asked; 2 for a wrong command line.";

/// Write a value, compare and set it, or take or free a lock
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct PutArgs {
    /// The key
    key: String,
    /// The value: text, @FILE, or - for standard input [default: an empty value]
    #[arg(allow_hyphen_values = true)]
    data: Option<String>,
    /// The value given is in Base64
    #[arg(long)]
    base64: bool,
    /// A number of your own that is kept with the value
    #[arg(long, default_value_t = 0)]
    flags: u64,
    /// Only if the key's index is still that of --modify-index; 0 is that of a key that is not there
    #[arg(long, requires = "modify_index")]
    cas: bool,
    /// The index that the key must have
    #[arg(long, value_name = "INDEX", requires = "cas")]
    modify_index: Option<u64>,
    /// Take the key as a lock of --session
    #[arg(long, group = "change_of_lock", requires = "session", conflicts_with = "cas")]
    acquire: bool,
    /// Free the key, which --session holds
    #[arg(long, group = "change_of_lock", requires = "session", conflicts_with = "cas")]
    release: bool,
    /// The session that takes or frees it
    #[arg(long, value_name = "ID", requires = "change_of_lock")]
    session: Option<String>,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    write: OneWriteFlags,
}

pub(crate) async fn run(args: &PutArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let endpoint = args.write.each.endpoint.endpoint(env)?;
    let key = key(&args.key);
    if key.is_empty() {
        bail!("no key is given");
    }
    let value = value(args.data.as_deref(), args.base64)?;
    let (flags, index) = (args.flags.to_string(), args.modify_index.map(|index| index.to_string()));
    let mut query = args.write.each.query();
    query.extend((args.flags != 0).then_some(("flags", Some(flags.as_str()))));
    query.extend(args.cas.then_some(("cas", index.as_deref())));
    query.extend(args.acquire.then_some(("acquire", args.session.as_deref())));
    query.extend(args.release.then_some(("release", args.session.as_deref())));
    let answer = endpoint.ask(Method::PUT, &key_path(key), &query, &args.write.headers(), value).await?;
    told(args, key, &answer.ok()?)
}

fn told(args: &PutArgs, key: &str, answer: &Answer) -> anyhow::Result<ExitCode> {
    let is_done = match answer.body.trim_ascii() {
        b"true" => true,
        b"false" => false,
        _ => bail!("the agent did not say whether {key} was written"),
    };
    let token = answer.header("x-lock-token");
    let text = match (args.json, is_done) {
        (true, _) => {
            let seq = answer.header("x-sync-seq");
            format!("{}\n", json!({"key": key, "written": is_done, "lock_token": token, "seq": seq}))
        }
        (false, false) if args.acquire => {
            bail!("did not acquire the lock on {key}: another session holds it")
        }
        (false, false) if args.release => bail!("did not release {key}: the session does not hold it"),
        (false, false) => bail!("did not write to {key}: its index is another one"),
        (false, true) if args.acquire => {
            let token = token.map(|token| format!(" (token {token})")).unwrap_or_default();
            format!("Success! Lock acquired on: {key}{token}\n")
        }
        (false, true) if args.release => format!("Success! Lock released on: {key}\n"),
        (false, true) => format!("Success! Data written to: {key}\n"),
    };
    print(&text).context("write to standard output")?;
    remark(answer).into_iter().for_each(complain);
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The value that was typed, or what it names.
fn value(data: Option<&str>, is_base64: bool) -> anyhow::Result<Bytes> {
    let bytes = match data {
        None => Vec::new(),
        Some(data) => given(data)?,
    };
    if !is_base64 {
        return Ok(bytes.into());
    }
    BASE64_STANDARD
        .decode(bytes.trim_ascii())
        .map(Bytes::from)
        .context("the value is not Base64, as --base64 says")
}

/// Text, `@FILE`, or `-` for standard input.
pub(crate) fn given(data: &str) -> anyhow::Result<Vec<u8>> {
    if data == "-" {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).context("read standard input")?;
        return Ok(bytes);
    }
    match data.strip_prefix('@') {
        Some(file) => std::fs::read(file).with_context(|| format!("read {file}")),
        None => Ok(data.as_bytes().to_vec()),
    }
}

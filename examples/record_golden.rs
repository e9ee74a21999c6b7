//! Records golden cases: brings up one lab, and for each case takes its steps, waits until Consul's answers are
//! stable, writes every answer that the proxy needs into the case's `consul/`, and takes the steps back.
//!
//!     cargo build && cargo run --example record_golden -- tests/golden/recorded/*
//!
//! A case's `scenario.json` says on which node's Consul the proxy is (`agent`), and what to do first (`steps`): each
//! step is one call to a node's Consul (`on`, the agent's own where it is left out), `put` or `post` with a `body`.
//! What registers a service, an intention, a configuration entry or a prepared query is taken back afterwards.
//!
//! What is not kept: private keys (a dummy stands for them) and all of `/v1/agent/self` that is not read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use causeway::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::{
        client::{Client, Reply},
        topic,
    },
    lab::{Lab, LabOptions},
    lifecycle,
    model::catalog::{Catalog, Topic},
};
use serde::Deserialize;
use serde_json::{Value, json};

#[path = "../tests/golden/case.rs"]
#[allow(dead_code, reason = "the tests look at more of a case")]
mod case;

use case::{Answered, Case};

/// One call to Consul.
const CALL: Duration = Duration::from_secs(10);
/// Between two readings that must agree.
const PAUSE: Duration = Duration::from_millis(400);
/// So many readings in a row agree: what the agents still have to tell the servers is told within two of them.
const AGREEING: usize = 4;
/// A case is stable by then.
const PATIENCE: Duration = Duration::from_secs(45);
/// What stands for a private key.
const NO_KEY: &str = "-----BEGIN PRIVATE KEY-----\nZHVtbXk=\n-----END PRIVATE KEY-----\n";
/// What is read of `DebugConfig` in `/v1/agent/self`.
const DEBUG_FIELDS: &[&str] = &[
    "ACLDefaultPolicy",
    "ACLsEnabled",
    "DNSDomain",
    "DefaultIntentionPolicy",
    "PrimaryDatacenter",
    "TranslateWANAddrs",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// The node whose Consul knows the proxy.
    agent: String,
    #[serde(default)]
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    on: Option<String>,
    put: Option<String>,
    post: Option<String>,
    body: Option<Value>,
}

/// What takes a step back.
enum Undo {
    Put(String),
    Delete(String),
}

type Answers = BTreeMap<String, Answered>;

#[tokio::main]
async fn main() -> Result<()> {
    let dirs: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    ensure!(!dirs.is_empty(), "name the folders of the cases to record");
    let cases = dirs.iter().map(|dir| load(dir)).collect::<Result<Vec<_>>>()?;
    let dir = tempfile::tempdir().context("make the lab's folder")?;
    let lab = Lab::start(options(dir.path())?, |line| eprintln!("{line}")).await?;
    let outcome = record_all(&lab, &cases).await;
    lab.stop().await?;
    outcome
}

fn load(dir: &Path) -> Result<(Case, Scenario)> {
    let case = Case::load(dir).map_err(|error| anyhow!(error))?;
    let path = dir.join("scenario.json");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let scenario = serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))?;
    Ok((case, scenario))
}

/// The lab of the `causeway` that was built beside this program.
fn options(dir: &Path) -> Result<LabOptions> {
    let me = std::env::current_exe().context("find this program")?;
    let built = me.parent().and_then(Path::parent).context("find the target folder")?;
    let causeway = built.join("causeway");
    ensure!(causeway.is_file(), "no {}: run `cargo build` first", causeway.display());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(LabOptions::new(dir, causeway, root, &|name| std::env::var_os(name))?)
}

async fn record_all(lab: &Lab, cases: &[(Case, Scenario)]) -> Result<()> {
    let mut failed = Vec::new();
    for (case, scenario) in cases {
        match record(lab, case, scenario).await {
            Ok(answers) => eprintln!("{}: {answers} answers", case.dir.display()),
            Err(error) => {
                eprintln!("{}: {error:#}", case.dir.display());
                failed.push(case.dir.display().to_string());
            }
        }
    }
    ensure!(failed.is_empty(), "not recorded: {}", failed.join(", "));
    Ok(())
}

async fn record(lab: &Lab, case: &Case, scenario: &Scenario) -> Result<usize> {
    let mut undos = Vec::new();
    let recorded = async {
        for step in &scenario.steps {
            let client = client(lab, step.on.as_ref().unwrap_or(&scenario.agent))?;
            if let Some(undo) = take(&client, step).await? {
                undos.push((client, undo));
            }
        }
        settle(&client(lab, &scenario.agent)?, case).await
    }
    .await;
    for (client, undo) in undos.into_iter().rev() {
        let reply = match &undo {
            Undo::Put(path) => client.put(path, &[], None, CALL).await,
            Undo::Delete(path) => client.delete(path, &[], CALL).await,
        };
        reply.and_then(Reply::ok).context("take a step back")?;
    }
    let answers = recorded?;
    write(case, &answers)?;
    Ok(answers.len())
}

fn client(lab: &Lab, node: &str) -> Result<Client> {
    let address = ConsulAddress::parse(&lab.node(node)?.consul_http).map_err(|error| anyhow!(error))?;
    Ok(Client::new(ConsulSettings { address, ..ConsulSettings::default() })?)
}

async fn take(client: &Client, step: &Step) -> Result<Option<Undo>> {
    let (path, reply) = match (&step.put, &step.post) {
        (Some(path), None) => (path, client.put(path, &[], step.body.clone(), CALL).await),
        (None, Some(path)) => (path, client.post(path, &[], step.body.clone(), CALL).await),
        _ => bail!("a step has either `put` or `post`"),
    };
    let reply = reply.and_then(Reply::ok).with_context(|| format!("take the step {path}"))?;
    let of = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let body = step.body.as_ref().unwrap_or(&Value::Null);
    Ok(match path.as_str() {
        "/v1/agent/service/register" => {
            Some(Undo::Put(format!("/v1/agent/service/deregister/{}", of(body, "ID"))))
        }
        "/v1/config" => Some(Undo::Delete(format!("/v1/config/{}/{}", of(body, "Kind"), of(body, "Name")))),
        "/v1/connect/intentions" | "/v1/query" => {
            let made: Value = reply.json()?;
            Some(Undo::Delete(format!("{path}/{}", of(&made, "ID"))))
        }
        _ => None,
    })
}

/// Reads everything until several readings in a row agree.
async fn settle(client: &Client, case: &Case) -> Result<Answers> {
    let started = lifecycle::now();
    let (mut last, mut agreeing) = (Answers::new(), 0);
    while agreeing < AGREEING {
        ensure!(started.elapsed() < PATIENCE, "not stable after {PATIENCE:?}");
        tokio::time::sleep(PAUSE).await;
        let now = read_all(client, case).await?;
        agreeing = if is_same(&now, &last) { agreeing + 1 } else { 1 };
        last = now;
    }
    Ok(last)
}

/// Any write of a table moves an index, so only bodies count.
fn is_same(now: &Answers, last: &Answers) -> bool {
    let bodies = |answers: &Answers| {
        answers.iter().map(|(name, it)| (name.clone(), it.status, it.body.clone())).collect::<Vec<_>>()
    };
    bodies(now) == bodies(last)
}

async fn read_all(client: &Client, case: &Case) -> Result<Answers> {
    let (mut catalog, mut asked, mut answers) = (Catalog::default(), BTreeSet::new(), Answers::new());
    loop {
        let topics = case::new_needs(case, &catalog, &mut asked);
        if topics.is_empty() {
            return Ok(answers);
        }
        for topic in topics {
            let answered = read(client, &topic).await?;
            case::hear(&mut catalog, &topic, &answered).map_err(|error| anyhow!("{topic}: {error}"))?;
            if let Some(trouble) = catalog.trouble(&topic) {
                bail!("{topic}: {trouble}");
            }
            answers.insert(case::file_name(&topic), answered);
        }
    }
}

async fn read(client: &Client, topic: &Topic) -> Result<Answered> {
    let question = topic::question(topic);
    let query: Vec<_> = question.query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let reply = match question.body {
        Some(body) => client.post(&question.path, &query, Some(body), CALL).await,
        None => client.get(&question.path, &query, CALL).await,
    }?;
    let mut body = serde_json::from_slice(&reply.body)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&reply.body)));
    match topic {
        Topic::Leaf(_) => body["PrivateKeyPEM"] = NO_KEY.into(),
        Topic::Agent => body = reduced(&body),
        _ => {}
    }
    let headers = [
        ("X-Consul-Index", reply.index.map(|index| index.to_string())),
        ("X-Consul-ContentHash", reply.content_hash.clone()),
        ("X-Consul-Default-ACL-Policy", reply.default_acl_policy.clone()),
    ];
    let headers = headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    Ok(Answered { status: reply.status.as_u16(), headers, body })
}

fn reduced(agent: &Value) -> Value {
    let debug = DEBUG_FIELDS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), agent["DebugConfig"].get(*name)?.clone())));
    let debug: serde_json::Map<String, Value> = debug.collect();
    json!({ "Config": agent["Config"], "DebugConfig": debug })
}

/// Replaces the case's answers.
fn write(case: &Case, answers: &Answers) -> Result<()> {
    let dir = case.answers_dir();
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    for (name, answered) in answers {
        let path = dir.join(name);
        let text = serde_json::to_string_pretty(answered)? + "\n";
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

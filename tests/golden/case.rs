//! A golden case's inputs on disk: what it is about, and Consul's answers, one file for each topic. Shared by the
//! tests and by the recorder. It must not know what is made of the answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use causeway::{
    consul::{
        client::Reply,
        topic::{self, Outcome},
    },
    mesh::{self, Options},
    model::{
        agent::DefaultPolicy,
        catalog::{Catalog, Heard, Topic},
        chain::ChainRequest,
        name::ProxyId,
    },
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A case's folder and what its `proxy.toml` says.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) dir: PathBuf,
    pub(crate) proxy: ProxyId,
    pub(crate) options: Options,
    /// The case is about topics that were never answered.
    pub(crate) is_incomplete: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProxyFile {
    about: String,
    proxy: String,
    #[serde(default)]
    incomplete: bool,
    #[serde(default)]
    options: OptionsSection,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OptionsSection {
    default_intention_policy: Option<String>,
}

/// Consul's answer to one topic, as it is kept.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// Only those that matter.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// JSON as Consul sent it; what was no JSON is a text.
    pub(crate) body: Value,
}

impl Case {
    pub(crate) fn load(dir: &Path) -> Result<Self, String> {
        let path = dir.join("proxy.toml");
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let file: ProxyFile =
            toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        if file.about.trim().is_empty() {
            return Err(format!("{}: `about` says nothing", path.display()));
        }
        let default_policy = match file.options.default_intention_policy.as_deref() {
            None => None,
            Some("allow") => Some(DefaultPolicy::Allow),
            Some("deny") => Some(DefaultPolicy::Deny),
            Some(other) => return Err(format!("{}: no such policy: {other}", path.display())),
        };
        Ok(Self {
            dir: dir.to_owned(),
            proxy: ProxyId::from(file.proxy),
            options: Options { default_policy },
            is_incomplete: file.incomplete,
        })
    }

    pub(crate) fn answers_dir(&self) -> PathBuf {
        self.dir.join("consul")
    }
}

/// Where a topic's answer is kept: its name, and the overrides that a chain is asked with.
pub(crate) fn file_name(topic: &Topic) -> String {
    let mut name = topic.to_string().replace('/', "_");
    if let Topic::Chain(ChainRequest { gateway_mode, protocol, connect_timeout_ms, .. }) = topic {
        let mode = gateway_mode.map(|mode| format!("gateway-{mode:?}").to_lowercase());
        let protocol = protocol.map(|protocol| protocol.as_str().to_owned());
        let timeout = connect_timeout_ms.map(|ms| format!("{ms}ms"));
        for part in [mode, protocol, timeout].into_iter().flatten() {
            name = format!("{name}+{part}");
        }
    }
    name + ".json"
}

impl Answered {
    /// What the agent would make of it.
    fn outcome(&self, topic: &Topic) -> Result<Outcome, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            headers.insert(name, HeaderValue::try_from(value).map_err(|error| error.to_string())?);
        }
        let status = StatusCode::from_u16(self.status).map_err(|error| error.to_string())?;
        let body = match &self.body {
            Value::String(text) => text.clone(),
            json => json.to_string(),
        };
        let reply = Reply::recorded(format!("read {topic}"), status, &headers, body.into());
        Ok(topic::outcome(topic, &reply))
    }
}

/// Hears an answer as the agent does.
pub(crate) fn hear(catalog: &mut Catalog, topic: &Topic, answered: &Answered) -> Result<(), String> {
    match answered.outcome(topic)? {
        Outcome::Heard(answer, notes) => {
            catalog.hear(topic.clone(), Heard { notes: notes.into(), ..Heard::fresh(answer) });
        }
        Outcome::Absent(answer) => {
            catalog.hear(topic.clone(), Heard::fresh(answer));
        }
        Outcome::Lost(_, reason) => {
            catalog.lose(topic, reason);
        }
    }
    Ok(())
}

/// The topics that the proxy needs now and that were not asked before.
pub(crate) fn new_needs(case: &Case, catalog: &Catalog, asked: &mut BTreeSet<Topic>) -> Vec<Topic> {
    let needs = mesh::needs(catalog, &case.proxy, case.options);
    needs.into_iter().filter(|topic| asked.insert(topic.clone())).collect()
}

//! The status document, as much of it as is shown, and the table made of it. Pure.

use serde::Deserialize;

use crate::cli::table::{Side, lines};

/// `/v1/sync/status`
#[derive(Debug, Deserialize)]
pub(crate) struct Document {
    pub(crate) datacenter: String,
    node: String,
    #[serde(default)]
    pub(crate) prefixes: Vec<Prefix>,
    #[serde(default)]
    pub(crate) datacenters: Vec<Datacenter>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Prefix {
    pub(crate) prefix: String,
    pub(crate) home: String,
    #[serde(default)]
    active_node: Option<String>,
    #[serde(default)]
    misfit: Option<String>,
    #[serde(default)]
    as_home: Option<Home>,
    #[serde(default)]
    as_replica: Option<Replica>,
}

#[derive(Debug, Deserialize)]
struct Home {
    state: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    position: Option<Position>,
}

#[derive(Debug, Deserialize)]
struct Replica {
    stage: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    position: Option<Position>,
    #[serde(default)]
    lag: Lag,
    #[serde(default)]
    keys: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lag {
    entries: Option<u64>,
    ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Position {
    epoch: u32,
    seq: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Datacenter {
    pub(crate) datacenter: String,
    #[serde(default)]
    heard_ms_ago: Option<u64>,
    #[serde(default)]
    trouble: Option<String>,
}

const COLUMNS: [&str; 7] = ["PREFIX", "HOME", "HERE", "STATE", "POSITION", "LAG", "ACTIVE NODE"];

impl Document {
    /// Whether every prefix is served here, or followed, as far as this agent can tell: one that stands by knows no more
    /// than that another is active.
    pub(crate) fn is_synced(&self) -> bool {
        self.prefixes.iter().all(|prefix| {
            let state = prefix.state().0;
            let is_well = match state {
                "standby" => prefix.active_node.is_some(),
                _ => ["serving", "stream"].contains(&state),
            };
            is_well && prefix.misfit.is_none()
        })
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("datacenter {}, node {}\n", self.datacenter, self.node);
        if self.prefixes.is_empty() {
            text.push_str("\nno prefix is replicated; name some under [sync] in the configuration\n");
            return text;
        }
        let mut rows = vec![COLUMNS.map(str::to_owned)];
        rows.extend(self.prefixes.iter().map(|prefix| prefix.row(&self.datacenter)));
        text.push('\n');
        for line in lines(&rows, Side::Left) {
            text.push_str(&line);
            text.push('\n');
        }
        let reasons =
            self.prefixes.iter().filter_map(|it| Some(format!("{}: {}\n", it.prefix, it.reason()?)));
        let troubles = self.datacenters.iter().filter_map(Datacenter::line);
        let remarks: Vec<String> = reasons.chain(troubles).collect();
        if !remarks.is_empty() {
            text.push('\n');
            text.push_str(&remarks.concat());
        }
        text
    }
}

impl Prefix {
    fn state(&self) -> (&str, Option<Position>) {
        match (&self.as_home, &self.as_replica) {
            (Some(home), _) => (&home.state, home.position),
            (None, Some(replica)) => (&replica.stage, replica.position),
            (None, None) => ("standby", None),
        }
    }

    fn reason(&self) -> Option<&str> {
        let home = self.as_home.as_ref().and_then(|home| home.reason.as_deref());
        let replica = self.as_replica.as_ref().and_then(|replica| replica.reason.as_deref());
        self.misfit.as_deref().or(home).or(replica)
    }

    fn row(&self, own: &str) -> [String; 7] {
        let (state, position) = self.state();
        let dash = || "-".to_owned();
        let here = match &self.as_replica {
            _ if self.home == own => "home".into(),
            Some(replica) => format!("replica, {} keys", replica.keys),
            None => "replica".into(),
        };
        [
            self.prefix.clone(),
            self.home.clone(),
            here,
            state.to_owned(),
            position.map_or_else(dash, |at| format!("{}.{}", at.epoch, at.seq)),
            self.as_replica.as_ref().map_or_else(dash, |replica| replica.lag.text()),
            self.active_node.clone().unwrap_or_else(dash),
        ]
    }
}

impl Lag {
    fn text(&self) -> String {
        match (self.entries, self.ms) {
            (Some(0), Some(0)) => "none".into(),
            (Some(entries), Some(ms)) => format!("{entries} entries, {ms} ms"),
            (Some(entries), None) => format!("{entries} entries"),
            (None, Some(ms)) => format!("{ms} ms"),
            (None, None) => "unknown".into(),
        }
    }
}

impl Datacenter {
    fn line(&self) -> Option<String> {
        let trouble = self.trouble.as_deref()?;
        let heard =
            self.heard_ms_ago.map_or_else(|| "never heard".into(), |ms| format!("heard {} s ago", ms / 1000));
        Some(format!("datacenter {} ({heard}): {trouble}\n", self.datacenter))
    }
}

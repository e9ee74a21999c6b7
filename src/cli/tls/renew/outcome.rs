//! What a renewal did, as a document, as text and as an exit code. Pure.

use std::fmt::Write as _;

use serde::Serialize;

use crate::tls::x509::{
    moment::Moment,
    renewal::{Renewal, Step},
};

/// How to replace a CA, in short.
const ROLL_OVER: &str = "\
         Roll over to a new CA while this one lasts (tls/README.md, \"A new CA\"):
         1. causeway tls ca create --dir new
         2. let every agent trust both: append new/consul-agent-ca.pem to its CA file, and reload it
         3. causeway tls renew DIR --all --ca new/consul-agent-ca.pem --key new/consul-agent-ca-key.pem --reload
         4. when every certificate is renewed everywhere, take the old CA out of the CA files";

/// Everything that a run did and found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) folder: String,
    #[serde(rename = "certificates")]
    pub(crate) items: Vec<Item>,
    /// CAs that end soon, a sentence each.
    #[serde(rename = "ending_authorities")]
    pub(crate) authorities: Vec<String>,
    pub(crate) consul: Reload,
}

/// One certificate.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Item {
    pub(crate) certificate: String,
    pub(crate) key: Option<String>,
    /// Its end, after what was done.
    pub(crate) not_after: Moment,
    #[serde(flatten)]
    pub(crate) action: Action,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub(crate) enum Action {
    Kept { due_from: Moment },
    Renewed { reason: String, is_cut_short: bool, key_mode: String, owner: String, is_open: bool },
    WouldRenew { reason: String },
    Stuck { reason: String, problem: String, remedy: String },
    Failed { reason: String, problem: String },
}

/// What became of telling Consul.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "reload", rename_all = "kebab-case")]
pub(crate) enum Reload {
    NotNeeded,
    NotAsked,
    Done { address: String },
    Failed { address: String, problem: String },
}

/// How the run ended; the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Good,
    Problems,
    NotReloaded,
    AuthorityEnds,
}

impl Item {
    /// Of a step before anything is written.
    pub(crate) fn of(step: &Step<'_>) -> Self {
        match step {
            Step::Keep { certificate, not_after, due_from } => Self {
                certificate: certificate.display().to_string(),
                key: None,
                not_after: *not_after,
                action: Action::Kept { due_from: *due_from },
            },
            Step::Stuck { certificate, not_after, reason, obstacle, remedy } => Self {
                certificate: certificate.display().to_string(),
                key: None,
                not_after: *not_after,
                action: Action::Stuck {
                    reason: reason.clone(),
                    problem: obstacle.clone(),
                    remedy: remedy.clone(),
                },
            },
            Step::Renew(renewal) => Self::due(renewal),
        }
    }

    /// Of one that is due and not yet renewed.
    pub(crate) fn due(renewal: &Renewal<'_>) -> Self {
        Self {
            certificate: renewal.leaf.file.path.display().to_string(),
            key: Some(renewal.key_file.path.display().to_string()),
            not_after: renewal.leaf.certificate.not_after,
            action: Action::WouldRenew { reason: renewal.reason.clone() },
        }
    }

    fn text(&self) -> String {
        let Self { certificate, not_after, .. } = self;
        match &self.action {
            Action::Kept { due_from } => {
                format!("kept     {certificate}: valid until {not_after}, renewal due from {due_from}")
            }
            Action::Renewed { reason, key_mode, owner, .. } => {
                let key = self.key.as_deref().unwrap_or_default();
                format!(
                    "renewed  {certificate}: {reason}; now valid until {not_after}\n         replaced in this order: \
                     {key} (mode {key_mode}, owner {owner}), then the certificate"
                )
            }
            Action::WouldRenew { reason } => {
                format!("due      {certificate}: {reason}; not renewed in a dry run")
            }
            Action::Stuck { reason, problem, remedy } => {
                format!("STUCK    {certificate}: {reason}, and {problem}\n         {remedy}")
            }
            Action::Failed { reason, problem } => format!("FAILED   {certificate}: {reason}; {problem}"),
        }
    }
}

impl Outcome {
    /// Whether a file was replaced.
    pub(crate) fn has_renewed(&self) -> bool {
        self.items.iter().any(|item| matches!(item.action, Action::Renewed { .. }))
    }

    /// How the run ended.
    pub(crate) fn ending(&self) -> Ending {
        let is_problem = |item: &Item| matches!(item.action, Action::Stuck { .. } | Action::Failed { .. });
        if self.items.iter().any(is_problem) {
            Ending::Problems
        } else if matches!(self.consul, Reload::Failed { .. }) {
            Ending::NotReloaded
        } else if !self.authorities.is_empty() {
            Ending::AuthorityEnds
        } else {
            Ending::Good
        }
    }

    /// What was done, a line for each certificate and one for Consul.
    pub(crate) fn text(&self) -> String {
        let mut out: String = self.items.iter().map(|item| item.text() + "\n").collect();
        // Writing into a String cannot fail.
        let _ = match &self.consul {
            Reload::NotNeeded => Ok(()),
            Reload::NotAsked => writeln!(
                out,
                "A Causeway agent reads these files again by itself; a Consul agent does with `consul reload`, or with \
                 `--reload` here."
            ),
            Reload::Done { address } => writeln!(
                out,
                "reloaded the Consul agent at {address}; a Causeway agent reads the files again by itself"
            ),
            Reload::Failed { .. } => Ok(()),
        };
        out
    }

    /// What somebody must look at, for standard error.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for item in &self.items {
            if let (Action::Renewed { is_open: true, key_mode, .. }, Some(key)) = (&item.action, &item.key) {
                lines.push(format!(
                    "warning: {key} keeps its mode {key_mode}: others than its owner can get at it; chmod 600 {key}"
                ));
            }
            if let Action::Renewed { is_cut_short: true, .. } = item.action {
                lines.push(format!("warning: {} ends with its CA, earlier than it should", item.certificate));
            }
        }
        if let Reload::Failed { address, problem } = &self.consul {
            lines.push(format!(
                "warning: the certificates are renewed, and the Consul agent at {address} did not reload: {problem}\n         \
                 Reloading needs agent:write. The next run with --reload asks again; `consul reload` does it now"
            ));
        }
        for authority in &self.authorities {
            lines.push(format!("WARNING: {authority}\n{ROLL_OVER}"));
        }
        lines
    }
}

//! Intended against actual: what a proxy is meant to have, compared with what its Envoy says of itself. Pure.
//!
//! Both sides are brought into one form first (`form`), so that what Envoy writes otherwise, or leaves out, is no
//! difference. What Envoy has of its own, from its bootstrap, takes no part, and neither does what only drains.

mod actual;
mod fields;
mod form;
mod intended;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::{Serialize, Serializer};
use serde_json::Value;

pub use self::{
    actual::{Actual, Unreadable},
    intended::{Intended, Wanted},
};
use self::{
    actual::{
        Comparison::{Differs, Same},
        Found, Held,
    },
    intended::Standing,
};
use crate::xds::{
    resource::{Key, Kind},
    status::ResourceState,
};

/// Why nothing can be said of endpoints whose cluster is not in use yet.
const UNSEEN: &str = "its cluster is warming; until it is in use, Envoy does not tell its endpoints";

/// What a comparison has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The proxy's service id.
    pub proxy: String,
    /// Whether Envoy has all that is intended and nothing else, and the agent knows all that it takes to say so.
    pub equal: bool,
    /// How many resources were compared, on either side.
    pub compared: usize,
    /// What the agent does not know yet; what depends on it is not among the intended resources.
    pub waiting_for: Vec<String>,
    /// By type in sending order, then by name.
    pub differences: Vec<Difference>,
}

/// One resource that is not as it is meant to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its type.
    #[serde(rename = "type", serialize_with = "short")]
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// In which way it differs.
    pub state: State,
    /// The version that is intended.
    pub intended_version: Option<String>,
    /// The version that Envoy has; it tells none of endpoints.
    pub actual_version: Option<String>,
    /// Why, if anybody says: Envoy's own words for a refusal, or where the resource stands at the agent.
    pub reason: Option<String>,
    /// The fields that differ, where both sides have the resource.
    pub fields: Vec<Field>,
}

/// How a resource differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Envoy refused the intended version.
    Refused,
    /// Intended, and Envoy does not have it.
    Missing,
    /// Envoy has the intended version and does not use it yet: something that it needs is not there.
    Warming,
    /// Envoy has it, with other contents.
    Different,
    /// Envoy has the same under another version.
    Version,
    /// Envoy has it, and the agent knows nothing of it.
    Unknown,
}

/// One field that differs. Secrets are not among the values: neither side tells them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Where it is, as in `filter_chains[name=public].filters[0].name`.
    pub path: String,
    /// What is intended; none where nothing is.
    pub intended: Option<Value>,
    /// What Envoy has; none where it has nothing.
    pub actual: Option<Value>,
}

fn short<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.short())
}

/// Compares the two.
pub fn compare(intended: &Intended, actual: &Actual) -> Report {
    // Envoy asks for the others only where something names them.
    let is_wanted = |key: &Key| is_root(key.kind) || intended.named.contains(key);
    let wanted = intended.resources.keys().filter(|key| is_wanted(key));
    let found = actual.resources.keys();
    let keys: BTreeSet<&Key> = wanted.chain(found).collect();
    let differences: Vec<_> = keys.iter().filter_map(|key| difference(key, intended, actual)).collect();
    Report {
        proxy: intended.proxy.clone(),
        equal: differences.is_empty() && intended.waiting_for.is_empty(),
        compared: keys.len(),
        waiting_for: intended.waiting_for.clone(),
        differences,
    }
}

fn is_root(kind: Kind) -> bool {
    matches!(kind, Kind::Cluster | Kind::Listener)
}

fn difference(key: &Key, intended: &Intended, actual: &Actual) -> Option<Difference> {
    let nothing = Found::default();
    let found = actual.resources.get(key).unwrap_or(&nothing);
    let standing = intended.standings.get(key);
    match intended.resources.get(key) {
        Some(wanted) => missed(key, &wanted.as_held(actual.transport), found, standing, actual),
        None => surplus(key, found, actual),
    }
}

/// How what is intended is missed, if it is.
fn missed(
    key: &Key,
    wanted: &Held,
    found: &Found,
    standing: Option<&Standing>,
    actual: &Actual,
) -> Option<Difference> {
    let held = found.active.as_ref().or(found.warming.as_ref());
    let told = || standing.and_then(Standing::told);
    let active = found.active.as_ref().map(|held| wanted.differing(held));
    let warming = found.warming.as_ref().map(|held| wanted.differing(held));
    let (state, reason, fields) = match (active, warming) {
        // Envoy shows a secret, or a route, as its own before it finds out that it cannot use it.
        (Some(Same), _) if is_root(key.kind) || !is_rejected(standing) => {
            // A listener of which only filter chains changed is updated in place, and shows its first version for ever.
            let has_version = actual.transport.is_delta && key.kind != Kind::Listener;
            if !has_version || wanted.has_version_of(held) {
                return None;
            }
            (State::Version, told(), Vec::new())
        }
        (active, warming) => {
            let is_warming = matches!(warming, Some(Same));
            let fields = match active.or(warming) {
                Some(Differs(fields)) => fields,
                Some(Same) | None => Vec::new(),
            };
            if let Some(words) = refusal(wanted, found, standing) {
                (State::Refused, Some(words), fields)
            } else if is_warming {
                (State::Warming, told(), fields)
            } else if held.is_some() {
                (State::Different, told(), fields)
            } else if key.kind == Kind::Endpoints && actual.warming_endpoints.contains(&key.name) {
                (State::Warming, told().or_else(|| Some(UNSEEN.to_owned())), fields)
            } else {
                (State::Missing, told().or_else(|| not_asked(key, actual)), fields)
            }
        }
    };
    Some(Difference {
        kind: key.kind,
        name: key.name.clone(),
        state,
        intended_version: wanted.version.clone(),
        actual_version: held.and_then(|held| held.version.clone()),
        reason,
        fields,
    })
}

fn not_asked(key: &Key, actual: &Actual) -> Option<String> {
    let is_named = is_root(key.kind) || actual.named.contains(key);
    (!is_named).then(|| "nothing that Envoy has names it".to_owned())
}

fn is_rejected(standing: Option<&Standing>) -> bool {
    standing.is_some_and(|standing| standing.state == ResourceState::Rejected)
}

/// Why Envoy refused just what is intended, in its own words if it or the agent still has them.
fn refusal(wanted: &Held, found: &Found, standing: Option<&Standing>) -> Option<String> {
    let is_rejected = is_rejected(standing);
    let own = found.error.as_ref();
    let is_meant = own.is_some_and(|error| error.is_about(wanted));
    let words = own.filter(|_| is_meant || is_rejected).map(|error| error.details.clone());
    let words = words.or_else(|| standing.filter(|_| is_rejected)?.refusal.clone());
    if is_meant || is_rejected {
        Some(words.unwrap_or_else(|| "Envoy's words are in the agent's log".to_owned()))
    } else {
        None
    }
}

/// What Envoy has and is not intended. Routes and secrets stay with connections that drain: no difference, as nothing
/// that is live names them.
fn surplus(key: &Key, found: &Found, actual: &Actual) -> Option<Difference> {
    let held = found.active.as_ref().or(found.warming.as_ref())?;
    if !is_root(key.kind) && !actual.named.contains(key) {
        return None;
    }
    Some(Difference {
        kind: key.kind,
        name: key.name.clone(),
        state: State::Unknown,
        intended_version: None,
        actual_version: held.version.clone(),
        reason: None,
        fields: Vec::new(),
    })
}

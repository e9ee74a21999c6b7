//! `/v1/connect/intentions` and `/v1/config/service-intentions`.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::{
        Read, WireError,
        read::{bad_name, is_name, items, nullable, reason, shown},
    },
    model::{
        intention::{Action, Intention, Party},
        name::ServiceName,
        note::Note,
    },
};

/// An intention of the list, or one source of a `service-intentions` entry.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireRule {
    #[serde(alias = "Name")]
    source_name: String,
    #[serde(rename = "SourceNS", alias = "Namespace", deserialize_with = "nullable")]
    source_ns: String,
    #[serde(alias = "Partition", deserialize_with = "nullable")]
    source_partition: String,
    #[serde(alias = "Peer", deserialize_with = "nullable")]
    source_peer: String,
    #[serde(alias = "SamenessGroup", deserialize_with = "nullable")]
    source_sameness_group: String,
    #[serde(alias = "Type", deserialize_with = "nullable")]
    source_type: String,
    destination_name: String,
    #[serde(rename = "DestinationNS", deserialize_with = "nullable")]
    destination_ns: String,
    #[serde(deserialize_with = "nullable")]
    action: String,
    #[serde(deserialize_with = "nullable")]
    permissions: Vec<Value>,
    #[serde(rename = "JWT")]
    jwt: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireEntry {
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    namespace: String,
    #[serde(default, deserialize_with = "nullable")]
    sources: Vec<Value>,
    #[serde(default, rename = "JWT")]
    jwt: Option<Value>,
}

/// The fields that say whom a rule is about.
const PARTIES: [&str; 13] = [
    "SourceName",
    "SourceNS",
    "SourcePartition",
    "SourcePeer",
    "SourceSamenessGroup",
    "SourceType",
    "DestinationName",
    "DestinationNS",
    "Name",
    "Namespace",
    "Partition",
    "Peer",
    "SamenessGroup",
];

/// The intentions of the list API, sorted. One that is not understood denies its source; where not even its source
/// and destination are, the answer is refused, since to leave it out might allow what it denies.
pub fn intentions(body: &[u8]) -> Result<Read<Vec<Intention>>, WireError> {
    let (mut intentions, mut notes) = (Vec::new(), Vec::new());
    for value in items(body)? {
        let text = |field: &str| shown(value[field].as_str().unwrap_or("?"));
        let about = format!("intention {} to {}", text("SourceName"), text("DestinationName"));
        let rule = rule(&value, &about, &mut notes)?;
        intentions.extend(intention(&rule, &about, &mut notes)?);
    }
    intentions.sort();
    Ok((intentions, notes))
}

/// The intentions of `service-intentions` entries, sorted; as careful as [`intentions`].
pub fn intention_entries(body: &[u8]) -> Result<Read<Vec<Intention>>, WireError> {
    let (mut intentions, mut notes) = (Vec::new(), Vec::new());
    for value in items(body)? {
        let about = format!("service-intentions {}", shown(value["Name"].as_str().unwrap_or("?")));
        let entry = WireEntry::deserialize(&value).map_err(|error| illegible(&about, &error))?;
        for source in entry.sources {
            let about = format!("{about}, source {}", shown(source["Name"].as_str().unwrap_or("?")));
            let mut rule = rule(&source, &about, &mut notes)?;
            rule.destination_name.clone_from(&entry.name);
            rule.destination_ns.clone_from(&entry.namespace);
            rule.jwt = rule.jwt.or_else(|| entry.jwt.clone());
            intentions.extend(intention(&rule, &about, &mut notes)?);
        }
    }
    intentions.sort();
    Ok((intentions, notes))
}

/// The rule, or of one of another shape whom it is about; that has no action.
fn rule(value: &Value, about: &str, notes: &mut Vec<Note>) -> Result<WireRule, WireError> {
    let error = match WireRule::deserialize(value) {
        Ok(rule) => return Ok(rule),
        Err(error) => error,
    };
    let parties = PARTIES.iter().filter_map(|field| Some(((*field).to_owned(), value.get(*field)?.clone())));
    let parties = Value::Object(parties.collect());
    let rule = WireRule::deserialize(&parties).map_err(|error| illegible(about, &error))?;
    notes.push(Note::new(
        about,
        format!("it has another shape than Consul gives: {}", reason(&error)),
        "correct or remove it in Consul",
    ));
    Ok(rule)
}

/// The intention. None, with a note, where leaving it out allows nothing: it decides about other services or callers
/// than those of this federation's default namespace, or it would only have allowed.
fn intention(rule: &WireRule, about: &str, notes: &mut Vec<Note>) -> Result<Option<Intention>, WireError> {
    let action = action(rule);
    let is_foreign = !rule.source_peer.is_empty()
        || !matches!(rule.source_partition.as_str(), "" | "default")
        || !matches!(rule.source_type.as_str(), "" | "consul");
    let is_group = !rule.source_sameness_group.is_empty();
    if is_foreign || (is_group && action == Action::Allow) {
        // A foreign source's certificates come from another trust domain or partition, so it cannot connect whatever
        // the intention says.
        notes.push(Note::new(
            about,
            "its source is in a peer, a partition or a sameness group, which are not supported",
            "let the callers reach the service within one federation",
        ));
        return Ok(None);
    }
    if !matches!(rule.destination_ns.as_str(), "" | "default" | "*") {
        notes.push(foreign_namespace(&rule.destination_ns, about));
        return Ok(None);
    }
    let source = if is_group {
        // Who is in the group is not known here; its local members may be any service.
        notes.push(Note::new(
            about,
            "its source is a sameness group, which is not supported, so it is taken to deny every service",
            "name the denied services one by one",
        ));
        Ok(Party::AnyService)
    } else {
        party(&rule.source_name, &rule.source_ns, about)
    };
    let parties =
        source.and_then(|source| Ok((source, party(&rule.destination_name, &rule.destination_ns, about)?)));
    match parties {
        Ok((source, destination)) => {
            let action = if is_group { Action::Inexpressible } else { action };
            Ok(Some(Intention { source, destination, action }))
        }
        Err(note) if action == Action::Allow => {
            notes.push(note);
            Ok(None)
        }
        Err(note) => Err(WireError::Shape(note.to_string())),
    }
}

fn party(name: &str, namespace: &str, about: &str) -> Result<Party, Note> {
    match (name, namespace) {
        ("*", "*") => Ok(Party::Anything),
        ("*", "" | "default") => Ok(Party::AnyService),
        (name, "" | "default") if is_name(name) => Ok(Party::Service(ServiceName::from(name))),
        (name, "" | "default") => Err(bad_name(about, "service name", name)),
        (_, namespace) => Err(foreign_namespace(namespace, about)),
    }
}

fn foreign_namespace(namespace: &str, about: &str) -> Note {
    Note::new(
        about,
        format!("the namespace `{}` is not supported", shown(namespace)),
        "use the namespace default",
    )
}

fn illegible(about: &str, error: &serde_json::Error) -> WireError {
    WireError::Shape(format!("{about}: {}", reason(error)))
}

/// Whoever is served by the intention notes what is inexpressible: the list is that of all services.
fn action(rule: &WireRule) -> Action {
    let has_jwt = rule.jwt.as_ref().is_some_and(|jwt| !jwt.is_null());
    match rule.action.as_str() {
        "deny" if rule.permissions.is_empty() => Action::Deny,
        "allow" if rule.permissions.is_empty() && !has_jwt => Action::Allow,
        _ => Action::Inexpressible,
    }
}

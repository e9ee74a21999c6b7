//! `/v1/connect/intentions` and `/v1/config/service-intentions`.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::{
        Read, WireError,
        read::{bad_name, is_name, item, items, nullable, shown},
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

/// The intentions of the list API, sorted.
pub fn intentions(body: &[u8]) -> Result<Read<Vec<Intention>>, WireError> {
    let (mut intentions, mut notes) = (Vec::new(), Vec::new());
    for value in items(body)? {
        let text = |field: &str| shown(value[field].as_str().unwrap_or("?"));
        let about = format!("intention {} to {}", text("SourceName"), text("DestinationName"));
        if let Some(rule) = item::<WireRule>(value, &about, &mut notes) {
            push(rule, &about, &mut intentions, &mut notes);
        }
    }
    intentions.sort();
    Ok((intentions, notes))
}

/// The intentions of `service-intentions` entries, sorted.
pub fn intention_entries(body: &[u8]) -> Result<Read<Vec<Intention>>, WireError> {
    let (mut intentions, mut notes) = (Vec::new(), Vec::new());
    for value in items(body)? {
        let about = format!("service-intentions {}", shown(value["Name"].as_str().unwrap_or("?")));
        let Some(entry) = item::<WireEntry>(value, &about, &mut notes) else { continue };
        for source in entry.sources {
            let about = format!("{about}, source {}", shown(source["Name"].as_str().unwrap_or("?")));
            let Some(mut rule) = item::<WireRule>(source, &about, &mut notes) else { continue };
            rule.destination_name.clone_from(&entry.name);
            rule.destination_ns.clone_from(&entry.namespace);
            rule.jwt = rule.jwt.or_else(|| entry.jwt.clone());
            push(rule, &about, &mut intentions, &mut notes);
        }
    }
    intentions.sort();
    Ok((intentions, notes))
}

fn push(rule: WireRule, about: &str, intentions: &mut Vec<Intention>, notes: &mut Vec<Note>) {
    match intention(&rule, about) {
        Ok(intention) => intentions.push(intention),
        Err(note) => notes.push(note),
    }
}

fn intention(rule: &WireRule, about: &str) -> Result<Intention, Note> {
    let is_foreign = !rule.source_peer.is_empty()
        || !rule.source_sameness_group.is_empty()
        || !matches!(rule.source_partition.as_str(), "" | "default")
        || !matches!(rule.source_type.as_str(), "" | "consul");
    if is_foreign {
        // Its certificates come from another trust domain, so it cannot connect whatever the intention says.
        return Err(Note::new(
            about,
            "its source is in a peer, a partition or a sameness group, which are not supported",
            "let the callers reach the service within one federation",
        ));
    }
    Ok(Intention {
        source: party(&rule.source_name, &rule.source_ns, about)?,
        destination: party(&rule.destination_name, &rule.destination_ns, about)?,
        action: action(rule),
    })
}

fn party(name: &str, namespace: &str, about: &str) -> Result<Party, Note> {
    match (name, namespace) {
        ("*", "*") => Ok(Party::Anything),
        ("*", "" | "default") => Ok(Party::AnyService),
        (name, "" | "default") if is_name(name) => Ok(Party::Service(ServiceName::from(name))),
        (name, "" | "default") => Err(bad_name(about, "service name", name)),
        (_, namespace) => Err(Note::new(
            about,
            format!("the namespace `{}` is not supported", shown(namespace)),
            "use the namespace default",
        )),
    }
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

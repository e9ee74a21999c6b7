//! `/v1/config/service-resolver`: the subsets of services.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::{
        Read, WireError,
        read::{Usable, bad_name, duration_ms, is_name, item, items, nullable, shown},
    },
    model::{chain::Subset, name::ServiceName, note::Note, resolver::ServiceResolver},
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireResolver {
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    namespace: String,
    #[serde(default, deserialize_with = "nullable")]
    partition: String,
    #[serde(default, deserialize_with = "nullable")]
    default_subset: String,
    #[serde(default, deserialize_with = "nullable")]
    subsets: BTreeMap<String, WireSubset>,
    #[serde(default)]
    connect_timeout: Value,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireSubset {
    #[serde(deserialize_with = "nullable")]
    filter: String,
    #[serde(deserialize_with = "nullable")]
    only_passing: bool,
}

/// Entries by service.
type Resolvers = BTreeMap<ServiceName, Result<ServiceResolver, Note>>;

/// All entries by service. One that cannot be understood becomes a note and stands in its place, so that its service
/// is not taken for one without subsets.
pub fn resolvers(body: &[u8]) -> Result<Read<Resolvers>, WireError> {
    let (mut resolvers, mut notes) = (BTreeMap::new(), Vec::new());
    let mut usable = Usable::default();
    for value in items(body)? {
        usable.listed += 1;
        let name = value["Name"].as_str().unwrap_or_default().to_owned();
        let about = format!("service-resolver {}", shown(if name.is_empty() { "?" } else { &name }));
        let Some(wire) = item::<WireResolver>(value, &about, &mut notes) else {
            if let Some(note) = notes.last().filter(|_| is_name(&name)) {
                usable.read += 1;
                resolvers.insert(ServiceName::from(&name), Err(note.clone()));
            }
            continue;
        };
        if !is_name(&wire.name) {
            notes.push(bad_name(&about, "service name", &wire.name));
            continue;
        }
        usable.read += 1;
        let is_ours = |scope: &str| matches!(scope, "" | "default");
        if is_ours(&wire.namespace) && is_ours(&wire.partition) {
            resolvers.insert(ServiceName::from(name), Ok(resolver(wire, &about, &mut notes)));
        }
    }
    usable.check(&notes)?;
    Ok((resolvers, notes))
}

fn resolver(wire: WireResolver, about: &str, notes: &mut Vec<Note>) -> ServiceResolver {
    let mut subsets = BTreeMap::new();
    for (name, WireSubset { filter, only_passing }) in wire.subsets {
        if is_name(&name) {
            subsets.insert(name.clone(), Subset { name, filter: filter.into(), only_passing });
        } else {
            notes.push(bad_name(about, "subset name", &name));
        }
    }
    ServiceResolver {
        default_subset: Some(wire.default_subset).filter(|name| !name.is_empty()),
        subsets,
        connect_timeout_ms: timeout_ms(&wire.connect_timeout, about, notes).filter(|ms| *ms > 0),
    }
}

/// A text like `5s`, or nanoseconds.
fn timeout_ms(value: &Value, about: &str, notes: &mut Vec<Note>) -> Option<u64> {
    let ms = match value {
        Value::Null => return None,
        Value::String(text) => duration_ms(text),
        other => other.as_u64().map(|ns| ns / 1_000_000),
    };
    if ms.is_none() {
        let problem =
            format!("its ConnectTimeout {} is no duration and does not count", shown(&value.to_string()));
        notes.push(Note::new(about, problem, "set it to a duration such as 5s"));
    }
    ms
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Consul 1.8.7 answers.
    const RECORDED: &str = r#"[
        {"ConnectTimeout":"250ms","Kind":"service-resolver","Name":"api","DefaultSubset":"v1","Subsets":{
            "v1":{"Filter":"Service.Meta.version == v1"},
            "v2":{"Filter":"Service.Meta.version == v2","OnlyPassing":true}},"CreateIndex":1205,"ModifyIndex":1205},
        {"Kind":"service-resolver","Name":"old","Redirect":{"Service":"new"},"CreateIndex":1206,"ModifyIndex":1206}]"#;

    #[test]
    fn subsets_and_timeouts_are_read() {
        let (resolvers, notes) = resolvers(RECORDED.as_bytes()).unwrap();
        assert_eq!(notes, []);
        let api = resolvers[&ServiceName::from("api")].as_ref().unwrap();
        assert_eq!((api.default_subset.as_deref(), api.connect_timeout_ms), (Some("v1"), Some(250)));
        let passing: Vec<_> = api.subsets.values().map(|s| (s.name.as_str(), s.only_passing)).collect();
        assert_eq!(passing, [("v1", false), ("v2", true)]);
        assert_eq!(resolvers[&ServiceName::from("old")], Ok(ServiceResolver::default()));
    }

    #[test]
    fn an_entry_that_is_not_understood_keeps_its_place() {
        let (resolvers, notes) = resolvers(br#"[{"Name":"a","Subsets":7},{"Name":"b"}]"#).unwrap();
        assert_eq!(resolvers[&ServiceName::from("a")].as_ref().err(), notes.first());
        assert!(resolvers[&ServiceName::from("b")].is_ok());
    }
}

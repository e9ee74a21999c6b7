//! `/v1/query/:id/execute`: what a prepared query found.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::{
        Read, WireError, instance,
        read::{Usable, is_name, nullable, whole},
    },
    model::{
        instance::Instance,
        name::{Datacenter, ServiceName},
        note::Note,
        query::QueryResult,
    },
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireAnswer {
    #[serde(default, deserialize_with = "nullable")]
    datacenter: String,
    #[serde(deserialize_with = "nullable")]
    nodes: Vec<Value>,
}

/// The result of a query that was executed in `asked`. An instance of which nothing tells for which service of the
/// mesh it stands becomes a note: its certificate could not be verified.
pub fn result(body: &[u8], asked: &Datacenter) -> Result<Read<QueryResult>, WireError> {
    let wire: WireAnswer = whole(body)?;
    let datacenter = match wire.datacenter.as_str() {
        "" => asked.clone(),
        name if is_name(name) => Datacenter::from(name),
        _ => return Err(WireError::Shape("its datacenter name is impossible".into())),
    };
    let (mut notes, mut usable) = (Vec::new(), Usable::default());
    let (mut services, mut instances) = (BTreeSet::new(), Vec::new());
    for found in instance::list(wire.nodes, &format!(" in {datacenter}"), &mut usable, &mut notes) {
        match stands_for(&found) {
            Some(service) => {
                services.insert(service);
                instances.push(found);
            }
            None => {
                usable.read -= 1;
                notes.push(Note::new(
                    format!("instance {} of service {} on node {}", found.id, found.service, found.node),
                    "a prepared query finds it, and it is neither a sidecar nor Connect-native",
                    "let the query name a service that has sidecars",
                ));
            }
        }
    }
    usable.check(&notes)?;
    Ok((QueryResult { datacenter, services, instances }, notes))
}

/// The service whose identity an instance has: its own if it is Connect-native, else that behind the sidecar.
fn stands_for(found: &Instance) -> Option<ServiceName> {
    let service = &found.entry["Service"];
    if service["Connect"]["Native"] == true {
        return Some(found.service.clone());
    }
    service["Proxy"]["DestinationServiceName"].as_str().filter(|name| is_name(name)).map(ServiceName::from)
}

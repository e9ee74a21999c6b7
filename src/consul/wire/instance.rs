//! `/v1/health/*` and `/v1/internal/federation-states/mesh-gateways`: instances with addresses and health.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::{
        Read, WireError,
        read::{Usable, bad_name, host_port, is_id, is_name, item, items, nullable, shown, whole},
    },
    model::{
        instance::{Health, HostPort, Instance, ServiceKind, Weights},
        name::{Datacenter, NodeName, ServiceId, ServiceName},
        note::Note,
    },
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireEntry {
    node: WireNode,
    service: WireService,
    #[serde(default, deserialize_with = "nullable")]
    checks: Vec<WireCheck>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireNode {
    node: String,
    #[serde(default)]
    address: String,
    #[serde(default, deserialize_with = "nullable")]
    tagged_addresses: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireService {
    #[serde(default, deserialize_with = "nullable")]
    kind: String,
    #[serde(rename = "ID")]
    id: String,
    service: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
    #[serde(default, deserialize_with = "nullable")]
    ports: Vec<Value>,
    #[serde(default, deserialize_with = "nullable")]
    tagged_addresses: BTreeMap<String, WireAddress>,
    #[serde(default, deserialize_with = "nullable")]
    meta: BTreeMap<String, String>,
    #[serde(default)]
    weights: Option<WireWeights>,
    #[serde(default)]
    modify_index: u64,
}

/// A tagged address.
#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct WireAddress {
    pub(crate) address: String,
    pub(crate) port: i64,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireWeights {
    passing: i64,
    warning: i64,
}

impl Default for WireWeights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireCheck {
    #[serde(default)]
    status: String,
}

/// The instances of a health answer, sorted by node and id. An instance with an impossible name, port or address
/// becomes a note; where all are, the answer is refused.
pub fn instances(body: &[u8]) -> Result<Read<Vec<Instance>>, WireError> {
    let (mut notes, mut usable) = (Vec::new(), Usable::default());
    let instances = list(items(body)?, "", &mut usable, &mut notes);
    usable.check(&notes)?;
    Ok((instances, notes))
}

/// Every datacenter's mesh gateways. Refused where none of them can be used.
pub fn federation_states(body: &[u8]) -> Result<Read<BTreeMap<Datacenter, Vec<Instance>>>, WireError> {
    let wire: Option<BTreeMap<String, Option<Vec<Value>>>> = whole(body)?;
    let (mut states, mut notes) = (BTreeMap::new(), Vec::new());
    let mut usable = Usable::default();
    for (dc, gateways) in wire.unwrap_or_default() {
        if !is_name(&dc) {
            notes.push(bad_name("federation state", "datacenter name", &dc));
            continue;
        }
        let place = format!(" in {dc}");
        let gateways = list(gateways.unwrap_or_default(), &place, &mut usable, &mut notes);
        states.insert(Datacenter::from(dc), gateways);
    }
    usable.check(&notes)?;
    Ok((states, notes))
}

/// The kind of that name; the empty name is the ordinary service.
pub(crate) fn kind(name: &str) -> ServiceKind {
    match name {
        "" | "typical" => ServiceKind::Typical,
        "connect-proxy" => ServiceKind::ConnectProxy,
        "mesh-gateway" => ServiceKind::MeshGateway,
        "terminating-gateway" => ServiceKind::TerminatingGateway,
        "ingress-gateway" => ServiceKind::IngressGateway,
        _ => ServiceKind::Other,
    }
}

pub(crate) fn list(
    values: Vec<Value>,
    place: &str,
    usable: &mut Usable,
    notes: &mut Vec<Note>,
) -> Vec<Instance> {
    usable.listed += values.len();
    let mut instances = Vec::with_capacity(values.len());
    for value in values {
        let about = about(&value, place);
        let Some(wire) = item::<WireEntry>(value.clone(), &about, notes) else { continue };
        match instance(wire, value, &about, notes) {
            Ok(instance) => instances.push(instance),
            Err(note) => notes.push(note),
        }
    }
    usable.read += instances.len();
    instances.sort_by(|a, b| (&a.node, &a.id).cmp(&(&b.node, &b.id)));
    instances
}

/// The item's name in notes, from whatever of it can be read.
fn about(value: &Value, place: &str) -> String {
    let text = |part: &str, field: &str| shown(value[part][field].as_str().unwrap_or("?"));
    format!(
        "instance {} of service {} on node {}{place}",
        text("Service", "ID"),
        text("Service", "Service"),
        text("Node", "Node")
    )
}

fn instance(wire: WireEntry, entry: Value, about: &str, notes: &mut Vec<Note>) -> Result<Instance, Note> {
    let WireEntry { node, service, checks } = wire;
    if !is_name(&service.service) {
        return Err(bad_name(about, "service name", &service.service));
    }
    if !is_id(&service.id) {
        return Err(bad_name(about, "service id", &service.id));
    }
    if !is_name(&node.node) {
        return Err(bad_name(about, "node name", &node.node));
    }
    if service.port == 0 && !service.ports.is_empty() {
        return Err(Note::new(
            about,
            "it has several ports, which are not supported",
            "register a service of its own for each port",
        ));
    }
    let lan = lan(&node, &service, about)?;
    let wan = wan(&node, &service, about, notes).unwrap_or_else(|| lan.clone());
    Ok(Instance {
        node: NodeName::from(&node.node),
        id: ServiceId::from(&service.id),
        service: ServiceName::from(&service.service),
        kind: kind(&service.kind),
        lan,
        wan,
        health: checks.iter().map(|check| health(&check.status)).max().unwrap_or(Health::Passing),
        weights: weights(service.weights.unwrap_or_default()),
        meta: service.meta,
        modify_index: service.modify_index,
        entry: Arc::new(without_indexes(entry)),
    })
}

/// Raft indexes are no part of what filters see, and change without anything else changing. Metadata keep theirs, which
/// are their owner's own.
fn without_indexes(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(name, _)| name != "CreateIndex" && name != "ModifyIndex");
            let cleaned = kept.map(|(name, value)| {
                let value = if name == "Meta" { value } else { without_indexes(value) };
                (name, value)
            });
            Value::Object(cleaned.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_indexes).collect()),
        other => other,
    }
}

/// Consul's `BestAddress` inside the datacenter, which looks at no tag: the service's address, else the node's.
fn lan(node: &WireNode, service: &WireService, about: &str) -> Result<HostPort, Note> {
    let address = if service.address.is_empty() { &node.address } else { &service.address };
    host_port(about, address, service.port)
}

/// Consul's `BestAddress` across datacenters: the service's address tagged `wan`, else the service's, else the node's
/// tagged `wan`, else the node's. One that cannot be dialled becomes a note and the next is taken; `None` if none can.
/// A tagged address without a port takes the service's.
fn wan(node: &WireNode, service: &WireService, about: &str, notes: &mut Vec<Note>) -> Option<HostPort> {
    let tagged = service.tagged_addresses.get("wan").cloned().unwrap_or_default();
    let tagged_port = if tagged.port == 0 { service.port } else { tagged.port };
    // A tag that sets only the port does so for whichever address is taken.
    let port = if tagged.address.is_empty() { tagged_port } else { service.port };
    let tagged_node = node.tagged_addresses.get("wan").map_or("", String::as_str);
    let candidates = [
        (tagged.address.as_str(), tagged_port),
        (service.address.as_str(), port),
        (tagged_node, port),
        (node.address.as_str(), port),
    ];
    for (address, port) in candidates.into_iter().filter(|(address, _)| !address.is_empty()) {
        match host_port(&format!("{about}, wan address"), address, port) {
            Ok(found) => return Some(found),
            Err(note) => notes.push(note),
        }
    }
    None
}

/// A status that this version does not know counts as critical: nothing is known to pass.
fn health(status: &str) -> Health {
    match status {
        "passing" => Health::Passing,
        "warning" => Health::Warning,
        _ => Health::Critical,
    }
}

fn weights(wire: WireWeights) -> Weights {
    let clamp = |weight: i64| u32::try_from(weight.clamp(0, i64::from(u32::MAX))).unwrap_or(u32::MAX);
    Weights { passing: clamp(wire.passing), warning: clamp(wire.warning) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn filters_see_no_raft_indexes_but_metadata_of_their_name() {
        let of = |index: u64| json!({"Service": {"Meta": {"CreateIndex": "7"}, "CreateIndex": index}, "Checks": [{"ModifyIndex": index}]});
        assert_eq!(
            without_indexes(of(1)),
            json!({"Service": {"Meta": {"CreateIndex": "7"}}, "Checks": [{}]})
        );
        assert_eq!(without_indexes(of(1)), without_indexes(of(2)));
    }
}

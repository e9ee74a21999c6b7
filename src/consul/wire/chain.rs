//! `/v1/discovery-chain/:service`, question and answer.

mod node;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    consul::wire::{
        Read, WireError,
        read::{WireGateway, bad_name, is_name, item, nullable, shown, whole},
        refused::{self, OF_CHAINS},
    },
    model::{
        chain::{Chain, ChainRequest, GatewayMode, Protocol, Subset, Target},
        name::{Datacenter, ServiceName},
        note::Note,
    },
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireAnswer {
    chain: WireChain,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireChain {
    service_name: String,
    datacenter: String,
    #[serde(default, deserialize_with = "nullable")]
    customization_hash: String,
    #[serde(default, deserialize_with = "nullable")]
    protocol: String,
    start_node: String,
    #[serde(default, deserialize_with = "nullable")]
    nodes: BTreeMap<String, Value>,
    #[serde(default, deserialize_with = "nullable")]
    targets: BTreeMap<String, Value>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireTarget {
    service: String,
    #[serde(default, deserialize_with = "nullable")]
    service_subset: String,
    #[serde(default, deserialize_with = "nullable")]
    namespace: String,
    #[serde(default, deserialize_with = "nullable")]
    partition: String,
    #[serde(default, deserialize_with = "nullable")]
    peer: String,
    #[serde(default, deserialize_with = "nullable")]
    datacenter: String,
    #[serde(default, deserialize_with = "nullable")]
    mesh_gateway: WireGateway,
    #[serde(default, deserialize_with = "nullable")]
    subset: WireSubset,
    #[serde(default)]
    external: bool,
    #[serde(rename = "SNI", default)]
    sni: String,
    #[serde(default)]
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireSubset {
    filter: String,
    only_passing: bool,
}

/// The body that asks for a chain: the overrides of the proxy. Empty overrides are left out, which Consul takes as a
/// plain question.
pub fn question(request: &ChainRequest) -> Value {
    let mut body = serde_json::Map::new();
    if let Some(mode) = request.gateway_mode {
        let mode = match mode {
            GatewayMode::None => "none",
            GatewayMode::Local => "local",
            GatewayMode::Remote => "remote",
        };
        body.insert("OverrideMeshGateway".into(), json!({ "Mode": mode }));
    }
    if let Some(protocol) = request.protocol {
        body.insert("OverrideProtocol".into(), json!(protocol.as_str()));
    }
    if let Some(timeout_ms) = request.connect_timeout_ms {
        body.insert("OverrideConnectTimeout".into(), json!(format!("{timeout_ms}ms")));
    }
    Value::Object(body)
}

/// The compiled chain. Nodes and targets that cannot be honoured become notes and are left out; so does a resolver
/// whose target is left out.
pub fn chain(body: &[u8]) -> Result<Read<Chain>, WireError> {
    let WireAnswer { chain: wire } = whole(body)?;
    if !is_name(&wire.service_name) || !is_name(&wire.datacenter) {
        return Err(WireError::Shape("its service or datacenter name is impossible".into()));
    }
    let mut notes = Vec::new();
    let about = format!("chain of {}", wire.service_name);
    refused::note(&wire.rest, &OF_CHAINS, &about, &mut notes);
    let protocol = match wire.protocol.as_str() {
        "" => Protocol::Tcp,
        name => Protocol::parse(name).unwrap_or_else(|| {
            let problem = format!("the protocol `{}` is unknown and is taken as tcp", shown(name));
            notes.push(Note::new(&about, problem, "set Protocol to tcp, http, http2 or grpc"));
            Protocol::Tcp
        }),
    };
    let mut targets = BTreeMap::new();
    for (id, value) in wire.targets {
        let about = format!("{about}, target {}", shown(&id));
        let Some(target) = item::<WireTarget>(value, &about, &mut notes) else { continue };
        match convert(target, &wire.datacenter, &about, &mut notes) {
            Ok(target) => drop(targets.insert(id, target)),
            Err(note) => notes.push(note),
        }
    }
    let mut nodes = BTreeMap::new();
    for (key, value) in wire.nodes {
        let about = format!("{about}, node {}", shown(&key));
        let Some(node) = item::<node::WireNode>(value, &about, &mut notes) else { continue };
        match node::convert(node, &targets, &about, &mut notes) {
            Ok(node) => drop(nodes.insert(key, node)),
            Err(note) => notes.push(note),
        }
    }
    let chain = Chain {
        service: ServiceName::from(wire.service_name),
        datacenter: Datacenter::from(wire.datacenter),
        protocol,
        customization_hash: Some(wire.customization_hash).filter(|hash| !hash.is_empty()),
        start: wire.start_node,
        nodes,
        targets,
    };
    Ok((chain, notes))
}

fn convert(wire: WireTarget, chain_dc: &str, about: &str, notes: &mut Vec<Note>) -> Result<Target, Note> {
    let is_foreign = !matches!(wire.namespace.as_str(), "" | "default")
        || !matches!(wire.partition.as_str(), "" | "default")
        || !wire.peer.is_empty();
    if is_foreign {
        return Err(Note::new(
            about,
            "it is in a peer, a partition or a namespace, which are not supported",
            "let the service-resolver name services of the federation's default namespace",
        ));
    }
    if !is_name(&wire.service) {
        return Err(bad_name(about, "service name", &wire.service));
    }
    let datacenter = if wire.datacenter.is_empty() { chain_dc } else { &wire.datacenter };
    if !is_name(datacenter) {
        return Err(bad_name(about, "datacenter name", datacenter));
    }
    if wire.sni.is_empty() || wire.name.is_empty() {
        return Err(Note::new(
            about,
            "Consul gives no server name for it",
            "enable Connect on the servers of every datacenter",
        ));
    }
    let subset = Some(wire.service_subset).filter(|name| !name.is_empty()).map(|name| Subset {
        name,
        filter: wire.subset.filter.into(),
        only_passing: wire.subset.only_passing,
    });
    Ok(Target {
        service: ServiceName::from(&wire.service),
        subset,
        datacenter: Datacenter::from(datacenter),
        name: wire.name,
        sni: wire.sni,
        is_external: wire.external,
        gateway_mode: wire.mesh_gateway.mode(about, notes).unwrap_or_default(),
    })
}

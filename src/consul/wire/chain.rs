//! `/v1/discovery-chain/:service`, question and answer.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    consul::wire::{
        Read, WireError,
        read::{WireGateway, bad_name, duration_ms, is_name, is_set, item, nullable, shown, whole},
        refused::{self, OF_CHAINS, OF_RESOLVERS},
    },
    model::{
        chain::{Chain, ChainNode, ChainRequest, GatewayMode, Protocol, Resolver, Subset, Target},
        name::{Datacenter, ServiceName},
        note::Note,
    },
};

/// What Consul takes where a resolver says nothing.
const CONNECT_TIMEOUT_MS: u64 = 5_000;

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
struct WireNode {
    r#type: String,
    #[serde(default)]
    resolver: Option<WireResolver>,
    #[serde(default)]
    load_balancer: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireResolver {
    #[serde(default)]
    default: bool,
    #[serde(default, deserialize_with = "nullable")]
    connect_timeout: String,
    #[serde(default)]
    request_timeout: Value,
    target: String,
    #[serde(default, deserialize_with = "nullable")]
    failover: WireFailover,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireFailover {
    #[serde(deserialize_with = "nullable")]
    targets: Vec<String>,
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
    for (key, node) in &wire.nodes {
        let about = format!("{about}, node {}", shown(key));
        let fields = node["Resolver"].as_object().into_iter().flatten();
        let fields = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
        refused::note(&fields, &OF_RESOLVERS, &about, &mut notes);
    }
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
        let Some(node) = item::<WireNode>(value, &about, &mut notes) else { continue };
        match convert_node(node, &targets, &about, &mut notes) {
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
        filter: wire.subset.filter,
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

/// Notes on what a node asks for beyond what is built; the chain works without it.
fn not_built(wire: &WireNode, about: &str, notes: &mut Vec<Note>) {
    let timeout = wire.resolver.as_ref().map(|resolver| &resolver.request_timeout);
    let has_timeout = timeout
        .is_some_and(|value| is_set(value) && value.as_str().is_none_or(|text| duration_ms(text) != Some(0)));
    let asked = [("LoadBalancer", is_set(&wire.load_balancer)), ("RequestTimeout", has_timeout)];
    for (field, _) in asked.into_iter().filter(|(_, is_asked)| *is_asked) {
        let problem = format!("its {field} is not built yet and does not count");
        notes.push(Note::new(about, problem, format!("leave {field} out of the service-resolver")));
    }
}

fn convert_node(
    wire: WireNode,
    targets: &BTreeMap<String, Target>,
    about: &str,
    notes: &mut Vec<Note>,
) -> Result<ChainNode, Note> {
    not_built(&wire, about, notes);
    let resolver = match (wire.r#type.as_str(), wire.resolver) {
        ("router", _) => return Ok(ChainNode::Router),
        ("splitter", _) => return Ok(ChainNode::Splitter),
        ("resolver", Some(resolver)) => resolver,
        (other, _) => {
            let problem = format!("the node type `{}` is unknown", shown(other));
            return Err(Note::new(about, problem, "remove what this version cannot express from the chain"));
        }
    };
    if !targets.contains_key(&resolver.target) {
        let problem = format!("its target {} cannot be used", shown(&resolver.target));
        return Err(Note::new(about, problem, "correct the service-resolver in Consul"));
    }
    let connect_timeout_ms = match resolver.connect_timeout.as_str() {
        "" => CONNECT_TIMEOUT_MS,
        text => duration_ms(text).filter(|ms| *ms > 0).unwrap_or_else(|| {
            let problem = format!("the connect timeout `{}` is no duration, so 5 s are taken", shown(text));
            notes.push(Note::new(about, problem, "write it as 5s or 500ms in the service-resolver"));
            CONNECT_TIMEOUT_MS
        }),
    };
    let (failover, lost): (Vec<_>, Vec<_>) =
        resolver.failover.targets.into_iter().partition(|id| targets.contains_key(id));
    for id in lost {
        let problem = format!("its failover target {} cannot be used", shown(&id));
        notes.push(Note::new(about, problem, "correct the service-resolver in Consul"));
    }
    Ok(ChainNode::Resolver(Resolver {
        target: resolver.target,
        connect_timeout_ms,
        is_default: resolver.default,
        failover,
    }))
}

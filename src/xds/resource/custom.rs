//! Messages that users write themselves: Consul's escape hatches, as Envoy's own JSON of the v3 API.
//!
//! They are read once, where they enter; what cannot be read never becomes a resource. Their canonical form is that
//! JSON again, with fields in order and defaults left out, so that two spellings of one message are equal.

mod bypass;
mod outdated;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::{
    model::note::without_values,
    xds::{
        json,
        resource::{
            Key, Kind,
            address::{Address, Pipe},
            cluster::UpstreamTls,
            filter::Rbac,
            listener::DownstreamTls,
        },
    },
};

/// What a user may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CustomKind {
    /// A cluster.
    Cluster,
    /// A listener.
    Listener,
    /// The tracing of an HTTP connection manager.
    Tracing,
    /// The tracing of a bootstrap.
    Tracer,
    /// The tags of a bootstrap's statistics.
    StatsConfig,
    /// Where a bootstrap's statistics are sent.
    StatsSink,
}

impl CustomKind {
    fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => Kind::Cluster.type_url(),
            Self::Listener => Kind::Listener.type_url(),
            Self::Tracer => "type.googleapis.com/envoy.config.trace.v3.Tracing",
            Self::StatsConfig => "type.googleapis.com/envoy.config.metrics.v3.StatsConfig",
            Self::StatsSink => "type.googleapis.com/envoy.config.metrics.v3.StatsSink",
            Self::Tracing => {
                "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing"
            }
        }
    }
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong, as in `has an envoy_cluster_json that <problem>`.
    pub problem: String,
    /// What to change.
    pub remedy: String,
}

/// A message that Envoy can read.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct CustomMessage {
    json: Value,
    // Made of `json`, so that it takes no part in comparisons: maps in it have no order.
    #[serde(skip)]
    bytes: Bytes,
}

// A user may have written keys and passwords into it.
impl fmt::Debug for CustomMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CustomMessage({} bytes)", self.bytes.len())
    }
}

impl PartialEq for CustomMessage {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl Eq for CustomMessage {}

/// A listener of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CustomListener {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// Where it listens besides.
    #[serde(skip)] // Part of the message.
    pub additional_addresses: Vec<Address>,
    /// As the user wrote it.
    pub message: CustomMessage,
    /// What every chain of a public listener is given, whatever the user wrote.
    pub guard: Option<Guard>,
}

/// What protects a listener for the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Guard {
    /// TLS termination, in place of the chain's own.
    pub tls: DownstreamTls,
    /// Who may: for each request where a chain ends in an HTTP connection manager, else for each connection.
    pub rbac: Rbac,
    /// Connections at a time, if limited.
    pub max_connections: Option<u32>,
}

/// A cluster of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CustomCluster {
    /// Its name.
    pub name: String,
    /// As the user wrote it.
    pub message: CustomMessage,
    /// TLS towards the mesh, in place of the cluster's own.
    pub tls: Option<UpstreamTls>,
}

impl Refused {
    fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

impl CustomMessage {
    /// Reads Envoy's JSON, with or without its `@type`.
    pub fn parse(kind: CustomKind, text: &str) -> Result<Self, Refused> {
        let type_url = kind.type_url();
        let mut value: Value = serde_json::from_str(text)
            .map_err(|error| Refused::new(format!("is no JSON: {error}"), "correct it"))?;
        let old = outdated::found(&value);
        if let Some(old) = old.iter().find(|old| old.is_certain) {
            return Err(old.refusal());
        }
        if let Some(other) = value.as_object_mut().and_then(|fields| fields.remove("@type"))
            && other != type_url
        {
            let problem = match other.as_str().filter(|other| is_type_url(other)) {
                Some(other) => format!("is of the type {other:?}"),
                None => "has an @type that names no type".to_owned(),
            };
            return Err(Refused::new(problem, format!("write one of the type {type_url}")));
        }
        let bytes = json::from_json(type_url, &value).map_err(|error| match old.first() {
            Some(old) => old.refusal(),
            None => Refused::new(
                format!("Envoy's v3 API does not have: {}", without_values(&error.to_string())),
                "correct it after Envoy's documentation",
            ),
        })?;
        let json = json::to_json(type_url, &bytes).map_err(|error| {
            Refused::new(format!("cannot be read back: {}", without_values(&error.to_string())), "correct it")
        })?;
        Ok(Self { json, bytes: bytes.into() })
    }

    /// Its canonical form.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Its protobuf bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The text at these keys, one inside the other.
    fn text(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().try_fold(&self.json, |at, key| at.get(key)).and_then(Value::as_str)
    }

    fn name(&self) -> Result<String, Refused> {
        let name = self.text(&["name"]).filter(|name| !name.is_empty());
        name.map(str::to_owned).ok_or_else(|| Refused::new("has no name", "give it a name"))
    }

    /// The clusters, routes and secrets that it names and that come from the agent.
    pub(super) fn refers_to(&self, refs: &mut BTreeSet<Key>) {
        references(&self.json, refs);
    }
}

impl CustomListener {
    /// Reads a listener; one with a guard must have a chain to guard.
    pub fn parse(text: &str, guard: Option<Guard>) -> Result<Self, Refused> {
        let message = CustomMessage::parse(CustomKind::Listener, text)?;
        let name = message.name()?;
        let address = address(&message.json["address"]).ok_or_else(|| {
            Refused::new(
                "has no address",
                "give it a socket_address with an IP address and a port, or a pipe",
            )
        })?;
        let additional = message.json.get("additional_addresses").and_then(Value::as_array);
        let additional_addresses: Option<Vec<Address>> = additional
            .into_iter()
            .flatten()
            .map(|additional| self::address(&additional["address"]))
            .collect();
        let additional_addresses = additional_addresses.ok_or_else(|| {
            Refused::new(
                "has an additional address that is none",
                "give it a socket_address with an IP address and a port, or a pipe",
            )
        })?;
        let has_chain =
            message.json.get("filter_chains").is_some() || message.json.get("default_filter_chain").is_some();
        if guard.is_some() && !has_chain {
            return Err(Refused::new("has no filter chain", "give it one under filter_chains"));
        }
        if guard.is_some() {
            bypass::refuse(&message.json)?;
        }
        Ok(Self { name, address, additional_addresses, message, guard })
    }

    /// Everywhere it listens.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        [&self.address].into_iter().chain(&self.additional_addresses)
    }

    pub(super) fn refers_to(&self, refs: &mut BTreeSet<Key>) {
        self.message.refers_to(refs);
        if let Some(guard) = &self.guard {
            guard.tls.secrets.refers_to(refs);
        }
    }
}

impl CustomCluster {
    /// Reads a cluster.
    pub fn parse(text: &str, tls: Option<UpstreamTls>) -> Result<Self, Refused> {
        let message = CustomMessage::parse(CustomKind::Cluster, text)?;
        Ok(Self { name: message.name()?, message, tls })
    }

    /// Under which name it fetches its endpoints from the agent, if it does.
    pub fn endpoints_name(&self) -> Option<&str> {
        let json = &self.message.json;
        let is_ours = json.get("type").is_some_and(|kind| kind == "EDS")
            && json["eds_cluster_config"]["eds_config"].get("ads").is_some();
        let own = self.message.text(&["eds_cluster_config", "service_name"]);
        is_ours.then(|| own.filter(|name| !name.is_empty()).unwrap_or(&self.name))
    }

    pub(super) fn refers_to(&self, refs: &mut BTreeSet<Key>) {
        self.message.refers_to(refs);
        if let Some(name) = self.endpoints_name() {
            refs.insert(Key::new(Kind::Endpoints, name));
        }
        if let Some(tls) = &self.tls {
            tls.secrets.refers_to(refs);
        }
    }
}

/// Whether a text has the form of a type's URL, so that a note can show it.
fn is_type_url(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/');
    text.len() <= 200 && text.contains('/') && text.contains('.') && text.chars().all(is_part)
}

/// Where a message listens: an IP address with its port, or a Unix socket.
fn address(json: &Value) -> Option<Address> {
    if let Some(path) = json["pipe"]["path"].as_str() {
        return Some(Address::Pipe(Pipe { path: path.to_owned(), mode: None }));
    }
    let socket = &json["socket_address"];
    let ip: IpAddr = socket["address"].as_str()?.parse().ok()?;
    let port = socket["port_value"].as_u64().and_then(|port| u16::try_from(port).ok())?;
    Some(SocketAddr::new(ip, port).into())
}

/// Names by the places where Envoy's messages have them. One that the agent does not serve, such as a cluster of the
/// bootstrap, does no harm: nothing waits for it.
fn references(json: &Value, refs: &mut BTreeSet<Key>) {
    match json {
        Value::Array(items) => items.iter().for_each(|item| references(item, refs)),
        Value::Object(fields) => {
            let text = |key: &str| fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
            let is_served = |key: &str| fields.get(key).is_some_and(|source| source.get("ads").is_some());
            for key in ["cluster", "cluster_name"] {
                // A load assignment has its cluster's own name there.
                if let Some(name) = text(key).filter(|_| !fields.contains_key("endpoints")) {
                    refs.insert(Key::new(Kind::Cluster, name));
                }
            }
            if let Some(name) = text("route_config_name").filter(|_| is_served("config_source")) {
                refs.insert(Key::new(Kind::Route, name));
            }
            if let Some(name) = text("name").filter(|_| is_served("sds_config")) {
                refs.insert(Key::new(Kind::Secret, name));
            }
            let weighted =
                fields.get("weighted_clusters").and_then(|clusters| clusters["clusters"].as_array());
            for cluster in weighted.into_iter().flatten() {
                if let Some(name) = cluster["name"].as_str() {
                    refs.insert(Key::new(Kind::Cluster, name));
                }
            }
            fields.values().for_each(|value| references(value, refs));
        }
        _ => {}
    }
}

//! A mesh gateway's registration with the local Consul agent, as `consul connect envoy -register` makes it. Pure.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    cli::envoy::choose::{LocalService, MESH_GATEWAY},
    envoy::bootstrap::Endpoint,
};

/// The metadata by which Consul's servers know the gateways that carry their federation.
const WAN_FEDERATION: &str = "consul-wan-federation";

/// Settings that `--bind-address` owns, by every name that Consul reads them under.
const OWNED_SETTINGS: [&str; 6] = [
    "envoy_mesh_gateway_bind_addresses",
    "envoy_mesh_gateway_no_default_bind",
    "envoy_mesh_gateway_bind_tagged_addresses",
    "envoy_gateway_bind_addresses",
    "envoy_gateway_no_default_bind",
    "envoy_gateway_bind_tagged_addresses",
];

/// What to register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GatewayRegistration {
    pub(super) id: String,
    pub(super) service: String,
    /// IP address or DNS name inside the datacenter; without one the Consul agent's own holds.
    pub(super) address: Option<String>,
    pub(super) port: u16,
    /// From other datacenters; without one that of the Consul node holds.
    pub(super) wan: Option<Endpoint>,
    /// The host that Consul's check dials, at `port`.
    pub(super) checked_host: String,
    /// Where Envoy listens and nowhere else, by name.
    pub(super) bind: BTreeMap<String, SocketAddr>,
    /// Whether the gateway carries the federation of Consul's servers.
    pub(super) exposes_servers: bool,
    /// Consul's duration text.
    pub(super) deregister_after_critical: String,
    /// Consul's duration text.
    pub(super) check_interval: String,
}

/// The body for `/v1/agent/service/register`. Tags, metadata and settings of a registration that is already there
/// and that no flag owns are kept. With `binds_both` Envoy listens on the LAN and the WAN address, each its own.
pub(super) fn body(wanted: &GatewayRegistration, present: Option<&LocalService>, binds_both: bool) -> Value {
    let mut meta = present.and_then(|service| service.meta.clone()).unwrap_or_default();
    meta.remove(WAN_FEDERATION);
    if wanted.exposes_servers {
        meta.insert(WAN_FEDERATION.into(), "1".into());
    }
    let mut body = json!({
        "Kind": MESH_GATEWAY,
        "ID": wanted.id,
        "Name": wanted.service,
        "Port": wanted.port,
        "TaggedAddresses": tagged_addresses(wanted),
        "Tags": present.and_then(|service| service.tags.clone()).unwrap_or_default(),
        "Meta": meta,
        "Proxy": {"Config": config(wanted, present, binds_both)},
        "Check": {
            "Name": "Mesh Gateway Listening",
            "TCP": host_port(&wanted.checked_host, wanted.port),
            "Interval": wanted.check_interval,
            "DeregisterCriticalServiceAfter": wanted.deregister_after_critical,
        },
    });
    if let Some(host) = &wanted.address {
        body["Address"] = json!(host);
    }
    body
}

fn config(
    wanted: &GatewayRegistration,
    present: Option<&LocalService>,
    binds_both: bool,
) -> Map<String, Value> {
    let present = present.and_then(|service| service.proxy.as_ref()?.config.clone());
    let mut config: Map<String, Value> = present.unwrap_or_default().into_iter().collect();
    config.retain(|key, _| !OWNED_SETTINGS.contains(&key.as_str()));
    if !wanted.bind.is_empty() {
        let addresses: BTreeMap<_, _> =
            wanted.bind.iter().map(|(name, at)| (name, address(&at.ip(), at.port()))).collect();
        config.insert("envoy_gateway_no_default_bind".into(), json!(true));
        config.insert("envoy_gateway_bind_addresses".into(), json!(addresses));
    } else if binds_both {
        config.insert("envoy_gateway_no_default_bind".into(), json!(true));
        config.insert("envoy_gateway_bind_tagged_addresses".into(), json!(true));
    }
    config
}

fn tagged_addresses(wanted: &GatewayRegistration) -> BTreeMap<&'static str, Value> {
    let lan = wanted.address.iter().map(|host| ("lan", address(host, wanted.port)));
    let wan = wanted.wan.iter().map(|wan| ("wan", address(&wan.host, wan.port)));
    lan.chain(wan).collect()
}

fn address(host: &impl Serialize, port: u16) -> Value {
    json!({"Address": host, "Port": port})
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

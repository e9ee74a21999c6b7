//! A mesh gateway's registration with the local Consul agent, as `consul connect envoy -register` makes it. Pure.

use std::collections::BTreeMap;

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
    /// Inside the datacenter.
    pub(super) lan: Endpoint,
    /// From other datacenters.
    pub(super) wan: Endpoint,
    /// Where Envoy listens instead of on `lan`, by name.
    pub(super) bind: BTreeMap<String, Endpoint>,
    /// Whether the gateway carries the federation of Consul's servers.
    pub(super) exposes_servers: bool,
    /// Consul's duration text.
    pub(super) deregister_after_critical: String,
    /// Consul's duration text.
    pub(super) check_interval: String,
}

/// The body for `/v1/agent/service/register`. Tags, metadata and settings of a registration that is already there
/// and that no flag owns are kept.
pub(super) fn body(wanted: &GatewayRegistration, present: Option<&LocalService>) -> Value {
    let mut meta = present.and_then(|service| service.meta.clone()).unwrap_or_default();
    meta.remove(WAN_FEDERATION);
    if wanted.exposes_servers {
        meta.insert(WAN_FEDERATION.into(), "1".into());
    }
    let present_config = present.and_then(|service| service.proxy.as_ref()?.config.clone());
    let mut config: Map<String, Value> = present_config.unwrap_or_default().into_iter().collect();
    config.retain(|key, _| !OWNED_SETTINGS.contains(&key.as_str()));
    if !wanted.bind.is_empty() {
        let addresses: BTreeMap<_, _> = wanted.bind.iter().map(|(name, at)| (name, address(at))).collect();
        config.insert("envoy_mesh_gateway_no_default_bind".into(), json!(true));
        config.insert("envoy_mesh_gateway_bind_addresses".into(), json!(addresses));
    }
    json!({
        "Kind": MESH_GATEWAY,
        "ID": wanted.id,
        "Name": wanted.service,
        "Address": wanted.lan.host,
        "Port": wanted.lan.port,
        "TaggedAddresses": {"lan": address(&wanted.lan), "wan": address(&wanted.wan)},
        "Tags": present.and_then(|service| service.tags.clone()).unwrap_or_default(),
        "Meta": meta,
        "Proxy": {"Config": config},
        "Check": {
            "Name": "Mesh Gateway Listening",
            "TCP": host_port(&wanted.lan),
            "Interval": wanted.check_interval,
            "DeregisterCriticalServiceAfter": wanted.deregister_after_critical,
        },
    })
}

fn address(endpoint: &Endpoint) -> Value {
    json!({"Address": endpoint.host, "Port": endpoint.port})
}

fn host_port(endpoint: &Endpoint) -> String {
    if endpoint.host.contains(':') {
        format!("[{}]:{}", endpoint.host, endpoint.port)
    } else {
        format!("{}:{}", endpoint.host, endpoint.port)
    }
}

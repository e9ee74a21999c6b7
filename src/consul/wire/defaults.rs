//! `/v1/config/proxy-defaults/global` and `/v1/config/service-defaults/:name`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::{
        Read, WireError,
        expose::WireExpose,
        read::{WireGateway, bad_name, is_name, is_set, item, nullable, shown, whole},
        refused::{self, OF_DEFAULTS, OF_SETTINGS},
    },
    model::{
        name::ServiceName,
        note::Note,
        registration::{Defaults, UpstreamConfig, UpstreamDefaults},
        settings::Settings,
    },
};

/// Fields of service-defaults and the keys under which Consul merges them into a proxy's settings.
const OF_PROXIES: [(&str, &str); 4] = [
    ("BalanceInboundConnections", "balance_inbound_connections"),
    ("LocalConnectTimeoutMs", "local_connect_timeout_ms"),
    ("LocalRequestTimeoutMs", "local_request_timeout_ms"),
    ("MaxInboundConnections", "max_inbound_connections"),
];

/// The same for a part of `UpstreamConfig` and an upstream's settings.
const OF_UPSTREAMS: [(&str, &str); 7] = [
    ("BalanceOutboundConnections", "balance_outbound_connections"),
    ("ConnectTimeoutMs", "connect_timeout_ms"),
    ("EnvoyClusterJSON", "envoy_cluster_json"),
    ("EnvoyListenerJSON", "envoy_listener_json"),
    ("Limits", "limits"),
    ("PassiveHealthCheck", "passive_health_check"),
    ("Protocol", "protocol"),
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireDefaults {
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    protocol: String,
    #[serde(default, deserialize_with = "nullable")]
    mesh_gateway: WireGateway,
    #[serde(default, deserialize_with = "nullable")]
    config: BTreeMap<String, Value>,
    #[serde(default, deserialize_with = "nullable")]
    expose: WireExpose,
    #[serde(default, deserialize_with = "nullable")]
    upstream_config: WireUpstreams,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireUpstreams {
    #[serde(deserialize_with = "nullable")]
    defaults: WireUpstream,
    #[serde(deserialize_with = "nullable")]
    overrides: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireUpstream {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    namespace: String,
    #[serde(deserialize_with = "nullable")]
    partition: String,
    #[serde(deserialize_with = "nullable")]
    peer: String,
    #[serde(deserialize_with = "nullable")]
    mesh_gateway: WireGateway,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// The central configuration that an entry holds.
pub fn defaults(body: &[u8]) -> Result<Read<Defaults>, WireError> {
    let wire: WireDefaults = whole(body)?;
    let mut notes = Vec::new();
    let about = format!("{} {}", wire.kind, wire.name);
    let gateway_mode = wire.mesh_gateway.mode(&about, &mut notes);
    refused::note(&wire.rest, &OF_DEFAULTS, &about, &mut notes);
    refused::note(&wire.config, &OF_SETTINGS, &about, &mut notes);
    let mut settings = wire.config;
    settings.extend(renamed(wire.rest, &OF_PROXIES));
    let defaults = Defaults {
        protocol: Some(wire.protocol).filter(|protocol| !protocol.is_empty()),
        gateway_mode,
        settings: Settings(settings),
        exposed: wire.expose.paths(&about, &mut notes),
        upstreams: wire.upstream_config.read(&about, &mut notes),
    };
    Ok((defaults, notes))
}

impl WireUpstreams {
    fn read(self, about: &str, notes: &mut Vec<Note>) -> UpstreamDefaults {
        let all = self.defaults.config(&format!("{about}, UpstreamConfig.Defaults"), notes);
        let mut by_service = BTreeMap::new();
        for value in self.overrides {
            let name = shown(value["Name"].as_str().unwrap_or("?"));
            let about = format!("{about}, UpstreamConfig override of {name}");
            let Some(wire) = item::<WireUpstream>(value, &about, notes) else { continue };
            let is_here = |text: &str| matches!(text, "" | "default");
            if !is_here(&wire.namespace) || !is_here(&wire.partition) || !wire.peer.is_empty() {
                // No upstream of ours is there.
                continue;
            }
            if !is_name(&wire.name) {
                notes.push(bad_name(&about, "upstream name", &wire.name));
                continue;
            }
            by_service.insert(ServiceName::from(&wire.name), wire.config(&about, notes));
        }
        UpstreamDefaults { all, by_service }
    }
}

impl WireUpstream {
    fn config(self, about: &str, notes: &mut Vec<Note>) -> UpstreamConfig {
        UpstreamConfig {
            gateway_mode: self.mesh_gateway.mode(about, notes),
            settings: Settings(renamed(self.rest, &OF_UPSTREAMS).collect()),
        }
    }
}

/// A limit of zero says something, a number of zero by itself does not.
fn says_something(value: &Value) -> bool {
    value.as_object().map_or_else(|| is_set(value), |fields| !fields.is_empty())
}

/// The fields that say anything, under their keys.
fn renamed<'a>(
    mut fields: BTreeMap<String, Value>,
    keys: &'a [(&str, &str)],
) -> impl Iterator<Item = (String, Value)> + 'a {
    keys.iter().filter_map(move |(field, key)| {
        fields.remove(*field).filter(says_something).map(|value| ((*key).to_owned(), value))
    })
}

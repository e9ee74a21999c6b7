//! `/v1/config/proxy-defaults/global` and `/v1/config/service-defaults/:name`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::{
        Read, WireError,
        read::{WireGateway, nullable, whole},
    },
    model::{registration::Defaults, settings::Settings},
};

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
}

/// The central configuration that an entry holds.
pub fn defaults(body: &[u8]) -> Result<Read<Defaults>, WireError> {
    let wire: WireDefaults = whole(body)?;
    let mut notes = Vec::new();
    let gateway_mode = wire.mesh_gateway.mode(&format!("{} {}", wire.kind, wire.name), &mut notes);
    let protocol = Some(wire.protocol).filter(|protocol| !protocol.is_empty());
    Ok((Defaults { protocol, gateway_mode, settings: Settings(wire.config) }, notes))
}

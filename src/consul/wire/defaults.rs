//! `/v1/config/proxy-defaults/global` and `/v1/config/service-defaults/:name`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::{
        Read, WireError,
        read::{WireGateway, is_set, nullable, whole},
        refused::{self, OF_DEFAULTS},
    },
    model::{note::Note, registration::Defaults, settings::Settings},
};

/// Settings that are not built yet.
const NOT_BUILT: [&str; 2] = ["Expose", "MaxInboundConnections"];

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
    for field in NOT_BUILT {
        if wire.rest.get(field).is_some_and(is_set) {
            let problem = format!("its {field} is not built yet and does not count");
            notes.push(Note::new(&about, problem, format!("leave {field} out of the entry")));
        }
    }
    let protocol = Some(wire.protocol).filter(|protocol| !protocol.is_empty());
    Ok((Defaults { protocol, gateway_mode, settings: Settings(wire.config) }, notes))
}

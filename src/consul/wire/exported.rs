//! `/v1/config/exported-services/default`: read for its note alone.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::{
    consul::wire::{
        Read, WireError,
        read::{nullable, whole},
    },
    model::{name::ServiceName, note::Note},
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireExported {
    // What answers without it is no Consul.
    #[serde(rename = "Kind")]
    _kind: String,
    #[serde(default, deserialize_with = "nullable")]
    services: Vec<WireService>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireService {
    #[serde(default, deserialize_with = "nullable")]
    name: String,
}

/// The services that peers or partitions are to reach, and that they do not.
pub fn exported_services(body: &[u8]) -> Result<Read<BTreeSet<ServiceName>>, WireError> {
    let wire: WireExported = whole(body)?;
    let names: BTreeSet<ServiceName> =
        wire.services.iter().map(|service| service.name.as_str().into()).collect();
    let note = Note::new(
        "exported-services entry",
        "it has no effect: neither peers nor partitions are served",
        "remove it, and join datacenters by WAN federation",
    );
    let notes = if names.is_empty() { Vec::new() } else { vec![note] };
    Ok((names, notes))
}

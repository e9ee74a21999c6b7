//! `/v1/internal/ui/services` and `/v1/catalog/datacenters`: names.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{
    consul::wire::{
        Read, WireError,
        instance::kind,
        read::{Usable, bad_name, is_name, item, items, nullable},
    },
    model::{
        instance::ServiceKind,
        name::{Datacenter, ServiceName},
    },
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireSummary {
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    kind: String,
    /// Imported from a peer: not of this datacenter.
    #[serde(default, deserialize_with = "nullable")]
    peer_name: String,
}

/// All services with their kinds, or those of one kind where the answer holds more.
pub fn services(
    body: &[u8],
    only: Option<ServiceKind>,
) -> Result<Read<BTreeMap<ServiceName, ServiceKind>>, WireError> {
    let (mut services, mut notes) = (BTreeMap::new(), Vec::new());
    let mut usable = Usable::default();
    for value in items(body)? {
        usable.listed += 1;
        let Some(summary) = item::<WireSummary>(value, "service list", &mut notes) else { continue };
        if !summary.peer_name.is_empty() {
            usable.read += 1;
            continue;
        }
        if !is_name(&summary.name) {
            notes.push(bad_name("service list", "service name", &summary.name));
            continue;
        }
        usable.read += 1;
        let kind = kind(&summary.kind);
        if only.is_none_or(|only| only == kind) {
            services.insert(ServiceName::from(summary.name), kind);
        }
    }
    usable.check(&notes)?;
    Ok((services, notes))
}

/// The known datacenters.
pub fn datacenters(body: &[u8]) -> Result<Read<BTreeSet<Datacenter>>, WireError> {
    let (mut datacenters, mut notes) = (BTreeSet::new(), Vec::new());
    let mut usable = Usable::default();
    for value in items(body)? {
        usable.listed += 1;
        match item::<String>(value, "datacenter list", &mut notes) {
            Some(name) if is_name(&name) => {
                usable.read += 1;
                datacenters.insert(Datacenter::from(name));
            }
            Some(name) => notes.push(bad_name("datacenter list", "datacenter name", &name)),
            None => {}
        }
    }
    usable.check(&notes)?;
    Ok((datacenters, notes))
}

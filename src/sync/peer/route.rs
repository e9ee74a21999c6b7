//! Where to connect for a datacenter: through mesh gateways, or inside the own one straight to an agent. Pure.
//!
//! Reading the catalog through [`Reader`] writes down what must be watched, so that needs and use never drift apart.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    mesh::reader::{Read, Reader},
    model::{
        catalog::{Catalog, Topic},
        chain::GatewayMode,
        instance::{Health, HostPort, Instance},
        name::{Datacenter, ServiceName},
    },
    sync::peer::SERVICE,
};

/// The addresses that lead to a datacenter's sync agents, those to be tried first before the others; or why there are
/// none.
pub type Way = Result<Vec<HostPort>, String>;

/// The ways to every configured datacenter. The server name, not the address, says which one is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(BTreeMap<Datacenter, Way>);

impl Routes {
    /// Made by hand, for tests and simulations.
    pub fn new(ways: BTreeMap<Datacenter, Way>) -> Self {
        Self(ways)
    }

    /// The way to a datacenter.
    pub fn to(&self, dc: &Datacenter) -> Way {
        self.0.get(dc).cloned().unwrap_or_else(|| {
            Err(format!("datacenter {dc} is none of those configured for replication; add it to them"))
        })
    }
}

/// The ways that the catalog tells of, and what must be watched for them.
pub fn routes(
    catalog: &Catalog,
    local: &Datacenter,
    datacenters: &BTreeSet<Datacenter>,
    mode: GatewayMode,
) -> (Routes, BTreeSet<Topic>) {
    let (mut ways, mut needs) = (BTreeMap::new(), BTreeSet::new());
    for dc in datacenters {
        let mut reader = Reader::new(catalog);
        let way =
            if dc == local { inside(&mut reader, local) } else { outside(&mut reader, local, dc, mode) };
        let Read { asked, missing, .. } = reader.into_read();
        ways.insert(dc.clone(), way.unwrap_or_else(|| Err(unknown(catalog, dc, &missing))));
        needs.extend(asked);
    }
    (Routes(ways), needs)
}

/// The agents of the own datacenter.
fn inside(reader: &mut Reader<'_>, local: &Datacenter) -> Option<Way> {
    let agents = reader.connect(local, &ServiceName::from(SERVICE))?;
    let agents: Vec<&Instance> = agents.iter().collect();
    Some(in_order(&agents, |agent| &agent.lan).ok_or_else(|| {
        format!("no instance of {SERVICE} is registered in {local}; turn replication on in an agent there")
    }))
}

fn outside(reader: &mut Reader<'_>, local: &Datacenter, dc: &Datacenter, mode: GatewayMode) -> Option<Way> {
    let way = match mode {
        GatewayMode::Local => in_order(&reader.local_gateways(local)?, |gateway| &gateway.lan)
            .ok_or_else(|| none(local, "start one with `causeway envoy --gateway mesh`")),
        GatewayMode::Remote => in_order(&reader.remote_gateways(dc)?, |gateway| &gateway.wan)
            .ok_or_else(|| none(dc, "start one there with `causeway envoy --gateway mesh`")),
        GatewayMode::None => {
            let agents: Vec<_> = reader.connect(dc, &ServiceName::from(SERVICE))?.iter().collect();
            in_order(&agents, |agent| &agent.wan).ok_or_else(|| {
                format!(
                    "no instance of {SERVICE} is registered in {dc}; turn replication on in an agent there"
                )
            })
        }
    };
    Some(way)
}

fn none(dc: &Datacenter, remedy: &str) -> String {
    format!("datacenter {dc} has no mesh gateway; {remedy}")
}

/// Healthy ones first. Those that are critical come last instead of not at all: when every check fails, the checks are
/// likelier to be wrong than all ways to be closed.
fn in_order(instances: &[&Instance], address: impl Fn(&Instance) -> &HostPort) -> Option<Vec<HostPort>> {
    let mut sorted = instances.to_vec();
    sorted.sort_by_key(|instance| (instance.health == Health::Critical, &instance.node, &instance.id));
    let mut addresses: Vec<HostPort> = Vec::with_capacity(sorted.len());
    for instance in sorted {
        let address = address(instance);
        if !addresses.contains(address) {
            addresses.push(address.clone());
        }
    }
    (!addresses.is_empty()).then_some(addresses)
}

fn unknown(catalog: &Catalog, dc: &Datacenter, missing: &BTreeSet<Topic>) -> String {
    let told = |topic: &Topic| match catalog.trouble(topic) {
        Some(reason) => format!("{topic} ({reason})"),
        None => topic.to_string(),
    };
    let missing: Vec<_> = missing.iter().map(told).collect();
    format!("the way to datacenter {dc} is not known yet: Consul has not told {}", missing.join(", "))
}

#[cfg(test)]
mod tests;

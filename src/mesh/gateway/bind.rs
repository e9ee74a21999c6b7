//! Where a gateway listens: Consul's keys in the gateway's settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use serde_json::Value;

use crate::{
    mesh::{built::Parts, gateway::settings, listener},
    model::{
        instance::{Host, HostPort},
        note::Note,
        registration::Registration,
    },
    xds::resource::{
        filter::NetworkFilter,
        listener::{Direction, FilterChain, Listener},
    },
};

/// The gateway's listeners. Their chains come from the other units, but for the last one.
pub(super) fn listeners(registration: &Registration, notes: &mut Vec<Note>) -> Result<Parts, Note> {
    let addresses = addresses(registration, notes);
    if addresses.is_empty() {
        return Err(Note::new(
            format!("gateway {}", registration.id),
            "has no address to listen on",
            "register it with a port, or with --bind-address",
        ));
    }
    let listeners = addresses.into_iter().map(|(address, name)| shell(&name, address)).collect();
    Ok(Parts { listeners, ..Parts::default() })
}

/// Names by address, each address once: the registered one unless switched off, those bound explicitly, and the
/// tagged ones if asked for.
fn addresses(registration: &Registration, notes: &mut Vec<Note>) -> BTreeMap<SocketAddr, String> {
    let is_on = |key: &str| settings::is_on(setting(registration, key));
    let mut wanted: Vec<(String, HostPort)> = Vec::new();
    if !is_on("no_default_bind") && registration.port != 0 {
        let ip = registration.address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        wanted.push(("default".to_owned(), HostPort { host: Host::Ip(ip), port: registration.port }));
    }
    if is_on("bind_tagged_addresses") {
        wanted.extend(registration.tagged.iter().map(|(tag, at)| (tag.clone(), at.clone())));
    }
    let bound = setting(registration, "bind_addresses").and_then(Value::as_object);
    wanted.extend(bound.into_iter().flatten().map(|(name, at)| (name.clone(), bind_address(at))));

    let mut addresses = BTreeMap::new();
    for (name, at) in wanted {
        match (&at.host, at.port) {
            (Host::Ip(ip), 1..) => {
                addresses.entry(SocketAddr::new(*ip, at.port)).or_insert(name);
            }
            _ => notes.push(Note::new(
                format!("bind address {name} of gateway {}", registration.id),
                format!("{at} is not an IP address with a port"),
                "give it as {\"address\": IP, \"port\": PORT}",
            )),
        }
    }
    addresses
}

/// A setting of the gateway, under the prefix of Consul 1.8 or its older one.
fn setting<'a>(registration: &'a Registration, key: &str) -> Option<&'a Value> {
    let named = |prefix: &str| registration.settings.0.get(&format!("{prefix}{key}"));
    named("envoy_gateway_").or_else(|| named("envoy_mesh_gateway_"))
}

/// Consul's form of an address: `{"address": "...", "port": n}`, keys in either case.
fn bind_address(value: &Value) -> HostPort {
    let get = |lower: &str, upper: &str| value.get(lower).or_else(|| value.get(upper));
    let host = get("address", "Address").and_then(Value::as_str).unwrap_or_default();
    let port = match get("port", "Port") {
        Some(Value::String(text)) => text.parse().ok(),
        other => other.and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()),
    };
    HostPort::new(host, port.unwrap_or(0))
}

/// A listener with its last chain only: for every server name that no other chain has, the cluster of that very name.
fn shell(name: &str, address: SocketAddr) -> Listener {
    let by_server_name = FilterChain {
        name: "by_server_name".to_owned(),
        server_names: BTreeSet::new(),
        tls: None,
        filters: vec![NetworkFilter::SniCluster, listener::tcp_proxy("mesh_gateway_local", "")],
    };
    Listener {
        name: format!("{name}:{address}"),
        stat_prefix: Some(format!("mesh_gateway.{name}")),
        address: address.into(),
        direction: Direction::Unspecified,
        tls_inspector: true,
        exact_balance: false,
        chains: vec![by_server_name],
    }
}

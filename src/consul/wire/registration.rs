//! `/v1/agent/service/:id`: a proxy's own registration.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::{
        Read, WireError,
        expose::WireExpose,
        instance::{WireAddress, kind},
        read::{
            WireGateway, bad_name, host_port, is_id, is_name, is_set, nullable, port, read_item, shown, whole,
        },
        refused::{self, OF_PROXIES, OF_SETTINGS},
    },
    model::{
        instance::ServiceKind,
        name::{Datacenter, ProxyId, ServiceId, ServiceName},
        note::Note,
        registration::{
            Destination, LocalAddress, Registration, UnixSocket, Unread, Upstream, UpstreamId, UpstreamKind,
        },
        settings::Settings,
    },
};

const LOOPBACK: &str = "127.0.0.1";
/// What fits into a Unix socket's address, without its closing zero.
const SOCKET_PATH_MAX: usize = 107;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireService {
    #[serde(default, deserialize_with = "nullable")]
    kind: String,
    #[serde(rename = "ID")]
    id: String,
    service: String,
    #[serde(default, deserialize_with = "nullable")]
    address: String,
    #[serde(default)]
    port: i64,
    #[serde(default, deserialize_with = "nullable")]
    tagged_addresses: BTreeMap<String, WireAddress>,
    #[serde(default, deserialize_with = "nullable")]
    meta: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    namespace: String,
    #[serde(default, deserialize_with = "nullable")]
    partition: String,
    #[serde(default, deserialize_with = "nullable")]
    proxy: WireProxy,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireProxy {
    #[serde(deserialize_with = "nullable")]
    destination_service_name: String,
    #[serde(rename = "DestinationServiceID", deserialize_with = "nullable")]
    destination_service_id: String,
    #[serde(deserialize_with = "nullable")]
    local_service_address: String,
    #[serde(deserialize_with = "nullable")]
    local_service_port: i64,
    #[serde(deserialize_with = "nullable")]
    local_service_socket_path: String,
    #[serde(deserialize_with = "nullable")]
    mode: String,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
    #[serde(deserialize_with = "nullable")]
    config: BTreeMap<String, Value>,
    #[serde(deserialize_with = "nullable")]
    upstreams: Vec<Value>,
    #[serde(deserialize_with = "nullable")]
    mesh_gateway: WireGateway,
    #[serde(deserialize_with = "nullable")]
    expose: WireExpose,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireUpstream {
    #[serde(default, deserialize_with = "nullable")]
    destination_type: String,
    #[serde(default, deserialize_with = "nullable")]
    destination_namespace: String,
    #[serde(default, deserialize_with = "nullable")]
    destination_partition: String,
    #[serde(default, deserialize_with = "nullable")]
    destination_peer: String,
    destination_name: String,
    #[serde(default)]
    destination_port: Value,
    #[serde(default, deserialize_with = "nullable")]
    datacenter: String,
    #[serde(default, deserialize_with = "nullable")]
    local_bind_address: String,
    #[serde(default, deserialize_with = "nullable")]
    local_bind_port: i64,
    #[serde(default, deserialize_with = "nullable")]
    local_bind_socket_path: String,
    #[serde(default, deserialize_with = "nullable")]
    local_bind_socket_mode: String,
    #[serde(default, deserialize_with = "nullable")]
    config: BTreeMap<String, Value>,
    #[serde(default, deserialize_with = "nullable")]
    mesh_gateway: WireGateway,
}

/// The registration; of upstreams that cannot be honoured it has the notes. Impossible names of the service itself
/// make the whole answer unusable, since there is nothing to hang a proxy on.
pub fn registration(body: &[u8]) -> Result<Read<Registration>, WireError> {
    let wire: WireService = whole(body)?;
    if !is_name(&wire.service) || !is_id(&wire.id) {
        return Err(WireError::Shape(
            "its service name or id is impossible: register it under another".into(),
        ));
    }
    if let Some((scope, name)) = refused::foreign(&wire.namespace, &wire.partition) {
        let problem =
            format!("it is in the {scope} `{}`, which is not supported; register it in default", shown(name));
        return Err(WireError::Unsupported(problem));
    }
    let mut notes = Vec::new();
    let about = format!("proxy {}", shown(&wire.id));
    refused::note(&wire.proxy.rest, &OF_PROXIES, &about, &mut notes);
    refused::note(&wire.proxy.config, &OF_SETTINGS, &about, &mut notes);
    let kind = kind(&wire.kind);
    if kind == ServiceKind::Other {
        let problem = format!("the kind `{}` is not supported", shown(&wire.kind));
        notes.push(Note::new(&about, problem, "register a connect-proxy or a mesh-gateway under this id"));
    }
    let mut tagged = BTreeMap::new();
    for (tag, address) in wire.tagged_addresses {
        let at = if address.port == 0 { wire.port } else { address.port };
        match host_port(&format!("{about}, address tagged {}", shown(&tag)), &address.address, at) {
            Ok(address) => drop(tagged.insert(tag, address)),
            Err(note) => notes.push(note),
        }
    }
    let gateway_mode = wire.proxy.mesh_gateway.mode(&about, &mut notes);
    let number = u16::try_from(wire.port).unwrap_or_else(|_| {
        let problem = format!("the port {} is impossible", wire.port);
        notes.push(Note::new(&about, problem, "register it again with a port from 1 to 65535"));
        0
    });
    let destination = destination(&wire.proxy, kind, &about, &mut notes);
    let registration = Registration {
        id: ProxyId::from(&wire.id),
        service: ServiceName::from(&wire.service),
        kind,
        address: wire.address,
        port: number,
        tagged,
        meta: wire.meta,
        destination,
        gateway_mode,
        settings: Settings(wire.proxy.config),
        upstreams: upstreams(wire.proxy.upstreams, &mut notes),
        exposed: wire.proxy.expose.paths(&about, &mut notes),
    };
    Ok((registration, notes))
}

fn destination(
    proxy: &WireProxy,
    kind: ServiceKind,
    about: &str,
    notes: &mut Vec<Note>,
) -> Option<Destination> {
    if kind != ServiceKind::ConnectProxy {
        return None;
    }
    if !matches!(proxy.mode.as_str(), "" | "default" | "direct") {
        notes.push(Note::new(
            about,
            format!("the proxy mode `{}` is not supported", shown(&proxy.mode)),
            "name its upstreams in the registration and leave Proxy.Mode out",
        ));
    }
    if !is_name(&proxy.destination_service_name) {
        notes.push(bad_name(about, "destination service name", &proxy.destination_service_name));
        return None;
    }
    let about = format!("{about}, local service");
    let address = or(&proxy.local_service_address, LOOPBACK);
    let local = match (proxy.local_service_socket_path.as_str(), proxy.local_service_port) {
        ("", 0) => None,
        ("", number) => {
            host_port(&about, address, number).map(LocalAddress::Port).map_err(|note| notes.push(note)).ok()
        }
        (path, _) => socket(&about, path, "").map(LocalAddress::Socket).map_err(|note| notes.push(note)).ok(),
    };
    let id = Some(&proxy.destination_service_id).filter(|id| is_id(id)).map(ServiceId::from);
    Some(Destination { service: ServiceName::from(&proxy.destination_service_name), id, local })
}

fn upstreams(values: Vec<Value>, notes: &mut Vec<Note>) -> Vec<Result<Upstream, Unread<UpstreamId>>> {
    let read = |value: Value| {
        let about = format!("upstream {}", shown(value["DestinationName"].as_str().unwrap_or("?")));
        let id = upstream_id(&value);
        let upstream = read_item(value, &about).and_then(|wire| upstream(wire, &about, notes));
        upstream.map_err(|note| Unread { id, note })
    };
    values.into_iter().map(read).collect()
}

/// Which upstream it is, whatever is wrong with the rest of it.
fn upstream_id(value: &Value) -> Option<UpstreamId> {
    let text = |field: &str| match &value[field] {
        Value::Null => Some(""),
        field => field.as_str(),
    };
    let name = text("DestinationName").filter(|name| is_name(name))?;
    let destination = destination_kind(text("DestinationType")?, name)?;
    let datacenter = text("Datacenter").filter(|dc| dc.is_empty() || is_name(dc))?;
    Some(UpstreamId { destination, datacenter: named_datacenter(datacenter) })
}

fn destination_kind(kind: &str, name: &str) -> Option<UpstreamKind> {
    match kind {
        "" | "service" => Some(UpstreamKind::Service(ServiceName::from(name))),
        "prepared_query" => Some(UpstreamKind::PreparedQuery(name.to_owned())),
        _ => None,
    }
}

fn named_datacenter(name: &str) -> Option<Datacenter> {
    Some(name).filter(|name| !name.is_empty()).map(Datacenter::from)
}

fn upstream(wire: WireUpstream, about: &str, notes: &mut Vec<Note>) -> Result<Upstream, Note> {
    let scope = refused::foreign(&wire.destination_namespace, &wire.destination_partition);
    if scope.is_some() || !wire.destination_peer.is_empty() {
        return Err(Note::new(
            about,
            "it is in a peer, a partition or a namespace, which are not supported",
            "name a service of the federation's default namespace",
        ));
    }
    if is_set(&wire.destination_port) {
        return Err(Note::new(
            about,
            "it names a port of a service with several, which are not supported",
            "register a service of its own for that port, and leave DestinationPort out",
        ));
    }
    if !is_name(&wire.destination_name) {
        return Err(bad_name(about, "destination name", &wire.destination_name));
    }
    let destination = destination_kind(&wire.destination_type, &wire.destination_name).ok_or_else(|| {
        let problem = format!("the destination type `{}` is unknown", shown(&wire.destination_type));
        Note::new(about, problem, "set DestinationType to service")
    })?;
    if !wire.datacenter.is_empty() && !is_name(&wire.datacenter) {
        return Err(bad_name(about, "datacenter name", &wire.datacenter));
    }
    Ok(Upstream {
        id: UpstreamId { destination, datacenter: named_datacenter(&wire.datacenter) },
        bind: bind(&wire, about)?,
        gateway_mode: wire.mesh_gateway.mode(about, notes),
        settings: Settings(wire.config),
    })
}

/// A port wins over a socket, as with Consul.
fn bind(wire: &WireUpstream, about: &str) -> Result<LocalAddress, Note> {
    if wire.local_bind_port == 0 && !wire.local_bind_socket_path.is_empty() {
        return socket(about, &wire.local_bind_socket_path, &wire.local_bind_socket_mode)
            .map(LocalAddress::Socket);
    }
    if port(wire.local_bind_port).is_none() {
        return Err(Note::new(
            about,
            format!("the local port {} is impossible", wire.local_bind_port),
            "set LocalBindPort to a port from 1 to 65535, or LocalBindSocketPath",
        ));
    }
    host_port(about, or(&wire.local_bind_address, LOOPBACK), wire.local_bind_port).map(LocalAddress::Port)
}

/// A Unix socket that Envoy can use.
fn socket(about: &str, path: &str, mode: &str) -> Result<UnixSocket, Note> {
    let is_usable =
        path.starts_with(['/', '@']) && path.len() <= SOCKET_PATH_MAX && !path.chars().any(char::is_control);
    if !is_usable {
        return Err(Note::new(
            about,
            format!("the socket path `{}` is impossible", shown(path)),
            format!("give an absolute path of at most {SOCKET_PATH_MAX} bytes"),
        ));
    }
    let octal = mode.strip_prefix("0o").unwrap_or(mode);
    let mode = match octal {
        "" => None,
        digits => match u32::from_str_radix(digits, 8) {
            Ok(mode) if mode <= 0o777 => Some(mode),
            _ => {
                return Err(Note::new(
                    about,
                    format!("the socket mode `{}` is impossible", shown(mode)),
                    "write it in octal, as in 0660",
                ));
            }
        },
    };
    Ok(UnixSocket { path: path.to_owned(), mode })
}

fn or<'a>(text: &'a str, fallback: &'a str) -> &'a str {
    if text.is_empty() { fallback } else { text }
}

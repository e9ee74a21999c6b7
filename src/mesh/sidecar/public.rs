//! The public listener: mTLS, intentions, the local application.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::{
    mesh::{
        built::{Made, Parts},
        cluster, intention, listener, name,
        reader::Reader,
        sidecar::{Sidecar, merged_settings},
    },
    model::{
        agent::DefaultPolicy,
        chain::Protocol,
        instance::{Host, HostPort},
        note::Note,
        registration::Registration,
        settings::Settings,
    },
    xds::resource::{
        Resource,
        filter::Rbac,
        listener::{Direction, DownstreamTls, FilterChain, Listener},
    },
};

/// Consul's name and statistics prefix of the listener.
const NAME: &str = "public_listener";

/// Settings of a proxy that are not built yet.
const UNBUILT: &[&str] = &[
    "envoy_listener_tracing_json",
    "envoy_local_cluster_json",
    "envoy_public_listener_json",
    "local_idle_timeout_ms",
    "local_request_timeout_ms",
    "max_inbound_connections",
];

/// Where the public listener binds: `bind_address` and `bind_port` of the proxy's settings, else the registered
/// address and port, else every address. `None` when no port is known.
pub(super) fn address(registration: &Registration) -> Option<SocketAddr> {
    let settings = &registration.settings;
    let port = match settings.number("bind_port").filter(|port| *port > 0) {
        Some(port) => u16::try_from(port).ok()?,
        None => registration.port,
    };
    let host = settings.text("bind_address").unwrap_or(&registration.address);
    let ip = host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    (port != 0).then_some(SocketAddr::new(ip, port))
}

pub(super) fn build(sidecar: &Sidecar<'_>, reader: &mut Reader<'_>, notes: &mut Vec<Note>) -> Made {
    let settings = merged_settings(sidecar, reader);
    let (roots, leaf) = (reader.roots(), reader.leaf(&sidecar.destination.service));
    let rbac = rbac(sidecar, reader, notes);
    let (settings, _, _, rbac) = (settings?, roots?, leaf?, rbac?);

    notes.extend(sidecar.unbuilt("public listener", &settings, UNBUILT));
    note_misfits(sidecar, &settings, notes);
    let protocol = protocol(sidecar, &settings, notes);
    let Some(address) = address(sidecar.registration) else {
        let remedy = "register the sidecar with a port from 1 to 65535";
        return Some(Err(sidecar.note("public listener", "has no usable port", remedy)));
    };
    let resources = vec![listener(sidecar, protocol, rbac, address)];
    Some(Ok(Parts { resources, ..Parts::default() }))
}

fn listener(sidecar: &Sidecar<'_>, protocol: Protocol, rbac: Rbac, address: SocketAddr) -> Resource {
    let chain = FilterChain {
        name: NAME.to_owned(),
        server_names: Default::default(),
        tls: Some(DownstreamTls {
            secrets: cluster::secrets(&sidecar.destination.service),
            alpn: listener::alpn(protocol),
        }),
        filters: listener::inbound(protocol, NAME, name::LOCAL_APP, rbac),
    };
    Resource::Listener(Listener {
        name: format!("{NAME}:{address}"),
        stat_prefix: Some(NAME.to_owned()),
        address: address.into(),
        direction: Direction::Inbound,
        tls_inspector: false,
        chains: vec![chain],
    })
}

/// The local application's cluster.
pub(super) fn local_app(sidecar: &Sidecar<'_>, reader: &mut Reader<'_>) -> Made {
    let settings = merged_settings(sidecar, reader)?;
    // Its note is the public listener's.
    let protocol = protocol(sidecar, &settings, &mut Vec::new());
    let timeout_ms = settings.number("local_connect_timeout_ms").filter(|ms| *ms > 0);
    let timeout_ms = timeout_ms.unwrap_or(cluster::CONNECT_TIMEOUT_MS);
    let made = local_address(sidecar).map(|address| {
        of_local_app(cluster::local_app(Some(address.into()), timeout_ms, protocol.is_http2()))
    });
    Some(made)
}

/// The application of which no address was ever known: callers are still authorized, and then find nobody.
pub(super) fn no_local_app() -> Parts {
    of_local_app(cluster::local_app(None, cluster::CONNECT_TIMEOUT_MS, false))
}

fn of_local_app(cluster: Resource) -> Parts {
    Parts { resources: vec![cluster], ..Parts::default() }
}

fn local_address(sidecar: &Sidecar<'_>) -> Result<SocketAddr, Note> {
    match &sidecar.destination.local {
        Some(HostPort { host: Host::Ip(ip), port }) => Ok(SocketAddr::new(*ip, *port)),
        Some(HostPort { host: Host::Name(name), .. }) => Err(sidecar.note(
            "local application",
            format!("has the host name {name:?} for an address, which is not built yet"),
            "set Proxy.LocalServiceAddress to an IP address",
        )),
        None => Err(sidecar.note(
            "local application",
            "has no port",
            "set Proxy.LocalServicePort, or register the service with a port before its sidecar",
        )),
    }
}

/// Settings that are written and cannot be read.
fn note_misfits(sidecar: &Sidecar<'_>, settings: &Settings, notes: &mut Vec<Note>) {
    for (key, kind) in
        settings.misfits(&["protocol", "bind_address"], &["bind_port", "local_connect_timeout_ms"])
    {
        let problem = format!("has a setting {key} that is not {kind}, and goes without it");
        notes.push(sidecar.note("public listener", problem, "correct it in Proxy.Config or proxy-defaults"));
    }
    let bind = sidecar.registration.settings.text("bind_address");
    if let Some(text) = bind.filter(|text| text.parse::<IpAddr>().is_err()) {
        let problem = format!("has the bind_address {text:?}, and listens on every address");
        notes.push(sidecar.note("public listener", problem, "set it to an IP address"));
    }
}

fn rbac(sidecar: &Sidecar<'_>, reader: &mut Reader<'_>, notes: &mut Vec<Note>) -> Option<Rbac> {
    let (intentions, roots) = (reader.intentions(), reader.roots());
    let ((legacy, entries), roots) = (intentions?, roots?);
    let default = sidecar.options.default_policy.unwrap_or(sidecar.agent.default_policy);
    if default == DefaultPolicy::Unreadable {
        notes.push(sidecar.note(
            "default intention policy",
            "cannot be read and counts as deny",
            "give the agent's token agent:read, or set [mesh] default_intention_policy",
        ));
    }
    let service = &sidecar.destination.service;
    Some(intention::rbac(legacy, entries, service, &roots.trust_domain, default, notes))
}

fn protocol(sidecar: &Sidecar<'_>, settings: &Settings, notes: &mut Vec<Note>) -> Protocol {
    let Some(text) = settings.text("protocol") else { return Protocol::Tcp };
    Protocol::parse(text).unwrap_or_else(|| {
        notes.push(sidecar.note(
            "public listener",
            format!("has the unknown protocol {text:?}; bytes are passed on as tcp"),
            "use tcp, http, http2 or grpc",
        ));
        Protocol::Tcp
    })
}

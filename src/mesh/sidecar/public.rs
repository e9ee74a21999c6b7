//! The public listener: mTLS, intentions, the local application.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::{
    mesh::{
        built::{Made, Parts},
        cluster, intention,
        listener::{self, Inbound},
        name,
        reader::Reader,
        sidecar::{
            Sidecar, hatch,
            options::{self, Reading},
        },
    },
    model::{
        agent::DefaultPolicy,
        chain::Protocol,
        instance::Host,
        note::Note,
        registration::{LocalAddress, Registration},
        settings::Settings,
    },
    xds::resource::{
        Resource,
        address::Address,
        cluster::{Discovery, HttpVersion},
        custom::Guard,
        filter::Rbac,
        listener::{Direction, DownstreamTls, FilterChain, Listener},
    },
};

/// Consul's name and statistics prefix of the listener.
const NAME: &str = "public_listener";

/// Settings that are texts.
const TEXTS: &[&str] = &["protocol", "bind_address"];
/// Settings that are numbers.
const NUMBERS: &[&str] = &[
    "bind_port",
    "local_connect_timeout_ms",
    "local_idle_timeout_ms",
    "local_request_timeout_ms",
    "max_inbound_connections",
];

/// Where the public listener binds: `bind_address` and `bind_port` of the proxy's settings, else the registered
/// address and port, else every address. `None` when no port is known.
pub(super) fn address(settings: &Settings, registration: &Registration) -> Option<SocketAddr> {
    let port = match settings.number("bind_port").filter(|port| *port > 0) {
        Some(port) => u16::try_from(port).ok()?,
        None => registration.port,
    };
    (port != 0).then_some(SocketAddr::new(bind_ip(settings, registration), port))
}

/// The address that listeners for the mesh bind.
pub(super) fn bind_ip(settings: &Settings, registration: &Registration) -> IpAddr {
    let host = settings.text("bind_address").unwrap_or(&registration.address);
    host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

pub(super) fn build(sidecar: &Sidecar<'_>, reader: &mut Reader<'_>, notes: &mut Vec<Note>) -> Made {
    let (settings, mesh) = (sidecar.settings(reader), reader.mesh());
    let (roots, leaf) = (reader.roots(), reader.leaf(&sidecar.destination.service));
    let rbac = rbac(sidecar, reader, notes);
    let (settings, mesh, _, _, rbac) = (settings?, mesh?, roots?, leaf?, rbac?);

    note_misfits(sidecar, &settings, notes);
    let protocol = protocol(sidecar, &settings, notes);
    let Some(address) = address(&settings, sidecar.registration) else {
        let remedy = "register the sidecar with a port from 1 to 65535";
        return Some(Err(sidecar.note("public listener", "has no usable port", remedy)));
    };
    let tls = DownstreamTls {
        secrets: cluster::secrets(&sidecar.destination.service),
        alpn: listener::alpn(protocol),
        params: mesh.incoming.clone(),
    };
    let guard = Guard { tls: tls.clone(), rbac: rbac.clone(), max_connections: max_connections(&settings) };
    let inbound = Inbound {
        protocol,
        stat_prefix: NAME,
        cluster: name::LOCAL_APP,
        rbac,
        max_connections: guard.max_connections,
        timeout_ms: cluster::time_ms(settings.number("local_request_timeout_ms")),
        idle_timeout_ms: idle_timeout_ms(&settings),
        tells_caller: !mesh.hides_callers,
    };
    let mut reading = Reading { sidecar, about: "public listener", settings: &settings, notes };
    let exact_balance = options::exact_balance(&mut reading, "balance_inbound_connections");
    let mut listener = Listener { exact_balance, ..listener(inbound, tls, address) };
    if let Some(tracing) = hatch::tracing(&mut reading) {
        hatch::trace(&mut listener, &tracing);
    }
    let resource = hatch::public(&mut reading, &guard).unwrap_or(Resource::Listener(listener));
    Some(Ok(Parts { resources: vec![resource], ..Parts::default() }))
}

fn listener(inbound: Inbound<'_>, tls: DownstreamTls, address: SocketAddr) -> Listener {
    let chain = FilterChain {
        name: NAME.to_owned(),
        server_names: Default::default(),
        tls: Some(tls),
        filters: listener::inbound(inbound),
    };
    Listener {
        name: format!("{NAME}:{address}"),
        stat_prefix: Some(NAME.to_owned()),
        address: address.into(),
        direction: Direction::Inbound,
        tls_inspector: false,
        exact_balance: false,
        chains: vec![chain],
    }
}

/// `local_idle_timeout_ms`; zero is no limit.
fn idle_timeout_ms(settings: &Settings) -> Option<u64> {
    let written = settings.number("local_idle_timeout_ms");
    cluster::time_ms(written).or(written)
}

/// `max_inbound_connections`; zero is no limit, as with Consul.
fn max_connections(settings: &Settings) -> Option<u32> {
    let most = settings.number("max_inbound_connections").filter(|most| *most > 0)?;
    Some(u32::try_from(most).unwrap_or(u32::MAX))
}

/// The local application's cluster.
pub(super) fn local_app<'a>(sidecar: &Sidecar<'a>, reader: &mut Reader<'a>, notes: &mut Vec<Note>) -> Made {
    let settings = sidecar.settings(reader)?;
    // Its note is the public listener's.
    let protocol = protocol(sidecar, &settings, &mut Vec::new());
    let http = version(sidecar, &settings, protocol, reader);
    let mut reading = Reading { sidecar, about: "local application", settings: &settings, notes };
    let custom = hatch::local_app(&mut reading);
    let ours = application(sidecar, &settings, name::LOCAL_APP, None, http).map(of_local_app);
    let Some(custom) = custom else { return Some(ours) };
    if custom.key().name == name::LOCAL_APP {
        return Some(Ok(of_local_app(custom)));
    }
    // A listener that the user wrote leads to it. Ours leads here, if that listener cannot be had, as do exposed paths.
    let mut parts = ours.unwrap_or_else(|_| no_local_app());
    parts.resources.push(custom);
    Some(Ok(parts))
}

/// The version in which requests go to the application. To one that speaks TCP they may come all the time: from an exposed
/// path, and from a listener that the user wrote.
fn version<'a>(
    sidecar: &Sidecar<'a>,
    settings: &Settings,
    protocol: Protocol,
    reader: &mut Reader<'a>,
) -> HttpVersion {
    let exposed = sidecar.exposed_paths(reader).into_iter().flatten();
    let is_exposed = exposed.flatten().any(|path| is_local_port(sidecar, path.local_port));
    let http = HttpVersion::of(protocol);
    if is_exposed || hatch::has_public_listener(settings) { http.settled() } else { http }
}

/// The application of which no address was ever known: callers are still authorized, and then find nobody.
pub(super) fn no_local_app() -> Parts {
    let nowhere = Discovery::Static(Vec::new());
    let (timeout_ms, http) = (cluster::CONNECT_TIMEOUT_MS, HttpVersion::default());
    of_local_app(cluster::application(name::LOCAL_APP, nowhere, timeout_ms, http, None))
}

/// The application's cluster, on another port than the service's where one is given.
pub(super) fn application(
    sidecar: &Sidecar<'_>,
    settings: &Settings,
    name: &str,
    port: Option<u16>,
    http: HttpVersion,
) -> Result<Resource, Note> {
    let timeout_ms = cluster::time_ms(settings.number("local_connect_timeout_ms"));
    let timeout_ms = timeout_ms.unwrap_or(cluster::CONNECT_TIMEOUT_MS);
    let discovery = whereabouts(sidecar, port)?;
    Ok(cluster::application(name, discovery, timeout_ms, http, max_connections(settings)))
}

/// Whether the application listens on that port under its service's own name.
pub(super) fn is_local_port(sidecar: &Sidecar<'_>, port: u16) -> bool {
    matches!(&sidecar.destination.local, Some(LocalAddress::Port(at)) if at.port == port)
}

fn of_local_app(cluster: Resource) -> Parts {
    Parts { resources: vec![cluster], ..Parts::default() }
}

fn whereabouts(sidecar: &Sidecar<'_>, port: Option<u16>) -> Result<Discovery, Note> {
    match (&sidecar.destination.local, port) {
        (Some(LocalAddress::Port(at)), _) => {
            let port = port.unwrap_or(at.port);
            Ok(match &at.host {
                Host::Ip(ip) => cluster::at(SocketAddr::new(*ip, port).into()),
                Host::Name(name) => cluster::at_name(name, port),
            })
        }
        (Some(LocalAddress::Socket(socket)), None) => Ok(cluster::at(Address::pipe(&socket.path))),
        (_, Some(port)) => Ok(cluster::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())),
        (None, None) => Err(sidecar.note(
            "local application",
            "has no port",
            "set Proxy.LocalServicePort, or register the service with a port before its sidecar",
        )),
    }
}

/// Settings that are written and cannot be read.
fn note_misfits(sidecar: &Sidecar<'_>, settings: &Settings, notes: &mut Vec<Note>) {
    for (key, kind) in settings.misfits(TEXTS, NUMBERS) {
        let problem = format!("has a setting {key} that is not {kind}, and goes without it");
        notes.push(sidecar.note("public listener", problem, "correct it in Proxy.Config or proxy-defaults"));
    }
    let bind = settings.text("bind_address");
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

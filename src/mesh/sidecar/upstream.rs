//! One upstream: its listener, and how it names what is behind it. What that is made of is in the files below.

mod chain;
mod query;
mod target;

use std::collections::BTreeSet;

use crate::{
    mesh::{
        built::Parts,
        cluster, endpoints,
        listener::{self, Outbound},
        name,
        reader::Reader,
        sidecar::Sidecar,
    },
    model::{
        chain::{GatewayMode, Protocol},
        name::Datacenter,
        note::Note,
        registration::{Upstream, UpstreamKind},
    },
    xds::resource::{
        Resource,
        address::Address,
        cluster::{Resolution, UpstreamTls},
        filter::NetworkFilter,
        listener::{Direction, FilterChain, Listener},
    },
};

/// One upstream while it is being built.
struct Making<'a> {
    sidecar: &'a Sidecar<'a>,
    wanted: &'a Upstream,
    id: &'a str,
    bind: Address,
}

/// What the proxy's own registration, laid over central configuration, says for all of its upstreams. Consul 1.9 and
/// later, and 1.8 where `enable_central_service_config` is on, have merged it already: then this changes nothing.
struct Central {
    gateway_mode: Option<GatewayMode>,
    resolution: Resolution,
}

/// What the listener of an upstream needs to know of what is behind it.
struct Front<'a> {
    stat_prefix: &'a str,
    protocol: Protocol,
    cluster: &'a str,
    /// For a whole response; `None` leaves that to the protocol.
    timeout_ms: Option<u64>,
}

/// An upstream that was made.
pub(super) struct Reached {
    pub(super) parts: Parts,
    /// One cluster of just what is named: no redirect, no subset, no other datacenter, no failover. Only then do escape
    /// hatches count.
    pub(super) is_direct: bool,
}

pub(super) fn build(
    sidecar: &Sidecar<'_>,
    wanted: &Upstream,
    id: &str,
    taken: &mut BTreeSet<Address>,
    reader: &mut Reader<'_>,
    notes: &mut Vec<Note>,
) -> Option<Result<Reached, Note>> {
    note_misfits(sidecar, wanted, id, notes);
    let bind = match bind(sidecar, wanted, id, taken) {
        Ok(bind) => bind,
        Err(note) => return Some(Err(note)),
    };
    let making = Making { sidecar, wanted, id, bind };
    match &wanted.id.destination {
        UpstreamKind::Service(service) => chain::build(&making, service, reader, notes),
        UpstreamKind::PreparedQuery(query) => {
            let made = query::build(&making, query, reader, notes)?;
            Some(made.map(|parts| Reached { parts, is_direct: true }))
        }
    }
}

fn note(sidecar: &Sidecar<'_>, id: &str, problem: impl Into<String>, remedy: &str) -> Note {
    sidecar.note(&format!("upstream {id}"), problem, remedy)
}

/// Settings that are written and cannot be read.
fn note_misfits(sidecar: &Sidecar<'_>, wanted: &Upstream, id: &str, notes: &mut Vec<Note>) {
    let settings = &wanted.settings;
    for (key, kind) in settings.misfits(&["protocol"], &["connect_timeout_ms"]) {
        let problem = format!("has a setting {key} that is not {kind}, and goes without it");
        notes.push(note(sidecar, id, problem, "correct it in the upstream's Config"));
    }
    if let Some(text) = settings.text("protocol").filter(|text| Protocol::parse(text).is_none()) {
        let problem = format!("has the unknown protocol {text:?}, and goes without it");
        notes.push(note(sidecar, id, problem, "use tcp, http, http2 or grpc"));
    }
}

/// Where the application finds the upstream. Two listeners on one address would be refused by Envoy.
fn bind(
    sidecar: &Sidecar<'_>,
    wanted: &Upstream,
    id: &str,
    taken: &mut BTreeSet<Address>,
) -> Result<Address, Note> {
    let Some(address) = listener::address(&wanted.bind) else {
        return Err(note(sidecar, id, "binds a host name", "set local_bind_address to an IP address"));
    };
    if !taken.insert(address.place()) {
        let problem = format!("binds {address}, which another listener of this proxy has");
        return Err(note(sidecar, id, problem, "give it a local_bind_port of its own"));
    }
    Ok(address)
}

impl<'a> Making<'a> {
    fn note(&self, problem: impl Into<String>, remedy: &str) -> Note {
        note(self.sidecar, self.id, problem, remedy)
    }

    /// The proxy's own datacenter.
    fn local(&self) -> &'a Datacenter {
        &self.sidecar.agent.datacenter
    }

    /// The datacenter that the upstream names, else the proxy's own.
    fn datacenter(&self) -> &'a Datacenter {
        self.wanted.id.datacenter.as_ref().unwrap_or(self.local())
    }

    /// The upstream's own protocol, if it sets one.
    fn protocol(&self) -> Option<Protocol> {
        self.wanted.settings.text("protocol").and_then(Protocol::parse)
    }

    /// The upstream's own connect timeout, if it sets one. As in Consul, zero is none; Envoy takes no endless one.
    fn connect_timeout_ms(&self) -> Option<u64> {
        cluster::time_ms(self.wanted.settings.number("connect_timeout_ms"))
    }

    fn central(&self, reader: &mut Reader<'_>) -> Option<Central> {
        let (global, own) = reader.defaults(&self.sidecar.destination.service)?;
        let registered = self.sidecar.registration.gateway_mode;
        let settings = self.sidecar.settings(reader)?;
        Some(Central {
            gateway_mode: registered.or(own.gateway_mode).or(global.gateway_mode),
            resolution: endpoints::resolution(&settings),
        })
    }

    /// TLS towards peers that have one of these ids.
    fn tls(&self, sni: &str, sans: BTreeSet<String>) -> UpstreamTls {
        cluster::upstream_tls(sni, sans, cluster::secrets(&self.sidecar.destination.service))
    }

    /// Everything that makes the upstream: what is behind it, and its listener.
    fn parts(&self, mut behind: Parts, front: &Front<'_>) -> Parts {
        let Front { stat_prefix, protocol, cluster, timeout_ms } = *front;
        let routes = name::upstream_routes(&self.wanted.bind);
        let way = Outbound { routes: &routes, protocol, stat_prefix, cluster, timeout_ms };
        let (filter, routes) = listener::outbound(way);
        behind.resources.extend([Resource::Route(routes), self.listener(stat_prefix, filter)]);
        behind
    }

    fn listener(&self, stat_prefix: &str, filter: NetworkFilter) -> Resource {
        Resource::Listener(Listener {
            name: name::upstream_listener(self.id, &self.wanted.bind),
            stat_prefix: Some(stat_prefix.to_owned()),
            address: self.bind.clone(),
            direction: Direction::Outbound,
            tls_inspector: false,
            exact_balance: false,
            chains: vec![FilterChain {
                name: self.id.to_owned(),
                server_names: BTreeSet::new(),
                tls: None,
                filters: vec![filter],
            }],
        })
    }
}

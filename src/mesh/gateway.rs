//! A mesh gateway: passes mTLS on by server name, and ends none of it.
//!
//! The way to the local Consul servers comes first: it needs only their addresses, no roots and no trust domain,
//! since federation, and with it everything that is learned from other datacenters, depends on it.

mod bind;
mod local;
mod settings;

use std::collections::BTreeSet;

use crate::{
    envoy::bootstrap::extras::Extras,
    mesh::{
        built::{Built, Made, Parts, Unit},
        cluster,
        endpoints::{self, Members, Side},
        gateway::settings::GatewaySettings,
        listener, name,
        reader::Reader,
    },
    model::{
        agent::AgentFacts,
        catalog::Catalog,
        instance::Instance,
        name::{Datacenter, ServiceName},
        note::Note,
        registration::Registration,
    },
    xds::resource::{Resource, cluster::Keepalive, listener::FilterChain},
};

/// The service that Consul servers register themselves as.
const SERVERS: &str = "consul";
/// The metadata that opens a gateway to server traffic (`consul connect envoy -expose-servers`).
const WAN_FEDERATION: &str = "consul-wan-federation";

/// Builds all units of a mesh gateway.
pub(super) fn build(catalog: &Catalog, agent: &AgentFacts, registration: &Registration) -> Built {
    let mut reader = Reader::new(catalog);
    let registration = &with_defaults(registration, &mut reader);
    let mut notes = Vec::new();
    let settings = GatewaySettings::read(registration, &mut notes);
    let mut gateway = Gateway { catalog, agent, settings, built: Built::default() };
    let made = bind::listeners(registration, &mut notes);
    gateway.built.add(Unit::Listeners, reader, Some(made));
    gateway.built.notes.extend(notes);

    let exposes_servers = registration.meta.get(WAN_FEDERATION).is_some_and(|value| value == "1");
    if exposes_servers {
        gateway.unit(Unit::Servers, Gateway::servers);
    }
    gateway.remote_datacenters(exposes_servers);
    gateway.local_services();
    // Nothing is built from them; their notes are for whoever expects peers here, or what a bootstrap does not give.
    let mut reader = Reader::new(catalog);
    reader.mesh();
    reader.exported_services();
    gateway.built.notes.extend(Extras::notes(registration.id.as_str(), &registration.settings));
    gateway.built.needs.extend(reader.into_needs());
    gateway.built
}

/// With the settings of `proxy-defaults` under its own, as Consul's agents merge them. While those are not heard of, what
/// is made is partial: a new secondary's gateway, which is the way to them, has it at once, and one that serves already
/// keeps what it has.
fn with_defaults(registration: &Registration, reader: &mut Reader<'_>) -> Registration {
    let Some(global) = reader.proxy_defaults() else { return registration.clone() };
    Registration { settings: registration.settings.over(&global.settings), ..registration.clone() }
}

struct Gateway<'a> {
    catalog: &'a Catalog,
    agent: &'a AgentFacts,
    settings: GatewaySettings,
    built: Built,
}

impl<'a> Gateway<'a> {
    /// Adds a unit.
    fn unit(&mut self, unit: Unit, make: impl FnOnce(&Self, &mut Reader<'a>, &mut Vec<Note>) -> Made) {
        let (mut reader, mut notes) = (Reader::new(self.catalog), Vec::new());
        // They are in the settings, which every cluster has.
        reader.proxy_defaults();
        let made = make(self, &mut reader, &mut notes);
        self.built.add(unit, reader, made);
        self.built.notes.extend(notes);
    }

    /// Every local server under its own name, and all of them under the name of any: a new secondary asks for
    /// `server.<dc>.<domain>` first and for `<node>.server.<dc>.<domain>` ever after.
    fn servers(&self, reader: &mut Reader<'a>, notes: &mut Vec<Note>) -> Made {
        let AgentFacts { datacenter: dc, domain, .. } = self.agent;
        let servers = reader.health(dc, &ServiceName::from(SERVERS))?;
        Some(self.to_servers(dc, domain, servers, notes))
    }

    fn to_servers(
        &self,
        dc: &Datacenter,
        domain: &str,
        servers: &[Instance],
        notes: &mut Vec<Note>,
    ) -> Result<Parts, Note> {
        if servers.is_empty() {
            // There is always one: something keeps us from seeing it.
            return Err(Note::new(
                format!("servers of datacenter {dc}"),
                "none is visible, which cannot be",
                "give the agent's token service:read on `consul` and node:read",
            ));
        }
        let mut parts = Parts::default();
        let any = name::servers_sni(dc, domain);
        let members = endpoints::of_servers(servers.iter(), notes)?;
        self.passthrough(&mut parts, &any, [any.clone()], members, None);
        let nodes: BTreeSet<_> = servers.iter().map(|server| &server.node).collect();
        for node in nodes {
            let one = name::server_sni(node, dc, domain);
            let of_node = servers.iter().filter(|server| server.node == *node);
            let members = endpoints::of_servers(of_node, notes)?;
            self.passthrough(&mut parts, &one, [one.clone()], members, None);
        }
        Ok(parts)
    }

    fn remote_datacenters(&mut self, exposes_servers: bool) {
        let mut reader = Reader::new(self.catalog);
        let datacenters = reader.datacenters();
        let made = datacenters.is_some().then(|| Ok(Parts::default()));
        self.built.add(Unit::RemoteDatacenters, reader, made);
        let local = &self.agent.datacenter;
        for dc in datacenters.into_iter().flatten().filter(|dc| *dc != local) {
            if exposes_servers {
                self.unit(Unit::RemoteServers(dc.clone()), |gateway, reader, notes| {
                    gateway.remote_servers(dc, reader, notes)
                });
            }
            self.unit(Unit::RemoteDatacenter(dc.clone()), |gateway, reader, notes| {
                gateway.remote_services(dc, reader, notes)
            });
        }
    }

    /// The servers of another datacenter: any of them and each by its name lead to its gateways, whose gateway there
    /// tells them apart.
    fn remote_servers(&self, dc: &Datacenter, reader: &mut Reader<'a>, notes: &mut Vec<Note>) -> Made {
        let gateways = reader.remote_gateways(dc)?;
        let any = name::servers_sni(dc, &self.agent.domain);
        Some(self.to_gateways(&any, [format!("*.{any}"), any.clone()], &gateways, notes))
    }

    /// Every service of another datacenter leads to its gateways.
    fn remote_services(&self, dc: &Datacenter, reader: &mut Reader<'a>, notes: &mut Vec<Note>) -> Made {
        let (roots, gateways) = (reader.roots(), reader.remote_gateways(dc));
        let (roots, gateways) = (roots?, gateways?);
        let sni = name::datacenter_sni(dc, &roots.trust_domain);
        Some(self.to_gateways(&sni, [format!("*.{sni}")], &gateways, notes))
    }

    /// A cluster of another datacenter's gateways, and the way to it.
    fn to_gateways<const N: usize>(
        &self,
        cluster: &str,
        server_names: [String; N],
        gateways: &[&Instance],
        notes: &mut Vec<Note>,
    ) -> Result<Parts, Note> {
        let mut parts = Parts::default();
        let members = endpoints::of_gateways(gateways, true, Side::Wan, self.settings.resolution, notes)?;
        self.passthrough(&mut parts, cluster, server_names, members, self.settings.keepalive);
        Ok(parts)
    }

    /// A cluster, and the chain that leads those server names to it.
    fn passthrough<const N: usize>(
        &self,
        parts: &mut Parts,
        cluster: &str,
        server_names: [String; N],
        members: Members,
        keepalive: Option<Keepalive>,
    ) {
        parts.resources.extend(to_members(cluster, members, self.settings.connect_timeout_ms, keepalive));
        parts.chains.push(FilterChain {
            name: cluster.to_owned(),
            server_names: BTreeSet::from(server_names),
            tls: None,
            filters: vec![listener::tcp_proxy(cluster, cluster)],
        });
    }
}

/// A cluster of these members, and their endpoints.
fn to_members(
    cluster: &str,
    members: Members,
    connect_timeout_ms: u64,
    keepalive: Option<Keepalive>,
) -> impl Iterator<Item = Resource> {
    let passthrough = cluster::passthrough(cluster, members.discovery(), connect_timeout_ms, keepalive);
    [passthrough].into_iter().chain(members.into_resource(cluster))
}

//! One upstream: its chain, the cluster at the end of it, its listener.

use std::collections::BTreeSet;

use crate::{
    mesh::{
        built::{Made, Parts},
        cluster,
        endpoints::{self, Members, Side},
        listener, name,
        reader::Reader,
        sidecar::Sidecar,
    },
    model::{
        chain::{Chain, ChainRequest, GatewayMode, Protocol, Resolver, Target},
        name::ServiceName,
        note::Note,
        registration::{Upstream, UpstreamKind},
    },
    xds::resource::{
        Resource,
        address::Address,
        cluster::Resolution,
        listener::{Direction, FilterChain, Listener},
    },
};

/// One upstream while it is being built.
struct Making<'a> {
    sidecar: &'a Sidecar<'a>,
    wanted: &'a Upstream,
    id: &'a str,
}

pub(super) fn build(
    sidecar: &Sidecar<'_>,
    wanted: &Upstream,
    id: &str,
    taken: &mut BTreeSet<Address>,
    reader: &mut Reader<'_>,
    notes: &mut Vec<Note>,
) -> Made {
    let making = Making { sidecar, wanted, id };
    making.note_misfits(notes);
    let (service, bind) = match making.service().and_then(|service| Ok((service, making.bind(taken)?))) {
        Ok(found) => found,
        Err(note) => return Some(Err(note)),
    };
    let (roots, leaf) = (reader.roots(), reader.leaf(&sidecar.destination.service));
    let chain = reader.chain(&making.request(service))?;
    let (resolver, target) = match making.single(chain) {
        Ok(found) => found,
        Err(note) => return Some(Err(note)),
    };
    let cluster_name = name::target_cluster(chain, target);
    // Asked before anything is given up for lack of certificates: all answers are fetched at once.
    let members = making.members(target, reader, notes);
    let (roots, _, members) = (roots?, leaf?, members?);
    let members = match members {
        Ok(members) => members,
        Err(note) => return Some(Err(note)),
    };
    let tls = cluster::upstream_tls(
        &target.sni,
        name::spiffe_id(&target.service, &target.datacenter, &roots.trust_domain),
        cluster::secrets(&sidecar.destination.service),
    );
    let http2 = chain.protocol.is_http2();
    let cluster =
        cluster::upstream(&cluster_name, members.discovery(), resolver.connect_timeout_ms, http2, tls);
    let listener = making.listener(service, chain, bind, &cluster_name);
    let endpoints = members.into_resource(&cluster_name);
    let resources = [cluster].into_iter().chain(endpoints).chain([listener]).collect();
    Some(Ok(Parts { resources, ..Parts::default() }))
}

impl<'a> Making<'a> {
    fn note(&self, problem: impl Into<String>, remedy: &str) -> Note {
        self.sidecar.note(&format!("upstream {}", self.id), problem, remedy)
    }

    /// Settings that are written and cannot be read.
    fn note_misfits(&self, notes: &mut Vec<Note>) {
        let settings = &self.wanted.settings;
        for (key, kind) in settings.misfits(&["protocol"], &["connect_timeout_ms"]) {
            let problem = format!("has a setting {key} that is not {kind}, and goes without it");
            notes.push(self.note(problem, "correct it in the upstream's Config"));
        }
        if let Some(text) = settings.text("protocol").filter(|text| Protocol::parse(text).is_none()) {
            let problem = format!("has the unknown protocol {text:?}, and goes without it");
            notes.push(self.note(problem, "use tcp, http, http2 or grpc"));
        }
    }

    fn service(&self) -> Result<&'a ServiceName, Note> {
        match &self.wanted.destination {
            UpstreamKind::Service(service) => Ok(service),
            UpstreamKind::PreparedQuery(_) => Err(self.note(
                "is a prepared query, which is not built yet",
                "name the service itself, with its datacenter",
            )),
        }
    }

    /// Where the application finds the upstream. Two listeners on one address would be refused by Envoy.
    fn bind(&self, taken: &mut BTreeSet<Address>) -> Result<Address, Note> {
        let Some(address) = listener::address(&self.wanted.bind) else {
            return Err(self.note("binds a host name", "set local_bind_address to an IP address"));
        };
        if !taken.insert(address.clone()) {
            let problem = format!("binds {address}, which another listener of this proxy has");
            return Err(self.note(problem, "give it a local_bind_port of its own"));
        }
        Ok(address)
    }

    /// The question to Consul's compiler, with the upstream's mode laid over the proxy's.
    fn request(&self, service: &ServiceName) -> ChainRequest {
        let local = &self.sidecar.agent.datacenter;
        let settings = &self.wanted.settings;
        ChainRequest {
            service: service.clone(),
            datacenter: self.wanted.datacenter.as_ref().unwrap_or(local).clone(),
            gateway_mode: self.wanted.gateway_mode.or(self.sidecar.registration.gateway_mode),
            protocol: settings.text("protocol").and_then(Protocol::parse),
            connect_timeout_ms: settings.number("connect_timeout_ms"),
        }
    }

    /// The one target of the chain, or why the chain cannot be expressed.
    fn single<'c>(&self, chain: &'c Chain) -> Result<(&'c Resolver, &'c Target), Note> {
        if !chain.nodes.contains_key(&chain.start) {
            return Err(self.note(
                "has a chain that starts or ends where this version cannot follow",
                "correct what another note says of the chain, or reach the service it leads to directly",
            ));
        }
        let Some((resolver, target)) = chain.single() else {
            return Err(self.note(
                "has a service-router or service-splitter in its chain, which is not built yet",
                "remove the entry, or reach the service it leads to directly",
            ));
        };
        let asks_for = if target.subset.is_some() {
            "a subset"
        } else if !resolver.failover.is_empty() {
            "failover"
        } else if target.is_external {
            "an external SNI"
        } else {
            return Ok((resolver, target));
        };
        Err(self.note(
            format!("asks for {asks_for} in its chain, which is not built yet"),
            "remove it from the service-resolver or service-defaults entry",
        ))
    }

    /// Where the target is: its own instances, or gateways on the way to them.
    fn members(
        &self,
        target: &Target,
        reader: &mut Reader<'_>,
        notes: &mut Vec<Note>,
    ) -> Option<Result<Members, Note>> {
        let local = &self.sidecar.agent.datacenter;
        let mode = if target.datacenter == *local { GatewayMode::None } else { target.gateway_mode };
        let instances = reader.connect(&target.datacenter, &target.service);
        if target.datacenter != *local && instances.is_some_and(Vec::is_empty) {
            // A token that may not read there gets an empty answer and no error (hashicorp/consul#12623).
            notes.push(self.note(
                format!("has no instance of {} in datacenter {}", target.service, target.datacenter),
                "if it should, give the agent a global token with service:read and node:read there",
            ));
        }
        let (gateways, side) = match mode {
            GatewayMode::None => {
                let side = if target.datacenter == *local { Side::Lan } else { Side::Wan };
                return Some(endpoints::of_instances(instances?, side, Resolution::default(), notes));
            }
            GatewayMode::Local => (reader.local_gateways(local), Side::Lan),
            GatewayMode::Remote => (reader.remote_gateways(&target.datacenter), Side::Wan),
        };
        let (instances, gateways) = (instances?, gateways?);
        if gateways.is_empty() {
            let at = if mode == GatewayMode::Local { local } else { &target.datacenter };
            notes.push(self.note(
                format!("goes through mesh gateways, and datacenter {at} has none"),
                "start one with `causeway envoy --gateway mesh --register`",
            ));
        }
        let is_alive = endpoints::is_any_healthy(instances);
        Some(endpoints::of_gateways(&gateways, is_alive, side, Resolution::default(), notes))
    }

    fn listener(&self, service: &ServiceName, chain: &Chain, bind: Address, cluster: &str) -> Resource {
        let stat_prefix = name::upstream_stat_prefix(service, &chain.datacenter);
        Resource::Listener(Listener {
            name: name::upstream_listener(self.id, &self.wanted.bind),
            stat_prefix: Some(stat_prefix.clone()),
            address: bind,
            direction: Direction::Outbound,
            tls_inspector: false,
            exact_balance: false,
            chains: vec![FilterChain {
                name: self.id.to_owned(),
                server_names: BTreeSet::new(),
                tls: None,
                filters: vec![listener::outbound(chain.protocol, &stat_prefix, cluster)],
            }],
        })
    }
}

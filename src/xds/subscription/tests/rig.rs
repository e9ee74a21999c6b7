//! A stream under test, with small resources and short words for what it says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    lifecycle,
    model::mesh::TlsParams,
    xds::{
        encode::Source,
        resource::{
            Key, Kind, Resource,
            cluster::{Cluster, Discovery, HttpVersion, Limits, UpstreamTls},
            endpoints::Endpoints,
            filter::{HttpManager, NetworkFilter, Routes, TcpProxy},
            listener::{Direction, DownstreamTls, FilterChain, Listener},
            route::RouteConfig,
            secret::{Secret, SecretContent, TlsSecrets},
        },
        snapshot::{Draft, Snapshot},
        status::ResourceState,
        subscription::{Action, Event, Request, Response, Subscription, Variant},
        version::Version,
    },
};

/// The largest message that a gRPC client takes unless it is told otherwise (rule 40), less what says who sends it.
pub(super) const GRPC_LIMIT_BYTES: usize = 4 * 1024 * 1024 - 1024;

/// A cluster over EDS; `n` tells its versions apart.
pub(super) fn cluster(name: &str, n: u64) -> Resource {
    Resource::Cluster(Cluster {
        name: name.into(),
        stat_name: None,
        connect_timeout_ms: n,
        keepalive: None,
        discovery: Discovery::Eds,
        balance: None,
        tls: None,
        http: HttpVersion::One,
        outlier: None,
        limits: Limits::default(),
    })
}

/// A cluster made of others.
pub(super) fn aggregate(name: &str, n: u64, children: &[&str]) -> Resource {
    let Resource::Cluster(plain) = cluster(name, n) else { unreachable!("cluster() makes clusters") };
    let children = children.iter().map(|child| (*child).to_string()).collect();
    Resource::Cluster(Cluster { discovery: Discovery::Aggregate(children), ..plain })
}

pub(super) fn endpoints(name: &str, n: u32) -> Resource {
    let endpoint = crate::xds::resource::endpoints::Endpoint {
        weight: n,
        health: crate::xds::resource::endpoints::EndpointHealth::Healthy,
    };
    let at = SocketAddr::from(([127, 0, 0, 1], 1)).into();
    Resource::Endpoints(Endpoints {
        cluster: name.into(),
        endpoints: BTreeMap::from([(at, endpoint)]),
        in_aggregate: false,
    })
}

/// The same cluster or listener with TLS, from secrets of these names.
pub(super) fn secured(resource: Resource, leaf: &str, roots: &str) -> Resource {
    let secrets = TlsSecrets { leaf: leaf.into(), roots: roots.into() };
    let params = TlsParams::default();
    match resource {
        Resource::Cluster(cluster) => {
            let sans = BTreeSet::from(["spiffe://td/svc".into()]);
            let tls = Some(UpstreamTls { sni: "sni".into(), sans, secrets, params });
            Resource::Cluster(Cluster { tls, ..cluster })
        }
        Resource::Listener(mut listener) => {
            listener.chains[0].tls = Some(DownstreamTls { secrets, alpn: Vec::new(), params });
            Resource::Listener(listener)
        }
        other => unreachable!("no TLS in {other:?}"),
    }
}

fn listening(name: &str, n: u16, filter: NetworkFilter) -> Resource {
    Resource::Listener(Listener {
        name: name.into(),
        stat_prefix: None,
        address: SocketAddr::from(([127, 0, 0, 1], n)).into(),
        direction: Direction::Outbound,
        tls_inspector: false,
        exact_balance: false,
        chains: vec![FilterChain {
            name: "only".into(),
            server_names: BTreeSet::new(),
            tls: None,
            filters: vec![filter],
        }],
    })
}

/// A listener that names a cluster.
pub(super) fn listener(name: &str, n: u16, cluster: &str) -> Resource {
    listening(
        name,
        n,
        NetworkFilter::TcpProxy(TcpProxy { stat_prefix: name.into(), cluster: cluster.into() }),
    )
}

/// A listener that names a route configuration.
pub(super) fn routed(name: &str, n: u16, route: &str) -> Resource {
    let manager = HttpManager {
        stat_prefix: name.into(),
        http2: false,
        routes: Routes::Rds(route.into()),
        filters: Vec::new(),
        forward_client_cert: false,
        tracing: None,
    };
    listening(name, n, NetworkFilter::Http(manager))
}

pub(super) fn route(name: &str, n: u64, cluster: &str) -> Resource {
    Resource::Route(RouteConfig {
        name: name.into(),
        path: None,
        cluster: cluster.into(),
        timeout_ms: Some(n),
        idle_timeout_ms: None,
    })
}

pub(super) fn secret(name: &str, n: u32) -> Resource {
    Resource::Secret(Secret { name: name.into(), content: SecretContent::Roots { pem: n.to_string() } })
}

pub(super) fn draft(resources: impl IntoIterator<Item = Resource>) -> Draft {
    Draft {
        resources: resources.into_iter().map(|r| (r.key(), r.into())).collect(),
        partial: BTreeSet::new(),
        complete: true,
    }
}

pub(super) fn incomplete(resources: impl IntoIterator<Item = Resource>) -> Draft {
    Draft { complete: false, ..draft(resources) }
}

pub(super) fn version(resource: &Resource) -> Version {
    crate::xds::version::version_of(resource)
}

pub(super) fn request(kind: Kind) -> Request {
    Request { type_url: kind.type_url().into(), ..Request::default() }
}

pub(super) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_string()).collect()
}

/// A stream and its clock.
pub(super) struct Rig {
    pub(super) stream: Subscription,
    pub(super) now: Instant,
    snapshot: Arc<Snapshot>,
}

impl Rig {
    pub(super) fn new(draft: Draft) -> Self {
        Self::of(Variant::Delta, draft)
    }

    pub(super) fn of(variant: Variant, draft: Draft) -> Self {
        let mut rig = Self {
            stream: Subscription::new(1, variant),
            now: lifecycle::now().into_std(),
            snapshot: Arc::new(Snapshot::empty()),
        };
        assert!(rig.offer(draft).is_empty());
        rig
    }

    /// The client is told to fetch from there.
    pub(super) fn told(mut self, source: &Source) -> Self {
        self.stream = self.stream.with_sources_of(source.extra_bytes());
        self
    }

    pub(super) fn step(&mut self, event: Event) -> Vec<Action> {
        self.stream.step(event, self.now)
    }

    pub(super) fn offer(&mut self, draft: Draft) -> Vec<Response> {
        self.snapshot = self.snapshot.next(draft);
        responses(self.step(Event::Offer(self.snapshot.clone())))
    }

    pub(super) fn ask(&mut self, request: Request) -> Vec<Response> {
        responses(self.step(Event::Request(request)))
    }

    /// The first request of a type, for everything.
    pub(super) fn wildcard(&mut self, kind: Kind) -> Vec<Response> {
        self.ask(request(kind))
    }

    pub(super) fn subscribe(&mut self, kind: Kind, names: &[&str]) -> Vec<Response> {
        self.ask(Request { subscribe: strings(names), ..request(kind) })
    }

    pub(super) fn ack(&mut self, response: &Response) -> Vec<Response> {
        self.ask(Request { nonce: response.nonce.clone(), ..request(response.kind) })
    }

    pub(super) fn nack(&mut self, response: &Response) -> Vec<Response> {
        self.ask(Request {
            nonce: response.nonce.clone(),
            error: Some("bad".into()),
            ..request(response.kind)
        })
    }

    /// ACKs these, and what they bring, until nothing more comes.
    pub(super) fn settle(&mut self, responses: Vec<Response>) -> Vec<Response> {
        let mut all = Vec::new();
        let mut open = responses;
        while !open.is_empty() {
            let next = open.remove(0);
            open.extend(self.ack(&next));
            all.push(next);
        }
        all
    }

    pub(super) fn wait(&mut self, time: Duration) -> Vec<Response> {
        self.now += time;
        responses(self.step(Event::Tick))
    }

    pub(super) fn state_of(&self, kind: Kind, name: &str) -> ResourceState {
        let types = self.stream.status(|_| 0);
        let status = types.into_iter().find(|t| t.kind == kind.short()).unwrap();
        status.resources.into_iter().find(|r| r.name == name).unwrap().state
    }
}

pub(super) fn responses(actions: Vec<Action>) -> Vec<Response> {
    let sends = actions.into_iter().filter_map(|action| match action {
        Action::Send(response) => Some(response),
        _ => None,
    });
    sends.collect()
}

/// `CDS +a -b` for each response.
pub(super) fn said(responses: &[Response]) -> Vec<String> {
    let line = |response: &Response| {
        let mut line = response.kind.short().to_owned();
        for entry in &response.resources {
            line += &format!(" +{}", entry.key.name);
        }
        for name in &response.removed {
            line += &format!(" -{name}");
        }
        line
    };
    responses.iter().map(line).collect()
}

pub(super) fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, name)
}

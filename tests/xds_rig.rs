//! An xDS server under test: a source whose offers the test sets, and hand-built resources of every kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use causeway::{
    lifecycle::{Stop, StopSource, Task, spawn},
    model::{mesh::TlsParams, name::ProxyId, secret::SecretText},
    xds::{
        metrics::XdsMetrics,
        resource::{
            Resource,
            cluster::{Cluster, Discovery, HttpVersion, Limits, Outlier, UpstreamTls},
            endpoints::{Endpoint, EndpointHealth, Endpoints},
            filter::{HttpFilter, HttpManager, NetworkFilter, Principal, Rbac, RbacAction, Routes, TcpProxy},
            listener::{Direction, DownstreamTls, FilterChain, Listener},
            route::RouteConfig,
            secret::{Secret, SecretContent, TlsSecrets},
        },
        server::{
            self, AgentId, Attached, Limits as StreamLimits, Listeners, Offer, ProxySource, StatusBoard,
            bind_unix,
        },
        snapshot::{Draft, Snapshot},
        status::StreamStatus,
    },
};
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tokio::{net::TcpSocket, sync::watch};

/// Far beyond what anything here takes, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whose agent the server says it is.
pub(crate) const HOST: &str = "edge-1";

pub(crate) const SPIFFE_DB: &str = "spiffe://td.consul/ns/default/dc/dc1/svc/db";

/// Offers by proxy, set by the test; what was never set is pending. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Source {
    offers: Arc<Mutex<BTreeMap<ProxyId, watch::Sender<Offer>>>>,
    held: Arc<AtomicUsize>,
    demanded: Option<SecretText>,
}

impl Source {
    /// One that denies streams which do not present this token.
    pub(crate) fn demanding(token: &str) -> Self {
        Self { demanded: Some(token.into()), ..Self::default() }
    }

    pub(crate) fn offer(&self, proxy: &str, offer: Offer) {
        self.sender(&ProxyId::from(proxy)).send_replace(offer);
    }

    /// How many streams hold an interest.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    fn sender(&self, proxy: &ProxyId) -> watch::Sender<Offer> {
        let mut offers = self.offers.lock().unwrap();
        offers.entry(proxy.clone()).or_insert_with(|| watch::Sender::new(Offer::Pending)).clone()
    }
}

impl ProxySource for Source {
    fn attach(&self, proxy: &ProxyId, token: Option<SecretText>) -> Attached {
        self.held.fetch_add(1, Ordering::SeqCst);
        let is_denied = self.demanded.is_some() && token != self.demanded;
        let denied = || Offer::Denied { unauthenticated: true, message: "another token is due".into() };
        let sender = if is_denied { watch::Sender::new(denied()) } else { self.sender(proxy) };
        let offers = sender.subscribe();
        Attached { offers, hold: Box::new((Hold(self.held.clone()), is_denied.then_some(sender))) }
    }
}

struct Hold(Arc<AtomicUsize>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A running server on a Unix socket.
pub(crate) struct Server {
    pub(crate) board: StatusBoard,
    pub(crate) registry: Registry,
    stop: StopSource,
    task: Task<()>,
    pub(crate) ready: watch::Sender<bool>,
}

impl Server {
    pub(crate) fn start(socket: &Path, source: &Source) -> Self {
        let unix = Some(bind_unix(socket, None, 0o600).unwrap());
        Self::start_on(Listeners { unix, tcp: None }, source)
    }

    pub(crate) fn start_with(socket: &Path, source: &Source, limits: StreamLimits) -> Self {
        let unix = Some(bind_unix(socket, None, 0o600).unwrap());
        Self::start_within(Listeners { unix, tcp: None }, source, limits)
    }

    pub(crate) fn start_on(listeners: Listeners, source: &Source) -> Self {
        Self::start_within(listeners, source, StreamLimits::default())
    }

    pub(crate) fn start_within(listeners: Listeners, source: &Source, limits: StreamLimits) -> Self {
        let mut registry = Registry::default();
        let metrics = XdsMetrics::register(&mut registry);
        let board = StatusBoard::new();
        let (stop, stopped) = Stop::pair();
        let (ready, is_ready) = watch::channel(true);
        let source = Arc::new(source.clone());
        let (id, board_of_server) = (AgentId::of_host(HOST, 0x2a), board.clone());
        let server = server::Server { id, source, board: board_of_server, metrics, limits, ready: is_ready };
        let task = spawn("xds.serve", server.serve(listeners, stopped));
        Self { board, registry, stop, task, ready }
    }

    pub(crate) async fn stop(mut self) {
        self.stop.stop();
        tokio::time::timeout(PATIENCE, self.task.join()).await.unwrap().unwrap();
    }

    /// Waits until the streams look like that, and returns them.
    pub(crate) async fn until(
        &self,
        mut wanted: impl FnMut(&[Arc<StreamStatus>]) -> bool,
    ) -> Vec<Arc<StreamStatus>> {
        let mut changes = self.board.changes();
        let matching = changes.wait_for(|_| wanted(&self.board.streams()));
        if tokio::time::timeout(PATIENCE, matching).await.is_err() {
            panic!("not reached: {:#?}", self.board.streams());
        }
        self.board.streams()
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// An address on which nothing listens, kept from everybody but an Envoy: that shares the port, as it does by default,
/// and this socket takes no connection.
pub(crate) struct FreeAddress {
    pub(crate) at: SocketAddr,
    pub(crate) held: TcpSocket,
}

impl FreeAddress {
    /// One of this machine's with a port of its own.
    pub(crate) fn take(ip: IpAddr) -> io::Result<Self> {
        let held = if ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        held.set_reuseport(true)?;
        held.bind((ip, 0).into())?;
        Ok(Self { at: held.local_addr()?, held })
    }
}

pub(crate) fn draft(resources: impl IntoIterator<Item = Resource>) -> Draft {
    Draft {
        resources: resources.into_iter().map(|r| (r.key(), r.into())).collect(),
        partial: BTreeSet::new(),
        complete: true,
    }
}

pub(crate) fn snapshot(resources: impl IntoIterator<Item = Resource>) -> Arc<Snapshot> {
    Snapshot::empty().next(draft(resources))
}

/// Certificates of a mesh: a leaf for `web`, and the roots.
pub(crate) fn secrets() -> [Resource; 2] {
    let [leaf, roots] = certificates("spiffe://td.consul/ns/default/dc/dc1/svc/web");
    let secret = |name: &str, content| Resource::Secret(Secret { name: name.into(), content });
    [secret("leaf", leaf), secret("roots", roots)]
}

/// A leaf with that SPIFFE id, and the roots it comes from.
pub(crate) fn certificates(id: &str) -> [SecretContent; 2] {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Were it of the leaf's own name, the leaf would pass for one that signed itself.
    ca.distinguished_name.push(DnType::CommonName, "roots");
    let root = ca.clone().self_signed(&ca_key).unwrap();
    let issuer = Issuer::from_params(&ca, &ca_key);
    let leaf_key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    [
        SecretContent::Leaf { chain_pem: leaf.pem(), key_pem: leaf_key.serialize_pem().into() },
        SecretContent::Roots { pem: root.pem() },
    ]
}

fn tls_secrets() -> TlsSecrets {
    TlsSecrets { leaf: "leaf".into(), roots: "roots".into() }
}

/// An EDS cluster with mutual TLS; `connect_timeout_ms` tells its versions apart.
pub(crate) fn upstream(name: &str, http2: bool, connect_timeout_ms: u64) -> Resource {
    Resource::Cluster(Cluster {
        name: name.into(),
        stat_name: Some(format!("{name}_stats")),
        connect_timeout_ms,
        keepalive: None,
        discovery: Discovery::Eds,
        balance: None,
        tls: Some(UpstreamTls {
            sni: format!("{name}.default.dc1.internal.td.consul"),
            sans: BTreeSet::from([SPIFFE_DB.to_owned()]),
            secrets: tls_secrets(),
            params: TlsParams::default(),
        }),
        http: if http2 { HttpVersion::Two } else { HttpVersion::One },
        outlier: Some(Outlier { consecutive_5xx: Some(3), ..Outlier::default() }),
        limits: Limits { max_connections: Some(100), ..Limits::default() },
    })
}

pub(crate) fn local_app() -> Resource {
    Resource::Cluster(Cluster {
        name: "local_app".into(),
        stat_name: None,
        connect_timeout_ms: 5_000,
        keepalive: None,
        discovery: Discovery::Static(vec![SocketAddr::from(([127, 51, 0, 9], 9)).into()]),
        balance: None,
        tls: None,
        http: HttpVersion::One,
        outlier: None,
        limits: Limits::default(),
    })
}

pub(crate) fn endpoints(cluster: &str, addresses: &[&str]) -> Resource {
    let endpoint = Endpoint { weight: 1, health: EndpointHealth::Healthy };
    let endpoints = addresses.iter().map(|a| (a.parse::<SocketAddr>().unwrap().into(), endpoint)).collect();
    Resource::Endpoints(Endpoints { cluster: cluster.into(), endpoints, in_aggregate: false })
}

pub(crate) fn tcp(cluster: &str) -> NetworkFilter {
    NetworkFilter::TcpProxy(TcpProxy { stat_prefix: "tcp".into(), cluster: cluster.into() })
}

pub(crate) fn listener(name: &str, address: &str, chains: Vec<FilterChain>) -> Listener {
    let address: SocketAddr = address.parse().unwrap();
    Listener {
        name: name.into(),
        stat_prefix: Some(name.into()),
        address: address.into(),
        direction: Direction::Outbound,
        tls_inspector: false,
        exact_balance: false,
        chains,
    }
}

pub(crate) fn chain(name: &str, server_names: &[&str], filters: Vec<NetworkFilter>) -> FilterChain {
    FilterChain {
        name: name.into(),
        server_names: server_names.iter().map(|n| (*n).into()).collect(),
        tls: None,
        filters,
    }
}

fn rbac() -> Rbac {
    let caller = Principal::SpiffeRegex("^spiffe://[^/]+/ns/[^/]+/dc/[^/]+/svc/a$".into());
    let not = Principal::Not(Box::new(Principal::SpiffeRegex("^.*/svc/b$".into())));
    let both = BTreeSet::from([Principal::All(vec![caller, not]), Principal::Any]);
    Rbac {
        stat_prefix: "rbac".into(),
        action: RbacAction::Allow,
        policies: BTreeMap::from([("l4".into(), both)]),
    }
}

fn http(routes: Routes, filters: Vec<HttpFilter>, forward_client_cert: bool) -> NetworkFilter {
    let http2 = filters.contains(&HttpFilter::GrpcStats);
    NetworkFilter::Http(HttpManager {
        stat_prefix: "http".into(),
        http2,
        routes,
        filters,
        forward_client_cert,
        tracing: None,
    })
}

pub(crate) fn route(name: &str, cluster: &str) -> RouteConfig {
    RouteConfig {
        name: name.into(),
        path: None,
        cluster: cluster.into(),
        timeout_ms: None,
        idle_timeout_ms: None,
    }
}

/// Everything the mesh uses, once: public listeners, upstreams over tcp, http and grpc, a gateway.
pub(crate) fn world() -> Vec<Resource> {
    let terminating = |alpn: &[&str]| {
        Some(DownstreamTls {
            secrets: tls_secrets(),
            alpn: alpn.iter().map(|p| (*p).into()).collect(),
            params: TlsParams::default(),
        })
    };
    let mut public = listener(
        "public",
        "127.51.0.1:0",
        vec![chain("public", &[], vec![NetworkFilter::Rbac(rbac()), tcp("local_app")])],
    );
    public.direction = Direction::Inbound;
    public.chains[0].tls = terminating(&[]);
    let inline = Routes::Inline(route("public", "local_app"));
    let inbound = vec![chain("http", &[], vec![http(inline, vec![HttpFilter::Rbac(rbac())], true)])];
    let mut public_http = listener("public_http", "127.51.0.2:0", inbound);
    public_http.direction = Direction::Inbound;
    public_http.chains[0].tls = terminating(&["h2", "http/1.1"]);
    let grpc = vec![HttpFilter::GrpcStats, HttpFilter::GrpcHttp1Bridge];
    let api = vec![chain("api", &[], vec![http(Routes::Rds("api".into()), grpc, false)])];
    let mut gateway = listener(
        "gateway",
        "127.51.0.5:0",
        vec![
            chain("dc2", &["*.dc2.internal.td.consul"], vec![tcp("db")]),
            chain("local", &[], vec![NetworkFilter::SniCluster, tcp("")]),
        ],
    );
    gateway.direction = Direction::Unspecified;
    gateway.tls_inspector = true;
    let mut world = vec![
        local_app(),
        upstream("db", false, 5_000),
        upstream("api", true, 5_000),
        endpoints("db", &["127.51.0.9:1", "127.51.0.9:2"]),
        endpoints("api", &[]),
        Resource::Listener(public),
        Resource::Listener(public_http),
        Resource::Listener(listener("db", "127.51.0.3:0", vec![chain("db", &[], vec![tcp("db")])])),
        Resource::Listener(listener("api", "127.51.0.4:0", api)),
        Resource::Listener(gateway),
        Resource::Route(route("api", "api")),
    ];
    world.extend(secrets());
    world
}

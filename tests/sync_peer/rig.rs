//! Agents in one process: a certificate authority, both ends of the peer service, and relays to cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use causeway::{
    lifecycle::{Stop, StopSource, Task, spawn},
    model::{
        ca::{Leaf, Roots},
        instance::HostPort,
        name::Datacenter,
        secret::SecretText,
    },
    sync::peer::{
        Forward, Forwarded, Hello, MIN_VERSION, PeerError, Peers, SERVICE, Target, VERSION,
        facts::Facts,
        grpc::{GrpcPeers, Tcp},
        identity::Identity,
        intentions::{Verdict, Verdicts},
        route::Routes,
        serve::serve,
    },
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::double::Double;

/// Far beyond what anything here takes, on a busy machine too.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) const DOMAIN: &str = "11111111-2222-3333-4444-555555555555.consul";

/// As Consul's own authority signs: a root, and leaves that bear URIs.
pub(super) struct Ca {
    pub(super) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, fastrand::u64(..).to_string());
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(super) fn leaf(&self, uris: &[&str]) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        Leaf {
            service: SERVICE.into(),
            chain_pem: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key_pem: key.serialize_pem().into(),
            valid_before_s: i64::MAX,
        }
    }
}

/// Looks again and again until it is so.
pub(super) async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let until = causeway::lifecycle::now() + PATIENCE;
    while !look().await {
        assert!(causeway::lifecycle::now() < until, "never seen within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) fn id(dc: &str) -> String {
    format!("spiffe://{DOMAIN}/ns/default/dc/{dc}/svc/causeway-sync")
}

pub(super) fn roots(cas: &[&Ca]) -> Roots {
    Roots { trust_domain: DOMAIN.into(), pem: cas.iter().map(|ca| ca.pem.clone()).collect() }
}

pub(super) fn datacenters() -> BTreeSet<Datacenter> {
    ["primary".into(), "secondary".into()].into()
}

pub(super) fn identity(ca: &Ca, trusted: &[&Ca], dc: &str) -> Arc<Identity> {
    Arc::new(Identity::new(&roots(trusted), &ca.leaf(&[&id(dc)]), &datacenters()).unwrap())
}

pub(super) fn hello(dc: &str) -> Hello {
    Hello {
        versions: (MIN_VERSION, VERSION),
        datacenter: dc.into(),
        node: format!("{dc}-vm").as_str().into(),
        prefixes: Vec::new(),
        max_txn_ops: 64,
        max_value_bytes: None,
    }
}

/// One agent: what it knows can be set, it listens, and it can call.
pub(super) struct Agent {
    pub(super) identity: watch::Sender<Option<Arc<Identity>>>,
    pub(super) routes: watch::Sender<Arc<Routes>>,
    pub(super) verdicts: watch::Sender<Arc<Verdicts>>,
    pub(super) address: SocketAddr,
    pub(super) double: Double,
    pub(super) peers: GrpcPeers<Tcp>,
    pub(super) stop: StopSource,
    _server: Task<()>,
}

impl Agent {
    pub(super) async fn start(dc: &str, ca: &Ca) -> Self {
        Self::start_as(dc, Some(identity(ca, &[ca], dc)), hello(dc)).await
    }

    pub(super) async fn start_as(dc: &str, own: Option<Arc<Identity>>, me: Hello) -> Self {
        let (identity, watch_identity) = watch::channel(own);
        let (routes, watch_routes) = watch::channel(Arc::new(Routes::new(BTreeMap::new())));
        let allowed = datacenters().into_iter().map(|dc| (dc, Verdict::Allowed)).collect();
        let (verdicts, watch_verdicts) = watch::channel(Arc::new(allowed));
        let facts = Facts { identity: watch_identity, routes: watch_routes, verdicts: watch_verdicts };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let double = Double::new(hello(dc));
        let (stop, stopped) = Stop::pair();
        let server = spawn("test.serve", serve(listener, facts.clone(), double.clone(), stopped));
        let peers = GrpcPeers::new(facts, me, Tcp);
        Self { identity, routes, verdicts, address, double, peers, stop, _server: server }
    }

    /// Says how others are reached.
    pub(super) fn route(&self, dc: &str, ways: &[SocketAddr]) {
        let ways = ways.iter().map(|way| HostPort::new(&way.ip().to_string(), way.port())).collect();
        self.routes.send_replace(Arc::new(Routes::new([(dc.into(), Ok(ways))].into())));
    }

    pub(super) fn judge(&self, dc: &str, verdict: Verdict) {
        self.verdicts.send_modify(|verdicts| drop(Arc::make_mut(verdicts).insert(dc.into(), verdict)));
    }

    pub(super) async fn ask(&self, dc: &str, path: &str, deadline: Duration) -> Result<Forwarded, PeerError> {
        self.peers.forward(&Target::Datacenter(dc.into()), request(path), deadline).await
    }
}

/// Two agents that know each other, the first of `secondary`, the second of `primary`.
pub(super) async fn pair(ca: &Ca) -> (Agent, Agent) {
    let (near, far) = (Agent::start("secondary", ca).await, Agent::start("primary", ca).await);
    near.route("primary", &[far.address]);
    far.route("secondary", &[near.address]);
    (near, far)
}

pub(super) fn request(path: &str) -> Forward {
    Forward {
        request_id: "r1".into(),
        method: "PUT".into(),
        path_and_query: path.into(),
        headers: Vec::new(),
        body: "body".into(),
        token: Some(SecretText::from("clients-own")),
        origin: "secondary".into(),
        hops: 0,
    }
}

pub(super) fn header<'a>(answer: &'a Forwarded, name: &str) -> &'a str {
    &answer.headers.iter().find(|(key, _)| key == name).unwrap().1
}

/// Passes connections on to an address, counts them, and stops passing bytes when it is told to.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
    mode: watch::Sender<Mode>,
    _task: Task<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    Silent,
    Cut,
}

impl Relay {
    pub(super) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, watched) = watch::channel(Mode::Pass);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let task = spawn("test.relay", async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                open.spawn(pass(stream, to, watched.clone()));
            }
        });
        Self { address, connections, mode, _task: task }
    }

    pub(super) fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// From now on nothing passes, and nobody is told.
    pub(super) fn fall_silent(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    /// Closes what is open, and what comes.
    pub(super) fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// New connections pass.
    pub(super) fn mend(&self) {
        self.mode.send_replace(Mode::Pass);
    }
}

async fn pass(mut stream: TcpStream, to: SocketAddr, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(mut other) = TcpStream::connect(to).await else { return };
    let now = async {
        if *mode.borrow() == Mode::Pass {
            let _ = mode.wait_for(|mode| *mode != Mode::Pass).await;
        }
        *mode.borrow()
    };
    let turned = tokio::select! {
        turned = now => turned,
        _ = copy_bidirectional(&mut stream, &mut other) => return,
    };
    if turned == Mode::Silent {
        // Held open for good: what fell silent once does not speak again.
        std::future::pending::<()>().await;
    }
}

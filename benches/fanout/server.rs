//! The serving process: Causeway's server, or the floor, with clients in a process of their own.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use causeway::{
    lifecycle::{self, Stop, StopSource},
    mesh::{self, Options, Proxy, world::World},
    model::{catalog::Catalog, name::ProxyId, secret::SecretText},
    xds::{
        metrics::XdsMetrics,
        resource::Kind,
        server::{AgentId, Attached, Limits, Listeners, Offer, ProxySource, Server, StatusBoard, bind_unix},
        snapshot::{Draft, Snapshot},
    },
};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::{
    Found, Task as Asked,
    catalog::Sketch,
    clients::{Clients, Nodes, Orders, Ready, clock_us},
    figures::{cpu_us, rss_kib},
    floor::Floor,
    load,
};

/// Upstreams of the sidecar that is served.
const UPSTREAMS: usize = 100;
/// Between two looks at whether all answers are in.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Does what is asked.
pub(crate) fn run(asked: Asked) -> Found {
    let runtime = lifecycle::runtime::runtime().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("xds.sock");
    let mut sidecar = Sidecar::new();
    let _runtime = runtime.enter();
    match asked {
        Asked::Push { streams, changes } => {
            let served = Served::start(&socket, &sidecar);
            let clients = Clients::start(&served.orders(&socket, streams, false));
            push(
                clients,
                changes,
                || served.is_settled(),
                |round| {
                    let snapshot = sidecar.change(round);
                    move |source: &Source| source.offer(&snapshot)
                },
                &served.source,
            )
        }
        Asked::Floor { streams, changes } => {
            let floor = Floor::start(&socket, &sidecar.snapshot);
            let names = BTreeMap::from([(Kind::Endpoints.short().to_owned(), vec!["any".to_owned()])]);
            let orders = Orders {
                socket,
                clients: streams,
                names,
                resources: 1,
                reconnect: false,
                nodes: Nodes::Each("proxy".to_owned()),
                watched: None,
            };
            let clients = Clients::start(&orders);
            push(
                clients,
                changes,
                || floor.is_settled(),
                |round| {
                    let snapshot = sidecar.change(round);
                    move |floor: &Floor| floor.offer(&snapshot)
                },
                &floor,
            )
        }
        Asked::Memory { streams, all_listeners } => {
            let served = Served::start(&socket, &sidecar);
            // What the first stream of all costs is not a stream's.
            let mut first = Clients::start(&served.orders(&socket, 1, false));
            first.ready();
            served.settle();
            let kib_before = rss_kib();
            let mut orders = served.orders(&socket, streams, false);
            if !all_listeners {
                let mut listeners =
                    sidecar.snapshot.of_kind(Kind::Listener).map(|entry| entry.key.name.clone());
                let one = listeners.next().into_iter().collect();
                let others = listeners.count();
                orders.names.insert(Kind::Listener.short().to_owned(), one);
                orders.resources -= others;
            }
            let mut clients = Clients::start(&orders);
            clients.ready();
            served.settle();
            Found::Memory { kib_before, kib_after: rss_kib() }
        }
        Asked::Churn(churn) => load::churn(&socket, &mut sidecar, churn, runtime.handle()),
        Asked::Vanish { connects } => runtime.block_on(load::vanish(&socket, &sidecar, connects)),
        Asked::Herd { streams } => load::herd(&socket, &mut sidecar, streams),
        Asked::Reconnect { streams } => {
            let served = Served::start(&socket, &sidecar);
            let mut clients = Clients::start(&served.orders(&socket, streams, true));
            let Ready { from_us, at_us, bytes } = clients.ready();
            Found::Reconnect { us: at_us - from_us, bytes }
        }
    }
}

/// Makes the changes and times each; `prepare` gives what makes one known, so that only that is timed.
fn push<T, Offered: FnOnce(&T)>(
    mut clients: Clients,
    changes: usize,
    is_settled: impl Fn() -> bool,
    mut prepare: impl FnMut(usize) -> Offered,
    server: &T,
) -> Found {
    clients.ready();
    settle(&is_settled);
    clients.count();
    let (mut us, mut cpu) = (Vec::new(), 0);
    for round in 0..changes {
        let offer = prepare(round);
        // A change after quiet, at no fixed beat with anything's timers.
        std::thread::sleep(Duration::from_millis(5 + fastrand::u64(..10)));
        let (from_us, from_cpu) = (clock_us(), cpu_us());
        offer(server);
        us.push(clients.all().saturating_sub(from_us));
        settle(&is_settled);
        cpu += cpu_us() - from_cpu;
    }
    Found::Pushes { us, cpu_us: cpu }
}

fn settle(is_settled: &impl Fn() -> bool) {
    while !is_settled() {
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A sidecar's resources, from a catalog that changes.
pub(crate) struct Sidecar {
    sketch: Sketch,
    catalog: Catalog,
    world: World,
    pub(crate) snapshot: Arc<Snapshot>,
}

impl Sidecar {
    fn new() -> Self {
        let sketch = Sketch::sidecar(UPSTREAMS);
        let catalog = sketch.catalog();
        let mut sidecar =
            Self { sketch, catalog, world: World::default(), snapshot: Arc::new(Snapshot::empty()) };
        sidecar.build();
        sidecar
    }

    fn change(&mut self, round: usize) -> Arc<Snapshot> {
        self.change_of(round % UPSTREAMS, round)
    }

    pub(crate) fn change_of(&mut self, service: usize, round: usize) -> Arc<Snapshot> {
        self.sketch.change(&mut self.catalog, service, round);
        self.build();
        self.snapshot.clone()
    }

    fn build(&mut self) {
        let Proxy::Built(built) = mesh::build(&self.catalog, &self.sketch.proxy, Options::default()) else {
            panic!("{} is known", self.sketch.proxy)
        };
        let whole = self.world.assemble(built);
        let draft = Draft { resources: whole.resources, partial: whole.partial, complete: whole.complete };
        self.snapshot = self.snapshot.next(draft);
    }
}

/// Causeway's server.
pub(crate) struct Served {
    pub(crate) source: Source,
    registry: Registry,
    _stop: StopSource,
    _task: lifecycle::Task<()>,
}

impl Served {
    pub(crate) fn start(socket: &Path, sidecar: &Sidecar) -> Self {
        let limits = Limits { max_streams: usize::MAX, new_streams_per_second: u32::MAX, tcp_max_age: None };
        Self::within(limits, socket, sidecar)
    }

    pub(crate) fn within(limits: Limits, socket: &Path, sidecar: &Sidecar) -> Self {
        let source =
            Source { offers: Arc::default(), latest: Arc::new(Mutex::new(sidecar.snapshot.clone())) };
        let mut registry = Registry::default();
        let metrics = XdsMetrics::register(&mut registry);
        let (stop, stopped) = Stop::pair();
        let listeners = Listeners { unix: Some(bind_unix(socket, None, 0o600).unwrap()), tcp: None };
        let (_, ready) = watch::channel(true);
        let (id, board) = (AgentId::of_host("bench", 0), StatusBoard::new());
        let server = Server { id, source: Arc::new(source.clone()), board, metrics, limits, ready };
        let task = lifecycle::spawn("xds.serve", server.serve(listeners, stopped));
        Self { source, registry, _stop: stop, _task: task }
    }

    pub(crate) fn orders(&self, socket: &Path, clients: usize, reconnect: bool) -> Orders {
        let snapshot = self.source.latest.lock().unwrap().clone();
        let of_kind = |kind| snapshot.of_kind(kind).map(|entry| entry.key.name.clone()).collect::<Vec<_>>();
        let kinds = [
            (Kind::Cluster, vec![]),
            (Kind::Endpoints, of_kind(Kind::Endpoints)),
            (Kind::Secret, of_kind(Kind::Secret)),
            (Kind::Listener, vec![]),
        ];
        let names = kinds.into_iter().map(|(kind, names)| (kind.short().to_owned(), names)).collect();
        // Routes are asked for where a listener names them, and these are over TCP.
        let resources = snapshot.iter().filter(|entry| entry.key.kind != Kind::Route).count();
        Orders {
            socket: socket.to_owned(),
            clients,
            names,
            resources,
            reconnect,
            nodes: Nodes::Each("proxy".to_owned()),
            watched: None,
        }
    }

    /// Whether every response is acknowledged.
    fn is_settled(&self) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let sum = |name: &str| {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
        };
        sum("causeway_xds_responses_total") == sum("causeway_xds_acks_total")
    }

    pub(crate) fn settle(&self) {
        settle(&|| self.is_settled());
    }
}

/// Offers every proxy the same snapshot, each over a channel of its own, as the agent does.
#[derive(Clone)]
pub(crate) struct Source {
    offers: Arc<Mutex<BTreeMap<ProxyId, watch::Sender<Offer>>>>,
    latest: Arc<Mutex<Arc<Snapshot>>>,
}

impl Source {
    pub(crate) fn offer(&self, snapshot: &Arc<Snapshot>) {
        self.latest.lock().unwrap().clone_from(snapshot);
        for offers in self.offers.lock().unwrap().values() {
            offers.send_replace(Offer::Ready(snapshot.clone()));
        }
    }
}

impl Source {
    /// Offers it to one proxy alone.
    pub(crate) fn offer_to(&self, proxy: &str, snapshot: &Arc<Snapshot>) {
        let offers = self.offers.lock().unwrap();
        offers[&ProxyId::from(proxy)].send_replace(Offer::Ready(snapshot.clone()));
    }
}

impl ProxySource for Source {
    fn attach(&self, proxy: &ProxyId, _token: Option<SecretText>) -> Attached {
        let latest = || watch::Sender::new(Offer::Ready(self.latest.lock().unwrap().clone()));
        let mut offers = self.offers.lock().unwrap();
        let offers = offers.entry(proxy.clone()).or_insert_with(latest).subscribe();
        Attached { offers, hold: Box::new(Hold { source: self.clone(), proxy: proxy.clone() }) }
    }
}

/// Forgets a proxy with its last stream.
struct Hold {
    source: Source,
    proxy: ProxyId,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut offers = self.source.offers.lock().unwrap();
        if offers.get(&self.proxy).is_some_and(|offers| offers.receiver_count() == 0) {
            offers.remove(&self.proxy);
        }
    }
}

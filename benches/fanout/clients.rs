//! The clients: one connection each, as Envoys have, with as little around it as can be, since they share the
//! machine with what is measured.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead as _},
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::UNIX_EPOCH,
};

use causeway::{
    lifecycle::{self, Task},
    xds::resource::Kind,
};
use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    sync::{Semaphore, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;

/// Connections made at once; the kernel's queue for a Unix socket is no longer than this everywhere.
const CONNECTING: usize = 64;

/// What the clients do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) socket: PathBuf,
    pub(crate) clients: usize,
    /// Names asked for, by the short name of the kind; what is asked for everything has none.
    pub(crate) names: BTreeMap<String, Vec<String>>,
    /// How many resources a client has when it has everything.
    pub(crate) resources: usize,
    /// Before all others one client learns the versions; the others say that they have them.
    pub(crate) reconnect: bool,
}

/// What they say, a line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// All have everything (or, reconnecting, are answered): when the first began to connect, when that was, and the
    /// most bytes that one of them read.
    Ready { from_us: u64, at_us: u64, bytes: u64 },
    /// From now on arrivals are counted.
    Counting,
    /// Every client has had one more response, the last of them then.
    All { at_us: u64 },
}

/// Microseconds since the Unix epoch: the clock that processes share.
pub(crate) fn clock_us() -> u64 {
    u64::try_from(lifecycle::wall_clock().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

fn say(said: Said) {
    println!("{}", serde_json::to_string(&said).unwrap());
}

/// Runs until standard input ends; a line on it starts the count.
pub(crate) fn run(orders: Orders) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (clients, kinds) = (orders.clients, known(&orders));
    let tally = Arc::new(Tally { clients, ..Tally::default() });
    let _tasks = runtime.block_on(async {
        let versions = if orders.reconnect { learn(&orders, &kinds).await } else { HashMap::new() };
        let (orders, versions) = (Arc::new(orders), Arc::new(versions));
        let turns = Arc::new(Semaphore::new(CONNECTING));
        tally.from_us.store(clock_us(), Ordering::SeqCst);
        let start = |number| {
            let client = Client {
                orders: orders.clone(),
                versions: versions.clone(),
                tally: tally.clone(),
                turns: turns.clone(),
            };
            lifecycle::spawn("client", client.run(number))
        };
        (0..clients).map(start).collect::<Vec<Task<()>>>()
    });
    for line in io::stdin().lock().lines() {
        let _ = line.unwrap();
        tally.arrived.store(0, Ordering::SeqCst);
        say(Said::Counting);
    }
}

#[derive(Debug, Default)]
struct Tally {
    clients: usize,
    from_us: AtomicU64,
    ready: AtomicUsize,
    bytes: AtomicU64,
    arrived: AtomicUsize,
}

impl Tally {
    fn ready(&self, bytes: u64) {
        let at_us = clock_us();
        self.bytes.fetch_max(bytes, Ordering::SeqCst);
        if self.ready.fetch_add(1, Ordering::SeqCst) + 1 == self.clients {
            let (from_us, bytes) = (self.from_us.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst));
            say(Said::Ready { from_us, at_us, bytes });
        }
    }

    fn arrived(&self) {
        let at_us = clock_us();
        if self.arrived.fetch_add(1, Ordering::SeqCst) + 1 == self.clients {
            self.arrived.store(0, Ordering::SeqCst);
            say(Said::All { at_us });
        }
    }
}

struct Client {
    orders: Arc<Orders>,
    versions: Arc<HashMap<String, HashMap<String, String>>>,
    tally: Arc<Tally>,
    turns: Arc<Semaphore>,
}

impl Client {
    async fn run(self, number: usize) {
        let turn = self.turns.acquire().await.unwrap();
        let mut stream = Stream::open(&self.orders.socket, &format!("proxy-{number}")).await;
        drop(turn);
        for (kind, names) in known(&self.orders) {
            let versions = self.versions.get(kind.type_url()).cloned().unwrap_or_default();
            stream.ask(kind, names, versions).await;
        }
        if self.orders.reconnect {
            // Nothing is sent to one that has everything: what answers this was asked after all the rest.
            stream.ask(Kind::Listener, vec!["no such listener".to_owned()], HashMap::new()).await;
        }
        let (mut resources, mut is_ready) = (0, false);
        loop {
            let response = stream.next().await;
            self.tally.arrived();
            resources += response.resources.len();
            let is_answered = !response.removed_resources.is_empty();
            if !is_ready && (is_answered || resources >= self.orders.resources) {
                is_ready = true;
                self.tally.ready(stream.bytes.load(Ordering::Relaxed));
            }
            stream.ack(response).await;
        }
    }
}

fn known(orders: &Orders) -> Vec<(Kind, Vec<String>)> {
    let of = |kind: Kind| orders.names.get(kind.short()).map(|names| (kind, names.clone()));
    // The order in which an Envoy asks.
    [Kind::Cluster, Kind::Endpoints, Kind::Secret, Kind::Listener].into_iter().filter_map(of).collect()
}

/// What a client has after its first connection: versions by type and name.
async fn learn(orders: &Orders, kinds: &[(Kind, Vec<String>)]) -> HashMap<String, HashMap<String, String>> {
    let mut stream = Stream::open(&orders.socket, "proxy-first").await;
    for (kind, names) in kinds {
        stream.ask(*kind, names.clone(), HashMap::new()).await;
    }
    let mut versions: HashMap<String, HashMap<String, String>> = HashMap::new();
    while versions.values().map(HashMap::len).sum::<usize>() < orders.resources {
        let response = stream.next().await;
        let of_kind = versions.entry(response.type_url.clone()).or_default();
        of_kind.extend(response.resources.iter().map(|r| (r.name.clone(), r.version.clone())));
        stream.ack(response).await;
    }
    versions
}

/// One delta ADS stream.
struct Stream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: tonic::Streaming<DeltaDiscoveryResponse>,
    /// Read from the connection so far.
    bytes: Arc<AtomicU64>,
    _connection: Task<()>,
}

impl Stream {
    async fn open(socket: &PathBuf, node: &str) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let unix = Counted { unix: UnixStream::connect(socket).await.unwrap(), bytes: bytes.clone() };
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(unix));
        let (send, connection) = handshake.await.unwrap();
        let connection = lifecycle::spawn("connection", async move {
            let _ = connection.await;
        });
        let service = tower::service_fn(move |request| send.clone().send_request(request));
        let origin = http::Uri::from_static("http://xds");
        let mut client = AggregatedDiscoveryServiceClient::with_origin(service, origin);
        let (requests, outgoing) = mpsc::channel(8);
        let node = Some(Node { id: node.to_owned(), ..Node::default() });
        let outgoing = WithNode { node, requests: ReceiverStream::new(outgoing) };
        let responses = client.delta_aggregated_resources(outgoing).await.unwrap().into_inner();
        Self { requests, responses, bytes, _connection: connection }
    }

    async fn ask(&self, kind: Kind, names: Vec<String>, versions: HashMap<String, String>) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names,
            initial_resource_versions: versions,
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> DeltaDiscoveryResponse {
        self.responses.message().await.unwrap().expect("the server goes on")
    }

    async fn ack(&self, response: DeltaDiscoveryResponse) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }
}

/// Requests, the first of which says who asks.
struct WithNode {
    node: Option<Node>,
    requests: ReceiverStream<DeltaDiscoveryRequest>,
}

impl tokio_stream::Stream for WithNode {
    type Item = DeltaDiscoveryRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.requests).poll_next(context);
        next.map(|request| request.map(|request| DeltaDiscoveryRequest { node: self.node.take(), ..request }))
    }
}

/// A connection whose incoming bytes are counted.
struct Counted {
    unix: UnixStream,
    bytes: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.unix).poll_read(context, buffer);
        self.bytes.fetch_add(u64::try_from(buffer.filled().len() - before).unwrap(), Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.unix).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.unix).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.unix).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.unix).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.unix.is_write_vectored()
    }
}

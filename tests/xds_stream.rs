//! The server's manners towards a client: who is let in, who waits, what a stop does.

mod answers;
mod grpc;
mod limits;
mod names;
mod raw;
mod rules;
mod services;
mod status;
mod table;

use std::{path::Path, sync::Arc};

use causeway::xds::{
    resource::Kind,
    server::{BindError, Listeners, Offer, bind_tcp, bind_unix},
};
use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Client,
    },
};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::xds_rig::{PATIENCE, Server, Source, local_app, snapshot, upstream};

struct Rig {
    dir: TempDir,
    source: Source,
    server: Server,
}

impl Rig {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::default();
        let server = Server::start(&dir.path().join("xds.sock"), &source);
        Self { dir, source, server }
    }

    async fn client(&self) -> Client<Channel> {
        let path = self.dir.path().join("xds.sock");
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Client::new(Endpoint::from_static("http://xds").connect_with_connector(connect).await.unwrap())
    }

    async fn open(&self, proxy: &str) -> Stream {
        let (requests, outgoing) = mpsc::channel(8);
        requests.send(clusters(proxy)).await.unwrap();
        let opened = self.client().await.delta_aggregated_resources(ReceiverStream::new(outgoing)).await;
        Stream { requests, responses: opened.unwrap().into_inner() }
    }
}

struct Stream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Stream {
    async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        timeout(PATIENCE, self.responses.message()).await.unwrap()
    }

    async fn names(&mut self) -> Vec<String> {
        self.next().await.unwrap().unwrap().resources.into_iter().map(|r| r.name).collect()
    }

    async fn refusal(&mut self) -> Status {
        self.next().await.unwrap_err()
    }
}

fn clusters(proxy: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node { id: proxy.into(), ..Node::default() }),
        type_url: Kind::Cluster.type_url().into(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn ready() -> Offer {
    Offer::Ready(snapshot([local_app()]))
}

fn refused(not_found: bool) -> Offer {
    Offer::Refused { not_found, message: Arc::from("register it first") }
}

#[tokio::test]
async fn a_known_proxy_is_served_and_leaves_nothing_behind() {
    let rig = Rig::start();
    rig.source.offer("web", ready());
    let mut stream = rig.open("web").await;
    let response = stream.next().await.unwrap().unwrap();
    assert_eq!(response.resources.len(), 1);
    assert_eq!(response.resources[0].version.len(), 16);
    assert!(!response.system_version_info.is_empty());
    assert_eq!(rig.source.held(), 1);
    assert!(rig.server.metrics().contains("causeway_xds_streams 1"));
    drop(stream);
    rig.server.until(|streams| streams.is_empty()).await;
    assert_eq!(rig.source.held(), 0);
}

#[tokio::test]
async fn a_proxy_without_a_name_is_refused() {
    let rig = Rig::start();
    let refusal = rig.open("").await.refusal().await;
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains("node.id"), "{refusal}");
}

#[tokio::test]
async fn a_refused_proxy_is_told_why() {
    let rig = Rig::start();
    rig.source.offer("ghost", refused(true));
    rig.source.offer("twin", refused(false));
    let refusal = rig.open("ghost").await.refusal().await;
    assert_eq!((refusal.code(), refusal.message()), (Code::NotFound, "register it first"));
    assert_eq!(rig.open("twin").await.refusal().await.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_pending_proxy_waits_until_it_is_known() {
    let rig = Rig::start();
    let mut stream = rig.open("web").await;
    rig.server.until(|streams| streams.iter().any(|s| !s.types.is_empty())).await;
    rig.source.offer("web", ready());
    assert_eq!(stream.names().await, ["local_app"]);
    let mut other = rig.open("late").await;
    rig.source.offer("late", refused(true));
    assert_eq!(other.refusal().await.code(), Code::NotFound);
}

#[tokio::test]
async fn a_proxy_whose_registration_vanishes_keeps_what_it_has() {
    let rig = Rig::start();
    rig.source.offer("web", ready());
    let mut stream = rig.open("web").await;
    let first = stream.next().await.unwrap().unwrap();
    rig.source.offer("web", refused(true));
    let ack = DeltaDiscoveryRequest { node: None, response_nonce: first.nonce, ..clusters("") };
    stream.requests.send(ack).await.unwrap();
    rig.server.until(|streams| streams[0].types[0].acks == 1).await;
    rig.source.offer("web", Offer::Ready(snapshot([local_app(), upstream("db", false, 1)])));
    assert_eq!(stream.names().await, ["db"]);
}

#[tokio::test]
async fn streams_of_one_proxy_share_its_offers() {
    let rig = Rig::start();
    rig.source.offer("web", ready());
    let (mut one, mut two) = (rig.open("web").await, rig.open("web").await);
    assert_eq!(one.names().await, ["local_app"]);
    assert_eq!(two.names().await, ["local_app"]);
    let streams = rig.server.until(|streams| streams.len() == 2).await;
    assert_ne!(streams[0].stream, streams[1].stream);
}

#[tokio::test]
async fn a_half_closed_stream_is_drained_and_ended() {
    let rig = Rig::start();
    rig.source.offer("web", ready());
    let Stream { requests, responses } = rig.open("web").await;
    drop(requests);
    let mut stream = Stream { requests: mpsc::channel(1).0, responses };
    assert_eq!(stream.names().await, ["local_app"]);
    assert!(stream.next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_stop_ends_streams_in_order() {
    let rig = Rig::start();
    rig.source.offer("web", ready());
    let mut stream = rig.open("web").await;
    stream.names().await;
    rig.server.stop().await;
    assert!(stream.next().await.unwrap().is_none());
}

#[tokio::test]
async fn garbage_closes_its_own_connection_only() {
    let rig = Rig::start();
    rig.source.offer("web", ready());
    let mut stream = rig.open("web").await;
    stream.names().await;
    let mut garbage = UnixStream::connect(rig.dir.path().join("xds.sock")).await.unwrap();
    garbage.write_all(&[b'x'; 4096]).await.unwrap();
    let mut answer = Vec::new();
    // It may be a reset or an end; what counts is that it comes.
    let _ = timeout(PATIENCE, garbage.read_to_end(&mut answer)).await.unwrap();
    rig.source.offer("web", Offer::Ready(snapshot([local_app(), upstream("db", false, 1)])));
    let ack = DeltaDiscoveryRequest { resource_names_subscribe: vec!["db".into()], ..clusters("web") };
    stream.requests.send(ack).await.unwrap();
    assert_eq!(stream.names().await, ["db"]);
}

fn bind(path: &Path) -> Result<tokio::net::UnixListener, BindError> {
    bind_unix(path, None, 0o660)
}

#[tokio::test]
async fn sockets_are_bound_with_care() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("xds.sock");
    let live = bind(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    assert!(matches!(bind(&path), Err(BindError::Live { .. })));
    drop(live);
    bind(&path).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(bind(&file), Err(BindError::NotASocket { .. })));
    assert!(matches!(bind(&dir.path().join("x".repeat(108))), Err(BindError::PathTooLong { .. })));
    let missing = bind_unix(&dir.path().join("g.sock"), Some("no-such-group"), 0o660).unwrap_err();
    assert!(missing.to_string().contains("groupadd"), "{missing}");
}

#[tokio::test]
async fn tcp_is_for_loopback_and_says_who_is_in_the_way() {
    let open = bind_tcp(([0, 0, 0, 0], 0).into()).unwrap_err();
    assert!(open.to_string().contains("mutual TLS"), "{open}");
    let first = bind_tcp(([127, 51, 0, 20], 0).into()).unwrap();
    let address = first.local_addr().unwrap();
    let busy = bind_tcp(address).unwrap_err().to_string();
    assert!(busy.contains(&address.to_string()), "{busy}");
}

#[tokio::test]
async fn tcp_is_served_as_well() {
    let listener = bind_tcp(([127, 51, 0, 21], 0).into()).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let source = Source::default();
    source.offer("web", ready());
    let server = Server::start_on(Listeners { unix: None, tcp: Some(listener) }, &source);
    let (requests, outgoing) = mpsc::channel(8);
    requests.send(clusters("web")).await.unwrap();
    let mut client = Client::connect(url).await.unwrap();
    let opened = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await;
    let mut stream = Stream { requests, responses: opened.unwrap().into_inner() };
    assert_eq!(stream.names().await, ["local_app"]);
    server.stop().await;
}

//! A client that says what it is told to, right or wrong, over any discovery service.

use std::{path::Path, time::Duration};

use causeway::xds::{
    encode::TOKEN_HEADER,
    resource::Kind,
    server::{Limits, Offer},
};
use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, ResourceError,
    },
};
use hyper_util::rt::TokioIo;
use prost::Message;
use tempfile::TempDir;
use tokio::{net::UnixStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::xds_rig::{PATIENCE, Server, Source, snapshot, world};

pub(crate) const WEB: &str = "web";
pub(crate) const ADS: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";

/// Responses that follow on a cluster's come within milliseconds; this is for those that must not come.
pub(crate) const QUIET: Duration = Duration::from_millis(100);

/// A server that offers `web` the whole test world.
pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) source: Source,
    pub(crate) server: Server,
}

impl Rig {
    pub(crate) fn start() -> Self {
        Self::within(Limits::default())
    }

    pub(crate) fn within(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::default();
        source.offer(WEB, Offer::Ready(snapshot(world())));
        let server = Server::start_with(&dir.path().join("xds.sock"), &source, limits);
        Self { dir, source, server }
    }

    pub(crate) async fn channel(&self) -> Channel {
        connect(&self.dir.path().join("xds.sock")).await
    }
}

pub(crate) async fn connect(socket: &Path) -> Channel {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://xds").connect_with_connector(connector).await.unwrap()
}

/// The name of a type's own service.
pub(crate) fn service_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Secret => "envoy.service.secret.v3.SecretDiscoveryService",
        Kind::Cluster => "envoy.service.cluster.v3.ClusterDiscoveryService",
        Kind::Endpoints => "envoy.service.endpoint.v3.EndpointDiscoveryService",
        Kind::Listener => "envoy.service.listener.v3.ListenerDiscoveryService",
        Kind::Route => "envoy.service.route.v3.RouteDiscoveryService",
    }
}

/// The end of its methods' names.
fn noun(service: &str) -> &'static str {
    let nouns = [
        ("secret", "Secrets"),
        ("cluster", "Clusters"),
        ("endpoint", "Endpoints"),
        ("listener", "Listeners"),
        ("route", "Routes"),
    ];
    let found = nouns.iter().find(|(word, _)| service.starts_with(&format!("envoy.service.{word}.")));
    found.map_or("AggregatedResources", |(_, noun)| noun)
}

/// A request of either variant.
pub(crate) trait Asks: Message + Clone + Default + 'static {
    type Answer: Message + Default + 'static;
    const PREFIX: &'static str;

    /// A request for one resource by name.
    fn of(kind: Kind, name: &str) -> Self;
    /// The type, and the names that are told not to exist.
    fn told(answer: &Self::Answer) -> (&str, Vec<&str>);
}

fn names_of(errors: &[ResourceError]) -> Vec<&str> {
    errors.iter().map(|error| error.resource_name.as_ref().unwrap().name.as_str()).collect()
}

impl Asks for DeltaDiscoveryRequest {
    type Answer = DeltaDiscoveryResponse;
    const PREFIX: &'static str = "Delta";

    fn of(kind: Kind, name: &str) -> Self {
        delta(kind, &[name])
    }

    fn told(answer: &DeltaDiscoveryResponse) -> (&str, Vec<&str>) {
        (&answer.type_url, names_of(&answer.resource_errors))
    }
}

impl Asks for DiscoveryRequest {
    type Answer = DiscoveryResponse;
    const PREFIX: &'static str = "Stream";

    fn of(kind: Kind, name: &str) -> Self {
        sotw(kind, &[name])
    }

    fn told(answer: &DiscoveryResponse) -> (&str, Vec<&str>) {
        (&answer.type_url, names_of(&answer.resource_errors))
    }
}

/// An open stream.
pub(crate) struct Raw<Q: Asks> {
    pub(crate) requests: mpsc::Sender<Q>,
    pub(crate) responses: Streaming<Q::Answer>,
}

impl<Q: Asks> Raw<Q> {
    /// Opens a stream with its first request.
    pub(crate) async fn open(channel: &Channel, service: &str, first: Q) -> Self {
        Self::try_open(channel, service, first).await.unwrap()
    }

    pub(crate) async fn try_open(channel: &Channel, service: &str, first: Q) -> Result<Self, Status> {
        Self::with_metadata(channel, service, first, MetadataMap::new()).await
    }

    /// Opens a stream that presents a Consul token.
    pub(crate) async fn open_as(token: &str, channel: &Channel, service: &str, first: Q) -> Self {
        let mut metadata = MetadataMap::new();
        metadata.insert(TOKEN_HEADER, token.parse().unwrap());
        Self::with_metadata(channel, service, first, metadata).await.unwrap()
    }

    async fn with_metadata(
        channel: &Channel,
        service: &str,
        first: Q,
        metadata: MetadataMap,
    ) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(8);
        requests.send(first).await.unwrap();
        let mut client = Grpc::new(channel.clone());
        client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let path = format!("/{service}/{}{}", Q::PREFIX, noun(service)).try_into().unwrap();
        let codec = ProstCodec::<Q, Q::Answer>::default();
        let mut request = Request::new(ReceiverStream::new(outgoing));
        *request.metadata_mut() = metadata;
        let responses = client.streaming(request, path, codec).await?.into_inner();
        Ok(Self { requests, responses })
    }

    pub(crate) async fn say(&self, request: Q) {
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Q::Answer>, Status> {
        timeout(PATIENCE, self.responses.message()).await.expect("an answer or an end")
    }

    pub(crate) async fn answer(&mut self) -> Q::Answer {
        self.next().await.unwrap().expect("an answer")
    }

    pub(crate) async fn refusal(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("ended without a word"),
                Err(status) => return status,
            }
        }
    }

    /// What was said before has been taken in, and was left unanswered: requests are taken in one by one, and the answer
    /// to this one comes next. To be asked once for each name.
    pub(crate) async fn nothing_before(&mut self, name: &str) {
        self.say(Q::of(Kind::Secret, name)).await;
        let answer = self.answer().await;
        assert_eq!(Q::told(&answer), (Kind::Secret.type_url(), vec![name]));
    }

    /// Nothing more is said for a while.
    pub(crate) async fn is_quiet(&mut self) {
        let more = timeout(QUIET, self.responses.message()).await;
        assert!(more.is_err(), "something was said");
    }
}

impl Raw<DeltaDiscoveryRequest> {
    pub(crate) async fn names(&mut self) -> Vec<String> {
        self.answer().await.resources.into_iter().map(|resource| resource.name).collect()
    }
}

fn node() -> Option<Node> {
    Some(Node { id: WEB.into(), ..Node::default() })
}

/// A first request of either variant, with its node.
pub(crate) fn delta(kind: Kind, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: node(),
        type_url: kind.type_url().into(),
        resource_names_subscribe: names.iter().map(|name| (*name).into()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

pub(crate) fn sotw(kind: Kind, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        node: node(),
        type_url: kind.type_url().into(),
        resource_names: names.iter().map(|name| (*name).into()).collect(),
        ..DiscoveryRequest::default()
    }
}

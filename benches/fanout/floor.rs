//! The floor: a bare tonic stream that pushes the same encoded resource to everybody and decides nothing.

use std::{
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use causeway::{
    lifecycle::{self, Task},
    xds::{resource::Kind, server::bind_unix, snapshot::Snapshot},
};
use envoy_types::pb::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
    google::protobuf::Any,
};
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// A running floor.
pub(crate) struct Floor {
    latest: Arc<watch::Sender<Arc<DeltaDiscoveryResponse>>>,
    counts: Arc<Counts>,
    _task: Task<()>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicUsize,
    acked: AtomicUsize,
}

impl Floor {
    pub(crate) fn start(socket: &Path, snapshot: &Snapshot) -> Self {
        let latest = Arc::new(watch::Sender::new(Arc::new(response(snapshot))));
        let counts = Arc::new(Counts::default());
        let ads = Ads { latest: latest.clone(), counts: counts.clone() };
        let connections = UnixListenerStream::new(bind_unix(socket, None, 0o600).unwrap());
        let server = Server::builder().add_service(AggregatedDiscoveryServiceServer::new(ads));
        let task = lifecycle::spawn("floor", async move {
            server.serve_with_incoming(connections).await.unwrap();
        });
        Self { latest, counts, _task: task }
    }

    pub(crate) fn offer(&self, snapshot: &Snapshot) {
        self.latest.send_replace(Arc::new(response(snapshot)));
    }

    /// Whether every response is acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        self.counts.sent.load(Ordering::SeqCst) == self.counts.acked.load(Ordering::SeqCst)
    }
}

/// One resource of the size that Causeway sends.
fn response(snapshot: &Snapshot) -> DeltaDiscoveryResponse {
    let entry = snapshot.of_kind(Kind::Endpoints).next().expect("a sidecar with upstreams has endpoints");
    let any = Any { type_url: entry.type_url.to_owned(), value: entry.any.to_vec() };
    DeltaDiscoveryResponse {
        system_version_info: entry.version.to_string(),
        type_url: entry.type_url.to_owned(),
        nonce: "1-1".to_owned(),
        resources: vec![Resource {
            name: entry.key.name.clone(),
            version: entry.version.to_string(),
            resource: Some(any),
            ..Resource::default()
        }],
        ..DeltaDiscoveryResponse::default()
    }
}

struct Ads {
    latest: Arc<watch::Sender<Arc<DeltaDiscoveryResponse>>>,
    counts: Arc<Counts>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = tokio_stream::Empty<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = Pushes;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("the clients speak delta"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (mut requests, counts) = (request.into_inner(), self.counts.clone());
        let answers = lifecycle::spawn("answers", async move {
            // The first one asks; all others acknowledge.
            let _ = requests.message().await;
            while let Ok(Some(_)) = requests.message().await {
                counts.acked.fetch_add(1, Ordering::SeqCst);
            }
        });
        let latest = WatchStream::new(self.latest.subscribe());
        Ok(Response::new(Pushes { latest, counts: self.counts.clone(), _answers: answers }))
    }
}

struct Pushes {
    latest: WatchStream<Arc<DeltaDiscoveryResponse>>,
    counts: Arc<Counts>,
    _answers: Task<()>,
}

impl tokio_stream::Stream for Pushes {
    type Item = Result<DeltaDiscoveryResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.latest).poll_next(context);
        if next.is_ready() {
            self.counts.sent.fetch_add(1, Ordering::SeqCst);
        }
        next.map(|latest| latest.map(|latest| Ok(DeltaDiscoveryResponse::clone(&latest))))
    }
}

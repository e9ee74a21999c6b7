//! The ADS server: moves requests and responses between gRPC streams and their state machines. Chooses nothing.
//!
//! Knows neither Consul nor what a proxy should have: a [`ProxySource`] offers snapshots, one
//! [`crate::xds::subscription::Subscription`] for each stream decides what to send of them.

mod bind;
mod board;
mod convert;
mod showing;
mod source;
mod stream;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::server::{Router, Server, TcpConnectInfo, TcpIncoming, UdsConnectInfo},
};

use self::stream::{Peer, Responses, Shared};
pub use self::{
    bind::{BindError, bind_tcp, bind_unix},
    board::StatusBoard,
    source::{Attached, Offer, ProxySource},
};
use crate::{lifecycle::Stop, model::secret::SecretText, xds::metrics::XdsMetrics};

/// A reconnecting Envoy names everything it holds with its version, in one request: tens of thousands of endpoints'
/// names go beyond gRPC's usual 4 MiB.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// Responses are split well below 4 MiB; only a single resource larger than that exceeds it, and is then sent anyway.
const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;

/// Finds out about a peer that vanished without closing, before its proxy's watches are kept for hours.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// A live peer on the same host answers at once; this allows for one that is stopped in a debugger for a moment.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The metadata under which a stream presents its Consul token, as to Consul's own xDS.
const TOKEN: &str = "x-consul-token";

/// How long a stop waits for peers to close their connections, after all streams have ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Where to accept connections; at least one, or there is nothing to serve.
#[derive(Debug, Default)]
pub struct Listeners {
    /// From [`bind_unix`].
    pub unix: Option<UnixListener>,
    /// From [`bind_tcp`].
    pub tcp: Option<TcpListener>,
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
#[error("serve xDS on the {listener} socket")]
pub struct ServeError {
    /// `unix` or `tcp`.
    pub listener: &'static str,
    /// What the transport says.
    #[source]
    pub source: tonic::transport::Error,
}

/// Serves delta ADS until `stop` is raised; then ends all streams and returns when their connections have closed, or
/// after five seconds. Garbage on a connection closes that connection only.
pub async fn serve(
    listeners: Listeners,
    source: Arc<dyn ProxySource>,
    board: StatusBoard,
    metrics: XdsMetrics,
    stop: Stop,
) -> Result<(), ServeError> {
    let shared = Arc::new(Shared { source, board, metrics, stop: stop.clone() });
    let service = AggregatedDiscoveryServiceServer::new(Ads { shared, streams: AtomicU64::new(0) })
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_RESPONSE_BYTES);
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(service);
    let unix = serve_unix(router.clone(), listeners.unix, stop.clone());
    let tcp = serve_tcp(router, listeners.tcp, stop.clone());
    let drained = async {
        stop.wait().await;
        tokio::time::sleep(DRAIN_LIMIT).await;
    };
    tokio::select! {
        result = async { tokio::try_join!(unix, tcp) } => result.map(|_| ()),
        () = drained => {
            tracing::warn!(limit = ?DRAIN_LIMIT, "peers did not close their connections in time");
            Ok(())
        }
    }
}

async fn serve_unix(router: Router, listener: Option<UnixListener>, stop: Stop) -> Result<(), ServeError> {
    let Some(listener) = listener else { return Ok(()) };
    let connections = UnixListenerStream::new(listener);
    let served = router.serve_with_incoming_shutdown(connections, stop.wait()).await;
    served.map_err(|source| ServeError { listener: "unix", source })
}

async fn serve_tcp(router: Router, listener: Option<TcpListener>, stop: Stop) -> Result<(), ServeError> {
    let Some(listener) = listener else { return Ok(()) };
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = router.serve_with_incoming_shutdown(connections, stop.wait()).await;
    served.map_err(|source| ServeError { listener: "tcp", source })
}

struct Ads {
    shared: Arc<Shared>,
    streams: AtomicU64,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = tokio_stream::Empty<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = Responses;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented(
            "state-of-the-world ADS is not served: set ads_config.api_type to DELTA_GRPC in the bootstrap",
        ))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (peer, token) = (peer(&request), token(&request));
        let stream = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Response::new(stream::start(self.shared.clone(), stream, peer, token, request.into_inner())))
    }
}

fn peer<T>(request: &Request<T>) -> Peer {
    let extensions = request.extensions();
    if extensions.get::<UdsConnectInfo>().is_some() {
        Peer::Unix
    } else {
        Peer::Tcp(extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr))
    }
}

/// The Consul token that the client presents.
fn token<T>(request: &Request<T>) -> Option<SecretText> {
    let value = request.metadata().get(TOKEN)?.to_str().ok()?;
    Some(SecretText::from(value)).filter(|token| !token.is_empty())
}

/// The type of [`DeltaDiscoveryResponse`] stream items.
type Item = Result<DeltaDiscoveryResponse, Status>;

//! The discovery services: ADS, and one for each type; each in both variants (rule 1). Fetching once is left out: no
//! client of version 3 does so over gRPC.

use std::sync::Arc;

use envoy_types::pb::envoy::service::{
    cluster::v3::cluster_discovery_service_server::{ClusterDiscoveryService, ClusterDiscoveryServiceServer},
    discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
    endpoint::v3::endpoint_discovery_service_server::{
        EndpointDiscoveryService, EndpointDiscoveryServiceServer,
    },
    listener::v3::listener_discovery_service_server::{
        ListenerDiscoveryService, ListenerDiscoveryServiceServer,
    },
    route::v3::route_discovery_service_server::{RouteDiscoveryService, RouteDiscoveryServiceServer},
    secret::v3::secret_discovery_service_server::{SecretDiscoveryService, SecretDiscoveryServiceServer},
};
use tonic::{Request, Response, Status, Streaming, service::Routes};

use crate::{
    model::secret::SecretText,
    xds::{
        encode::TOKEN_HEADER,
        resource::Kind,
        server::{
            MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, body::Aside, connection::Carrier, scope::Scope,
            shared::Shared, stream, wire::Wire,
        },
    },
};

/// What tonic is given to send: the responses themselves go past it, as [`Aside`].
type Nothing<M> = tokio_stream::Empty<Result<M, Status>>;

type Opened<M> = Result<Response<Nothing<M>>, Status>;

/// Every discovery service.
#[derive(Clone)]
pub(super) struct Discovery {
    shared: Arc<Shared>,
}

impl Discovery {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    fn open<W: Wire>(&self, scope: Scope, request: Request<Streaming<W>>) -> Opened<W::Response> {
        let token = token(&request)?;
        let carrier = request.extensions().get::<Carrier>().cloned();
        let carrier =
            carrier.ok_or_else(|| Status::internal("the connection of this stream is not known"))?;
        let responses = stream::start(self.shared.clone(), scope, &carrier, token, request.into_inner())?;
        let mut response = Response::new(tokio_stream::empty());
        response.extensions_mut().insert(Aside::of(responses, MAX_RESPONSE_BYTES));
        Ok(response)
    }
}

/// The Consul token that the client presents.
fn token<T>(request: &Request<T>) -> Result<Option<SecretText>, Status> {
    let Some(value) = request.metadata().get(TOKEN_HEADER) else { return Ok(None) };
    let text = value.to_str().map_err(|_| {
        Status::unauthenticated("x-consul-token is not text: start Envoy with the token as Consul gave it")
    })?;
    Ok(Some(SecretText::from(text)).filter(|token| !token.is_empty()))
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Nothing<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Nothing<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Opened<DiscoveryResponse> {
        self.open(Scope::All, request)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Opened<DeltaDiscoveryResponse> {
        self.open(Scope::All, request)
    }
}

/// The services of single types have the same three methods under different names.
macro_rules! service_of_one_type {
    ($service:ident, $kind:expr, $Stream:ident $stream:ident, $Delta:ident $delta:ident, $fetch:ident) => {
        #[tonic::async_trait]
        impl $service for Discovery {
            type $Stream = Nothing<DiscoveryResponse>;
            type $Delta = Nothing<DeltaDiscoveryResponse>;

            async fn $stream(
                &self,
                request: Request<Streaming<DiscoveryRequest>>,
            ) -> Opened<DiscoveryResponse> {
                self.open(Scope::Only($kind), request)
            }

            async fn $delta(
                &self,
                request: Request<Streaming<DeltaDiscoveryRequest>>,
            ) -> Opened<DeltaDiscoveryResponse> {
                self.open(Scope::Only($kind), request)
            }

            async fn $fetch(
                &self,
                _: Request<DiscoveryRequest>,
            ) -> Result<Response<DiscoveryResponse>, Status> {
                Err(Status::unimplemented(concat!(
                    stringify!($fetch),
                    " is not served: use ",
                    stringify!($stream),
                    " or ",
                    stringify!($delta)
                )))
            }
        }
    };
}

service_of_one_type!(
    ListenerDiscoveryService, Kind::Listener,
    StreamListenersStream stream_listeners, DeltaListenersStream delta_listeners, fetch_listeners
);
service_of_one_type!(
    ClusterDiscoveryService, Kind::Cluster,
    StreamClustersStream stream_clusters, DeltaClustersStream delta_clusters, fetch_clusters
);
service_of_one_type!(
    EndpointDiscoveryService, Kind::Endpoints,
    StreamEndpointsStream stream_endpoints, DeltaEndpointsStream delta_endpoints, fetch_endpoints
);
service_of_one_type!(
    RouteDiscoveryService, Kind::Route,
    StreamRoutesStream stream_routes, DeltaRoutesStream delta_routes, fetch_routes
);
service_of_one_type!(
    SecretDiscoveryService, Kind::Secret,
    StreamSecretsStream stream_secrets, DeltaSecretsStream delta_secrets, fetch_secrets
);

/// A generated server with this project's limit of size.
macro_rules! limited {
    ($Server:ident, $service:expr) => {
        $Server::new($service).max_decoding_message_size(MAX_REQUEST_BYTES)
    };
}

impl Discovery {
    /// All of them by their paths.
    pub(super) fn routes(self) -> Routes {
        Routes::new(limited!(AggregatedDiscoveryServiceServer, self.clone()))
            .add_service(limited!(ListenerDiscoveryServiceServer, self.clone()))
            .add_service(limited!(ClusterDiscoveryServiceServer, self.clone()))
            .add_service(limited!(EndpointDiscoveryServiceServer, self.clone()))
            .add_service(limited!(RouteDiscoveryServiceServer, self.clone()))
            .add_service(limited!(SecretDiscoveryServiceServer, self))
    }

    /// The names of these services, as health checks ask for them.
    pub(super) const NAMES: [&str; 6] = [
        envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::SERVICE_NAME,
        envoy_types::pb::envoy::service::listener::v3::listener_discovery_service_server::SERVICE_NAME,
        envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_server::SERVICE_NAME,
        envoy_types::pb::envoy::service::endpoint::v3::endpoint_discovery_service_server::SERVICE_NAME,
        envoy_types::pb::envoy::service::route::v3::route_discovery_service_server::SERVICE_NAME,
        envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::SERVICE_NAME,
    ];
}

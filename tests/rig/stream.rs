//! A raw client of delta ADS: one stream that asks for clusters.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, time::Duration};

use causeway::xds::resource::Kind;
use envoy_types::pb::envoy::{
    config::{core::v3::Node, endpoint::v3::ClusterLoadAssignment},
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Client,
    },
};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::{net::UnixStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::rig::parts::PATIENCE;

/// An open stream; dropping it closes it.
pub(crate) struct Stream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Stream {
    pub(crate) async fn over_unix(socket: &Path, proxy: &str) -> Result<Self, Status> {
        Self::over_unix_as(socket, proxy, None).await
    }

    /// Presents a token, as the bootstrap of `causeway envoy` does.
    pub(crate) async fn over_unix_as(
        socket: &Path,
        proxy: &str,
        token: Option<&str>,
    ) -> Result<Self, Status> {
        let path = socket.to_owned();
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://xds").connect_with_connector(connect).await;
        Self::open(channel.map_err(|error| Status::unavailable(error.to_string()))?, proxy, token).await
    }

    pub(crate) async fn over_tcp(address: SocketAddr, proxy: &str) -> Result<Self, Status> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Self::open(channel, proxy, None).await
    }

    async fn open(channel: Channel, proxy: &str, token: Option<&str>) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(8);
        let clusters = DeltaDiscoveryRequest {
            node: Some(Node { id: proxy.into(), ..Node::default() }),
            type_url: Kind::Cluster.type_url().into(),
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(clusters).await.unwrap();
        let mut client = Client::new(channel);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if let Some(token) = token {
            request.metadata_mut().insert("x-consul-token", token.parse().unwrap());
        }
        let opened = client.delta_aggregated_resources(request);
        let responses = timeout(PATIENCE, opened).await.unwrap()?.into_inner();
        Ok(Self { requests, responses })
    }

    /// Asks for resources of another kind by name.
    pub(crate) async fn subscribe(&self, kind: Kind, names: impl IntoIterator<Item = String>) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_subscribe: names.into_iter().collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    /// Reads on until a resource with each of these beginnings has come; gives the names of all that came.
    pub(crate) async fn until(&mut self, beginnings: &[&str]) -> Result<BTreeSet<String>, Status> {
        let mut all = BTreeSet::new();
        while !beginnings.iter().all(|start| all.iter().any(|name: &String| name.starts_with(start))) {
            all.extend(self.names().await?);
        }
        Ok(all)
    }

    /// Reads on until the endpoints of the cluster with that beginning are so.
    pub(crate) async fn until_endpoints(
        &mut self,
        beginning: &str,
        are_so: impl Fn(&ClusterLoadAssignment) -> bool,
    ) -> Result<(), Status> {
        let type_url = Kind::Endpoints.type_url();
        loop {
            for resource in self.resources().await?.into_iter().filter(|it| it.name.starts_with(beginning)) {
                let any = resource.resource.filter(|any| any.type_url == type_url);
                let assigned = any.map(|any| ClusterLoadAssignment::decode(&*any.value).unwrap());
                if assigned.is_some_and(|assigned| are_so(&assigned)) {
                    return Ok(());
                }
            }
        }
    }

    /// The names of the next response's resources, which is acknowledged; or the refusal.
    pub(crate) async fn names(&mut self) -> Result<Vec<String>, Status> {
        Ok(self.resources().await?.into_iter().map(|resource| resource.name).collect())
    }

    /// Reads on until the server ends the stream, and gives what it says then.
    pub(crate) async fn end(mut self, within: Duration) -> Status {
        let end = async {
            loop {
                match self.responses.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::aborted("the stream ended"),
                    Err(status) => return status,
                }
            }
        };
        timeout(within, end).await.expect("the server ends the stream")
    }

    async fn resources(&mut self) -> Result<Vec<Resource>, Status> {
        let response = timeout(PATIENCE, self.responses.message()).await.unwrap()?;
        let response = response.ok_or_else(|| Status::aborted("the stream ended"))?;
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        // A server that closed the stream says so at the next read.
        let _ = self.requests.send(ack).await;
        Ok(response.resources)
    }
}

//! A gRPC client without a proxy (`tonic-xds`) is served too: it asks for a listener by the name of its target and
//! follows what that names.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use causeway::{
    lifecycle,
    xds::{
        resource::{
            Resource,
            cluster::{Cluster, Discovery, HttpVersion, Limits as ClusterLimits},
        },
        server::{Limits, Listeners, Offer, bind_tcp},
        snapshot::{Entry, Snapshot},
        status::StreamStatus,
    },
};
use envoy_types::{
    pb::envoy::{
        config::{
            core::v3::{
                AggregatedConfigSource, ConfigSource, Locality, config_source::ConfigSourceSpecifier,
            },
            endpoint::v3::ClusterLoadAssignment,
            listener::v3::{ApiListener, Listener},
        },
        extensions::filters::network::http_connection_manager::v3::{
            HttpConnectionManager, Rds, http_connection_manager::RouteSpecifier,
        },
    },
    pb::google::protobuf::UInt32Value,
    util::pack_any,
};
use prost::Message as _;
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_xds::{BootstrapConfig, ChannelCredentialType, XdsChannelBuilder, XdsChannelConfig, XdsUri};

use crate::xds_rig::{PATIENCE, Server, Source, endpoints, listener, route, snapshot};

const TARGET: &str = "health";

/// The same entry with other bytes: what gRPC wants and the mesh has no use for.
fn rewritten(entry: &Entry, bytes: Vec<u8>) -> Arc<Entry> {
    let mut entry = entry.clone();
    entry.any = Bytes::from(bytes);
    Arc::new(entry)
}

fn api_listener() -> Vec<u8> {
    let ads = ConfigSourceSpecifier::Ads(AggregatedConfigSource::default());
    let rds = Rds {
        route_config_name: TARGET.into(),
        config_source: Some(ConfigSource { config_source_specifier: Some(ads), ..ConfigSource::default() }),
    };
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        ..HttpConnectionManager::default()
    };
    let api = ApiListener { api_listener: Some(pack_any(manager)) };
    Listener { name: TARGET.into(), api_listener: Some(api), ..Listener::default() }.encode_to_vec()
}

/// gRPC skips localities without a name or a weight.
fn weighted(bytes: &[u8]) -> Vec<u8> {
    let mut assignment = ClusterLoadAssignment::decode(bytes).unwrap();
    for locality in &mut assignment.endpoints {
        locality.locality = Some(Locality { zone: "dc1".into(), ..Locality::default() });
        locality.load_balancing_weight = Some(UInt32Value { value: 1 });
    }
    assignment.encode_to_vec()
}

/// A listener, a route, a cluster and its endpoint, all under the target's name.
fn served_at(address: SocketAddr) -> Arc<Snapshot> {
    let cluster = Cluster {
        name: TARGET.into(),
        stat_name: None,
        connect_timeout_ms: 1_000,
        discovery: Discovery::Eds,
        tls: None,
        http: HttpVersion::Two,
        outlier: None,
        limits: ClusterLimits::default(),
        balance: None,
        keepalive: None,
    };
    let built = snapshot([
        Resource::Listener(listener(TARGET, "127.51.0.1:0", vec![])),
        Resource::Route(route(TARGET, TARGET)),
        Resource::Cluster(cluster),
        endpoints(TARGET, &[&address.to_string()]),
    ]);
    let entries = built.iter().map(|entry| match &*entry.resource {
        Resource::Listener(_) => rewritten(entry, api_listener()),
        Resource::Endpoints(_) => rewritten(entry, weighted(&entry.any)),
        _ => entry.clone(),
    });
    Snapshot::of(entries, true)
}

/// A server that offers [`TARGET`], which is its own health service.
fn serving(ip: [u8; 4]) -> (Server, SocketAddr) {
    let listener = bind_tcp((ip, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let source = Source::default();
    source.offer("grpc", Offer::Ready(served_at(address)));
    let listeners = Listeners { unix: None, tcp: Some(listener) };
    (Server::start_within(listeners, &source, Limits::default()), address)
}

/// Asks for the health of whatever is found under that name.
async fn health_of(target: &str, xds: SocketAddr) -> Result<ServingStatus, Status> {
    let bootstrap = BootstrapConfig::builder(format!("http://{xds}"))
        .channel_creds([ChannelCredentialType::Insecure])
        .node_id("grpc")
        .build()
        .unwrap();
    let target = XdsUri::parse(&format!("xds:///{target}")).unwrap();
    let config = XdsChannelConfig::new(target).with_bootstrap(bootstrap);
    let mut client = HealthClient::new(XdsChannelBuilder::new(config).build_grpc_channel().unwrap());
    let asked = client.check(HealthCheckRequest { service: String::new() });
    let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap()?;
    Ok(answer.into_inner().status())
}

#[tokio::test]
async fn a_grpc_client_without_a_proxy_finds_its_service() {
    let (server, address) = serving([127, 51, 0, 23]);
    let began = lifecycle::now();
    let all_taken = |streams: &[Arc<StreamStatus>]| {
        streams.len() == 1 && streams[0].types.iter().filter(|t| t.acks > 0).count() == 4
    };
    // The client leaves with its answer, and its stream with it.
    let (found, streams) = tokio::join!(health_of(TARGET, address), server.until(all_taken));
    assert!(streams[0].types.iter().all(|t| t.nacks == 0), "{streams:#?}");
    assert_eq!(found.unwrap(), ServingStatus::Serving);
    println!("first answer to a gRPC client through xDS after {:?}", began.elapsed());
    server.stop().await;
}

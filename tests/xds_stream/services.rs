//! Both variants over every service, and what an Envoy without ADS is told.

use causeway::xds::resource::Kind;
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster,
            core::v3::{
                ConfigSource, Node, api_config_source::ApiType, config_source::ConfigSourceSpecifier,
            },
            listener::v3::Listener,
        },
        service::{
            cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient,
            discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
        },
    },
    google::protobuf::{Any, Struct, Value, value},
};
use prost::Message as _;
use tonic::Code;

use super::raw::{ADS, Raw, Rig, delta, service_of, sotw};

/// What to ask for of each type, and what comes.
const ASKED: [(Kind, &[&str], usize); 5] = [
    (Kind::Secret, &["leaf", "roots"], 2),
    (Kind::Cluster, &[], 3),
    (Kind::Endpoints, &["db", "api"], 2),
    (Kind::Listener, &[], 5),
    (Kind::Route, &["api"], 1),
];

#[tokio::test]
async fn every_type_is_served_by_its_own_service_in_both_variants() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    for (kind, names, count) in ASKED {
        let mut changes = Raw::open(&channel, service_of(kind), delta(kind, names)).await;
        let changes = changes.answer().await;
        assert_eq!((changes.type_url.as_str(), changes.resources.len()), (kind.type_url(), count));
        let mut world = Raw::open(&channel, service_of(kind), sotw(kind, names)).await;
        let world = world.answer().await;
        assert_eq!((world.type_url.as_str(), world.resources.len()), (kind.type_url(), count));
        assert!(!world.version_info.is_empty() && !world.nonce.is_empty());
    }
}

#[tokio::test]
async fn state_of_the_world_over_ads_has_all_types_on_one_stream() {
    let rig = Rig::start();
    let mut stream = Raw::open(&rig.channel().await, ADS, sotw(Kind::Cluster, &[])).await;
    let clusters = stream.answer().await;
    assert_eq!(clusters.resources.len(), 3);
    stream.say(DiscoveryRequest { node: None, ..sotw(Kind::Endpoints, &["db", "api"]) }).await;
    let endpoints = stream.answer().await;
    assert_eq!((endpoints.type_url.as_str(), endpoints.resources.len()), (Kind::Endpoints.type_url(), 2));
    assert_ne!(clusters.nonce, endpoints.nonce);
    let ack = DiscoveryRequest {
        node: None,
        version_info: clusters.version_info,
        response_nonce: clusters.nonce,
        ..sotw(Kind::Cluster, &[])
    };
    stream.say(ack).await;
    rig.server.until(|streams| streams[0].types.iter().any(|t| t.acks == 1)).await;
    stream.is_quiet().await;
}

#[tokio::test]
async fn unknown_names_are_told_as_errors_in_both_variants() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    let mut world = Raw::open(&channel, ADS, sotw(Kind::Cluster, &["db", "ghost"])).await;
    let world = world.answer().await;
    assert_eq!((world.resources.len(), world.resource_errors.len()), (1, 1));
    let mut changes = Raw::open(&channel, ADS, delta(Kind::Cluster, &["db", "ghost"])).await;
    let changes = changes.answer().await;
    assert_eq!((changes.resources.len(), changes.removed_resources.len()), (1, 1));
    // As a gRPC client asks: for the one listener that its target names.
    let mut target = Raw::open(&channel, ADS, sotw(Kind::Listener, &["ghost"])).await;
    let target = target.answer().await;
    assert_eq!((target.resources.len(), target.resource_errors.len()), (0, 1));
    for error in [&world.resource_errors[0], &changes.resource_errors[0], &target.resource_errors[0]] {
        assert_eq!(error.resource_name.as_ref().unwrap().name, "ghost");
        assert_eq!(error.error_detail.as_ref().unwrap().code, i32::from(Code::NotFound));
    }
}

#[tokio::test]
async fn fetching_once_is_refused_with_what_to_do() {
    let rig = Rig::start();
    let mut client = ClusterDiscoveryServiceClient::new(rig.channel().await);
    let refusal = client.fetch_clusters(sotw(Kind::Cluster, &[])).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unimplemented);
    assert!(refusal.message().contains("delta_clusters"), "{refusal}");
}

fn eds_source(any: &Any) -> ConfigSource {
    let cluster = Cluster::decode(any.value.as_slice()).unwrap();
    cluster.eds_cluster_config.unwrap().eds_config.unwrap()
}

/// The kind of service and the cluster that a source names; none for ADS.
fn told(source: ConfigSource) -> Option<(ApiType, String)> {
    let ConfigSourceSpecifier::ApiConfigSource(api) = source.config_source_specifier.unwrap() else {
        return None;
    };
    let (api_type, cluster) = (api.api_type(), format!("{:?}", api.grpc_services[0].target_specifier));
    let name = cluster.split('"').nth(1).unwrap().to_owned();
    Some((api_type, name))
}

#[tokio::test]
async fn a_client_without_ads_is_told_to_use_the_services_it_uses() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    let cds = service_of(Kind::Cluster);
    let over_ads = Raw::open(&channel, ADS, delta(Kind::Cluster, &["db"])).await.answer().await;
    let delta_db = Raw::open(&channel, cds, delta(Kind::Cluster, &["db"])).await.answer().await;
    let sotw_db = Raw::open(&channel, cds, sotw(Kind::Cluster, &["db"])).await.answer().await;
    // The version is the resource's, whatever its form.
    assert_eq!(over_ads.resources[0].version, delta_db.resources[0].version);
    assert_eq!(told(eds_source(over_ads.resources[0].resource.as_ref().unwrap())), None);
    let usual = "causeway_xds".to_owned();
    let delta_told = told(eds_source(delta_db.resources[0].resource.as_ref().unwrap()));
    assert_eq!(delta_told, Some((ApiType::DeltaGrpc, usual.clone())));
    assert_eq!(told(eds_source(&sotw_db.resources[0])), Some((ApiType::Grpc, usual)));
}

#[tokio::test]
async fn a_node_may_name_its_cluster_for_this_agent() {
    let rig = Rig::start();
    let name = Value { kind: Some(value::Kind::StringValue("agent".into())) };
    let metadata = Struct { fields: [("xds_cluster".into(), name)].into() };
    let node = Some(Node { id: "web".into(), metadata: Some(metadata), ..Node::default() });
    let first = DeltaDiscoveryRequest { node: node.clone(), ..delta(Kind::Cluster, &["db"]) };
    let channel = rig.channel().await;
    let answer = Raw::open(&channel, service_of(Kind::Cluster), first).await.answer().await;
    let source = eds_source(answer.resources[0].resource.as_ref().unwrap());
    assert_eq!(told(source), Some((ApiType::DeltaGrpc, "agent".into())));
    let listeners = DiscoveryRequest { node, ..sotw(Kind::Listener, &[]) };
    let answer = Raw::open(&channel, service_of(Kind::Listener), listeners).await.answer().await;
    for any in answer.resources {
        let text = format!("{:?}", Listener::decode(any.value.as_slice()).unwrap());
        assert!(!text.contains("AggregatedConfigSource"), "{text}");
    }
}

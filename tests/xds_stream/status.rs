//! Client status and health, as others ask for them.

use causeway::xds::resource::Kind;
use envoy_types::pb::{
    envoy::{
        admin::v3::ClientResourceStatus,
        service::{
            discovery::v3::DeltaDiscoveryRequest,
            status::v3::{
                ClientConfig, ClientStatusRequest, ConfigStatus,
                client_status_discovery_service_client::ClientStatusDiscoveryServiceClient as Client,
            },
        },
        r#type::matcher::v3::{NodeMatcher, StringMatcher, string_matcher::MatchPattern},
    },
    google::rpc,
};
use prost::Message as _;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::raw::{ADS, Raw, Rig, delta, service_of, sotw};

fn of_node(id: &str) -> ClientStatusRequest {
    let exactly =
        StringMatcher { match_pattern: Some(MatchPattern::Exact(id.into())), ..StringMatcher::default() };
    let matcher = NodeMatcher { node_id: Some(exactly), ..NodeMatcher::default() };
    ClientStatusRequest { node_matchers: vec![matcher], ..ClientStatusRequest::default() }
}

async fn clients(rig: &Rig, request: ClientStatusRequest) -> Vec<ClientConfig> {
    Client::new(rig.channel().await).fetch_client_status(request).await.unwrap().into_inner().config
}

fn standing(client: &ClientConfig, kind: Kind, name: &str) -> (ConfigStatus, ClientResourceStatus) {
    let found = client.generic_xds_configs.iter().find(|r| r.type_url == kind.type_url() && r.name == name);
    let found = found.unwrap_or_else(|| panic!("{kind:?} {name}"));
    (found.config_status(), found.client_status())
}

#[tokio::test]
async fn client_status_tells_what_each_client_has_and_refused() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    assert_eq!(clients(&rig, ClientStatusRequest::default()).await, []);
    let mut clusters = Raw::open(&channel, ADS, delta(Kind::Cluster, &["db", "ghost"])).await;
    let answer = clusters.answer().await;
    let ack = DeltaDiscoveryRequest { response_nonce: answer.nonce, ..delta(Kind::Cluster, &[]) };
    clusters.say(ack).await;
    // A second stream of the same node, over a service of its own.
    let mut secrets = Raw::open(&channel, service_of(Kind::Secret), sotw(Kind::Secret, &["leaf"])).await;
    let leaf = secrets.answer().await;
    let mut refused = Raw::open(&channel, ADS, delta(Kind::Route, &["api"])).await;
    let answer = refused.answer().await;
    let error = rpc::Status { code: 3, message: "no such route".into(), ..rpc::Status::default() };
    let nack = DeltaDiscoveryRequest {
        response_nonce: answer.nonce,
        error_detail: Some(error),
        ..delta(Kind::Route, &[])
    };
    refused.say(nack).await;
    rig.server
        .until(|streams| {
            let types: Vec<_> = streams.iter().flat_map(|s| &s.types).collect();
            types.iter().any(|t| t.acks == 1) && types.iter().any(|t| t.nacks == 1)
        })
        .await;

    let told = clients(&rig, of_node("web")).await;
    assert_eq!(told.len(), 1, "{told:#?}");
    let web = &told[0];
    assert_eq!(web.node.as_ref().unwrap().id, "web");
    assert_eq!(standing(web, Kind::Cluster, "db"), (ConfigStatus::Synced, ClientResourceStatus::Acked));
    assert_eq!(
        standing(web, Kind::Cluster, "ghost"),
        (ConfigStatus::NotSent, ClientResourceStatus::DoesNotExist)
    );
    assert_eq!(standing(web, Kind::Secret, "leaf"), (ConfigStatus::Stale, ClientResourceStatus::Requested));
    assert_eq!(standing(web, Kind::Route, "api"), (ConfigStatus::Error, ClientResourceStatus::Nacked));
    let route = web.generic_xds_configs.iter().find(|r| r.name == "api").unwrap();
    let state = route.error_state.as_ref().unwrap();
    assert_eq!(state.details, "no such route");
    assert!(!state.version_info.is_empty() && state.last_update_attempt.is_some());
    // No contents, above all no key.
    assert!(leaf.encoded_len() > 1_000);
    assert!(web.generic_xds_configs.iter().all(|r| r.xds_config.is_none()));
    assert!(!String::from_utf8_lossy(&web.encode_to_vec()).contains("PRIVATE KEY"));
    assert_eq!(clients(&rig, of_node("other")).await, []);
}

/// On a service of one type the token is part of the clusters, and a client's words may be taken from them.
#[tokio::test]
async fn a_refusal_that_quotes_the_stream_s_token_is_told_without_it() {
    const TOKEN: &str = "4a8f0f1e-5d0c-4a53-9a3b-6f1f6f0c1d2e";
    let rig = Rig::start();
    let channel = rig.channel().await;
    let ask = delta(Kind::Cluster, &["db"]);
    let mut stream = Raw::open_as(TOKEN, &channel, service_of(Kind::Cluster), ask).await;
    let answer = stream.answer().await;
    assert!(String::from_utf8_lossy(&answer.encode_to_vec()).contains(TOKEN));
    let words = format!("initial_metadata {TOKEN}: no such header");
    let error = rpc::Status { code: 3, message: words, ..rpc::Status::default() };
    let nonce = answer.nonce;
    stream
        .say(DeltaDiscoveryRequest {
            response_nonce: nonce,
            error_detail: Some(error),
            ..delta(Kind::Cluster, &[])
        })
        .await;
    rig.server.until(|streams| streams.iter().flat_map(|s| &s.types).any(|t| t.nacks == 1)).await;
    let told = clients(&rig, of_node("web")).await;
    let db = told[0].generic_xds_configs.iter().find(|r| r.name == "db").unwrap();
    assert_eq!(db.error_state.as_ref().unwrap().details, "initial_metadata [redacted]: no such header");
}

#[tokio::test]
async fn client_status_is_streamed_answer_by_answer() {
    let rig = Rig::start();
    let mut stream = Raw::open(&rig.channel().await, ADS, delta(Kind::Cluster, &[])).await;
    stream.answer().await;
    let asked = tokio_stream::iter([of_node("web"), of_node("other"), ClientStatusRequest::default()]);
    let mut answers =
        Client::new(rig.channel().await).stream_client_status(asked).await.unwrap().into_inner();
    for clients in [1, 0, 1] {
        assert_eq!(answers.message().await.unwrap().unwrap().config.len(), clients);
    }
    assert!(answers.message().await.unwrap().is_none());
}

fn asked(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn health_follows_readiness_and_ends_with_the_agent() {
    let rig = Rig::start();
    let mut client = HealthClient::new(rig.channel().await);
    for service in ["", ADS, service_of(Kind::Secret), "envoy.service.status.v3.ClientStatusDiscoveryService"]
    {
        let status = client.check(asked(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    assert_eq!(client.check(asked("nobody")).await.unwrap_err().code(), Code::NotFound);
    let mut watched = client.watch(asked(ADS)).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    rig.server.ready.send_replace(false);
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    rig.server.ready.send_replace(true);
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let mut unknown = client.watch(asked("nobody")).await.unwrap().into_inner();
    assert_eq!(unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    rig.server.stop().await;
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watched.message().await.unwrap().is_none());
}

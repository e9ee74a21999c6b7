//! A client that breaks each rule on purpose, and what it is told.

use std::collections::HashMap;

use causeway::xds::{resource::Kind, server::Offer};
use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    },
    google::rpc,
};
use tonic::Code;

use super::raw::{ADS, Raw, Rig, WEB, delta, service_of, sotw};
use crate::xds_rig::{local_app, snapshot, upstream};

fn nack(nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: None,
        response_nonce: nonce.into(),
        error_detail: Some(rpc::Status { code: 3, message: "no".into(), ..rpc::Status::default() }),
        ..delta(Kind::Cluster, &[])
    }
}

#[tokio::test]
async fn a_type_must_be_told_over_ads() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    let untyped = DeltaDiscoveryRequest { type_url: String::new(), ..delta(Kind::Cluster, &[]) };
    let refusal = Raw::open(&channel, ADS, untyped.clone()).await.refusal().await;
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains("type_url"), "{refusal}");
    let untyped_sotw = DiscoveryRequest { type_url: String::new(), ..sotw(Kind::Cluster, &[]) };
    assert_eq!(Raw::open(&channel, ADS, untyped_sotw).await.refusal().await.code(), Code::InvalidArgument);
    let mut later = Raw::open(&channel, ADS, delta(Kind::Cluster, &[])).await;
    later.answer().await;
    later.say(untyped).await;
    assert_eq!(later.refusal().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_type_is_implied_over_its_own_service_and_no_other_is_served_there() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    let clusters = service_of(Kind::Cluster);
    let untyped = DeltaDiscoveryRequest { type_url: String::new(), ..delta(Kind::Cluster, &[]) };
    let mut stream = Raw::open(&channel, clusters, untyped).await;
    let answer = stream.answer().await;
    assert_eq!((answer.type_url.as_str(), answer.resources.len()), (Kind::Cluster.type_url(), 3));
    stream.say(DeltaDiscoveryRequest { node: None, ..delta(Kind::Listener, &[]) }).await;
    let refusal = stream.refusal().await;
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains("CDS only"), "{refusal}");
    assert_eq!(
        Raw::open(&channel, clusters, sotw(Kind::Endpoints, &["db"])).await.refusal().await.code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_node_is_needed_and_stays() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    for node in [None, Some(Node::default())] {
        let nobody = DiscoveryRequest { node, ..sotw(Kind::Cluster, &[]) };
        let refusal = Raw::open(&channel, ADS, nobody).await.refusal().await;
        assert_eq!(refusal.code(), Code::InvalidArgument);
        assert!(refusal.message().contains("node.id"), "{refusal}");
    }
    assert_eq!(rig.source.held(), 0);
    let mut stream = Raw::open(&channel, ADS, delta(Kind::Cluster, &[])).await;
    stream.answer().await;
    let other = Some(Node { id: "other".into(), ..Node::default() });
    stream.say(DeltaDiscoveryRequest { node: other, ..delta(Kind::Listener, &[]) }).await;
    assert_eq!(stream.refusal().await.code(), Code::InvalidArgument);
    rig.server.until(|streams| streams.is_empty()).await;
    assert_eq!(rig.source.held(), 0);
}

#[tokio::test]
async fn an_unknown_type_is_left_unanswered_and_harms_no_other() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    // Runtime layers, scopes, virtual hosts on demand, extensions, single endpoints.
    let unknown = [
        "envoy.service.runtime.v3.Runtime",
        "envoy.config.route.v3.ScopedRouteConfiguration",
        "envoy.config.route.v3.VirtualHost",
        "envoy.config.core.v3.TypedExtensionConfig",
        "envoy.config.endpoint.v3.LbEndpoint",
        "none.at.all",
    ];
    let of_type = |name: &str| DeltaDiscoveryRequest {
        type_url: format!("type.googleapis.com/{name}"),
        ..delta(Kind::Cluster, &["some", "*"])
    };
    let mut stream = Raw::open(&channel, ADS, of_type(unknown[0])).await;
    for name in unknown {
        stream.say(DeltaDiscoveryRequest { node: None, ..of_type(name) }).await;
    }
    // An extension that is still referred to must not be told to be gone: it is not told anything.
    stream.nothing_before("unknown types").await;
    stream.say(DeltaDiscoveryRequest { node: None, ..delta(Kind::Cluster, &[]) }).await;
    assert_eq!(stream.names().await, ["api", "db", "local_app"]);
}

#[tokio::test]
async fn stale_nonces_garbage_versions_and_repeated_names_lose_nothing() {
    let rig = Rig::start();
    let mut stream = Raw::open(&rig.channel().await, ADS, delta(Kind::Endpoints, &["db", "db", "db"])).await;
    assert_eq!(stream.names().await, ["db"]);
    let odd = DeltaDiscoveryRequest {
        node: None,
        response_nonce: "of another stream".into(),
        initial_resource_versions: HashMap::from([("api".into(), "\u{0}\u{fffd}'; --".into())]),
        ..delta(Kind::Endpoints, &["api", "api"])
    };
    stream.say(odd).await;
    assert_eq!(stream.names().await, ["api"]);
    let versions = HashMap::from([("db".to_owned(), "x".repeat(100_000))]);
    let reconnect =
        DeltaDiscoveryRequest { initial_resource_versions: versions, ..delta(Kind::Endpoints, &["db"]) };
    assert_eq!(Raw::open(&rig.channel().await, ADS, reconnect).await.names().await, ["db"]);
}

#[tokio::test]
async fn the_same_in_state_of_the_world() {
    let rig = Rig::start();
    let garbage = DiscoveryRequest {
        version_info: "\u{0}\u{fffd}'; --".repeat(1_000),
        ..sotw(Kind::Endpoints, &["db", "db", "db"])
    };
    let mut stream = Raw::open(&rig.channel().await, ADS, garbage).await;
    let first = stream.answer().await;
    assert_eq!(first.resources.len(), 1);
    // Else a refusal of the next would leave this one uncertain as well (rule 28).
    let ack = DiscoveryRequest {
        node: None,
        response_nonce: first.nonce.clone(),
        ..sotw(Kind::Endpoints, &["db"])
    };
    stream.say(ack).await;
    let odd = DiscoveryRequest {
        node: None,
        response_nonce: "of another stream".into(),
        ..sotw(Kind::Endpoints, &["db", "api", "api"])
    };
    stream.say(odd).await;
    let second = stream.answer().await;
    assert_ne!(second.nonce, first.nonce);
    let nack = DiscoveryRequest {
        node: None,
        response_nonce: second.nonce,
        error_detail: Some(rpc::Status { code: 3, message: "no".into(), ..rpc::Status::default() }),
        ..sotw(Kind::Endpoints, &["db", "api"])
    };
    stream.say(nack).await;
    rig.server.until(|streams| streams.iter().any(|s| s.types.iter().any(|t| t.nacks == 1))).await;
    stream.is_quiet().await;
}

#[tokio::test]
async fn a_client_that_refuses_and_then_says_nothing_is_left_alone() {
    let rig = Rig::start();
    rig.source.offer(WEB, Offer::Ready(snapshot([local_app()])));
    let mut stream = Raw::open(&rig.channel().await, ADS, delta(Kind::Cluster, &[])).await;
    let first = stream.answer().await;
    stream.say(nack(&first.nonce)).await;
    rig.server.until(|streams| streams.iter().any(|s| s.types.iter().any(|t| t.nacks == 1))).await;
    stream.is_quiet().await;
    rig.source.offer(WEB, Offer::Ready(snapshot([local_app(), upstream("db", false, 1)])));
    assert_eq!(stream.names().await, ["db"]);
}

#[tokio::test]
async fn a_client_that_echoes_more_than_four_megabytes_is_understood() {
    let rig = Rig::start();
    let held = (0..60_000).map(|n| (format!("{n:0>80}"), "0123456789abcdef".to_owned())).collect();
    let huge = DeltaDiscoveryRequest { initial_resource_versions: held, ..delta(Kind::Cluster, &[]) };
    assert!(prost::Message::encoded_len(&huge) > 5 * 1024 * 1024);
    let mut stream = Raw::open(&rig.channel().await, ADS, huge).await;
    let (mut added, mut removed) = (0, 0);
    while removed < 60_000 {
        let answer = stream.answer().await;
        assert!(prost::Message::encoded_len(&answer) < 4 * 1024 * 1024);
        added += answer.resources.len();
        removed += answer.removed_resources.len();
        let ack =
            DeltaDiscoveryRequest { response_nonce: answer.nonce, node: None, ..delta(Kind::Cluster, &[]) };
        stream.say(ack).await;
    }
    assert_eq!((added, removed), (3, 60_000));
}

#[tokio::test]
async fn half_closing_and_vanishing_free_what_was_held() {
    let rig = Rig::start();
    let mut half_closed = Raw::open(&rig.channel().await, ADS, sotw(Kind::Cluster, &[])).await;
    rig.server.until(|streams| streams.len() == 1).await;
    drop(half_closed.requests);
    let drained = async { while let Some(_under_way) = half_closed.responses.message().await.unwrap() {} };
    tokio::time::timeout(crate::xds_rig::PATIENCE, drained).await.unwrap();
    let vanishing = Raw::open(&rig.channel().await, ADS, delta(Kind::Cluster, &[])).await;
    rig.server.until(|streams| streams.iter().any(|s| s.types.iter().any(|t| t.sent_at_ms.is_some()))).await;
    drop(vanishing);
    rig.server.until(|streams| streams.is_empty()).await;
    assert_eq!(rig.source.held(), 0);
    assert!(rig.server.metrics().contains("causeway_xds_streams 0"));
}

#[tokio::test]
async fn requests_are_answered_while_the_configuration_never_rests() {
    let rig = Rig::start();
    let mut stream = Raw::open(&rig.channel().await, ADS, delta(Kind::Cluster, &[])).await;
    assert_eq!(stream.names().await.len(), 3);
    let source = rig.source.clone();
    let _changing = causeway::lifecycle::spawn("test.change", async move {
        for n in 1.. {
            source.offer(WEB, Offer::Ready(snapshot([local_app(), upstream("db", false, n)])));
            tokio::task::yield_now().await;
        }
    });
    // The clusters are not acknowledged: that of all their changes none goes out is what keeps room for the answers.
    for n in 0..50 {
        stream.nothing_before(&format!("question {n}")).await;
    }
}

/// Requests beat offers, but not a denial: otherwise whoever goes on asking goes on being served.
#[tokio::test]
async fn a_denied_client_that_goes_on_asking_is_told_and_given_nothing() {
    let rig = Rig::start();
    let mut stream = Raw::open(&rig.channel().await, ADS, delta(Kind::Cluster, &[])).await;
    assert_eq!(stream.names().await.len(), 3);
    rig.source.offer(WEB, Offer::Denied { unauthenticated: true, message: "the token is gone".into() });
    let requests = stream.requests.clone();
    let _asking = causeway::lifecycle::spawn("test.ask", async move {
        while requests.send(delta(Kind::Secret, &["roots"])).await.is_ok() {}
    });
    let status = loop {
        match stream.next().await {
            Ok(Some(answer)) => assert!(!answer.type_url.ends_with("Secret"), "a secret after the denial"),
            Ok(None) => panic!("ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), status.message()), (tonic::Code::Unauthenticated, "the token is gone"));
}

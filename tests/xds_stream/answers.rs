//! Clients whose ACKs and NACKs break the rules, and what every response carries.

use causeway::xds::{resource::Kind, server::Offer, status::TypeStatus};
use envoy_types::pb::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    google::rpc,
};

use super::raw::{ADS, Raw, Rig, WEB, delta, service_of, sotw};
use crate::xds_rig::{HOST, local_app, snapshot, upstream};

fn refusal() -> Option<rpc::Status> {
    Some(rpc::Status { code: 3, message: "no".into(), ..rpc::Status::default() })
}

fn ack(nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { node: None, response_nonce: nonce.into(), ..delta(Kind::Cluster, &[]) }
}

fn nack(nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { error_detail: refusal(), ..ack(nonce) }
}

fn ack_sotw(nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest { node: None, response_nonce: nonce.into(), ..sotw(Kind::Cluster, &[]) }
}

fn nack_sotw(nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest { error_detail: refusal(), ..ack_sotw(nonce) }
}

/// The clusters of the last stream.
fn clusters(rig: &Rig) -> TypeStatus {
    let streams = rig.server.board.streams();
    let types = &streams.last().unwrap().types;
    types.iter().find(|status| status.kind == Kind::Cluster.short()).unwrap().clone()
}

fn tally(rig: &Rig) -> (u64, u64) {
    let status = clusters(rig);
    (status.acks, status.nacks)
}

#[tokio::test]
async fn a_second_answer_to_a_response_counts_for_nothing() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    let mut changes = Raw::open(&channel, ADS, delta(Kind::Cluster, &[])).await;
    let nonce = changes.answer().await.nonce;
    for again in [ack(&nonce), ack(&nonce), nack(&nonce)] {
        changes.say(again).await;
    }
    changes.nothing_before("delta").await;
    assert_eq!(tally(&rig), (1, 0));
    assert_eq!(clusters(&rig).last_nack, None, "what was taken cannot be refused");
    drop(changes);
    rig.server.until(|streams| streams.is_empty()).await;
    let mut world = Raw::open(&channel, ADS, sotw(Kind::Cluster, &[])).await;
    let nonce = world.answer().await.nonce;
    for again in [ack_sotw(&nonce), ack_sotw(&nonce), nack_sotw(&nonce)] {
        world.say(again).await;
    }
    world.nothing_before("state of the world").await;
    assert_eq!(tally(&rig), (1, 0));
}

#[tokio::test]
async fn a_refusal_is_not_taken_back_by_an_ack_of_the_same_nonce() {
    let rig = Rig::start();
    rig.source.offer(WEB, Offer::Ready(snapshot([local_app()])));
    let mut changes = Raw::open(&rig.channel().await, ADS, delta(Kind::Cluster, &[])).await;
    let nonce = changes.answer().await.nonce;
    changes.say(nack(&nonce)).await;
    changes.say(ack(&nonce)).await;
    changes.nothing_before("one").await;
    assert_eq!(tally(&rig), (0, 1));
    let again = DeltaDiscoveryRequest { node: None, ..delta(Kind::Cluster, &["local_app"]) };
    changes.say(again).await;
    changes.nothing_before("two").await;
    rig.source.offer(WEB, Offer::Ready(snapshot([local_app(), upstream("db", false, 1)])));
    assert_eq!(changes.names().await, ["db"], "the others move on");
}

#[tokio::test]
async fn an_error_without_a_nonce_refuses_nothing() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    // In the first request there is nothing yet that it could be about.
    let first = DeltaDiscoveryRequest { error_detail: refusal(), ..delta(Kind::Cluster, &[]) };
    let mut changes = Raw::open(&channel, ADS, first).await;
    let nonce = changes.answer().await.nonce;
    changes.say(nack("")).await;
    changes.say(nack("of another stream")).await;
    changes.nothing_before("delta").await;
    assert_eq!(tally(&rig), (0, 0));
    changes.say(ack(&nonce)).await;
    changes.nothing_before("more").await;
    assert_eq!(tally(&rig), (1, 0), "the response was still to be answered");
    drop(changes);
    rig.server.until(|streams| streams.is_empty()).await;
    let first = DiscoveryRequest { error_detail: refusal(), ..sotw(Kind::Cluster, &[]) };
    let mut world = Raw::open(&channel, ADS, first).await;
    world.answer().await;
    world.say(nack_sotw("")).await;
    world.nothing_before("state of the world").await;
    assert_eq!(tally(&rig), (0, 0));
}

#[tokio::test]
async fn a_nonce_of_another_stream_acknowledges_nothing() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    let mut one = Raw::open(&channel, ADS, delta(Kind::Cluster, &[])).await;
    let mut two = Raw::open(&channel, ADS, delta(Kind::Cluster, &[])).await;
    let (first, second) = (one.answer().await, two.answer().await);
    assert!(!first.nonce.is_empty() && !second.nonce.is_empty());
    assert_ne!(first.nonce, second.nonce);
    one.say(ack(&second.nonce)).await;
    two.say(ack(&first.nonce)).await;
    one.nothing_before("one").await;
    two.nothing_before("two").await;
    let streams = rig.server.board.streams();
    let acks: u64 = streams.iter().flat_map(|stream| &stream.types).map(|status| status.acks).sum();
    assert_eq!((streams.len(), acks), (2, 0));
}

/// The identifier up to the revision, and the revision.
fn told(control_plane: Option<envoy_types::pb::envoy::config::core::v3::ControlPlane>) -> (String, String) {
    let identifier = control_plane.expect("who says so").identifier;
    let (who, revision) = identifier.rsplit_once(' ').unwrap();
    (who.to_owned(), revision.to_owned())
}

#[tokio::test]
async fn every_response_names_the_agent_and_the_revision() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    let who = format!("causeway {} {HOST}/0000002a revision", env!("CARGO_PKG_VERSION"));
    let mut changes = Raw::open(&channel, ADS, delta(Kind::Cluster, &[])).await;
    let first = changes.answer().await;
    changes.say(ack(&first.nonce)).await;
    let (agent, revision) = told(first.control_plane);
    assert_eq!((agent.as_str(), revision.len()), (who.as_str(), 16));
    // One revision for all types and both variants.
    let world =
        Raw::open(&channel, service_of(Kind::Secret), sotw(Kind::Secret, &["leaf"])).await.answer().await;
    assert_eq!(told(world.control_plane), (who.clone(), revision.clone()));
    rig.source.offer(WEB, Offer::Ready(snapshot([local_app(), upstream("db", false, 77)])));
    let second = loop {
        let answer = changes.answer().await;
        changes.say(ack(&answer.nonce)).await;
        if answer.resources.iter().any(|resource| resource.name == "db") {
            break answer;
        }
    };
    let (agent, later) = told(second.control_plane);
    assert_eq!(agent, who);
    assert_ne!(later, revision, "the configuration is another one");
}

#[tokio::test]
async fn nothing_that_is_sent_has_a_time_to_live() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    let names: [(Kind, &[&str]); 5] = [
        (Kind::Secret, &["leaf"]),
        (Kind::Cluster, &[]),
        (Kind::Endpoints, &["db"]),
        (Kind::Listener, &[]),
        (Kind::Route, &["api"]),
    ];
    for (kind, names) in names {
        let changes = Raw::open(&channel, service_of(kind), delta(kind, names)).await.answer().await;
        assert!(!changes.resources.is_empty());
        for resource in changes.resources {
            assert!(resource.ttl.is_none() && resource.resource.is_some(), "{resource:?}");
        }
        // Wrapped in a `Resource` is only what has one.
        let world = Raw::open(&channel, service_of(kind), sotw(kind, names)).await.answer().await;
        assert!(!world.resources.is_empty());
        assert!(world.resources.iter().all(|any| any.type_url == kind.type_url()));
    }
}

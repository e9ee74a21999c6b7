//! What clients may use, and that nobody holds up the end.

use std::time::Duration;

use causeway::{
    lifecycle,
    xds::{
        resource::Kind,
        server::{Limits, Listeners, Offer, bind_tcp},
    },
};
use envoy_types::pb::envoy::service::{
    discovery::v3::DeltaDiscoveryRequest,
    status::v3::{
        ClientStatusRequest, client_status_discovery_service_client::ClientStatusDiscoveryServiceClient,
    },
};
use tonic::{Code, transport::Endpoint};

use super::raw::{ADS, Raw, Rig, WEB, delta, service_of, sotw};
use crate::xds_rig::{Server, Source, snapshot, upstream, world};

#[tokio::test]
async fn streams_beyond_the_cap_are_told_so_and_freed_places_are_given_anew() {
    let rig = Rig::within(Limits { max_streams: 3, ..Limits::default() });
    let channel = rig.channel().await;
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(Raw::open(&channel, ADS, delta(Kind::Cluster, &[])).await);
    }
    let third = Raw::open(&channel, service_of(Kind::Cluster), sotw(Kind::Cluster, &[])).await;
    for _ in 0..5 {
        let refused = Raw::try_open(&channel, ADS, delta(Kind::Cluster, &[])).await.err().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("max_streams"), "{refused}");
    }
    assert!(rig.server.metrics().contains("causeway_xds_streams_refused_total 5"));
    // Status is told all the same.
    let mut status = ClientStatusDiscoveryServiceClient::new(channel.clone());
    status.fetch_client_status(ClientStatusRequest::default()).await.unwrap();
    drop(third);
    rig.server.until(|streams| streams.len() == 2).await;
    // The place is given back with the last of the stream, just after it left the board.
    let admitted = async {
        loop {
            match Raw::try_open(&channel, ADS, delta(Kind::Cluster, &[])).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mut admitted = tokio::time::timeout(crate::xds_rig::PATIENCE, admitted).await.unwrap();
    assert_eq!(admitted.names().await.len(), 3);
}

#[tokio::test]
async fn a_rush_of_streams_is_let_in_at_a_bounded_rate_and_served() {
    const EACH_SECOND: u32 = 20;
    let limits = Limits { new_streams_per_second: EACH_SECOND, ..Limits::default() };
    let rig = Rig::within(limits);
    let channel = rig.channel().await;
    let start = lifecycle::now();
    let rush = (0..2 * EACH_SECOND + 1).map(|_| async {
        let mut stream = Raw::open(&channel, ADS, delta(Kind::Cluster, &[])).await;
        assert_eq!(stream.names().await.len(), 3);
    });
    futures_util::future::join_all(rush).await;
    assert!(start.elapsed() >= Duration::from_secs(1), "the second half took {:?}", start.elapsed());
}

#[tokio::test]
async fn a_connection_over_tcp_ends_at_its_age_and_the_client_comes_back() {
    let listener = bind_tcp(([127, 51, 0, 22], 0).into()).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let source = Source::default();
    source.offer(WEB, Offer::Ready(snapshot(world())));
    let limits = Limits { tcp_max_age: Some(Duration::from_secs(3)), ..Limits::default() };
    let server = Server::start_within(Listeners { unix: None, tcp: Some(listener) }, &source, limits);
    let opened = lifecycle::now();
    let channel = Endpoint::new(url).unwrap().connect().await.unwrap();
    let mut stream = Raw::open(&channel, ADS, delta(Kind::Cluster, &[])).await;
    assert_eq!(stream.names().await.len(), 3);
    assert!(stream.next().await.unwrap().is_none(), "an orderly end");
    let age = opened.elapsed();
    assert!(age >= Duration::from_millis(2_700), "{age:?}");
    let mut again = Raw::open(&channel, ADS, sotw(Kind::Cluster, &[])).await;
    assert_eq!(again.answer().await.resources.len(), 3);
    server.stop().await;
}

#[tokio::test]
async fn a_connection_over_the_socket_does_not_age() {
    let rig = Rig::within(Limits { tcp_max_age: Some(Duration::from_millis(10)), ..Limits::default() });
    let mut stream = Raw::open(&rig.channel().await, ADS, delta(Kind::Cluster, &[])).await;
    stream.answer().await;
    stream.is_quiet().await;
}

/// A stream that is being sent megabytes and reads nothing.
async fn unread(rig: &Rig) -> Raw<DeltaDiscoveryRequest> {
    let many = (0..20_000).map(|n| upstream(&format!("{n:0>60}"), false, 1));
    rig.source.offer(WEB, Offer::Ready(snapshot(many)));
    let stream = Raw::open(&rig.channel().await, ADS, delta(Kind::Cluster, &[])).await;
    rig.server.until(|streams| streams.iter().any(|s| s.types.iter().any(|t| t.sent_at_ms.is_some()))).await;
    stream
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_middle_of_a_response_leaves_nothing() {
    let rig = Rig::start();
    drop(unread(&rig).await);
    rig.server.until(|streams| streams.is_empty()).await;
    assert_eq!(rig.source.held(), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_no_stop() {
    let rig = Rig::start();
    let stream = unread(&rig).await;
    let before = lifecycle::now();
    rig.server.stop().await;
    let took = before.elapsed();
    println!("stop with a client that does not read: {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    drop(stream);
}

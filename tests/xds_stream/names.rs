//! Clients whose subscriptions break the rules: names, wildcards, versions of what they do not want.

use std::collections::HashMap;

use causeway::xds::{resource::Kind, server::Offer};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
};

use super::raw::{ADS, Raw, Rig, WEB, delta, sotw};
use crate::xds_rig::{endpoints, local_app, snapshot, upstream};

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A later request that subscribes to the first and unsubscribes from the second.
fn change(kind: Kind, subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    let resource_names_unsubscribe = strings(unsubscribe);
    DeltaDiscoveryRequest { node: None, resource_names_unsubscribe, ..delta(kind, subscribe) }
}

fn ack(answer: &DeltaDiscoveryResponse, kind: Kind) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: answer.nonce.clone(), ..change(kind, &[], &[]) }
}

/// What is there, then what is not.
fn said(answer: &DeltaDiscoveryResponse) -> (Vec<&str>, Vec<&str>) {
    let there = answer.resources.iter().map(|resource| resource.name.as_str()).collect();
    (there, answer.removed_resources.iter().map(String::as_str).collect())
}

/// Two upstreams with their endpoints, in versions.
fn two(db: u64, api: u64) -> Offer {
    let at = |port: u64| format!("127.51.0.9:{port}");
    Offer::Ready(snapshot([
        local_app(),
        upstream("db", false, db),
        upstream("api", true, api),
        endpoints("db", &[&at(db)]),
        endpoints("api", &[&at(api)]),
    ]))
}

#[tokio::test]
async fn unsubscribing_from_what_was_never_asked_for_is_ignored() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    let mut named = Raw::open(&channel, ADS, delta(Kind::Endpoints, &["db"])).await;
    let answer = named.answer().await;
    named.say(ack(&answer, Kind::Endpoints)).await;
    named.say(change(Kind::Endpoints, &[], &["api", "ghost", "", "*"])).await;
    named.nothing_before("named").await;
    rig.source.offer(WEB, two(7, 1));
    assert_eq!(said(&named.answer().await), (vec!["db"], vec![]), "what was asked for is still wanted");
    // Under a wildcard what was never named stays as well.
    rig.source.offer(WEB, two(7, 1));
    let mut all = Raw::open(&channel, ADS, delta(Kind::Cluster, &[])).await;
    let answer = all.answer().await;
    all.say(ack(&answer, Kind::Cluster)).await;
    all.say(change(Kind::Cluster, &[], &["db", "ghost"])).await;
    all.nothing_before("all").await;
    rig.source.offer(WEB, two(8, 1));
    assert_eq!(said(&all.answer().await), (vec!["db"], vec![]));
}

#[tokio::test]
async fn a_first_request_that_only_unsubscribes_asks_for_nothing() {
    let rig = Rig::start();
    let first = DeltaDiscoveryRequest {
        node: delta(Kind::Cluster, &[]).node,
        ..change(Kind::Cluster, &[], &["ghost"])
    };
    let mut stream = Raw::open(&rig.channel().await, ADS, first).await;
    stream.nothing_before("clusters").await;
    stream.say(change(Kind::Cluster, &["*"], &["*"])).await;
    stream.nothing_before("a star and its end").await;
    stream.say(change(Kind::Cluster, &["db"], &[])).await;
    assert_eq!(stream.names().await, ["db"]);
}

#[tokio::test]
async fn a_name_subscribed_and_unsubscribed_at_once_is_not_wanted() {
    let rig = Rig::start();
    rig.source.offer(WEB, two(1, 1));
    let mut stream = Raw::open(&rig.channel().await, ADS, delta(Kind::Endpoints, &["api"])).await;
    let answer = stream.answer().await;
    stream.say(ack(&answer, Kind::Endpoints)).await;
    stream.say(change(Kind::Endpoints, &["db"], &["db"])).await;
    stream.nothing_before("db").await;
    // Of several names only the one that is in both is given up.
    stream.say(change(Kind::Endpoints, &["db", "ghost"], &["db"])).await;
    let answer = stream.answer().await;
    assert_eq!(said(&answer), (vec![], vec!["ghost"]));
    stream.say(ack(&answer, Kind::Endpoints)).await;
    rig.source.offer(WEB, two(2, 2));
    assert_eq!(stream.names().await, ["api"], "and of both that change one is wanted");
}

#[tokio::test]
async fn having_something_is_not_wanting_it() {
    let rig = Rig::start();
    rig.source.offer(WEB, two(1, 1));
    let held: HashMap<_, _> = ["db", "gone"].map(|name| (name.to_owned(), "old".to_owned())).into();
    let first =
        DeltaDiscoveryRequest { initial_resource_versions: held.clone(), ..delta(Kind::Endpoints, &["api"]) };
    let mut named = Raw::open(&rig.channel().await, ADS, first).await;
    let answer = named.answer().await;
    assert_eq!(said(&answer), (vec!["api"], vec![]), "neither renewed nor removed");
    named.say(ack(&answer, Kind::Endpoints)).await;
    rig.source.offer(WEB, two(2, 2));
    assert_eq!(said(&named.answer().await), (vec!["api"], vec![]));
    // Who wants everything is told of what is no longer there.
    let first = DeltaDiscoveryRequest { initial_resource_versions: held, ..delta(Kind::Cluster, &[]) };
    let mut all = Raw::open(&rig.channel().await, ADS, first).await;
    let answer = all.answer().await;
    assert_eq!(said(&answer), (vec!["api", "db", "local_app"], vec![]));
    all.say(ack(&answer, Kind::Cluster)).await;
    all.say(change(Kind::Listener, &[], &[])).await;
    let mut removed = Vec::new();
    while removed.is_empty() {
        removed = all.answer().await.removed_resources;
    }
    assert_eq!(removed, ["gone"]);
}

#[tokio::test]
async fn secrets_are_given_by_name_only() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    for names in [&["*"][..], &["*", "leaf"]] {
        let there = &names[1..];
        let mut changes = Raw::open(&channel, ADS, delta(Kind::Secret, names)).await;
        assert_eq!(said(&changes.answer().await), (there.to_vec(), vec!["*"]));
        let world = Raw::open(&channel, ADS, sotw(Kind::Secret, names)).await.answer().await;
        assert_eq!((world.resources.len(), world.resource_errors.len()), (there.len(), 1));
    }
    // Nor by an empty first request.
    let mut changes = Raw::open(&channel, ADS, delta(Kind::Secret, &[])).await;
    changes.nothing_before("delta").await;
    let mut world = Raw::open(&channel, ADS, sotw(Kind::Secret, &[])).await;
    world.nothing_before("state of the world").await;
}

#[tokio::test]
async fn an_empty_list_is_no_wildcard_for_what_has_no_roots() {
    let rig = Rig::start();
    let channel = rig.channel().await;
    for kind in [Kind::Endpoints, Kind::Route] {
        let mut changes = Raw::open(&channel, ADS, delta(kind, &[])).await;
        changes.nothing_before("delta").await;
        let mut world = Raw::open(&channel, ADS, sotw(kind, &[])).await;
        world.nothing_before("state of the world").await;
    }
}

#[tokio::test]
async fn a_legacy_wildcard_is_asked_for_once() {
    let rig = Rig::start();
    rig.source.offer(WEB, two(1, 1));
    let mut stream = Raw::open(&rig.channel().await, ADS, delta(Kind::Cluster, &[])).await;
    let answer = stream.answer().await;
    assert_eq!(answer.resources.len(), 3);
    stream.say(ack(&answer, Kind::Cluster)).await;
    stream.say(change(Kind::Cluster, &[], &[])).await;
    stream.nothing_before("empty once more").await;
    // It has no name of its own, and ends as any other.
    stream.say(change(Kind::Cluster, &["api"], &["*"])).await;
    let answer = stream.answer().await;
    assert_eq!(said(&answer), (vec!["api"], vec![]));
    stream.say(ack(&answer, Kind::Cluster)).await;
    stream.say(change(Kind::Cluster, &[], &[])).await;
    rig.source.offer(WEB, two(2, 2));
    assert_eq!(stream.names().await, ["api"], "the other is not wanted any more");
}

#[tokio::test]
async fn in_state_of_the_world_naming_ends_the_legacy_wildcard_for_good() {
    let rig = Rig::start();
    rig.source.offer(WEB, two(1, 1));
    let mut stream = Raw::open(&rig.channel().await, ADS, sotw(Kind::Cluster, &[])).await;
    let mut nonce = String::new();
    let mut counts = Vec::new();
    for names in [&[][..], &["api"]] {
        let asked = DiscoveryRequest { node: None, response_nonce: nonce, ..sotw(Kind::Cluster, names) };
        if !names.is_empty() {
            stream.say(asked).await;
        }
        let answer = stream.answer().await;
        counts.push(answer.resources.len());
        nonce = answer.nonce;
    }
    assert_eq!(counts, [3, 1]);
    let empty = DiscoveryRequest { node: None, response_nonce: nonce, ..sotw(Kind::Cluster, &[]) };
    stream.say(empty.clone()).await;
    stream.say(empty).await;
    stream.nothing_before("nothing").await;
    rig.source.offer(WEB, two(2, 2));
    stream.is_quiet().await;
    stream.say(DiscoveryRequest { node: None, ..sotw(Kind::Cluster, &["*"]) }).await;
    assert_eq!(stream.answer().await.resources.len(), 3);
}

#[tokio::test]
async fn names_are_taken_and_answered_as_they_are_written() {
    const ODD: [&str; 6] = ["DB", " db", "db.", "db/*", "xdstp://other/db?b=1&a=2", "d\u{0}b"];
    let rig = Rig::start();
    let mut stream = Raw::open(&rig.channel().await, ADS, delta(Kind::Endpoints, &ODD)).await;
    let answer = stream.answer().await;
    let (there, mut absent) = said(&answer);
    let mut odd = ODD.to_vec();
    odd.sort_unstable();
    absent.sort_unstable();
    assert_eq!((there, absent), (vec![], odd));
    stream.say(change(Kind::Endpoints, &["db"], &[])).await;
    assert_eq!(stream.names().await, ["db"]);
}

/// As an Envoy does that fetches clusters on demand: it names them one by one, long after its other requests.
#[tokio::test]
async fn a_late_subscription_is_answered_at_once_and_remembered() {
    let rig = Rig::start();
    rig.source.offer(WEB, two(1, 1));
    let mut stream = Raw::open(&rig.channel().await, ADS, delta(Kind::Cluster, &["api"])).await;
    assert_eq!(stream.names().await, ["api"]);
    stream.say(change(Kind::Cluster, &["db"], &[])).await;
    assert_eq!(stream.names().await, ["db"], "although the first is not acknowledged");
    stream.say(change(Kind::Cluster, &["later"], &[])).await;
    let absent = stream.answer().await;
    assert_eq!(said(&absent), (vec![], vec!["later"]));
    let mut others = Raw::open(&rig.channel().await, ADS, delta(Kind::Cluster, &["later"])).await;
    let absent = others.answer().await;
    others.say(ack(&absent, Kind::Cluster)).await;
    rig.source.offer(WEB, Offer::Ready(snapshot([local_app(), upstream("later", false, 1)])));
    assert_eq!(others.names().await, ["later"]);
}

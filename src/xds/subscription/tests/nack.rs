//! Refusals.

use super::rig::{Rig, cluster, draft, endpoints, request, said, strings};
use crate::xds::{
    resource::Kind,
    status::ResourceState,
    subscription::{Action, Event, Request},
};

const NOTHING: [&str; 0] = [];

#[test]
fn a_refused_version_is_never_offered_again() {
    let mut rig = Rig::new(draft([cluster("a", 1)]));
    let sent = rig.wildcard(Kind::Cluster);
    assert_eq!(said(&rig.nack(&sent[0])), NOTHING);
    assert_eq!(rig.state_of(Kind::Cluster, "a"), ResourceState::Rejected);
    assert_eq!(said(&rig.offer(draft([cluster("a", 1), cluster("b", 1)]))), ["CDS +b"]);
    assert_eq!(said(&rig.subscribe(Kind::Cluster, &["a"])), NOTHING);
}

#[test]
fn another_version_is_offered_the_old_one_included() {
    let mut rig = Rig::new(draft([cluster("a", 1)]));
    let sent = rig.wildcard(Kind::Cluster);
    rig.settle(sent);
    let sent = rig.offer(draft([cluster("a", 2)]));
    rig.nack(&sent[0]);
    // It may have applied part of what it refused: the old version is said again.
    let sent = rig.offer(draft([cluster("a", 1)]));
    assert_eq!(said(&sent), ["CDS +a"]);
    rig.settle(sent);
    assert_eq!(said(&rig.offer(draft([cluster("a", 2)]))), NOTHING);
}

#[test]
fn what_the_refusal_does_not_name_comes_once_more() {
    let mut rig = Rig::new(draft([cluster("left", 1), cluster("right", 1)]));
    let sent = rig.wildcard(Kind::Cluster);
    assert_eq!(said(&sent), ["CDS +left +right"]);
    let refuse = |nonce: &str| Request {
        nonce: nonce.to_owned(),
        error: Some("Error adding/updating cluster(s) left: no such thing".into()),
        ..request(Kind::Cluster)
    };
    let sent = rig.ask(refuse(&sent[0].nonce));
    assert_eq!(said(&sent), ["CDS +right"]);
    assert_eq!(said(&rig.settle(sent)), ["CDS +right"]);
    assert_eq!(rig.state_of(Kind::Cluster, "left"), ResourceState::Rejected);
    assert_eq!(rig.state_of(Kind::Cluster, "right"), ResourceState::Synced);
}

#[test]
fn a_refusal_with_a_subscription_is_both() {
    let mut rig = Rig::new(draft([endpoints("a", 1), endpoints("b", 1)]));
    let sent = rig.subscribe(Kind::Endpoints, &["a"]);
    let both = Request {
        nonce: sent[0].nonce.clone(),
        error: Some("no".into()),
        subscribe: strings(&["b"]),
        ..request(Kind::Endpoints)
    };
    assert_eq!(said(&rig.ask(both)), ["EDS +b"]);
}

#[test]
fn actions_and_status_tell_of_the_refusal_until_a_later_ack() {
    let mut rig = Rig::new(draft([cluster("a", 1)]));
    let sent = rig.wildcard(Kind::Cluster);
    let nonce = sent[0].nonce.clone();
    let refusal = Request { nonce, error: Some("no such filter".into()), ..request(Kind::Cluster) };
    let actions = rig.step(Event::Request(refusal));
    assert!(
        matches!(&actions[0], Action::Nacked { error, resources, .. } if error == "no such filter" && resources == &["a"])
    );
    let status = rig.stream.status(|_| 7).remove(0);
    assert_eq!((status.acks, status.nacks), (0, 1));
    assert_eq!(status.last_nack.map(|n| (n.message, n.at_ms)), Some(("no such filter".into(), 7)));
    let sent = rig.offer(draft([cluster("a", 2)]));
    rig.settle(sent);
    assert_eq!(rig.stream.status(|_| 7).remove(0).last_nack, None);
}

#[test]
fn a_refusal_of_an_unknown_nonce_refuses_nothing() {
    let mut rig = Rig::new(draft([cluster("a", 1)]));
    rig.wildcard(Kind::Cluster);
    rig.ask(Request { nonce: "0-1".into(), error: Some("no".into()), ..request(Kind::Cluster) });
    assert_eq!(rig.state_of(Kind::Cluster, "a"), ResourceState::Sent);
}

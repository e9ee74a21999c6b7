//! Streams of clients that come with versions of earlier ones.

use super::rig::{
    Rig, cluster, draft, endpoints, incomplete, key, listener, request, said, strings, version,
};
use crate::xds::{
    resource::{Kind, Resource},
    subscription::{GATE_LIMIT, Request, Response},
};

const NOTHING: [&str; 0] = [];

fn returning(rig: &mut Rig, kind: Kind, subscribe: &[&str], has: &[Resource]) -> Vec<Response> {
    let initial_versions = has.iter().map(|r| (r.key().name, version(r))).collect();
    rig.ask(Request { subscribe: strings(subscribe), initial_versions, ..request(kind) })
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let world = [cluster("a", 1), endpoints("a", 1), listener("l", 1, "a")];
    let mut rig = Rig::new(draft(world.clone()));
    assert_eq!(said(&returning(&mut rig, Kind::Cluster, &[], &world[..1])), NOTHING);
    assert_eq!(said(&returning(&mut rig, Kind::Endpoints, &["a"], &world[1..2])), NOTHING);
    assert_eq!(said(&returning(&mut rig, Kind::Listener, &[], &world[2..])), NOTHING);
    assert_eq!(said(&rig.offer(draft(world))), NOTHING);
}

#[test]
fn what_is_gone_is_removed_once_that_is_known() {
    let mut rig = Rig::new(incomplete([cluster("a", 1)]));
    let has = [cluster("a", 1), cluster("b", 1)];
    assert_eq!(said(&returning(&mut rig, Kind::Cluster, &[], &has)), NOTHING);
    assert_eq!(said(&rig.offer(draft([cluster("a", 1)]))), NOTHING, "its listeners may name it");
    assert_eq!(said(&returning(&mut rig, Kind::Listener, &[], &[])), ["LDS", "CDS -b"]);
}

#[test]
fn endpoints_of_a_changed_cluster_are_sent_although_their_version_matches() {
    let mut rig = Rig::new(draft([cluster("a", 2), endpoints("a", 1)]));
    assert_eq!(said(&returning(&mut rig, Kind::Cluster, &[], &[cluster("a", 1)])), ["CDS +a"]);
    assert_eq!(said(&returning(&mut rig, Kind::Endpoints, &["a"], &[endpoints("a", 1)])), ["EDS +a"]);
}

#[test]
fn a_partial_version_never_replaces_an_inherited_one() {
    let mut part = incomplete([endpoints("a", 1), endpoints("b", 1)]);
    part.partial.extend([key(Kind::Endpoints, "a"), key(Kind::Endpoints, "b")]);
    let mut rig = Rig::new(part);
    // It has `a` from before and nothing of `b`.
    assert_eq!(said(&returning(&mut rig, Kind::Endpoints, &["a", "b"], &[endpoints("a", 9)])), ["EDS +b"]);
    assert_eq!(said(&rig.offer(draft([endpoints("a", 2), endpoints("b", 1)]))), NOTHING);
    // `b` is unanswered; that aside, the complete `a` goes out.
    let sent = rig.subscribe(Kind::Endpoints, &["a"]);
    assert_eq!(said(&sent), ["EDS +a"]);
}

#[test]
fn a_changed_cluster_waits_with_its_partial_endpoints() {
    let world = [cluster("a", 2), endpoints("a", 1)];
    let mut part = incomplete(world.clone());
    part.partial.insert(key(Kind::Endpoints, "a"));
    let mut rig = Rig::new(part);
    assert_eq!(said(&returning(&mut rig, Kind::Cluster, &[], &[cluster("a", 1)])), NOTHING);
    assert_eq!(said(&returning(&mut rig, Kind::Endpoints, &["a"], &[endpoints("a", 9)])), NOTHING);
    assert_eq!(said(&rig.offer(draft(world))), ["CDS +a", "EDS +a"]);
}

#[test]
fn a_cluster_stays_while_an_unknown_inherited_listener_may_name_it() {
    let mut rig = Rig::new(draft([listener("l", 2, "")]));
    assert_eq!(said(&returning(&mut rig, Kind::Cluster, &[], &[cluster("a", 1)])), NOTHING);
    assert_eq!(said(&rig.wait(GATE_LIMIT)), ["CDS -a"], "a client without listeners is not waited for");
    let mut rig = Rig::new(incomplete([]));
    returning(&mut rig, Kind::Cluster, &[], &[cluster("a", 1)]);
    returning(&mut rig, Kind::Listener, &[], &[listener("l", 1, "a")]);
    let sent = rig.offer(draft([listener("l", 2, "")]));
    assert_eq!(said(&sent), ["LDS +l"]);
    assert_eq!(said(&rig.ack(&sent[0])), ["CDS -a"]);
}

#[test]
fn versions_count_in_the_first_request_only() {
    let mut rig = Rig::new(draft([endpoints("a", 1)]));
    rig.subscribe(Kind::Endpoints, &[]);
    assert_eq!(said(&returning(&mut rig, Kind::Endpoints, &["a"], &[endpoints("a", 1)])), ["EDS +a"]);
    rig.wait(GATE_LIMIT);
}

//! State of the world: names, full lists, versions, refusals.

use std::collections::BTreeSet;

use super::{
    rig::{
        GRPC_LIMIT_BYTES, cluster, draft, endpoints, incomplete, key, listener, route, said, secret, strings,
    },
    sotw_rig::{World, sotw, wire_bytes},
};
use crate::xds::{
    resource::Kind,
    status::ResourceState,
    subscription::{Action, Event, SotwRequest},
};

const NOTHING: [&str; 0] = [];

#[test]
fn clusters_come_all_at_once_and_absence_deletes() {
    let mut world = World::new(draft([cluster("a", 1), cluster("b", 1)]));
    assert_eq!(said(&world.take(Kind::Cluster, &[])), ["CDS +a +b"]);
    let sent = world.offer(draft([cluster("a", 2), cluster("b", 1)]));
    assert_eq!(said(&world.settle(sent)), ["CDS +a +b"]);
    let sent = world.offer(draft([cluster("a", 2)]));
    assert_eq!(said(&world.settle(sent)), ["CDS +a"]);
    let sent = world.offer(draft([]));
    assert_eq!(said(&world.settle(sent)), ["CDS"], "an empty response deletes everything");
    assert_eq!(said(&world.offer(draft([]))), NOTHING);
}

#[test]
fn other_types_send_only_what_changed() {
    let mut world = World::new(draft([endpoints("a", 1), endpoints("b", 1)]));
    assert_eq!(said(&world.take(Kind::Endpoints, &["a", "b"])), ["EDS +a +b"]);
    let sent = world.offer(draft([endpoints("a", 1), endpoints("b", 2)]));
    assert_eq!(said(&world.settle(sent)), ["EDS +b"]);
    assert_eq!(said(&world.offer(draft([endpoints("a", 1)]))), NOTHING, "there are no words for it");
    assert_eq!(said(&world.offer(draft([endpoints("a", 1), endpoints("b", 3)]))), ["EDS +b"]);
}

#[test]
fn acknowledgements_are_not_answered() {
    let mut world = World::new(draft([cluster("a", 1), secret("s", 1)]));
    let sent = world.ask(Kind::Cluster, &[]);
    assert_eq!(said(&world.ack(&sent[0])), NOTHING);
    assert_eq!(world.rig.state_of(Kind::Cluster, "a"), ResourceState::Synced);
    let sent = world.ask(Kind::Secret, &["s"]);
    assert_eq!(said(&world.ack(&sent[0])), NOTHING);
    // The same once more, its nonce answered already: nothing on this stream waits for it.
    assert_eq!(said(&world.ack(&sent[0])), NOTHING);
}

#[test]
fn an_empty_list_means_everything_only_while_nothing_was_named() {
    let mut world = World::new(draft([cluster("a", 1), cluster("b", 1)]));
    assert_eq!(said(&world.take(Kind::Cluster, &[])), ["CDS +a +b"]);
    assert_eq!(said(&world.take(Kind::Cluster, &["a"])), ["CDS +a"]);
    assert_eq!(said(&world.take(Kind::Cluster, &[])), NOTHING);
    assert_eq!(said(&world.offer(draft([cluster("a", 2), cluster("b", 2)]))), NOTHING);
    assert_eq!(said(&world.take(Kind::Cluster, &["*"])), ["CDS +a +b"]);
}

#[test]
fn an_empty_list_of_endpoints_means_nothing() {
    let mut world = World::new(draft([endpoints("a", 1), route("r", 1, "a"), secret("s", 1)]));
    for kind in [Kind::Endpoints, Kind::Route, Kind::Secret] {
        assert_eq!(said(&world.ask(kind, &[])), NOTHING);
    }
}

#[test]
fn star_and_names_mix() {
    let mut world = World::new(draft([cluster("a", 1), cluster("b", 1)]));
    let sent = world.ask(Kind::Cluster, &["*", "a", "x"]);
    assert_eq!(said(&sent), ["CDS +a +b"]);
    assert_eq!(sent[0].not_found, ["x"]);
    world.settle(sent);
    assert_eq!(said(&world.ask(Kind::Cluster, &["a", "x"])), NOTHING);
    assert_eq!(said(&world.offer(draft([cluster("a", 1), cluster("b", 2)]))), NOTHING);
    assert_eq!(said(&world.offer(draft([cluster("a", 1), cluster("x", 2)]))), ["CDS +a +x"]);
}

#[test]
fn secrets_have_no_wildcard() {
    let mut world = World::new(draft([secret("leaf", 1)]));
    let sent = world.ask(Kind::Secret, &["*"]);
    assert_eq!(said(&sent), ["SDS"]);
    assert_eq!(sent[0].not_found, ["*"]);
}

#[test]
fn added_names_are_answered_although_nothing_changed() {
    let all = [endpoints("x", 1), endpoints("y", 1)];
    let mut world = World::new(draft(all));
    let first = world.take(Kind::Endpoints, &["x"]);
    let second = world.take(Kind::Endpoints, &["x", "y"]);
    assert_eq!(said(&second), ["EDS +y"]);
    assert_ne!(first[0].system_version, second[0].system_version);
    assert_eq!(said(&world.take(Kind::Endpoints, &["y"])), NOTHING);
    assert_eq!(said(&world.take(Kind::Endpoints, &["x", "y"])), ["EDS +x"], "it was forgotten meanwhile");
}

#[test]
fn added_clusters_come_with_those_named_before() {
    let mut world = World::new(draft([cluster("a", 1), cluster("b", 1)]));
    assert_eq!(said(&world.take(Kind::Cluster, &["a"])), ["CDS +a"]);
    assert_eq!(said(&world.take(Kind::Cluster, &["a", "b"])), ["CDS +a +b"]);
}

#[test]
fn a_stale_nonce_still_replaces_the_subscription() {
    let mut world = World::new(draft([endpoints("a", 1), endpoints("b", 1)]));
    world.ask(Kind::Endpoints, &["a"]);
    let names = strings(&["b"]);
    let stale = SotwRequest { names, nonce: "9-9".into(), ..sotw(Kind::Endpoints) };
    assert_eq!(said(&world.say(stale)), ["EDS +b"]);
    assert_eq!(world.rig.state_of(Kind::Endpoints, "b"), ResourceState::Sent);
    assert_eq!(said(&world.offer(draft([endpoints("a", 2), endpoints("b", 1)]))), NOTHING);
}

#[test]
fn pushes_coalesce_behind_an_unanswered_response() {
    let mut world = World::new(draft([cluster("a", 1)]));
    let sent = world.ask(Kind::Cluster, &[]);
    assert_eq!(said(&world.offer(draft([cluster("a", 2)]))), NOTHING);
    assert_eq!(said(&world.offer(draft([cluster("a", 3)]))), NOTHING);
    let sent = world.ack(&sent[0]);
    assert_eq!(said(&sent), ["CDS +a"]);
    assert_eq!(said(&world.ack(&sent[0])), NOTHING);
}

#[test]
fn the_answer_to_the_last_answers_those_before_it() {
    let mut world = World::new(draft([endpoints("a", 1), endpoints("b", 1)]));
    world.ask(Kind::Endpoints, &["a"]);
    let sent = world.ask(Kind::Endpoints, &["a", "b"]);
    assert_eq!(said(&world.ack(&sent[0])), NOTHING);
    assert_eq!(world.rig.state_of(Kind::Endpoints, "a"), ResourceState::Synced);
}

#[test]
fn unknown_names_are_told_once_and_remembered() {
    let mut world = World::new(draft([]));
    let sent = world.ask(Kind::Endpoints, &["a"]);
    assert_eq!(said(&sent), ["EDS"]);
    assert_eq!(sent[0].not_found, ["a"]);
    world.settle(sent);
    assert_eq!(said(&world.offer(draft([cluster("z", 1)]))), NOTHING);
    let sent = world.offer(draft([endpoints("a", 1)]));
    assert_eq!(said(&sent), ["EDS +a"]);
    assert!(sent[0].not_found.is_empty());
}

#[test]
fn a_name_that_is_not_known_yet_is_not_told_absent() {
    let mut world = World::new(incomplete([listener("a", 1, "")]));
    assert_eq!(said(&world.ask(Kind::Listener, &["a", "b"])), NOTHING);
    let sent = world.offer(draft([listener("a", 1, "")]));
    assert_eq!(said(&sent), ["LDS +a"]);
    assert_eq!(sent[0].not_found, ["b"]);
}

#[test]
fn versions_follow_the_subscribed_content() {
    let version = |names: &[&str], n| {
        let mut world = World::new(draft([endpoints("a", 1), endpoints("b", n), endpoints("c", n)]));
        world.ask(Kind::Endpoints, names).remove(0).system_version
    };
    assert_eq!(version(&["a"], 1), version(&["a"], 2), "what is not asked for takes no part");
    assert_eq!(version(&["a", "b"], 2), version(&["b", "a"], 2));
    assert_ne!(version(&["a", "b"], 1), version(&["a", "b"], 2));
}

#[test]
fn returning_is_answered_fully_whatever_the_version() {
    let all = [cluster("a", 1), endpoints("a", 1)];
    let version = World::new(draft(all.clone())).take(Kind::Cluster, &[]).remove(0).system_version;
    let again = |names: &[&str]| SotwRequest {
        names: strings(names),
        version: version.to_string(),
        ..sotw(Kind::Cluster)
    };
    let mut world = World::new(draft(all.clone()));
    // It may have refused a later response and kept a part of it.
    let sent = world.say(again(&[]));
    assert_eq!(said(&world.settle(sent)), ["CDS +a"]);
    assert_eq!(world.rig.state_of(Kind::Cluster, "a"), ResourceState::Synced);
    assert_eq!(said(&world.offer(draft([cluster("a", 2), endpoints("a", 1)]))), ["CDS +a"]);
    assert_eq!(said(&World::new(draft(all.clone())).say(again(&["a"]))), ["CDS +a"]);
    assert_eq!(said(&World::new(draft([cluster("a", 2)])).say(again(&[]))), ["CDS +a"]);
}

#[test]
fn returning_clients_are_told_nothing_of_clusters_before_all_is_known() {
    let mut world = World::new(incomplete([cluster("a", 1)]));
    let again = SotwRequest { version: "before".into(), ..sotw(Kind::Cluster) };
    assert_eq!(said(&world.say(again)), NOTHING, "what is missing would be deleted");
    assert_eq!(said(&world.offer(draft([cluster("a", 1), cluster("b", 1)]))), ["CDS +a +b"]);
    let mut fresh = World::new(incomplete([cluster("a", 1)]));
    assert_eq!(said(&fresh.ask(Kind::Cluster, &[])), ["CDS +a"]);
}

#[test]
fn partial_endpoints_replace_none_that_a_client_brought() {
    let mut part = incomplete([endpoints("a", 1), endpoints("b", 1)]);
    part.partial.insert(key(Kind::Endpoints, "a"));
    let mut world = World::new(part);
    let names = strings(&["a", "b", "c"]);
    let again = SotwRequest { names, version: "before".into(), ..sotw(Kind::Endpoints) };
    assert_eq!(said(&world.say(again)), ["EDS +b"]);
    let sent = world.offer(draft([endpoints("a", 2), endpoints("b", 1)]));
    assert_eq!(said(&sent), ["EDS"], "one push is unanswered");
    assert_eq!(sent[0].not_found, ["c"]);
}

#[test]
fn a_refused_cluster_keeps_its_last_good_version_while_others_move_on() {
    let mut world = World::new(draft([cluster("left", 1), cluster("right", 1)]));
    world.take(Kind::Cluster, &[]);
    let sent = world.offer(draft([cluster("left", 2), cluster("right", 2)]));
    let refused = sent[0].system_version.clone();
    let sent = world.nack(&sent[0], "Error adding/updating cluster(s) left: no such thing");
    assert_eq!(said(&sent), ["CDS +left +right"]);
    let versions: Vec<_> = sent[0].resources.iter().map(|e| e.version.clone()).collect();
    let expected = [cluster("left", 1), cluster("right", 2)].map(|r| super::rig::version(&r));
    assert_eq!(versions, expected);
    assert_ne!(sent[0].system_version, refused);
    assert_eq!(said(&world.settle(sent)), ["CDS +left +right"]);
    assert_eq!(world.rig.state_of(Kind::Cluster, "left"), ResourceState::Rejected);
    assert_eq!(world.rig.state_of(Kind::Cluster, "right"), ResourceState::Synced);
    let sent = world.offer(draft([cluster("left", 3), cluster("right", 2)]));
    assert_eq!(said(&world.settle(sent)), ["CDS +left +right"]);
    assert_eq!(world.rig.state_of(Kind::Cluster, "left"), ResourceState::Synced);
}

#[test]
fn a_refused_cluster_that_never_was_good_is_left_out() {
    let mut world = World::new(draft([cluster("a", 1)]));
    world.take(Kind::Cluster, &[]);
    let sent = world.offer(draft([cluster("a", 1), cluster("b", 1)]));
    // No name is told, but `a` was taken before.
    assert_eq!(said(&world.nack(&sent[0], "no")), NOTHING);
    assert_eq!(world.rig.state_of(Kind::Cluster, "a"), ResourceState::Synced);
    let sent = world.offer(draft([cluster("a", 2), cluster("b", 1)]));
    assert_eq!(said(&world.settle(sent)), ["CDS +a"]);
    assert_eq!(said(&world.ask(Kind::Cluster, &["*", "b"])), NOTHING);
}

#[test]
fn large_answers_are_split_where_that_is_possible() {
    let long = "n".repeat(4000);
    let names: Vec<String> = (0..1500).map(|i| format!("{long}{i:04}")).collect();
    let all = names.iter().flat_map(|name| [endpoints(name, 1), cluster(name, 1)]);
    let mut world = World::new(draft(all));
    // What a list of all clusters lacks is deleted: however large, it is one response.
    let clusters = world.ask(Kind::Cluster, &[]);
    assert_eq!(clusters.iter().map(|r| r.resources.len()).collect::<Vec<_>>(), [names.len()]);
    assert!(wire_bytes(&clusters[0]) > GRPC_LIMIT_BYTES, "too little to need splitting");
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let sent = world.ask(Kind::Endpoints, &asked);
    let sizes: Vec<usize> = sent.iter().map(wire_bytes).collect();
    assert!(sizes.iter().all(|size| *size < GRPC_LIMIT_BYTES), "{sizes:?}");
    assert!(sent.iter().all(|r| !r.resources.is_empty()), "{sizes:?}");
    let told: Vec<_> = sent.iter().flat_map(|r| &r.resources).map(|entry| &entry.key.name).collect();
    assert_eq!(told, names.iter().collect::<Vec<_>>(), "each once, in their order");
    let nonces: BTreeSet<_> = sent.iter().map(|r| &r.nonce).collect();
    assert_eq!(nonces.len(), sent.len());
    assert!(sent.iter().all(|r| r.system_version == sent[0].system_version));
}

#[test]
fn unknown_types_are_left_unanswered() {
    let mut world = World::new(draft([]));
    let odd = SotwRequest { type_url: "odd".into(), ..SotwRequest::default() };
    assert!(matches!(&world.rig.step(Event::Sotw(odd.clone()))[..], [Action::UnknownType(_)]));
    assert!(world.rig.step(Event::Sotw(odd)).is_empty());
}

#[test]
fn what_is_said_twice_is_sent_once() {
    let mut world = World::new(draft([endpoints("a", 1)]));
    let sent = world.ask(Kind::Endpoints, &["a", "a"]);
    assert_eq!(said(&sent), ["EDS +a"]);
}

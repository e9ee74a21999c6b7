//! State of the world: children behind parents, make before break.

use super::{
    rig::{cluster, draft, endpoints, listener, route, routed, said, strings},
    sotw_rig::{World, sotw},
};
use crate::xds::{
    resource::{Kind, Resource},
    subscription::{GATE_LIMIT, Response, SotwRequest},
};

const NOTHING: [&str; 0] = [];

/// A client that has taken everything over one stream.
fn settled(resources: impl IntoIterator<Item = Resource>, names: &[&str]) -> World {
    let mut world = World::new(draft(resources));
    world.take(Kind::Cluster, &[]);
    world.take(Kind::Endpoints, names);
    world.take(Kind::Listener, &[]);
    world
}

fn settle_lines(world: &mut World, sent: Vec<Response>) -> Vec<String> {
    said(&world.settle(sent))
}

#[test]
fn endpoints_follow_their_changed_cluster_and_no_other() {
    let rest = [endpoints("a", 1), cluster("b", 1), endpoints("b", 1)];
    let mut world = settled(rest.clone().into_iter().chain([cluster("a", 1)]), &["a", "b"]);
    let sent = world.offer(draft(rest.into_iter().chain([cluster("a", 2)])));
    assert_eq!(said(&sent), ["CDS +a +b", "EDS +a"]);
    // Rule 27: the warming cluster makes Envoy ask again; the answer has been sent already.
    assert_eq!(said(&world.ask(Kind::Endpoints, &["a", "b"])), NOTHING);
}

#[test]
fn endpoints_asked_for_again_on_a_stream_of_their_own_are_sent_again() {
    let mut world = World::new(draft([cluster("a", 1), endpoints("a", 1)]));
    world.take(Kind::Endpoints, &["a"]);
    let sent = world.ask(Kind::Endpoints, &["a"]);
    assert_eq!(said(&sent), ["EDS +a"]);
    assert_eq!(settle_lines(&mut world, sent), ["EDS +a"]);
}

#[test]
fn routes_follow_their_listener() {
    let rest = [cluster("a", 1), endpoints("a", 1), route("r", 1, "a")];
    let mut world = settled(rest.clone().into_iter().chain([routed("l", 1, "r")]), &["a"]);
    world.take(Kind::Route, &["r"]);
    assert_eq!(
        said(&world.offer(draft(rest.into_iter().chain([routed("l", 2, "r")])))),
        ["LDS +l", "RDS +r"]
    );
}

#[test]
fn a_listener_waits_for_its_new_cluster_and_its_last_version_is_carried_along() {
    let start = [cluster("a", 1), endpoints("a", 1), listener("l", 1, "a"), listener("m", 2, "a")];
    let mut world = settled(start, &["a"]);
    let next = [cluster("a", 1), endpoints("a", 1), cluster("b", 1), endpoints("b", 1)];
    let sent = world.offer(draft(next.into_iter().chain([listener("l", 1, "b"), listener("m", 3, "a")])));
    assert_eq!(said(&sent), ["CDS +a +b", "LDS +l +m"]);
    assert_eq!(sent[1].resources[0].version, super::rig::version(&listener("l", 1, "a")));
    world.ack(&sent[1]);
    assert_eq!(said(&world.ack(&sent[0])), ["LDS +l +m"]);
}

#[test]
fn the_wait_is_bounded() {
    let mut world = settled([], &[]);
    let sent = world.offer(draft([cluster("b", 1), endpoints("b", 1), listener("l", 1, "b")]));
    assert_eq!(said(&sent), ["CDS +b"]);
    assert_eq!(said(&world.wait(GATE_LIMIT)), ["LDS +l"]);
    assert_eq!(world.rig.stream.next_deadline(), None);
}

#[test]
fn clusters_are_a_union_until_nothing_names_the_old() {
    let mut world = settled([cluster("a", 1), endpoints("a", 1), listener("l", 1, "a")], &["a"]);
    let sent = world.offer(draft([cluster("b", 1), endpoints("b", 1), listener("l", 1, "b")]));
    assert_eq!(said(&sent), ["CDS +a +b"]);
    let sent = world.ack(&sent[0]);
    assert_eq!(said(&sent), ["LDS +l"]);
    assert_eq!(settle_lines(&mut world, sent), ["LDS +l", "CDS +b"]);
}

#[test]
fn the_old_cluster_stays_while_the_refused_replacement_of_its_listener_does() {
    let mut world = settled([cluster("a", 1), endpoints("a", 1), listener("l", 1, "a")], &["a"]);
    let sent = world.offer(draft([listener("l", 2, "")]));
    assert_eq!(said(&sent), ["LDS +l"]);
    assert_eq!(said(&world.nack(&sent[0], "l: no")), NOTHING);
    assert_eq!(said(&world.wait(10 * GATE_LIMIT)), NOTHING);
    let sent = world.offer(draft([cluster("z", 1), listener("l", 2, "")]));
    assert_eq!(settle_lines(&mut world, sent), ["CDS +a +z"]);
    let sent = world.offer(draft([cluster("z", 1), listener("l", 3, "")]));
    assert_eq!(settle_lines(&mut world, sent), ["LDS +l", "CDS +z"]);
}

#[test]
fn a_route_that_is_gone_keeps_its_cluster_only_as_long_as_its_listener_names_it() {
    let start = [cluster("a", 1), endpoints("a", 1), routed("l", 1, "r"), route("r", 1, "a")];
    let mut world = settled(start, &["a"]);
    world.take(Kind::Route, &["r"]);
    let sent = world.offer(draft([]));
    assert_eq!(said(&sent), ["LDS"]);
    assert_eq!(settle_lines(&mut world, sent), ["LDS", "CDS"]);
}

#[test]
fn a_renamed_listener_goes_and_comes_in_one_response() {
    let mut world = settled([listener("old", 1, "")], &[]);
    assert_eq!(said(&world.offer(draft([listener("new", 1, "")]))), ["LDS +new"]);
}

#[test]
fn a_renamed_listener_stays_until_its_successor_may_come() {
    let mut world = settled([listener("old", 1, "")], &[]);
    let new = [cluster("b", 1), endpoints("b", 1), listener("new", 1, "b"), listener("other", 2, "")];
    let sent = world.offer(draft(new));
    assert_eq!(said(&sent), ["CDS +b"], "any new listener may take the address");
    assert_eq!(said(&world.ack(&sent[0])), ["LDS +new +other"]);
}

#[test]
fn a_returning_client_loses_no_listener_to_a_gate() {
    let all = [cluster("a", 1), endpoints("a", 1), listener("l", 1, "a"), listener("m", 2, "")];
    let mut world = World::new(draft(all));
    let clusters = SotwRequest { version: "before".into(), ..sotw(Kind::Cluster) };
    let sent = world.say(clusters);
    assert_eq!(said(&sent), ["CDS +a"]);
    let listeners = SotwRequest { version: "before".into(), ..sotw(Kind::Listener) };
    assert_eq!(said(&world.say(listeners)), NOTHING, "`m` alone would delete `l`");
    assert_eq!(said(&world.ack(&sent[0])), ["LDS +l +m"]);
}

#[test]
fn nothing_waits_for_types_of_other_streams() {
    let all = [cluster("a", 1), endpoints("a", 1), routed("l", 1, "r"), route("r", 1, "a")];
    for (kind, names, expected) in [
        (Kind::Listener, vec![], ["LDS +l"]),
        (Kind::Route, vec!["r"], ["RDS +r"]),
        (Kind::Cluster, vec![], ["CDS +a"]),
        (Kind::Endpoints, vec!["a"], ["EDS +a"]),
    ] {
        let mut world = World::new(draft(all.clone()));
        let first = SotwRequest { names: strings(&names), version: "before".into(), ..sotw(kind) };
        assert_eq!(said(&world.say(first)), expected);
        assert_eq!(world.rig.stream.next_deadline(), None);
    }
}

#[test]
fn a_cluster_on_a_stream_of_its_own_goes_at_once() {
    let mut world = World::new(draft([cluster("a", 1), endpoints("a", 1), listener("l", 1, "a")]));
    world.take(Kind::Cluster, &[]);
    assert_eq!(said(&world.offer(draft([]))), ["CDS"]);
}

#[test]
fn a_returning_client_that_refused_loses_no_cluster_before_the_listener_that_names_it() {
    let all = [cluster("a", 2), endpoints("a", 1), listener("l", 1, "a")];
    let mut world = World::new(draft(all));
    let sent = world.say(SotwRequest { version: "before".into(), ..sotw(Kind::Cluster) });
    assert_eq!(said(&world.nack(&sent[0], "no")), NOTHING, "it goes on with the `a` of before");
    world.take(Kind::Listener, &[]);
    let sent = world.offer(draft([cluster("b", 1), endpoints("b", 1)]));
    assert_eq!(
        said(&sent),
        ["LDS"],
        "a response about clusters would lack `a`, of which only the client knows"
    );
    assert_eq!(settle_lines(&mut world, sent), ["LDS", "CDS +b"]);
}

#[test]
fn what_a_later_response_lacks_is_not_taken_for_held() {
    let all = || [cluster("a", 1), endpoints("a", 1), cluster("b", 1), endpoints("b", 1)];
    let mut world = World::new(draft(all()));
    let first = world.ask(Kind::Cluster, &["a", "b"]);
    let second = world.ask(Kind::Cluster, &["b", "b2"]);
    let third = world.ask(Kind::Cluster, &["a", "b"]);
    assert_eq!((said(&second), said(&third)), (strings(&["CDS +b"]), strings(&["CDS +a +b"])));
    world.ack(&first[0]);
    world.ack(&second[0]);
    // The client has lost `a` and is about to have it again: what names it waits for that.
    world.take(Kind::Listener, &[]);
    let sent = world.offer(draft(all().into_iter().chain([listener("l", 1, "a")])));
    assert_eq!(said(&sent), NOTHING);
    assert_eq!(said(&world.ack(&third[0])), ["LDS +l"]);
}

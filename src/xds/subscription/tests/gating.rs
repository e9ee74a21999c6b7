//! Order: children behind parents, make before break.

use std::time::Duration;

use super::rig::{Rig, cluster, draft, endpoints, incomplete, listener, route, routed, said};
use crate::xds::{
    resource::{Kind, Resource},
    subscription::{GATE_LIMIT, Response},
};

const NOTHING: [&str; 0] = [];

fn world(n: u64) -> [Resource; 3] {
    [cluster("a", n), endpoints("a", 1), listener("l", 1, "a")]
}

/// A client that has taken everything.
fn settled(resources: impl IntoIterator<Item = Resource>) -> Rig {
    let mut rig = Rig::new(draft(resources));
    for kind in [Kind::Cluster, Kind::Listener] {
        let sent = rig.wildcard(kind);
        let names: Vec<String> = sent
            .iter()
            .flat_map(|r| r.resources.iter())
            .flat_map(|e| e.refers_to.clone())
            .map(|k| k.name)
            .collect();
        rig.settle(sent);
        let child = if kind == Kind::Cluster { Kind::Endpoints } else { Kind::Route };
        if child == Kind::Endpoints || names.iter().any(|n| n.starts_with('r')) {
            let sent = rig.subscribe(child, &names.iter().map(String::as_str).collect::<Vec<_>>());
            rig.settle(sent);
        }
    }
    rig
}

fn settle_lines(rig: &mut Rig, sent: Vec<Response>) -> Vec<String> {
    said(&rig.settle(sent))
}

#[test]
fn endpoints_follow_their_cluster_without_an_ack() {
    let mut rig = settled(world(1));
    assert_eq!(said(&rig.offer(draft(world(2)))), ["CDS +a", "EDS +a"]);
}

#[test]
fn endpoints_follow_even_while_others_are_unanswered() {
    let mut rig = settled(world(1));
    let sent = rig.offer(draft([cluster("a", 1), endpoints("a", 2), listener("l", 1, "a")]));
    assert_eq!(said(&sent), ["EDS +a"]);
    assert_eq!(
        said(&rig.offer(draft([cluster("a", 2), endpoints("a", 2), listener("l", 1, "a")]))),
        ["CDS +a", "EDS +a"]
    );
}

#[test]
fn routes_follow_their_listener() {
    let before = [cluster("a", 1), endpoints("a", 1), routed("l", 1, "r"), route("r", 1, "a")];
    let mut rig = settled(before.clone());
    let mut after = before;
    after[2] = routed("l", 2, "r");
    assert_eq!(said(&rig.offer(draft(after))), ["LDS +l", "RDS +r"]);
}

/// Its client asks for it on behalf of connections that drain.
#[test]
fn a_route_that_no_listener_names_any_more_leads_on() {
    let mut rig = settled([cluster("a", 1), endpoints("a", 1), routed("l", 1, "r"), route("r", 1, "a")]);
    let after = [cluster("b", 1), endpoints("b", 1), listener("l", 2, "b"), route("r", 2, "b")];
    let sent = rig.offer(draft(after));
    assert_eq!(said(&sent), ["CDS +b"]);
    let sent = rig.settle(sent);
    // The cluster before stays for as long as the route may lead there.
    assert_eq!(said(&sent), ["CDS +b", "LDS +l", "RDS +r", "CDS -a", "EDS -a"]);
}

#[test]
fn listener_waits_for_the_ack_of_its_new_cluster() {
    let mut rig = settled([cluster("a", 1), endpoints("a", 1)]);
    let new = [cluster("b", 1), endpoints("b", 1), listener("l", 1, "b"), listener("m", 2, "a")];
    let all = [cluster("a", 1), endpoints("a", 1)].into_iter().chain(new);
    let sent = rig.offer(draft(all));
    // The other listener has no part in it.
    assert_eq!(said(&sent), ["CDS +b", "LDS +m"]);
    rig.ack(&sent[1]);
    assert_eq!(said(&rig.ack(&sent[0])), ["LDS +l"]);
}

#[test]
fn route_waits_for_the_ack_of_its_new_cluster() {
    let before = [cluster("a", 1), endpoints("a", 1), routed("l", 1, "r"), route("r", 1, "a")];
    let mut rig = settled(before.clone());
    let mut after = before.to_vec();
    after[3] = route("r", 1, "b");
    after.extend([cluster("b", 1), endpoints("b", 1)]);
    let sent = rig.offer(draft(after));
    assert_eq!(said(&sent), ["CDS +b"]);
    assert_eq!(settle_lines(&mut rig, sent), ["CDS +b", "RDS +r"]);
}

#[test]
fn the_wait_is_bounded() {
    let mut rig = settled([]);
    let sent = rig.offer(draft([cluster("b", 1), endpoints("b", 1), listener("l", 1, "b")]));
    assert_eq!(said(&sent), ["CDS +b"]);
    assert_eq!(rig.stream.next_deadline(), Some(rig.now + GATE_LIMIT));
    assert_eq!(said(&rig.wait(GATE_LIMIT - Duration::from_millis(1))), NOTHING);
    assert_eq!(said(&rig.wait(Duration::from_millis(1))), ["LDS +l"]);
    assert_eq!(rig.stream.next_deadline(), None);
}

#[test]
fn no_wait_for_a_cluster_that_lacks_its_endpoints() {
    let mut rig = settled([]);
    assert_eq!(said(&rig.offer(incomplete([cluster("b", 1), listener("l", 1, "b")]))), ["CDS +b", "LDS +l"]);
}

#[test]
fn no_wait_for_clusters_by_a_client_that_takes_none() {
    let mut rig = Rig::new(draft(world(1)));
    assert_eq!(said(&rig.subscribe(Kind::Listener, &["l"])), ["LDS +l"]);
}

#[test]
fn a_refused_cluster_is_not_waited_for() {
    let mut rig = settled([]);
    let sent = rig.offer(draft([cluster("b", 1), endpoints("b", 1), listener("l", 1, "b")]));
    assert_eq!(said(&rig.nack(&sent[0])), ["LDS +l"]);
}

#[test]
fn cluster_is_removed_after_what_named_it() {
    let mut rig = settled(world(1));
    let sent = rig.offer(draft([cluster("b", 1), endpoints("b", 1), listener("l", 1, "b")]));
    assert_eq!(said(&sent), ["CDS +b"]);
    let sent = rig.ack(&sent[0]);
    assert_eq!(said(&sent), ["LDS +l"]);
    assert_eq!(said(&rig.ack(&sent[0])), ["CDS -a", "EDS -a"]);
}

#[test]
fn cluster_of_a_removed_listener_goes_after_its_ack() {
    let mut rig = settled(world(1));
    let sent = rig.offer(draft([]));
    assert_eq!(settle_lines(&mut rig, sent), ["LDS -l", "CDS -a", "EDS -a"]);
}

#[test]
fn removal_does_not_wait_for_ever() {
    let mut rig = settled(world(1));
    let sent = rig.offer(draft([]));
    assert_eq!(said(&sent), ["LDS -l"]);
    assert_eq!(said(&rig.wait(GATE_LIMIT)), ["CDS -a", "EDS -a"]);
}

#[test]
fn cluster_stays_while_the_refused_replacement_of_its_listener_does() {
    let mut rig = settled(world(1));
    let sent = rig.offer(draft([listener("l", 2, "")]));
    assert_eq!(said(&sent), ["LDS +l"]);
    assert_eq!(said(&rig.nack(&sent[0])), NOTHING);
    assert_eq!(said(&rig.wait(10 * GATE_LIMIT)), NOTHING);
    let sent = rig.offer(draft([listener("l", 3, "")]));
    assert_eq!(settle_lines(&mut rig, sent), ["LDS +l", "CDS -a", "EDS -a"]);
}

#[test]
fn endpoints_do_not_wait_behind_listeners() {
    let mut rig = settled(world(1));
    rig.offer(draft([cluster("a", 1), endpoints("a", 1), listener("l", 2, "a")]));
    let moved = [cluster("a", 1), endpoints("a", 2), listener("l", 2, "a")];
    assert_eq!(said(&rig.offer(draft(moved))), ["EDS +a"]);
}

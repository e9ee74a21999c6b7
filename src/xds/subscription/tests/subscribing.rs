//! Wildcards, names, unknown names, answers.

use std::sync::Arc;

use super::rig::{
    Rig, cluster, draft, endpoints, incomplete, listener, request, responses, said, secret, strings,
};
use crate::xds::{
    encode::{Protocol, Source},
    resource::Kind,
    snapshot::Entry,
    status::ResourceState,
    subscription::{Action, Event, Request, Response, split::MAX_RESPONSE_BYTES},
};

const NOTHING: [&str; 0] = [];

#[test]
fn first_empty_request_means_everything() {
    let mut rig = Rig::new(draft([cluster("a", 1), cluster("b", 1)]));
    let sent = rig.wildcard(Kind::Cluster);
    assert_eq!(said(&sent), ["CDS +a +b"]);
    assert!(!sent[0].system_version.as_str().is_empty());
    assert_eq!(said(&rig.ack(&sent[0])), NOTHING);
    assert_eq!(rig.state_of(Kind::Cluster, "a"), ResourceState::Synced);
}

#[test]
fn first_empty_request_for_endpoints_means_nothing() {
    let mut rig = Rig::new(draft([endpoints("a", 1)]));
    assert_eq!(said(&rig.wildcard(Kind::Endpoints)), NOTHING);
}

#[test]
fn empty_world_is_answered_once_it_is_known() {
    let mut rig = Rig::new(incomplete([]));
    assert_eq!(said(&rig.wildcard(Kind::Listener)), NOTHING);
    assert_eq!(said(&rig.offer(draft([]))), ["LDS"]);
    assert_eq!(said(&rig.offer(draft([cluster("a", 1)]))), NOTHING);
}

#[test]
fn naming_one_more_keeps_a_legacy_wildcard() {
    let mut rig = Rig::new(draft([cluster("a", 1)]));
    let sent = rig.wildcard(Kind::Cluster);
    rig.settle(sent);
    let sent = rig.subscribe(Kind::Cluster, &["x"]);
    assert_eq!(said(&sent), ["CDS -x"]);
    assert_eq!(sent[0].not_found, ["x"]);
    rig.settle(sent);
    assert_eq!(said(&rig.offer(draft([cluster("a", 2), cluster("x", 1)]))), ["CDS +a +x"]);
}

#[test]
fn ending_the_wildcard_leaves_the_named() {
    let mut rig = Rig::new(draft([cluster("a", 1), cluster("b", 1)]));
    let sent = rig.subscribe(Kind::Cluster, &["*", "a"]);
    rig.settle(sent);
    rig.ask(Request { unsubscribe: strings(&["*"]), ..request(Kind::Cluster) });
    assert_eq!(said(&rig.offer(draft([cluster("a", 2), cluster("b", 2)]))), ["CDS +a"]);
}

#[test]
fn unsubscribing_under_a_wildcard_is_answered() {
    let mut rig = Rig::new(draft([cluster("a", 1)]));
    let sent = rig.subscribe(Kind::Cluster, &["*", "a", "x"]);
    rig.settle(sent);
    let unsubscribe = Request { unsubscribe: strings(&["a", "x", "phantom"]), ..request(Kind::Cluster) };
    assert_eq!(said(&rig.ask(unsubscribe)), ["CDS +a -x"]);
}

#[test]
fn subscribing_again_is_answered_again_at_once() {
    let mut rig = Rig::new(draft([endpoints("a", 1)]));
    assert_eq!(said(&rig.subscribe(Kind::Endpoints, &["a"])), ["EDS +a"]);
    // Not even the first answer is acknowledged.
    assert_eq!(said(&rig.subscribe(Kind::Endpoints, &["a"])), ["EDS +a"]);
}

#[test]
fn unknown_name_is_answered_once_and_remembered() {
    let mut rig = Rig::new(draft([]));
    let sent = rig.subscribe(Kind::Endpoints, &["a"]);
    assert_eq!(said(&sent), ["EDS -a"]);
    assert_eq!(sent[0].not_found, ["a"]);
    rig.settle(sent);
    assert_eq!(rig.state_of(Kind::Endpoints, "a"), ResourceState::Absent);
    assert_eq!(said(&rig.offer(draft([cluster("z", 1)]))), NOTHING);
    assert_eq!(said(&rig.offer(draft([endpoints("a", 1)]))), ["EDS +a"]);
}

#[test]
fn unknown_is_not_empty() {
    let mut rig = Rig::new(draft([endpoints("a", 1)]));
    let sent = rig.subscribe(Kind::Endpoints, &["a", "b"]);
    assert_eq!(said(&sent), ["EDS +a -b"]);
    rig.settle(sent);
    assert_eq!(said(&rig.offer(incomplete([endpoints("a", 1)]))), NOTHING);
    assert_eq!(said(&rig.subscribe(Kind::Endpoints, &["c"])), NOTHING, "unknown names wait");
    let sent = rig.offer(draft([]));
    assert_eq!(said(&rig.settle(sent)), ["EDS -c", "EDS -a"]);
}

#[test]
fn what_was_offered_and_is_no_longer_is_gone_although_others_are_unknown() {
    let mut rig = Rig::new(draft([endpoints("a", 1), endpoints("b", 1)]));
    let sent = rig.subscribe(Kind::Endpoints, &["a", "b"]);
    rig.settle(sent);
    assert_eq!(said(&rig.offer(incomplete([endpoints("b", 1)]))), ["EDS -a"]);
}

#[test]
fn secrets_have_no_wildcard() {
    let mut rig = Rig::new(draft([secret("leaf", 1)]));
    assert_eq!(said(&rig.subscribe(Kind::Secret, &["*"])), ["SDS -*"]);
}

#[test]
fn secret_is_answered_at_once_and_rotated_first() {
    let mut rig = Rig::new(draft([secret("leaf", 1), cluster("a", 1)]));
    rig.wildcard(Kind::Cluster);
    let sent = rig.subscribe(Kind::Secret, &["leaf"]);
    assert_eq!(said(&sent), ["SDS +leaf"]);
    rig.ack(&sent[0]);
    assert_eq!(said(&rig.offer(draft([secret("leaf", 2), cluster("a", 1)]))), ["SDS +leaf"]);
}

#[test]
fn pushes_coalesce_behind_an_unanswered_response() {
    let mut rig = Rig::new(draft([cluster("a", 1)]));
    let sent = rig.wildcard(Kind::Cluster);
    assert_eq!(said(&rig.offer(draft([cluster("a", 2)]))), NOTHING);
    assert_eq!(rig.state_of(Kind::Cluster, "a"), ResourceState::Waiting);
    assert_eq!(said(&rig.offer(draft([cluster("a", 3)]))), NOTHING);
    let sent = rig.ack(&sent[0]);
    assert_eq!(said(&sent), ["CDS +a"]);
    assert_eq!(said(&rig.ack(&sent[0])), NOTHING);
}

#[test]
fn stale_nonce_neither_acknowledges_nor_loses_a_subscription() {
    let mut rig = Rig::new(draft([endpoints("a", 1), endpoints("b", 1)]));
    rig.subscribe(Kind::Endpoints, &["a"]);
    let stale = Request { nonce: "9-9".into(), subscribe: strings(&["b"]), ..request(Kind::Endpoints) };
    assert_eq!(said(&rig.ask(stale)), ["EDS +b"]);
    assert_eq!(rig.state_of(Kind::Endpoints, "a"), ResourceState::Sent);
}

#[test]
fn what_was_given_up_is_not_sent_although_it_was_due() {
    let mut rig = Rig::new(draft([endpoints("a", 1), endpoints("b", 1)]));
    let sent = rig.subscribe(Kind::Endpoints, &["a", "b"]);
    assert_eq!(said(&rig.offer(draft([endpoints("a", 2), endpoints("b", 2)]))), NOTHING, "one is unanswered");
    let (nonce, unsubscribe) = (sent[0].nonce.clone(), strings(&["a"]));
    let answer = Request { nonce, unsubscribe, ..request(Kind::Endpoints) };
    assert_eq!(said(&rig.ask(answer)), ["EDS +b"]);
}

#[test]
fn unknown_type_is_noted_once_and_left_unanswered() {
    let mut rig = Rig::new(draft([]));
    let odd = Request { type_url: "type.googleapis.com/odd".into(), ..Request::default() };
    let first = rig.step(Event::Request(odd.clone()));
    assert!(matches!(&first[..], [Action::UnknownType(url)] if url.ends_with("odd")));
    assert!(rig.step(Event::Request(odd)).is_empty());
}

#[test]
fn nonces_never_repeat() {
    let mut rig = Rig::new(draft([endpoints("a", 1)]));
    let first = rig.subscribe(Kind::Endpoints, &["a"]);
    let second = rig.subscribe(Kind::Endpoints, &["a"]);
    assert_ne!(first[0].nonce, second[0].nonce);
}

#[test]
fn large_answers_are_split_and_all_parts_awaited() {
    let long = "n".repeat(4000);
    let many = (0..2500).map(|i| cluster(&format!("{long}{i:04}"), 1));
    let mut rig = Rig::new(draft(many));
    let sent = rig.wildcard(Kind::Cluster);
    assert!(sent.len() > 1);
    for response in &sent {
        // A resource on the wire has its name and version beside what is in it.
        let size =
            |e: &Arc<Entry>| e.any.len() + e.key.name.len() + e.version.to_string().len() + e.type_url.len();
        let bytes: usize = response.resources.iter().map(size).sum();
        assert!((1..MAX_RESPONSE_BYTES).contains(&bytes), "{bytes}");
    }
    assert_eq!(sent.iter().map(|r| r.resources.len()).sum::<usize>(), 2500);
    assert!(rig.offer(draft([cluster("a", 1)])).is_empty());
    let last = sent.iter().map(|r| said(&rig.ack(r)).len()).collect::<Vec<_>>();
    assert!(last[..last.len() - 1].iter().all(|n| *n == 0));
    assert_eq!(last[last.len() - 1], 1);
}

/// Over ADS all of it is one response.
#[test]
fn answers_are_split_by_their_size_in_the_client_s_own_form() {
    let token = Some("t".repeat(4000).into());
    let source = Source::Services { protocol: Protocol::Delta, cluster: "causeway".into(), token };
    let many = || draft((0..1500).map(|i| cluster(&format!("{i:04}"), 1)));
    assert_eq!(Rig::new(many()).wildcard(Kind::Cluster).len(), 1);
    let sent = Rig::new(many()).told(&source).wildcard(Kind::Cluster);
    let bytes =
        |response: &Response| response.resources.iter().map(|e| e.bytes(&source).len()).sum::<usize>();
    assert!(sent.iter().map(bytes).sum::<usize>() > MAX_RESPONSE_BYTES);
    for response in &sent {
        assert!((1..MAX_RESPONSE_BYTES).contains(&bytes(response)), "{}", bytes(response));
    }
    assert_eq!(sent.iter().map(|response| response.resources.len()).sum::<usize>(), 1500);
}

#[test]
fn renamed_listener_goes_and_comes_in_one_response() {
    let mut rig = Rig::new(draft([listener("old", 1, "")]));
    let sent = rig.wildcard(Kind::Listener);
    rig.settle(sent);
    assert_eq!(said(&rig.offer(draft([listener("new", 1, "")]))), ["LDS +new -old"]);
}

#[test]
fn actions_tell_of_acknowledgements() {
    let mut rig = Rig::new(draft([cluster("a", 1)]));
    let sent = rig.wildcard(Kind::Cluster);
    let nonce = sent[0].nonce.clone();
    let actions = rig.step(Event::Request(Request { nonce, ..request(Kind::Cluster) }));
    assert!(matches!(&actions[..], [Action::Acked { kind: Kind::Cluster, .. }]));
    assert!(responses(actions).is_empty());
}

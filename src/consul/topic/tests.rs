use http::{HeaderMap, StatusCode};

use super::*;

const ONE: &str =
    r#"[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"a","Service":"a","Port":80}}]"#;
const ALLOW: &str = r#"[{"SourceName":"a","DestinationName":"b","Action":"allow"}]"#;

fn filtered(topic: &Topic, body: &str) -> Outcome {
    let mut headers = HeaderMap::new();
    headers.insert("x-consul-results-filtered-by-acls", "true".parse().unwrap());
    let body = bytes::Bytes::copy_from_slice(body.as_bytes());
    outcome(topic, &Reply::recorded("GET".into(), StatusCode::OK, &headers, body))
}

fn denied(outcome: Outcome) -> Option<String> {
    match outcome {
        Outcome::Lost(Fault::Denied, reason) => Some(reason.to_string()),
        _ => None,
    }
}

#[test]
fn a_filtered_answer_is_unknown_where_its_rest_misleads() {
    let connect = Topic::Connect { dc: "dc1".into(), service: "a".into() };
    assert!(denied(filtered(&connect, "[]")).unwrap().contains("service:read"));
    assert!(matches!(filtered(&connect, ONE), Outcome::Heard(_, notes) if notes.len() == 1));
    let services = Topic::Services { dc: "dc1".into(), kind: None };
    assert!(denied(filtered(&services, "[]")).is_some());
    for body in ["[]", ALLOW] {
        let told = filtered(&Topic::Intentions, body);
        assert!(matches!(told, Outcome::Heard(_, notes) if notes[0].remedy.contains("intention:read")));
    }
}

#[test]
fn a_404_that_is_not_from_consul_is_no_answer() {
    let told = |topic: &Topic, index: Option<&str>, body: &'static str| {
        let headers = index.map(|index| ("x-consul-index".parse().unwrap(), index.parse().unwrap()));
        let headers = HeaderMap::from_iter(headers);
        let body = bytes::Bytes::from_static(body.as_bytes());
        outcome(topic, &Reply::recorded("GET".into(), StatusCode::NOT_FOUND, &headers, body))
    };
    let topics =
        [Topic::ProxyDefaults, Topic::ServiceDefaults("web".into()), Topic::Mesh, Topic::ExportedServices];
    for topic in &topics {
        for (index, body) in [(Some("7"), ""), (None, r#"Config entry not found for "mesh" / "mesh""#)] {
            assert!(matches!(told(topic, index, body), Outcome::Heard(..)), "{topic}");
        }
    }
    let registration = Topic::Registration("web-proxy".into());
    assert!(matches!(told(&registration, None, "unknown service ID: web-proxy"), Outcome::Heard(..)));
    for topic in topics.iter().chain([&registration]) {
        for body in ["404 page not found", "<title>404 Not Found</title>", ""] {
            assert!(denied(told(topic, None, body)).is_some(), "{topic}: {body}");
        }
    }
}

#[test]
fn only_what_another_datacenter_leaves_open_hangs() {
    let connect = |dc: &str| Topic::Connect { dc: dc.into(), service: "a".into() };
    let (here, error) = (
        Datacenter::from("dc1"),
        ClientError::Deadline { act: "GET".into(), deadline: Duration::from_secs(10) },
    );
    let fault = |topic: &Topic| match unanswered(topic, &error, Duration::from_secs(10), Some(&here)) {
        Outcome::Lost(fault, _) => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(fault(&connect("dc1")), Fault::Unreachable);
    assert_eq!(fault(&connect("dc2")), Fault::Hung);
    assert_eq!(fault(&Topic::Roots), Fault::Unreachable);
}

#[test]
fn a_prepared_query_is_executed_for_the_mesh() {
    let asked = question(&Topic::PreparedQuery { dc: "dc2".into(), query: "near/by".into() });
    assert_eq!(asked.path, "/v1/query/near%2Fby/execute");
    assert_eq!(asked.query, [("connect", "true".to_owned()), ("dc", "dc2".to_owned())]);
    assert_eq!(asked.follow, Follow::Every(QUERY_EVERY));
}

#[test]
fn every_kind_is_listed() {
    let (dc, service) = (Datacenter::from("dc1"), "web");
    let topics = [
        Topic::Agent,
        Topic::Registration("web".into()),
        Topic::Roots,
        Topic::Leaf(service.into()),
        Topic::Connect { dc: dc.clone(), service: service.into() },
        Topic::Health { dc: dc.clone(), service: service.into() },
        Topic::Services { dc: dc.clone(), kind: None },
        Topic::PreparedQuery { dc, query: "near".into() },
        Topic::Intentions,
        Topic::IntentionEntries,
        Topic::Datacenters,
        Topic::FederationStates,
        Topic::ProxyDefaults,
        Topic::ServiceDefaults(service.into()),
        Topic::Resolvers,
        Topic::Mesh,
        Topic::ExportedServices,
    ];
    let kinds: Vec<&str> = topics.iter().map(kind).chain(["chain", CENSUS]).collect();
    let listed: Vec<&str> = KINDS.into_iter().filter(|name| kinds.contains(name)).collect();
    assert_eq!((listed.len(), kinds.len()), (KINDS.len(), KINDS.len()));
}

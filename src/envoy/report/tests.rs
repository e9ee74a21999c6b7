use serde_json::json;

use super::*;
use crate::xds::{
    json,
    status::{Nack, ResourceStatus, StreamStatus, TypeStatus},
};

const TYPES: &str = "type.googleapis.com/envoy.admin.v3.";

/// What an Envoy answers: delta over ADS, with these sections' contents.
fn dump(clusters: Value, listeners: Value, routes: Value, secrets: Value) -> Value {
    let ads = json!({"dynamic_resources": {"ads_config": {"api_type": "DELTA_GRPC"}}});
    let section = |name: &str, mut fields: Value| {
        fields["@type"] = format!("{TYPES}{name}ConfigDump").into();
        fields
    };
    json!({"configs": [
        section("Bootstrap", json!({"bootstrap": ads})),
        section("Clusters", clusters),
        section("Endpoints", json!({})),
        section("Listeners", listeners),
        section("Routes", routes),
        section("Secrets", secrets),
    ]})
}

fn only_clusters(clusters: Value) -> Value {
    dump(clusters, json!({}), json!({}), json!({}))
}

fn actual(dump: &Value, statuses: Value) -> Actual {
    Actual::read(dump, &json!({"cluster_statuses": statuses})).unwrap()
}

fn wanted(kind: Kind, name: &str, version: &str, message: Value) -> Wanted {
    let message = json::from_json(kind.type_url(), &message).unwrap();
    Wanted { key: Key::new(kind, name), version: version.into(), message }
}

fn cluster(timeout: &str) -> Value {
    json!({"name": "db", "connect_timeout": timeout})
}

fn eds_cluster() -> Value {
    json!({"name": "db", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}})
}

fn in_use(version: &str, cluster: Value) -> Value {
    json!({"dynamic_active_clusters": [{"version_info": version, "cluster": cluster}]})
}

fn stream(kind: &str, name: &str, state: ResourceState, refusal: Option<&str>) -> StreamStatus {
    let last_nack =
        refusal.map(|words| Nack { message: words.into(), resources: vec![name.into()], at_ms: 1 });
    let resources = vec![ResourceStatus { name: name.into(), intended: None, sent: None, state }];
    let kind = kind.to_owned();
    let types = vec![TypeStatus {
        kind,
        resources,
        sent_at_ms: None,
        acked_at_ms: None,
        acks: 0,
        nacks: 0,
        last_nack,
    }];
    StreamStatus { stream: 1, proxy: "web".into(), envoy_version: None, connected_at_ms: 0, types }
}

fn compared(resources: Vec<Wanted>, streams: &[StreamStatus], actual: &Actual) -> Report {
    compare(&Intended::new("web", resources, streams, Vec::new()).unwrap(), actual)
}

fn told(report: &Report) -> Vec<(&str, &str, State)> {
    report.differences.iter().map(|it| (it.kind.short(), it.name.as_str(), it.state)).collect()
}

#[test]
fn what_is_equal_is_no_difference_whatever_the_spelling() {
    let spelt = json!({"@type": Kind::Cluster.type_url(), "name": "db", "connectTimeout": "5.000s", "lb_policy": "ROUND_ROBIN"});
    let actual = actual(&only_clusters(in_use("v1", spelt)), json!([]));
    let report = compared(vec![wanted(Kind::Cluster, "db", "v1", cluster("5s"))], &[], &actual);
    assert!(report.equal && report.compared == 1, "{report:#?}");
}

#[test]
fn the_same_under_another_version_is_told_as_that() {
    let actual = actual(&only_clusters(in_use("v1", cluster("5s"))), json!([]));
    let report = compared(vec![wanted(Kind::Cluster, "db", "v2", cluster("5s"))], &[], &actual);
    assert_eq!(told(&report), [("CDS", "db", State::Version)]);
}

#[test]
fn a_listener_that_was_updated_in_place_keeps_its_version() {
    let listener = json!({"name": "in"});
    let state = json!({"version_info": "v1", "listener": listener});
    let listeners = json!({"dynamic_listeners": [{"name": "in", "active_state": state}]});
    let actual = actual(&dump(json!({}), listeners, json!({}), json!({})), json!([]));
    assert!(compared(vec![wanted(Kind::Listener, "in", "v2", listener)], &[], &actual).equal);
}

#[test]
fn a_message_that_cannot_be_shown_is_compared_by_version() {
    let actual = actual(&only_clusters(in_use("v1", cluster("5s"))), json!([]));
    let of = |version: &str| Wanted {
        key: Key::new(Kind::Cluster, "db"),
        version: version.into(),
        message: Vec::new(),
    };
    assert!(compared(vec![of("v1")], &[], &actual).equal);
    assert_eq!(told(&compared(vec![of("v2")], &[], &actual)), [("CDS", "db", State::Different)]);
}

#[test]
fn a_difference_says_where_the_resource_stands() {
    let actual = actual(&only_clusters(in_use("v1", cluster("5s"))), json!([]));
    let streams = [stream("CDS", "db", ResourceState::Sent, None)];
    let report = compared(vec![wanted(Kind::Cluster, "db", "v2", cluster("7s"))], &streams, &actual);
    assert_eq!(told(&report), [("CDS", "db", State::Different)]);
    assert_eq!(report.differences[0].reason.as_deref(), Some("sent, not yet acknowledged"));
    let field =
        Field { path: "connect_timeout".into(), intended: Some("7s".into()), actual: Some("5s".into()) };
    assert_eq!(report.differences[0].fields, [field]);
}

#[test]
fn a_refusal_is_known_from_either_side() {
    let wanted = || vec![wanted(Kind::Cluster, "db", "v2", cluster("7s"))];
    let reason = |report: &Report| {
        assert_eq!(told(report), [("CDS", "db", State::Refused)]);
        report.differences[0].reason.clone().unwrap()
    };
    let mut clusters = in_use("v1", cluster("5s"));
    let without = actual(&only_clusters(clusters.clone()), json!([]));
    let told_now = [stream("CDS", "db", ResourceState::Rejected, Some("bad db"))];
    let forgotten = [stream("CDS", "db", ResourceState::Rejected, None)];
    assert_eq!(reason(&compared(wanted(), &told_now, &without)), "bad db");
    assert_eq!(reason(&compared(wanted(), &forgotten, &without)), "Envoy's words are in the agent's log");
    clusters["dynamic_active_clusters"][0]["error_state"] =
        json!({"details": "own words", "failed_configuration": cluster("7s")});
    let with = actual(&only_clusters(clusters.clone()), json!([]));
    assert_eq!(reason(&compared(wanted(), &[], &with)), "own words");
    // An older refusal of something else says nothing.
    clusters["dynamic_active_clusters"][0]["error_state"]["failed_configuration"] = cluster("9s");
    let other = actual(&only_clusters(clusters), json!([]));
    assert_eq!(told(&compared(wanted(), &[], &other)), [("CDS", "db", State::Different)]);
}

#[test]
fn a_listener_that_was_never_taken_is_refused_too() {
    let intended = json!({"name": "in", "address": {"pipe": {"path": "/a"}}});
    let error = json!({"details": "no filter chains", "failed_configuration": intended});
    let listeners = json!({"dynamic_listeners": [{"name": "in", "error_state": error}]});
    let actual = actual(&dump(json!({}), listeners, json!({}), json!({})), json!([]));
    let report = compared(vec![wanted(Kind::Listener, "in", "v1", intended)], &[], &actual);
    assert_eq!(told(&report), [("LDS", "in", State::Refused)]);
}

#[test]
fn a_secret_that_envoy_shows_and_refused_is_refused() {
    let secret = json!({"name": "roots", "validation_context": {"trusted_ca": {"inline_string": "x"}}});
    let listener = json!({"name": "in", "filter_chains": [{"transport_socket": {"name": "tls"}}]});
    let secrets =
        json!({"dynamic_active_secrets": [{"name": "roots", "version_info": "v1", "secret": secret}]});
    let listeners = json!({"dynamic_listeners": [{"name": "in", "active_state": {"version_info": "v1", "listener": listener}}]});
    let actual = actual(&dump(json!({}), listeners, json!({}), secrets), json!([]));
    let streams = [stream("SDS", "roots", ResourceState::Rejected, Some("no CA in it"))];
    let mut intended =
        Intended::new("web", [wanted(Kind::Secret, "roots", "v1", secret)], &streams, vec![]).unwrap();
    intended.named.insert(Key::new(Kind::Secret, "roots"));
    let report = compare(&intended, &actual);
    assert_eq!(told(&report)[0], ("SDS", "roots", State::Refused));
}

#[test]
fn endpoints_are_compared_with_the_hosts_in_use() {
    let of = |health: &str, weight: u32| {
        json!({"cluster_name": "db", "endpoints": [{"lb_endpoints": [{
            "endpoint": {"address": {"socket_address": {"address": "::1", "port_value": 1}}},
            "health_status": health, "load_balancing_weight": weight}]}]})
    };
    let host = json!({"address": {"socket_address": {"address": "::1", "port_value": 1}}, "weight": 1,
        "health_status": {"eds_health_status": "HEALTHY", "failed_outlier_check": true}});
    let gone =
        json!({"address": {"pipe": {"path": "/gone"}}, "health_status": {"pending_dynamic_removal": true}});
    let actual = actual(
        &only_clusters(in_use("v1", eds_cluster())),
        json!([{"name": "db", "host_statuses": [host, gone]}]),
    );
    let report = |health: &str, weight: u32| {
        let endpoints = wanted(Kind::Endpoints, "db", "v9", of(health, weight));
        compared(vec![wanted(Kind::Cluster, "db", "v1", eds_cluster()), endpoints], &[], &actual)
    };
    assert!(report("HEALTHY", 1).equal && report("UNKNOWN", 1).equal);
    let differs = report("UNHEALTHY", 2);
    assert_eq!(told(&differs), [("EDS", "db", State::Different)]);
    let paths: Vec<_> = differs.differences[0].fields.iter().map(|field| field.path.as_str()).collect();
    assert_eq!(paths, [r#"endpoints["[::1]:1"].health"#, r#"endpoints["[::1]:1"].weight"#]);
}

#[test]
fn endpoints_of_a_cluster_that_warms_are_warming() {
    let warming = json!({"dynamic_warming_clusters": [{"version_info": "v1", "cluster": eds_cluster()}]});
    let actual = actual(&only_clusters(warming), json!([]));
    let endpoints = wanted(Kind::Endpoints, "db", "v1", json!({"cluster_name": "db"}));
    let report = compared(vec![wanted(Kind::Cluster, "db", "v1", eds_cluster()), endpoints], &[], &actual);
    assert_eq!(told(&report), [("CDS", "db", State::Warming), ("EDS", "db", State::Warming)]);
}

#[test]
fn what_drains_and_what_only_drained_connections_use_is_no_difference() {
    let listeners =
        json!({"dynamic_listeners": [{"name": "old", "draining_state": {"listener": {"name": "old"}}}]});
    let routes = json!({"dynamic_route_configs": [{"version_info": "v1", "route_config": {"name": "old"}}]});
    let secrets = json!({"dynamic_active_secrets": [{"name": "old", "secret": {"name": "old"}}]});
    let actual = actual(&dump(json!({}), listeners, routes, secrets), json!([]));
    assert!(compared(vec![], &[], &actual).equal);
}

#[test]
fn no_secret_is_compared_or_shown() {
    let of = |key: &str, sni: &str| {
        let keys = json!([{"private_key": {"inline_string": key}}]);
        let context = json!({"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": sni, "common_tls_context": {"tls_certificates": keys}});
        json!({"name": "db", "transport_socket": {"name": "tls", "typed_config": context}})
    };
    let actual = actual(&only_clusters(in_use("v1", of("KEY", "a"))), json!([]));
    assert!(compared(vec![wanted(Kind::Cluster, "db", "v1", of("[redacted]", "a"))], &[], &actual).equal);
    let report = compared(vec![wanted(Kind::Cluster, "db", "v1", of("[redacted]", "b"))], &[], &actual);
    let [field] = &report.differences[0].fields[..] else { panic!("{report:#?}") };
    assert_eq!(field.path, "transport_socket.typed_config.sni");
    let missing = compared(vec![wanted(Kind::Cluster, "db", "v1", cluster("5s"))], &[], &actual);
    assert!(!serde_json::to_string(&missing).unwrap().contains("KEY"), "{missing:#?}");
}

#[test]
fn an_agent_that_does_not_know_all_yet_cannot_say_equal() {
    let intended = Intended::new("web", [], &[], vec!["connect/db".into()]).unwrap();
    let report = compare(&intended, &actual(&only_clusters(json!({})), json!([])));
    assert!(!report.equal && report.differences.is_empty());
    assert_eq!(report.waiting_for, ["connect/db"]);
}

#[test]
fn an_answer_without_its_sections_is_none() {
    let whole = only_clusters(json!({}));
    for section in 0..4 {
        let mut dump = whole.clone();
        dump["configs"].as_array_mut().unwrap().remove([0, 1, 3, 5][section]);
        let error = Actual::read(&dump, &json!({"cluster_statuses": []})).unwrap_err();
        assert!(error.to_string().contains("ConfigDump"), "{error}");
    }
    assert!(Actual::read(&whole, &json!({})).is_err() && Actual::read(&json!([]), &json!({})).is_err());
}

use std::collections::BTreeMap;

use super::*;
use crate::{
    model::mesh::TlsParams,
    xds::resource::{filter::RbacAction, secret::TlsSecrets},
};

const TCP: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

fn refusal(kind: CustomKind, text: &str) -> String {
    let Refused { problem, remedy } = CustomMessage::parse(kind, text).unwrap_err();
    format!("{problem}; {remedy}")
}

#[test]
fn two_spellings_of_one_message_are_equal() {
    let parse = |text| CustomMessage::parse(CustomKind::Cluster, text).unwrap();
    let snake = parse(r#"{"name":"a","connect_timeout":"5s","type":"STATIC"}"#);
    let camel = parse(
        r#"{"type":0,"connectTimeout":"5.000s","@type":"type.googleapis.com/envoy.config.cluster.v3.Cluster","name":"a"}"#,
    );
    assert_eq!(snake, camel);
    assert_eq!(snake.json().to_string(), camel.json().to_string());
}

#[test]
fn what_is_of_v2_is_refused_with_what_to_write_instead() {
    let told = [
        refusal(
            CustomKind::Cluster,
            r#"{"name":"a","hosts":[{"socketAddress":{"address":"1.1.1.1","portValue":1}}]}"#,
        ),
        refusal(CustomKind::Cluster, r#"{"name":"a","tlsContext":{}}"#),
        refusal(
            CustomKind::Listener,
            r#"{"name":"a","filter_chains":[{"filters":[{"name":"envoy.tcp_proxy","config":{}}]}]}"#,
        ),
        refusal(CustomKind::Listener, r#"{"@type":"type.googleapis.com/envoy.api.v2.Listener","name":"a"}"#),
        refusal(CustomKind::Cluster, r#"{"name":"a","no_such_field":1}"#),
        refusal(CustomKind::Cluster, r#"{"@type":"type.googleapis.com/envoy.config.listener.v3.Listener"}"#),
        refusal(CustomKind::Cluster, "{"),
    ];
    let parts = [
        "`hosts`; write `load_assignment`",
        "`tls_context`; write `transport_socket`",
        "`config`; write `typed_config`",
        "the type envoy.api.v2.Listener; write a type of envoy.config.<cluster, listener or route>.v3",
        "no_such_field",
        "write one of the type type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "is no JSON",
    ];
    for (told, part) in told.iter().zip(parts) {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn what_a_listener_names_is_found() {
    let text = format!(
        r#"{{"name":"l","address":{{"socket_address":{{"address":"127.0.0.1","port_value":80}}}},
        "filter_chains":[{{"filters":[{{"name":"tcp","typed_config":{{"@type":"{TCP}","stat_prefix":"x",
        "weighted_clusters":{{"clusters":[{{"name":"a","weight":1}},{{"name":"b","weight":1}}]}}}}}}]}},
        {{"filters":[{{"name":"tcp","typed_config":{{"@type":"{TCP}","stat_prefix":"x","cluster":"c"}}}}]}}]}}"#
    );
    let listener = CustomListener::parse(&text, None).unwrap();
    assert_eq!(listener.address, Address::from(SocketAddr::from(([127, 0, 0, 1], 80))));
    let mut refs = BTreeSet::new();
    listener.refers_to(&mut refs);
    let clusters = ["a", "b", "c"].map(|name| Key::new(Kind::Cluster, name));
    assert_eq!(refs, BTreeSet::from(clusters));
}

#[test]
fn a_cluster_that_asks_the_agent_for_endpoints_names_them() {
    let cluster = CustomCluster::parse(
        r#"{"name":"a","type":"EDS","eds_cluster_config":{"service_name":"b","eds_config":{"ads":{}}}}"#,
        None,
    )
    .unwrap();
    assert_eq!(cluster.endpoints_name(), Some("b"));
    let fixed = r#"{"name":"a","load_assignment":{"cluster_name":"a","endpoints":[{}]}}"#;
    let mut refs = BTreeSet::new();
    CustomCluster::parse(fixed, None).unwrap().refers_to(&mut refs);
    assert_eq!(refs, BTreeSet::new());
}

const GUARDED: &str = r#"{"name":"mine","address":{"socket_address":{"address":"127.0.0.1","port_value":80}},
    "filter_chains":[{"filters":[{"name":"http","typed_config":{
    "@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "stat_prefix":"x",ROUTES}}]}]}"#;

fn guarded(routes: &str) -> Result<CustomListener, Refused> {
    let guard = Guard {
        tls: DownstreamTls {
            secrets: TlsSecrets { leaf: "leaf".into(), roots: "roots".into() },
            alpn: Vec::new(),
            params: TlsParams::default(),
        },
        rbac: Rbac { stat_prefix: "x".into(), action: RbacAction::Allow, policies: BTreeMap::new() },
        max_connections: None,
    };
    CustomListener::parse(&GUARDED.replace("ROUTES", routes), Some(guard))
}

#[test]
fn what_switches_intentions_off_is_refused_at_every_level() {
    let off = r#""typed_per_filter_config":{"envoy.filters.http.rbac":{
        "@type":"type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute"}}"#;
    let disabled = r#""typedPerFilterConfig":{"envoy.filters.http.rbac":{
        "@type":"type.googleapis.com/envoy.config.route.v3.FilterConfig","disabled":true}}"#;
    let weighted = r#""route":{"weighted_clusters":{"clusters":[{"name":"local_app","weight":1,OFF}]}}"#;
    let routes = [
        r#""route_config":{OFF}"#.to_owned(),
        r#""route_config":{"virtual_hosts":[{"name":"a","domains":["*"],OFF}]}"#.to_owned(),
        r#""route_config":{"virtual_hosts":[{"name":"a","domains":["*"],"routes":[{"match":{"prefix":"/"},
            "route":{"cluster":"local_app"},OFF}]}]}"#
            .to_owned(),
        format!(
            r#""route_config":{{"virtual_hosts":[{{"name":"a","domains":["*"],"routes":[{{"match":{{"prefix":"/"}},{weighted}}}]}}]}}"#
        ),
    ];
    for (routes, off) in routes.iter().flat_map(|routes| [(routes, off), (routes, disabled)]) {
        let refused = guarded(&routes.replace("OFF", off)).unwrap_err();
        assert!(refused.problem.contains("typed_per_filter_config"), "{routes}: {refused:?}");
        let other = off.replace("http.rbac\":", "http.lua\":");
        assert!(guarded(&routes.replace("OFF", &other)).is_ok(), "{routes}");
    }
}

#[test]
fn routes_from_elsewhere_are_refused_where_intentions_hold() {
    let fetched = [
        r#""rds":{"route_config_name":"a","config_source":{"ads":{}}}"#,
        r#""scopedRoutes":{"name":"a","scoped_rds":{"scoped_rds_config_source":{"ads":{}}}}"#,
        r#""route_config":{"vhds":{"config_source":{"ads":{}}}}"#,
    ];
    for routes in fetched {
        let refused = guarded(routes).unwrap_err();
        assert!(refused.problem.contains("fetches its routes"), "{routes}: {refused:?}");
        assert!(CustomListener::parse(&GUARDED.replace("ROUTES", routes), None).is_ok(), "{routes}");
    }
}

#[test]
fn no_refusal_shows_a_private_key() {
    const KEY: &str = "-----BEGIN PRIVATE KEY----- MIIE";
    let texts = [
        format!(r#"{{"name":"a","@type":"{KEY}"}}"#),
        format!(r#"{{"name":"a","@type":{{"key":"{KEY}"}}}}"#),
        format!(r#"{{"name":"a","type":"{KEY}"}}"#),
        format!(r#"{{"name":"a","connect_timeout":"{KEY}"}}"#),
        format!(r#"{{"name":"a","load_assignment":"{KEY}"}}"#),
        format!(r#"{{"name":"a","{KEY}":1}}"#),
        format!(r#"{{"name":"a","{KEY}"#),
        format!(
            r#"{{"name":"a","transport_socket":{{"name":"tls","typed_config":{{
            "@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context":{{"tls_certificates":[{{"private_key":"{KEY}"}}]}}}}}}}}"#
        ),
        format!(r#"{{"name":"a","transport_socket":{{"name":"tls","typed_config":{{"@type":"{KEY}"}}}}}}"#),
    ];
    for text in texts {
        let told = refusal(CustomKind::Cluster, &text);
        assert!(!told.contains("PRIVATE") && !told.contains("MIIE"), "{text}: {told}");
    }
}

//! Recorded answers in, typed topics out.

mod proxies;

use std::{fs, path::Path};

use super::*;
use crate::model::{
    agent::DefaultPolicy,
    chain::{ChainNode, ChainRequest, GatewayMode, Protocol},
    instance::{Health, HostPort, ServiceKind},
    intention::{Action, Party},
    name::{Datacenter, ServiceName},
    registration::{LocalAddress, UpstreamId, UpstreamKind},
};

fn recorded(name: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/consul-1.8.7").join(name);
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn the_agent_tells_its_datacenter_and_policy() {
    let (facts, notes) = agent::agent(&recorded("agent-self.json"), None).unwrap();
    assert_eq!(facts.datacenter.as_str(), "primary");
    assert_eq!(facts.primary_datacenter.unwrap().as_str(), "primary");
    assert_eq!((facts.domain.as_str(), facts.version.as_str()), ("consul", "1.8.7"));
    assert_eq!(facts.default_policy, DefaultPolicy::Allow);
    assert!(!facts.acls_enabled && !facts.translates_wan_addresses);
    assert_eq!(notes, []);
}

#[test]
fn an_unreadable_policy_is_told_from_deny() {
    let body = br#"{"Config":{"Datacenter":"dc1","NodeName":"n"},"DebugConfig":{"ACLsEnabled":true}}"#;
    let (facts, notes) = agent::agent(body, None).unwrap();
    assert_eq!((facts.default_policy, notes), (DefaultPolicy::Unreadable, vec![]));
    let (facts, notes) = agent::agent(body, Some("deny")).unwrap();
    assert_eq!((facts.default_policy, notes), (DefaultPolicy::Deny, vec![]));
}

#[test]
fn roots_are_all_trusted() {
    let (roots, notes) = ca::roots(&recorded("roots.json")).unwrap();
    assert_eq!(notes, []);
    assert!(roots.trust_domain.as_str().ends_with(".consul"));
    assert_eq!(roots.pem.len(), 1);
}

#[test]
fn an_empty_trust_domain_is_unknown() {
    let body = br#"{"ActiveRootID":"","TrustDomain":"","Roots":null}"#;
    assert!(matches!(ca::roots(body), Err(WireError::NotReady(_))));
}

#[test]
fn a_leaf_has_each_certificate_once_and_hides_its_key() {
    let mut wire: serde_json::Value = serde_json::from_slice(&recorded("leaf-dashboard.json")).unwrap();
    let (once, _) = ca::leaf(&recorded("leaf-dashboard.json"), &ServiceName::from("dashboard")).unwrap();
    let pem = wire["CertPEM"].as_str().unwrap().to_owned();
    wire["CertPEM"] = format!("{pem}{}", pem.trim_end()).into();
    let (twice, _) = ca::leaf(wire.to_string().as_bytes(), &ServiceName::from("dashboard")).unwrap();
    assert_eq!(once, twice);
    assert_eq!(once.valid_before_s, 1_795_490_710);
    assert!(!format!("{once:?}").contains("PRIVATE"));
    let garbage = br#"{"CertPEM":"x","PrivateKeyPEM":["hush"]}"#;
    assert!(!format!("{:?}", ca::leaf(garbage, &ServiceName::from("a"))).contains("hush"));
}

#[test]
fn a_chain_with_subset_and_failover_is_read() {
    let (chain, notes) = chain::chain(&recorded("chain-counting.json")).unwrap();
    assert_eq!(notes, []);
    assert_eq!((chain.protocol, chain.customization_hash.as_deref()), (Protocol::Http, None));
    let (resolver, target) = chain.single().unwrap();
    assert_eq!((resolver.connect_timeout_ms, resolver.is_default), (7000, false));
    assert_eq!(resolver.failover.len(), 2);
    assert_eq!(target.subset.as_ref().unwrap().name, "v2");
    assert!(target.subset.as_ref().unwrap().only_passing);
    assert_eq!(target.gateway_mode, GatewayMode::None);
    let failover = &chain.targets[&resolver.failover[0]];
    assert_eq!((failover.datacenter.as_str(), failover.gateway_mode), ("secondary", GatewayMode::Remote));
}

#[test]
fn overrides_customize_a_chain() {
    let request = ChainRequest {
        service: "counting".into(),
        datacenter: "secondary".into(),
        gateway_mode: Some(GatewayMode::Local),
        protocol: Some(Protocol::Tcp),
        connect_timeout_ms: Some(2000),
    };
    assert_eq!(
        chain::question(&request).to_string(),
        r#"{"OverrideConnectTimeout":"2000ms","OverrideMeshGateway":{"Mode":"local"},"OverrideProtocol":"tcp"}"#
    );
    let (chain, notes) = chain::chain(&recorded("chain-counting-remote.json")).unwrap();
    assert_eq!(notes, []);
    assert_eq!(chain.customization_hash.as_deref(), Some("7a7be31b"));
    let (resolver, target) = chain.single().unwrap();
    assert_eq!((resolver.connect_timeout_ms, target.gateway_mode), (2000, GatewayMode::Local));
}

#[test]
fn routers_and_defaults_are_told_apart() {
    let (chain, _) = chain::chain(&recorded("chain-split.json")).unwrap();
    assert_eq!(chain.nodes[&chain.start], ChainNode::Router);
    assert_eq!((chain.nodes.len(), chain.single()), (4, None));
    let (chain, _) = chain::chain(&recorded("chain-dashboard.json")).unwrap();
    let (resolver, target) = chain.single().unwrap();
    assert!(resolver.is_default && target.subset.is_none());
    assert_eq!(chain.protocol, Protocol::Tcp);
}

#[test]
fn instances_have_both_addresses_and_their_worst_health() {
    let (found, notes) = instance::instances(&recorded("connect-counting.json")).unwrap();
    assert_eq!(notes, []);
    let [sidecar] = &found[..] else { panic!("one instance") };
    assert_eq!(
        (&sidecar.lan, &sidecar.wan),
        (&HostPort::new("127.50.0.21", 20000), &HostPort::new("203.0.113.7", 20001))
    );
    assert_eq!((sidecar.health, sidecar.kind), (Health::Warning, ServiceKind::ConnectProxy));
    let (found, _) = instance::instances(&recorded("health-legacy.json")).unwrap();
    assert_eq!(
        (&found[0].lan, &found[0].wan),
        (&HostPort::new("127.50.0.40", 5432), &HostPort::new("198.51.100.40", 5432))
    );
    assert_eq!(found[0].health, Health::Critical);
    assert_eq!(instance::instances(&recorded("health-none.json")).unwrap(), (vec![], vec![]));
    assert_eq!(instance::instances(b"null").unwrap(), (vec![], vec![]));
}

#[test]
fn an_impossible_instance_hides_no_other() {
    let mut wire: Vec<serde_json::Value> =
        serde_json::from_slice(&recorded("connect-counting.json")).unwrap();
    for (field, value) in [
        ("Port", serde_json::json!(0)),
        ("Port", serde_json::json!(65536)),
        ("Port", serde_json::json!("http")),
        ("Service", serde_json::json!("a/b")),
        ("Service", serde_json::json!("a\nb")),
        ("ID", serde_json::json!("")),
        ("Address", serde_json::json!("10.0.0.300")),
    ] {
        let mut bad = wire[0].clone();
        bad["Service"][field] = value;
        wire.push(bad);
    }
    wire.push(serde_json::json!("nonsense"));
    let (found, notes) = instance::instances(serde_json::to_string(&wire).unwrap().as_bytes()).unwrap();
    assert_eq!((found.len(), notes.len()), (1, 8), "{notes:#?}");
    assert!(notes.iter().all(|note| !note.remedy.is_empty() && !note.to_string().contains('\n')));
}

#[test]
fn gateways_of_all_datacenters_are_read() {
    let (states, notes) = instance::federation_states(&recorded("federation-states.json")).unwrap();
    assert_eq!(notes, []);
    let gateways = &states[&Datacenter::from("primary")];
    assert_eq!(gateways[0].wan, HostPort::new("198.51.100.1", 8443));
    assert_eq!(gateways[0].modify_index, 21);
}

#[test]
fn service_names_come_with_their_kinds() {
    let (all, _) = services::services(&recorded("services.json"), None).unwrap();
    assert_eq!(all[&ServiceName::from("counting")], ServiceKind::Typical);
    assert_eq!(all[&ServiceName::from("counting-sidecar-proxy")], ServiceKind::ConnectProxy);
    let (gateways, _) =
        services::services(&recorded("services-gateway.json"), Some(ServiceKind::MeshGateway)).unwrap();
    assert_eq!(gateways.len(), 1);
    let (dcs, notes) = services::datacenters(br#"["dc1","a/b",7]"#).unwrap();
    assert_eq!((dcs.len(), notes.len()), (1, 2));
    assert_eq!(services::datacenters(&recorded("datacenters.json")).unwrap().0.len(), 1);
}

#[test]
fn intentions_are_read_from_both_sources() {
    let (found, notes) = intention::intentions(&recorded("intentions.json")).unwrap();
    assert_eq!(notes, []);
    let allow = found.iter().find(|i| i.action == Action::Allow).unwrap();
    assert_eq!(allow.source, Party::Service("dashboard".into()));
    let deny = found.iter().find(|i| i.action == Action::Deny).unwrap();
    assert_eq!((&deny.source, &deny.destination), (&Party::AnyService, &Party::AnyService));

    let body = br#"[{"Kind":"service-intentions","Name":"api","Sources":[
        {"Name":"web","Namespace":"default","Action":"allow","Precedence":9,"Type":"consul"},
        {"Name":"l7","Permissions":[{"Action":"allow","HTTP":{"PathPrefix":"/"}}]},
        {"Name":"far","Peer":"p","Action":"allow"},{"Name":"*","Action":"deny"}]}]"#;
    let (found, notes) = intention::intention_entries(body).unwrap();
    let actions: Vec<_> = found.iter().map(|i| i.action).collect();
    assert_eq!(actions, [Action::Inexpressible, Action::Allow, Action::Deny]);
    assert_eq!(notes.len(), 1, "{notes:#?}");
    let body = br#"[{"SourceNS":"*","SourceName":"*","DestinationNS":"default","DestinationName":"*","Action":"deny"}]"#;
    assert_eq!(intention::intentions(body).unwrap().0[0].source, Party::Anything);
}

#[test]
fn an_intention_that_is_not_understood_never_opens() {
    let rule = |rest: &str| format!(r#"{{"DestinationName":"web",{rest}}}"#);
    let read = |rules: &[String]| intention::intentions(format!("[{}]", rules.join(",")).as_bytes());
    let (found, notes) = read(&[
        rule(r#""SourceName":"shape","Action":7"#),
        rule(r#""SourceName":"jobs","Permissions":"all","Action":"allow""#),
        rule(r#""SourceSamenessGroup":"g","Action":"deny""#),
        rule(r#""SourceSamenessGroup":"g","Action":"allow""#),
        rule(r#""SourceName":"far","SourcePeer":"p","Action":"deny""#),
        rule(r#""SourceName":"a","SourceNS":"team","Action":"allow""#),
        r#"{"SourceName":"a","DestinationName":"b","DestinationNS":"team","Action":"deny"}"#.to_owned(),
    ])
    .unwrap();
    let kept: Vec<_> = found.iter().map(|i| (i.source.clone(), i.action)).collect();
    let denied = |source| (source, Action::Inexpressible);
    let expected =
        [Party::Service("jobs".into()), Party::Service("shape".into()), Party::AnyService].map(denied);
    assert_eq!((kept.as_slice(), notes.len()), (&expected[..], 7), "{notes:#?}");
    for illegible in [
        rule(r#""SourceName":"a","SourceNS":"team","Action":"deny""#),
        rule(r#""SourceName":"a/b","Action":"deny""#),
        rule(r#""SourceName":7,"Action":"allow""#),
        rule(r#""SourceName":"a/b","Action":7"#),
        r#""text""#.to_owned(),
    ] {
        assert!(matches!(read(std::slice::from_ref(&illegible)), Err(WireError::Shape(_))), "{illegible}");
    }
    for body in [r#"[{"Name":"web","Sources":["text"]}]"#, r#"[{"Name":7}]"#] {
        assert!(matches!(intention::intention_entries(body.as_bytes()), Err(WireError::Shape(_))), "{body}");
    }
}

#[test]
fn a_list_of_nothing_usable_is_no_empty_list() {
    for body in [r#"[{"Name":"a/b"}]"#, "[7]"] {
        assert!(matches!(services::services(body.as_bytes(), None), Err(WireError::Shape(_))), "{body}");
    }
    assert!(matches!(services::datacenters(br#"["a/b"]"#), Err(WireError::Shape(_))));
    let bad = r#"{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"a","Service":"a","Port":0}}"#;
    let error = instance::instances(format!("[{bad}]").as_bytes()).unwrap_err();
    assert!(error.to_string().contains("the port 0"), "{error}");
    assert!(instance::federation_states(format!(r#"{{"dc1":[{bad}]}}"#).as_bytes()).is_err());
    assert_eq!(instance::federation_states(br#"{"dc1":[]}"#).unwrap().0.len(), 1);
}

#[test]
fn imported_services_are_not_of_this_datacenter() {
    let (found, notes) = services::services(br#"[{"Name":"a","PeerName":"p"}]"#, None).unwrap();
    assert_eq!((found.len(), notes.len()), (0, 0));
}

#[test]
fn addresses_are_taken_as_consul_takes_them() {
    let read = |service: &str| {
        let body = format!(
            r#"[{{"Node":{{"Node":"n","Address":"10.0.0.1","TaggedAddresses":{{"lan":"10.0.0.2","wan":"192.0.2.1"}}}},
            "Service":{{"ID":"a","Service":"a","Port":80{service}}}}}]"#
        );
        let (mut found, notes) = instance::instances(body.as_bytes()).unwrap();
        let found = found.remove(0);
        (found.lan.to_string(), found.wan.to_string(), notes.len())
    };
    let is = |lan: &str, wan: &str, notes| (lan.to_owned(), wan.to_owned(), notes);
    assert_eq!(read(""), is("10.0.0.1:80", "192.0.2.1:80", 0));
    let tagged = r#","Address":"10.0.0.9","TaggedAddresses":{"lan":{"Address":"10.0.0.3","Port":81},"wan":"#;
    assert_eq!(
        read(&format!(r#"{tagged}{{"Address":"192.0.2.9","Port":82}}}}"#)),
        is("10.0.0.9:80", "192.0.2.9:82", 0)
    );
    assert_eq!(
        read(&format!(r#"{tagged}{{"Address":"192.0.2.900","Port":82}}}}"#)),
        is("10.0.0.9:80", "10.0.0.9:80", 1)
    );
    assert_eq!(
        read(&format!(r#"{tagged}{{"Address":"192.0.2.9","Port":70000}}}}"#)),
        is("10.0.0.9:80", "10.0.0.9:80", 1)
    );
}

#[test]
fn what_is_not_built_is_noted() {
    let chain = |timeout: &str, node: &str| {
        let body = format!(
            r#"{{"Chain":{{"ServiceName":"a","Datacenter":"dc1","StartNode":"r","Targets":{{"t":{{"Service":"a","SNI":"s","Name":"n"}}}},
            "Nodes":{{"r":{{"Type":"resolver","Resolver":{{"Target":"t","RequestTimeout":{timeout}}}{node}}}}}}}}}"#
        );
        let (chain, notes) = chain::chain(body.as_bytes()).unwrap();
        assert!(chain.single().is_some());
        notes.len()
    };
    assert_eq!(chain(r#""0s""#, ""), 0);
    assert_eq!(chain("3000000000", r#","LoadBalancer":{"Policy":"maglev"}"#), 0);
    assert_eq!(chain(r#""soon""#, r#","LoadBalancer":{"Policy":"nearest"}"#), 2);
    let hashed = r#","LoadBalancer":{"Policy":"ring_hash","HashPolicies":[{"SourceIP":true}],"RingHashConfig":{"MinimumRingSize":9}}"#;
    assert_eq!(chain(r#""3s""#, hashed), 1);
    assert_eq!(chain(r#""3s""#, &hashed.replace("Minimum", "Maximum")), 2, "Envoy's minimum is larger");
    let (_, notes) = defaults::defaults(
        br#"{"Kind":"service-defaults","Name":"a","Expose":{"Checks":true},"MutualTLSMode":"permissive",
        "EnvoyExtensions":[{"Name":"x"}],"RateLimits":{"InstanceLevel":{"RequestsPerSecond":1}},"MaxInboundConnections":9}"#,
    )
    .unwrap();
    assert_eq!(notes.len(), 4, "{notes:#?}");
    let plain =
        br#"{"Kind":"service-defaults","Name":"a","Expose":{},"MutualTLSMode":"strict","RateLimits":null,
        "EnvoyExtensions":[],"MaxInboundConnections":0,"Meta":{"x":"y"}}"#;
    assert_eq!(defaults::defaults(plain).unwrap().1, []);
}

#[test]
fn central_defaults_are_read() {
    let (defaults, _) = defaults::defaults(&recorded("proxy-defaults.json")).unwrap();
    assert_eq!(defaults.gateway_mode, Some(GatewayMode::Local));
    assert_eq!(defaults.settings.text("protocol"), Some("tcp"));
    let (defaults, _) = defaults::defaults(&recorded("service-defaults-counting.json")).unwrap();
    assert_eq!(
        (defaults.protocol.as_deref(), defaults.gateway_mode),
        (Some("http"), Some(GatewayMode::Remote))
    );
}

#[test]
fn garbage_is_an_error_and_no_panic() {
    for body in [&b"<html>"[..], b"", b"[1", b"{}", b"\xff\xfe"] {
        assert!(instance::instances(body).is_err());
        assert!(chain::chain(body).is_err());
        assert!(registration::registration(body).is_err());
        assert!(agent::agent(body, None).is_err());
    }
}

#[test]
fn a_prepared_query_tells_who_answers_and_where() {
    let node = |service: &str| {
        format!(
            r#"{{"Node":{{"Node":"n","Address":"10.0.0.1"}},"Service":{{"ID":"a","Port":80,{service}}},"Checks":null}}"#
        )
    };
    let sidecar =
        node(r#""Kind":"connect-proxy","Service":"a-proxy","Proxy":{"DestinationServiceName":"a"}"#);
    let native = node(r#""Service":"b","Connect":{"Native":true}"#);
    let neither = node(r#""Service":"c","Connect":{},"Proxy":{}"#);
    let read = |body: String| query::result(body.as_bytes(), &"dc1".into());
    let (result, notes) =
        read(format!(r#"{{"Datacenter":"dc2","Failovers":1,"Nodes":[{sidecar},{native},{neither}]}}"#))
            .unwrap();
    let services: Vec<&str> = result.services.iter().map(ServiceName::as_str).collect();
    assert_eq!((result.datacenter.as_str(), services, result.instances.len()), ("dc2", vec!["a", "b"], 2));
    assert!(notes.len() == 1 && notes[0].about.contains("service c"), "{notes:?}");
    let (nothing, notes) = read(r#"{"Nodes":null}"#.into()).unwrap();
    assert!(nothing.instances.is_empty() && nothing.datacenter.as_str() == "dc1" && notes.is_empty());
    for useless in
        [format!(r#"{{"Nodes":[{neither}]}}"#), "{}".into(), r#"{"Nodes":[],"Datacenter":"a/b"}"#.into()]
    {
        assert!(read(useless.clone()).is_err(), "{useless}");
    }
}

#[test]
fn central_settings_of_upstreams_are_read_one_by_one() {
    let body = br#"{"Kind":"service-defaults","Name":"web","MaxInboundConnections":9,"LocalConnectTimeoutMs":0,
        "UpstreamConfig":{"Defaults":{"MeshGateway":{"Mode":"local"},"ConnectTimeoutMs":700},
        "Overrides":[{"Name":"api","Limits":{"MaxConnections":0}},{"Name":"a/b"},{"Name":"far","Peer":"p"},7]}}"#;
    let (defaults, notes) = defaults::defaults(body).unwrap();
    assert_eq!(notes.len(), 2, "{notes:#?}");
    assert_eq!(defaults.settings.number("max_inbound_connections"), Some(9));
    assert!(!defaults.settings.has("local_connect_timeout_ms"), "zero is Consul's way of not saying");
    let upstreams = defaults.upstreams;
    assert_eq!(upstreams.all.gateway_mode, Some(GatewayMode::Local));
    assert_eq!(upstreams.all.settings.number("connect_timeout_ms"), Some(700));
    let names: Vec<&str> = upstreams.by_service.keys().map(ServiceName::as_str).collect();
    assert_eq!(names, ["api"]);
    let limits = upstreams.by_service.values().next().unwrap().settings.section("limits").unwrap();
    assert_eq!(limits.number("max_connections"), Some(0), "a limit of zero is one");
}

#[test]
fn a_mesh_entry_is_read_and_its_absence_is_an_answer() {
    use crate::model::mesh::{MeshDefaults, TlsVersion};
    let body = br#"{"Kind":"mesh","TransparentProxy":{},"TLS":{"Incoming":{"TLSMinVersion":"TLSv1_3"},"Outgoing":null},
        "HTTP":{"SanitizeXForwardedClientCert":true}}"#;
    let (entry, notes) = mesh::mesh(body).unwrap();
    assert_eq!(notes, []);
    assert!(entry.hides_callers && entry.incoming.min == TlsVersion::V1_3);
    assert_eq!(entry.outgoing, MeshDefaults::default().outgoing);
    assert!(mesh::mesh(b"{}").is_err());
}

#[test]
fn exported_services_are_read_for_their_note() {
    let body = br#"{"Kind":"exported-services","Name":"default","Services":[{"Name":"web","Consumers":[{"Peer":"west"}]}]}"#;
    let (names, notes) = exported::exported_services(body).unwrap();
    assert_eq!((names.len(), notes.len()), (1, 1));
    let emptied = br#"{"Kind":"exported-services","Name":"default","Services":null}"#;
    assert_eq!(exported::exported_services(emptied).unwrap().1, []);
    assert!(exported::exported_services(b"{}").is_err());
}

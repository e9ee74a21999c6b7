use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::{
    agent::{AgentFacts, DefaultPolicy},
    ca::Roots,
    catalog::{Catalog, Heard, Topics},
    chain::{Balance, Chain, ChainNode, ChainRequest, GatewayMode, Protocol, Resolver, Subset, Target},
    instance::{Health, HostPort, Instance, ServiceKind, Weights},
    intention::{Action, Intention, Party},
    mesh::{MeshDefaults, TlsParams, TlsVersion},
    query::QueryResult,
    registration::{
        Defaults, Destination, ExposedId, ExposedPath, LocalAddress, Registration, UnixSocket, Unread,
        Upstream, UpstreamConfig, UpstreamDefaults, UpstreamId, UpstreamKind,
    },
    resolver::ServiceResolver,
    settings::Settings,
};

const KEY: &str = "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n";

fn note() -> Note {
    Note::new("upstream \"a\"\n", "is odd", "mend it")
}

fn settings() -> Settings {
    let serde_json::Value::Object(map) =
        json!({"a": [1, -2, 0.5, 1e300, null, {"": "\u{0}\u{7f}é\n"}], "b": 18_446_744_073_709_551_615_u64})
    else {
        panic!("an object")
    };
    Settings(map.into_iter().collect())
}

fn instance(host: &str) -> Instance {
    Instance {
        node: "n".into(),
        id: "web-1".into(),
        service: "web".into(),
        kind: ServiceKind::ConnectProxy,
        lan: HostPort::new(host, 80),
        wan: HostPort::new("::1", 65_535),
        health: Health::Warning,
        weights: Weights { passing: 10, warning: 1 },
        meta: BTreeMap::from([("k".into(), "v".into())]),
        entry: Arc::new(
            json!({"Node": {"Meta": {"a": "b"}}, "Service": {}, "Checks": [{"Status": "warning"}]}),
        ),
        modify_index: u64::MAX,
    }
}

fn agent() -> AgentFacts {
    AgentFacts {
        datacenter: "dc1".into(),
        primary_datacenter: Some("dc0".into()),
        node: "vm".into(),
        domain: "consul".into(),
        version: "1.8.7".into(),
        acls_enabled: true,
        default_policy: DefaultPolicy::Unreadable,
        translates_wan_addresses: true,
    }
}

fn registration() -> Registration {
    let socket = UnixSocket { path: "@abstract".into(), mode: Some(0o600) };
    let upstream = |destination, bind| Upstream {
        id: UpstreamId { destination, datacenter: Some("dc2".into()) },
        bind,
        gateway_mode: Some(GatewayMode::Local),
        settings: settings(),
    };
    Registration {
        id: "p".into(),
        service: "web-sidecar-proxy".into(),
        kind: ServiceKind::ConnectProxy,
        address: String::new(),
        port: 21_000,
        tagged: BTreeMap::from([("wan".into(), HostPort::new("gw.example", 8443))]),
        meta: BTreeMap::new(),
        destination: Some(Destination {
            service: "web".into(),
            id: Some("web-1".into()),
            local: Some(LocalAddress::Socket(socket.clone())),
        }),
        gateway_mode: None,
        settings: settings(),
        upstreams: vec![
            Ok(upstream(
                UpstreamKind::Service("db".into()),
                LocalAddress::Port(HostPort::new("127.0.0.1", 1)),
            )),
            Ok(upstream(UpstreamKind::PreparedQuery("near".into()), LocalAddress::Socket(socket))),
            Err(Unread { id: None, note: note() }),
        ],
        exposed: vec![Ok(ExposedPath {
            id: ExposedId { path: "/health".into(), listener_port: 1 },
            local_port: 2,
            protocol: Protocol::Http2,
        })],
    }
}

fn chain() -> Chain {
    let resolver = Resolver {
        target: "t".into(),
        connect_timeout_ms: 5_000,
        is_default: false,
        request_timeout_ms: Some(1),
        balance: Some(Balance::LeastRequest { choices: Some(2) }),
        failover: vec!["u".into()],
    };
    let target = Target {
        service: "db".into(),
        subset: Some(Subset {
            name: "v1".into(),
            filter: "Service.Meta.version == v1".to_owned().into(),
            only_passing: true,
        }),
        datacenter: "dc2".into(),
        name: "db.default.dc2".into(),
        sni: "db.default.dc2.internal".into(),
        is_external: false,
        gateway_mode: GatewayMode::Remote,
    };
    Chain {
        service: "db".into(),
        datacenter: "dc1".into(),
        protocol: Protocol::Grpc,
        customization_hash: Some("ab12".into()),
        start: "s".into(),
        nodes: BTreeMap::from([
            ("s".into(), ChainNode::Splitter),
            ("r".into(), ChainNode::Router),
            ("t".into(), ChainNode::Resolver(resolver)),
        ]),
        targets: BTreeMap::from([("t".into(), target)]),
    }
}

/// One answer of every kind, with every field set.
fn everything() -> Vec<(Topic, Answer)> {
    let request = ChainRequest {
        service: "db".into(),
        datacenter: "dc1".into(),
        gateway_mode: Some(GatewayMode::None),
        protocol: Some(Protocol::Http),
        connect_timeout_ms: Some(7),
    };
    let (dc, service) = ("dc1".into(), "web".into());
    let defaults = Defaults {
        protocol: Some("http".into()),
        gateway_mode: Some(GatewayMode::Remote),
        settings: settings(),
        exposed: registration().exposed,
        upstreams: UpstreamDefaults {
            all: UpstreamConfig { gateway_mode: None, settings: settings() },
            by_service: BTreeMap::from([("db".into(), UpstreamConfig::default())]),
        },
    };
    let subset = chain().targets["t"].subset.clone().unwrap();
    let resolver = ServiceResolver {
        default_subset: Some("v1".into()),
        subsets: BTreeMap::from([("v1".into(), subset)]),
        connect_timeout_ms: Some(3),
    };
    let intention = |source, action| Intention { source, destination: Party::AnyService, action };
    let tls = TlsParams { min: TlsVersion::V1_0, max: Some(TlsVersion::V1_3), ciphers: vec!["C".into()] };
    vec![
        (Topic::Agent, Answer::Agent(agent())),
        (Topic::Registration("p".into()), Answer::Registration(Some(registration()))),
        (Topic::Roots, Answer::Roots(Roots { trust_domain: "td.consul".into(), pem: vec!["PEM".into()] })),
        (Topic::Chain(request), Answer::Chain(chain())),
        (
            Topic::Connect { dc, service },
            Answer::Instances(vec![instance("10.0.0.1"), instance("db.example")]),
        ),
        (Topic::Health { dc: "dc1".into(), service: "gw".into() }, Answer::Instances(Vec::new())),
        (
            Topic::Services { dc: "dc1".into(), kind: Some(ServiceKind::MeshGateway) },
            Answer::Services(BTreeMap::from([("gw".into(), ServiceKind::MeshGateway)])),
        ),
        (Topic::Services { dc: "dc1".into(), kind: None }, Answer::Services(BTreeMap::new())),
        (
            Topic::Intentions,
            Answer::Intentions(vec![
                intention(Party::Service("web".into()), Action::Allow),
                intention(Party::Anything, Action::Inexpressible),
            ]),
        ),
        (Topic::IntentionEntries, Answer::Intentions(vec![intention(Party::AnyService, Action::Deny)])),
        (Topic::Datacenters, Answer::Datacenters(["dc1".into(), "dc2".into()].into())),
        (
            Topic::FederationStates,
            Answer::FederationStates(BTreeMap::from([("dc2".into(), vec![instance("10.0.0.9")])])),
        ),
        (Topic::ProxyDefaults, Answer::Defaults(defaults)),
        (Topic::ServiceDefaults("web".into()), Answer::Defaults(Defaults::default())),
        (
            Topic::Resolvers,
            Answer::Resolvers(BTreeMap::from([("db".into(), Ok(resolver)), ("odd".into(), Err(note()))])),
        ),
        (
            Topic::PreparedQuery { dc: "dc1".into(), query: "near".into() },
            Answer::Query(QueryResult {
                datacenter: "dc2".into(),
                services: ["web".into()].into(),
                instances: vec![instance("10.0.0.3")],
            }),
        ),
        (
            Topic::Mesh,
            Answer::Mesh(MeshDefaults { incoming: tls, hides_callers: true, ..Default::default() }),
        ),
        (Topic::ExportedServices, Answer::ExportedServices(["web".into()].into())),
    ]
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for (topic, answer) in everything() {
        catalog.hear(topic, Heard { notes: [note()].into(), ..Heard::fresh(answer) });
    }
    let leaf =
        Leaf { service: "web".into(), chain_pem: "CHAIN".into(), key_pem: KEY.into(), valid_before_s: 2_000 };
    catalog.hear(Topic::Leaf("web".into()), Heard::fresh(Answer::Leaf(leaf)));
    catalog
}

/// What was heard, as it comes back: with its notes, and stale.
fn as_from_disk(catalog: &Catalog) -> Topics {
    let topics = catalog.topics();
    topics.map(|(t, h)| (t.clone(), from_disk((*h.answer).clone(), h.notes.to_vec()))).collect()
}

#[test]
fn everything_comes_back_as_it_was_and_stale() {
    let (catalog, shelf) = (catalog(), Topics::new());
    let keep = Keep::of(&catalog, &shelf, 1_000);
    let (mut topics, skipped) = read_topics(&write_topics(&keep));
    assert_eq!((skipped, topics.len()), (Skipped::default(), everything().len()));
    let (leaves, skipped) = read_leaves(&write_leaves(&keep), 1_000);
    assert_eq!((skipped, leaves.len()), (Skipped::default(), 1));
    topics.extend(leaves);
    assert_eq!(topics, as_from_disk(&catalog));
    assert!(topics.values().all(Heard::is_from_disk));
}

#[test]
fn private_keys_are_in_their_file_alone_and_only_while_valid() {
    let (catalog, shelf) = (catalog(), Topics::new());
    let keep = Keep::of(&catalog, &shelf, 1_000);
    assert!(!write_topics(&keep).contains("hush") && write_leaves(&keep).contains("hush"));
    assert_eq!(write_leaves(&Keep::of(&catalog, &shelf, 2_000)), "");
    assert!(read_leaves(&write_leaves(&keep), 2_000).0.is_empty(), "expired since it was written");
}

#[test]
fn a_record_that_is_not_understood_costs_only_itself() {
    let good = r#"{"topic":"mesh","answer":{"mesh":{"incoming":{"min":"V1_2","max":null,"ciphers":[]},"outgoing":{"min":"V1_2","max":null,"ciphers":[]},"hides_callers":false}}}"#;
    let leaf =
        json!({"leaf": {"service": "web", "chain_pem": "C", "key_pem": "[redacted]", "valid_before_s": 9}});
    let bad = [
        r#"{"topic":"a_later_one","answer":{"later":1}}"#.to_owned(),
        r#"{"topic":"roots","answer":{"roots":{"trust_domain":"td","pem":[]}}}"#.to_owned(),
        r#"{"topic":"agent","answer":{"intentions":[]}}"#.to_owned(),
        json!({"topic": {"leaf": "web"}, "answer": leaf}).to_string(),
        "[".repeat(300),
        String::new(),
        r#"{"topic":"KEY","answer":"KEY"}"#.to_owned(),
    ];
    for bad in &bad {
        let (topics, skipped) = read_topics(&format!("{bad}\n{good}\n"));
        assert_eq!((topics.len(), skipped.count), (1, 1), "{bad}: {skipped}");
        assert!(!skipped.to_string().contains("KEY"), "{skipped}");
    }
}

/// The value with one field more in its object number `at`, counted from the outside; users' own are no objects of ours.
fn with_field(value: &mut serde_json::Value, at: &mut usize) -> bool {
    match value {
        serde_json::Value::Object(_) if *at == 0 => {
            value["zz_restricts"] = json!(1);
            true
        }
        serde_json::Value::Object(fields) => {
            *at -= 1;
            let mut ours =
                fields.iter_mut().filter(|(key, _)| !["settings", "entry"].contains(&key.as_str()));
            ours.any(|(_, value)| with_field(value, at))
        }
        serde_json::Value::Array(items) => items.iter_mut().any(|item| with_field(item, at)),
        _ => false,
    }
}

#[test]
fn a_field_of_a_later_version_costs_its_record_at_any_depth() {
    let (catalog, shelf) = (catalog(), Topics::new());
    let keep = Keep::of(&catalog, &shelf, 1_000);
    let mut count = 0;
    let all = [
        (write_topics(&keep), (|body| read_topics(body).1) as fn(&str) -> Skipped),
        (write_leaves(&keep), |body| read_leaves(body, 1_000).1),
    ];
    for (body, read) in all {
        for line in body.lines() {
            for at in 0.. {
                let mut record = serde_json::from_str(line).unwrap();
                if !with_field(&mut record, &mut at.clone()) {
                    break;
                }
                count += 1;
                assert_eq!(read(&record.to_string()).count, 1, "{record}");
            }
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn tokens_come_back_with_their_key() {
    let mut tokens = Tokens::new([9; BYTES]);
    let mark = tokens.mark(&"hush".into());
    tokens.add(mark, "web".into(), 7);
    let body = write_tokens(&tokens);
    assert!(!body.contains("hush"));
    assert!(read_tokens(&body) == (Some(tokens), Skipped::default()));
    for keyless in ["", "{}", "{\"key\":\"ab\"}\n", &body[70..]] {
        let (tokens, skipped) = read_tokens(keyless);
        assert!(tokens.is_none() && skipped.count == 1, "{keyless}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "\\PC{0,80}(\n\\PC{0,40}){0,4}", at in 0..4_000_usize, put in "\\PC{0,3}") {
        let (catalog, shelf) = (catalog(), Topics::new());
        let keep = Keep::of(&catalog, &shelf, 1_000);
        for body in [write_topics(&keep), write_leaves(&keep), write_tokens(&Tokens::new([1; BYTES]))] {
            let mut broken = body.clone();
            let mut at = at % (body.len() + 1);
            while !broken.is_char_boundary(at) {
                at -= 1;
            }
            broken.insert_str(at, &put);
            for body in [&text, &broken] {
                let _ = (read_topics(body), read_leaves(body, 0), read_tokens(body).1);
            }
        }
    }

    #[test]
    fn opaque_settings_and_names_come_back(key in "\\PC{0,12}", text in "[\\x00-\\x7f\\PC]{0,12}", number: i64, half in -1_000_000..1_000_000_i32) {
        let value = json!({ "text": text, "number": number, "half": f64::from(half) / 8.0 });
        let settings = Settings(BTreeMap::from([(key, value)]));
        let answer = Answer::Defaults(Defaults { settings, protocol: Some(text.clone()), ..Default::default() });
        let topic = Topic::ServiceDefaults(text.into());
        let mut catalog = Catalog::default();
        catalog.hear(topic.clone(), Heard::fresh(answer.clone()));
        let shelf = Topics::new();
        let (topics, skipped) = read_topics(&write_topics(&Keep::of(&catalog, &shelf, 0)));
        prop_assert_eq!(skipped.count, 0);
        prop_assert_eq!(topics, Topics::from([(topic, from_disk(answer, Vec::new()))]));
    }
}

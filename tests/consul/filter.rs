//! Consul's filter language on a real Consul: the same filters, asked of it and of us, about the same entries.

use std::collections::BTreeSet;

use causeway::{
    consul::{
        client::{Client, path},
        metrics::ConsulMetrics,
        watch,
    },
    lifecycle::Stop,
    model::{catalog::Topic, filter::Filter},
};
use proptest::{
    prelude::{Strategy, any, prop_oneof},
    sample::{Index, select},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use serde_json::{Value, json};

use crate::consul::{DEADLINE, Server, until};

/// Filters that Consul answers or refuses; the answers are compared, so none is written down here.
const FILTERS: &str = include_str!("filters.txt");

/// Filters on which we differ on purpose, with the reason.
const DIFFERENT: [(&str, &str); 5] = [
    ("Service.SocketPath == x", "a field of Consul 1.10 counts as empty"),
    ("Checks.ExposedPort == 1", "a field of Consul 1.10 counts as 0"),
    ("Service.ID == \"\\xff\"", "it makes no UTF-8, so no text is equal to it"),
    ("Service.ID == \"\\ud800\"", "half a character: older Go reads U+FFFD, newer Go refuses it as we do"),
    ("Service.ID matches `\\p{greek}`", "the engine knows Unicode classes in any spelling"),
];

/// How many filters are made up beside the written ones; the same in each run.
const MADE_UP: usize = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_answer_as_a_real_consul_does() {
    let server = Server::start(json!({}));
    let client = Client::new(server.settings()).unwrap();
    let (_source, stop) = Stop::pair();
    let (watches, _task) = watch::start(client.clone(), ConsulMetrics::default(), stop);
    watches.want("test", [Topic::Roots].into()).await;
    until(&watches, |catalog| catalog.roots().known().is_some()).await;
    register(&client).await;
    let entries = answer(&client, None).await.expect("Consul answers without a filter");
    assert_eq!(entries.len(), 12);

    // One line is one filter; what a line cannot hold has a name.
    let written = FILTERS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let written = written.map(|line| line.replace("<LF>", "\n").replace("<TAB>", "\t").replace("<CR>", "\r"));
    let (refused, selective) = compare(&client, &entries, &written.collect::<Vec<_>>()).await;
    assert!(refused >= 130 && selective >= 200, "{refused} refused, {selective} selective");
    let (refused, selective) = compare(&client, &entries, &made_up()).await;
    assert!(refused >= 300 && selective >= 400, "{refused} refused, {selective} selective");

    for (filter, reason) in DIFFERENT {
        let (theirs, ours) = (answer(&client, Some(filter)).await, ours(filter, &entries));
        assert_ne!(theirs.is_ok(), ours.is_ok(), "{filter} differs no more ({reason}): {}", shown(&theirs));
    }
}

/// Asks both about each filter; gives how many both refuse and how many select some entries.
async fn compare(client: &Client, entries: &[Value], filters: &[String]) -> (usize, usize) {
    let mut wrong = Vec::new();
    let (mut refused, mut selective) = (0, 0);
    for filter in filters {
        match (answer(client, Some(filter)).await, ours(filter, entries)) {
            (Err(_), Err(_)) => refused += 1,
            (Ok(theirs), Ok(ours)) if ids(&theirs) == ids(&ours) => {
                selective += usize::from(!theirs.is_empty() && theirs.len() < entries.len());
            }
            (theirs, ours) => {
                wrong.push(format!("{filter:?}\n  Consul: {}\n  we:     {}", shown(&theirs), shown(&ours)));
            }
        }
    }
    let all = filters.len();
    println!(
        "{all} filters: {refused} refused by both, {selective} select some of {} entries",
        entries.len()
    );
    assert!(wrong.is_empty(), "{} of {all} filters differ:\n{}", wrong.len(), wrong.join("\n"));
    (refused, selective)
}

/// Filters made of sensible parts, some with one character too many or too few.
fn made_up() -> Vec<String> {
    let any_of = |words: &[&'static str]| select(words.to_vec());
    let texts =
        any_of(&["Service.Meta.version", "Checks.Status", "Node.Node", "Service.ID", "Service.Address"]);
    let lists = any_of(&["Service.Tags", "Service.Meta", "Node.Meta", "Checks.ServiceTags"]);
    let others = any_of(&["Service.Port", "Checks", "Service", "Service.Connect.Native"]);
    let operators =
        any_of(&["==", "!=", "contains", "not contains", "in", "not in", "matches", "not matches"]);
    let values = any_of(&["80", "v1", "a", "`n1`", "\"passing\"", "w", "`^v\\d+$`", "version", "1"]);
    let is_empty = any_of(&["is empty", "is not empty"]);
    let text = (texts.clone(), operators.clone(), values.clone()).prop_map(|(selector, operator, value)| {
        if operator.ends_with("in") {
            format!("{value} {operator} {selector}")
        } else {
            format!("{selector} {operator} {value}")
        }
    });
    let leaf = prop_oneof![
        10 => text,
        3 => (values.clone(), any_of(&["in", "not in"]), lists.clone()).prop_map(|(v, o, s)| format!("{v} {o} {s}")),
        3 => (lists, is_empty).prop_map(|(selector, operator)| format!("{selector} {operator}")),
        1 => (prop_oneof![texts, others], operators, values).prop_map(|(s, o, v)| format!("{s} {o} {v}")),
    ];
    let tree = leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} and {right}")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} or {right}")),
            inner.clone().prop_map(|inner| format!("not {inner}")),
            inner.prop_map(|inner| format!("({inner})")),
        ]
    });
    let slip =
        (any::<Index>(), any::<bool>(), select(vec!["", " ", "\"", "(", ")", ".", "=", "`", "[", "a", "8"]));
    let filter = (tree, proptest::option::weighted(0.2, slip)).prop_map(|(filter, slip)| {
        let Some((place, is_instead, with)) = slip else { return filter };
        let at = place.index(filter.len());
        format!("{}{with}{}", &filter[..at], &filter[at + usize::from(is_instead)..])
    });
    let mut runner = TestRunner::deterministic();
    (0..MADE_UP).map(|_| filter.new_tree(&mut runner).expect("a filter can be made up").current()).collect()
}

fn ours(filter: &str, entries: &[Value]) -> Result<Vec<Value>, String> {
    let filter = Filter::parse(filter).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for entry in entries {
        if filter.matches(entry).map_err(|error| error.to_string())? {
            found.push(entry.clone());
        }
    }
    Ok(found)
}

/// Consul's answer, or its refusal.
async fn answer(client: &Client, filter: Option<&str>) -> Result<Vec<Value>, String> {
    let query: Vec<(&str, &str)> = filter.map(|filter| ("filter", filter)).into_iter().collect();
    let reply = client
        .get(&path(&["v1", "health", "service", "web"]), &query, DEADLINE)
        .await
        .expect("Consul answers");
    reply.ok().map_err(|error| error.to_string())?.json().map_err(|error| error.to_string())
}

fn ids(entries: &[Value]) -> BTreeSet<&str> {
    entries.iter().filter_map(|entry| entry["Service"]["ID"].as_str()).collect()
}

fn shown(answer: &Result<Vec<Value>, String>) -> String {
    answer.as_ref().map_or_else(Clone::clone, |entries| format!("{:?}", ids(entries)))
}

/// Twelve instances of one service on three nodes, no two alike.
async fn register(client: &Client) {
    let nodes = [
        json!({"Node": "n1", "Address": "10.0.0.1", "NodeMeta": {"rack": "r1", "with space": "yes"},
            "TaggedAddresses": {"lan": "10.0.0.1", "wan": "192.0.2.1"}}),
        json!({"Node": "n2", "Address": "10.0.0.2", "ID": "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8a002", "NodeMeta": {"rack": "r2"}}),
        json!({"Node": "n3", "Address": "db.example"}),
    ];
    let services = [
        json!({"Port": 80, "Tags": ["a"], "Meta": {"version": "v1"}}),
        json!({"Port": 81, "Tags": ["a", "b"], "Meta": {"version": "v2", "empty": ""}}),
        json!({"Port": 8080, "Tags": ["canary", "in"], "Meta": {"version": "v10", "x-y": "z", "CreateIndex": "7"}}),
        json!({"Tags": [""], "Address": "10.1.0.1", "Weights": {"Passing": 10, "Warning": 2}}),
        json!({"Port": 0, "Address": "web.example", "EnableTagOverride": true}),
        json!({"Port": 443, "TaggedAddresses": {"lan": {"Address": "10.0.0.9", "Port": 444}, "wan": {"Address": "192.0.2.9", "Port": 1}}}),
        json!({"Port": 444, "Connect": {"Native": true}, "Meta": {"text": "\u{e4}\u{663} \"quoted\" back\\slash", "lines": "a\nb\tc"}}),
        json!({"Port": 20000, "Kind": "connect-proxy", "Proxy": {"DestinationServiceName": "api", "DestinationServiceID": "api-1",
            "LocalServiceAddress": "127.0.0.1", "LocalServicePort": 9000, "MeshGateway": {"Mode": "local"},
            "Upstreams": [{"DestinationName": "db", "LocalBindPort": 5000, "Datacenter": "dc2"},
                {"DestinationName": "cache", "LocalBindPort": 5001, "DestinationType": "prepared_query", "MeshGateway": {"Mode": "remote"}}],
            "Expose": {"Paths": [{"Path": "/health", "LocalPathPort": 8080, "ListenerPort": 21500, "Protocol": "http"}]}}}),
        json!({"Port": 20001, "Kind": "connect-proxy", "Proxy": {"DestinationServiceName": "web", "Expose": {"Checks": true}}}),
        json!({"Port": 90, "Meta": {"number": "080", "true": "true", "in": "and"}}),
        json!({"Port": 91, "Meta": {"a": "1", "b": "2"}, "Tags": ["V1", "v1"]}),
        json!({"Port": 65535, "Meta": {"version": "2.1.0"}, "Tags": ["a b", "or"]}),
    ];
    let statuses: [&[&str]; 4] = [&["passing"], &["passing", "warning"], &["critical"], &[]];
    for (nth, service) in services.into_iter().enumerate() {
        let id = format!("w{nth}");
        let mut registration = nodes[nth % nodes.len()].clone();
        registration["Service"] = service;
        registration["Service"]["Service"] = json!("web");
        registration["Service"]["ID"] = json!(id);
        let checks = statuses[nth % statuses.len()].iter().enumerate().map(|(check, status)| {
            json!({"CheckID": format!("{id}-c{check}"), "Name": format!("check {check}"), "Status": status, "ServiceID": id,
                "Output": "HTTP GET: 200 OK", "Notes": format!("n{nth}"), "Type": if check == 0 { "http" } else { "ttl" }})
        });
        registration["Checks"] = checks.collect();
        let reply =
            client.put(&path(&["v1", "catalog", "register"]), &[], Some(registration), DEADLINE).await;
        reply.expect("Consul answers").ok().expect("Consul takes the registration");
    }
}

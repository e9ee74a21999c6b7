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

    let filters: Vec<&str> =
        FILTERS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut wrong = Vec::new();
    let (mut refused, mut selective) = (0, 0);
    for written in &filters {
        // One line is one filter; what a line cannot hold is written as in Go.
        let filter = written.replace("<LF>", "\n").replace("<TAB>", "\t").replace("<CR>", "\r");
        let theirs = answer(&client, Some(&filter)).await;
        let ours = ours(&filter, &entries);
        match (&theirs, &ours) {
            (Err(_), Err(_)) => refused += 1,
            (Ok(theirs), Ok(ours)) if ids(theirs) == ids(ours) => {
                selective += usize::from(!theirs.is_empty() && theirs.len() < entries.len());
            }
            (theirs, ours) => {
                wrong.push(format!("{written}\n  Consul: {}\n  we:     {}", shown(theirs), shown(ours)))
            }
        }
    }
    println!(
        "{} filters: {refused} refused by both, {selective} select some of {} entries",
        filters.len(),
        entries.len()
    );
    assert!(wrong.is_empty(), "{} of {} filters differ:\n{}", wrong.len(), filters.len(), wrong.join("\n"));
    assert!(refused >= 30 && selective >= 60, "{refused} refused, {selective} selective");

    for (filter, reason) in DIFFERENT {
        let (theirs, ours) = (answer(&client, Some(filter)).await, ours(filter, &entries));
        assert_ne!(theirs.is_ok(), ours.is_ok(), "{filter} differs no more ({reason}): {}", shown(&theirs));
    }
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

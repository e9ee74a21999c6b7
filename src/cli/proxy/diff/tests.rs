use axum::{Json, Router, routing::get};
use serde_json::{Value, json};

use super::*;
use crate::{
    api::wire::{ProxyStatus, Readiness},
    envoy::report::{Difference, Field, State},
    lifecycle::{Task, spawn},
};

fn report(differences: Vec<Difference>, waiting_for: Vec<String>) -> Report {
    let equal = differences.is_empty() && waiting_for.is_empty();
    Report { proxy: "web".into(), equal, compared: 13, waiting_for, differences }
}

fn difference(state: State) -> Difference {
    Difference {
        kind: Kind::Cluster,
        name: "db".into(),
        state,
        intended_version: Some("v2".into()),
        actual_version: Some("v1".into()),
        reason: None,
        fields: Vec::new(),
    }
}

#[test]
fn what_is_as_intended_is_one_line() {
    assert_eq!(shown::text(&report(vec![], vec![])), "web: as intended, 13 resources compared\n");
    let text = shown::text(&report(vec![], vec!["connect/db\u{1b}[31m".into()]));
    assert_eq!(
        text,
        "web: nothing differs in 13 resources, but the agent does not know everything yet\n  the agent waits for: \
         connect/db [31m\n"
    );
}

#[test]
fn each_difference_is_told_with_its_fields_and_reasons() {
    let field = |path: &str, intended: Option<Value>| Field {
        path: path.into(),
        intended,
        actual: Some(json!("5s")),
    };
    let fields = vec![field("connect_timeout", Some(json!("7s"))), field("x", None)];
    let differences = vec![
        Difference { fields, ..difference(State::Different) },
        Difference { reason: Some("no filter chains".into()), ..difference(State::Refused) },
        difference(State::Version),
    ];
    let expected = "\
web: 3 differences in 13 resources
CDS db: different
    connect_timeout: intended \"7s\", Envoy has \"5s\"
    x: intended nothing, Envoy has \"5s\"
CDS db: refused by Envoy
    Envoy says: no filter chains
CDS db: the same under another version
    version: intended v2, Envoy has v1
";
    assert_eq!(shown::text(&report(differences, vec![])), expected);
}

#[test]
fn what_is_long_is_cut() {
    let field = || Field { path: "a".into(), intended: Some("ü".repeat(400).into()), actual: None };
    let fields: Vec<_> = std::iter::repeat_with(field).take(25).collect();
    let text = shown::text(&report(vec![Difference { fields, ..difference(State::Different) }], vec![]));
    assert!(text.lines().all(|line| line.chars().count() < 250), "{text}");
    assert!(text.ends_with("and 5 more fields; --json shows them\n"), "{text}");
}

#[test]
fn the_document_has_the_words_of_operators() {
    let document = serde_json::to_value(report(vec![difference(State::Unknown)], vec![])).unwrap();
    let expected = json!({"proxy": "web", "equal": false, "compared": 13, "waiting_for": [], "differences": [{
        "type": "CDS", "name": "db", "state": "unknown", "intended_version": "v2", "actual_version": "v1",
        "reason": null, "fields": []}]});
    assert_eq!(document, expected);
}

#[test]
fn the_socket_of_an_instance_is_taken_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let web = r"web\x2d1".to_owned();
    assert_eq!(usual_admin(folder.path(), Some(&web)), DEFAULT_ADMIN);
    std::fs::create_dir(folder.path().join(&web)).unwrap();
    let socket = folder.path().join(&web).join("admin.sock");
    std::fs::write(&socket, "").unwrap();
    assert_eq!(usual_admin(folder.path(), Some(&web)), format!("unix:{}", socket.display()));
    assert_eq!(usual_admin(folder.path(), None), DEFAULT_ADMIN);
}

/// Something that answers as an agent and as an Envoy whose node id is `web`, with these proxies.
async fn both(proxies: Vec<ProxyStatus>) -> (String, Task<()>) {
    let status = Status {
        version: "0.1.0".into(),
        datacenter: None,
        node: None,
        started_at_ms: 1,
        now_ms: 2,
        readiness: Readiness { ready: true, waiting_for: vec![] },
        proxies,
        topics: vec![],
    };
    let config = ProxyConfig { proxy: "web".into(), resources: vec![] };
    let sections = ["Bootstrap", "Clusters", "Secrets", "Listeners"]
        .map(|name| json!({"@type": format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump")}));
    let dump = json!({"configs": sections});
    let answer = |value: Value| get(move || std::future::ready(Json(value)));
    let router = Router::new()
        .route("/status", answer(serde_json::to_value(status).unwrap()))
        .route("/status/proxies/web/config", answer(serde_json::to_value(config).unwrap()))
        .route("/server_info", answer(json!({"node": {"id": "web"}})))
        .route("/config_dump", answer(dump))
        .route("/clusters", answer(json!({"cluster_statuses": []})));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, spawn("test.both", async move { axum::serve(listener, router).await.unwrap() }))
}

fn proxy(waiting_for: Vec<String>) -> ProxyStatus {
    ProxyStatus {
        proxy: "web".into(),
        complete: waiting_for.is_empty(),
        waiting_for,
        notes: vec![],
        streams: vec![],
    }
}

fn args(address: &str, id: Option<&str>) -> DiffArgs {
    let agent = AgentFlags { http_addr: address.to_owned() };
    DiffArgs { id: id.map(Into::into), instance: None, admin: Some(address.to_owned()), json: false, agent }
}

#[tokio::test]
async fn the_exit_code_is_that_of_diff() {
    let (address, _task) = both(vec![proxy(vec![])]).await;
    assert_eq!(run(args(&address, Some("web"))).await, ExitCode::SUCCESS);
    assert_eq!(run(args(&address, None)).await, ExitCode::SUCCESS);
    assert_eq!(run(args(&address, Some("db"))).await, ExitCode::from(EXIT_TROUBLE));
    let (waiting, _task) = both(vec![proxy(vec!["connect/db".into()])]).await;
    assert_eq!(run(args(&waiting, None)).await, ExitCode::from(EXIT_DIFFERENT));
    let (unknown, _task) = both(vec![]).await;
    assert_eq!(run(args(&unknown, None)).await, ExitCode::from(EXIT_TROUBLE));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(run(args(&closed, None)).await, ExitCode::from(EXIT_TROUBLE));
}

#[tokio::test]
async fn the_envoy_of_another_proxy_is_told() {
    let (address, _task) = both(vec![proxy(vec![])]).await;
    let error = outcome(&args(&address, Some("db"))).await.unwrap_err().to_string();
    assert!(error.contains("is that of `web`, not of `db`"), "{error}");
}

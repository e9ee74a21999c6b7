use axum::{
    Json, Router,
    extract::Query,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::lifecycle::{Task, spawn};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    sync: SyncArgs,
}

fn document() -> Value {
    json!({
        "datacenter": "dc2", "node": "n1", "sessions_home": "dc1", "later": 1,
        "prefixes": [
            {"prefix": "config/", "id": "config-1", "home": "dc1", "is_active": true, "active_node": "n1",
             "as_replica": {"stage": "stream", "position": {"epoch": 1, "seq": 7}, "keys": 3, "lag": {"entries": 0, "ms": 0}}},
            {"prefix": "local/", "id": "local-1", "home": "dc2", "is_active": false, "active_node": "n2"},
        ],
        "datacenters": [{"datacenter": "dc1", "node": "h1", "heard_ms_ago": 100}],
    })
}

/// The keys of a datacenter, as a replica and as its home answer.
fn keys(dc: &str) -> Value {
    let pair = |key: &str, value: &str| json!({"Key": key, "Value": value, "Flags": 0, "LockIndex": 0, "CreateIndex": 1, "ModifyIndex": 1});
    match dc {
        "dc1" => json!([pair("config/a", "MQ=="), pair("config/b", "MQ=="), pair("config/c", "MQ==")]),
        _ => json!([pair("config/a", "MQ=="), pair("config/b", "Mg==")]),
    }
}

async fn list(Query(query): Query<std::collections::BTreeMap<String, String>>) -> axum::response::Response {
    match query["dc"].as_str() {
        "gone" => {
            (StatusCode::SERVICE_UNAVAILABLE, "home_unreachable: gone cannot be reached").into_response()
        }
        // At home, and where a replica has locks, the home answers.
        dc @ ("dc1" | "locks") => Json(keys(dc)).into_response(),
        dc => ([("x-sync-home", "dc1")], Json(keys(dc))).into_response(),
    }
}

async fn key(
    path: axum::extract::Path<String>,
    Query(query): Query<std::collections::BTreeMap<String, String>>,
) -> axum::response::Response {
    let key = format!("config/{}", path.0);
    let found = keys(&query["dc"]).as_array().unwrap().iter().find(|pair| pair["Key"] == key).cloned();
    let nothing = (StatusCode::NOT_FOUND, [("x-consul-index", "1")]);
    found.map_or_else(|| nothing.into_response(), |pair| Json(json!([pair])).into_response())
}

async fn agent() -> (String, Task<()>) {
    let order = |Query(query): Query<std::collections::BTreeMap<String, String>>| async move {
        match query["prefix"].as_str() {
            "config/" => (StatusCode::OK, "true"),
            _ => (StatusCode::FORBIDDEN, "Permission denied: the token lacks operator:write"),
        }
    };
    let router = Router::new()
        .route("/v1/sync/status", get(|| async { Json(document()) }))
        .route("/v1/sync/approve", post(order))
        .route("/v1/kv/config/", get(list))
        .route("/v1/kv/config/{key}", get(key));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (address, spawn("test.agent", async move { axum::serve(listener, router).await.unwrap() }))
}

async fn ran(address: &str, line: &[&str]) -> anyhow::Result<String> {
    let line = ["sync"].iter().chain(line).copied().chain(["--http-addr", address]);
    let args = Line::try_parse_from(line).unwrap().sync;
    run(args, &|_| None).await.map(|code| format!("{code:?}"))
}

fn code(code: u8) -> String {
    format!("{:?}", ExitCode::from(code))
}

#[test]
fn the_table_shows_each_prefix_and_what_is_wrong() {
    let mut text = document();
    let table = |text: &Value| serde_json::from_value::<Document>(text.clone()).unwrap().table();
    insta::assert_snapshot!(table(&text), @r"
    datacenter dc2, node n1

    PREFIX   HOME  HERE             STATE    POSITION  LAG   ACTIVE NODE
    config/  dc1   replica, 3 keys  stream   1.7       none  n1
    local/   dc2   home             standby  -         -     n2
    ");
    let is_synced = |text: &Value| serde_json::from_value::<Document>(text.clone()).unwrap().is_synced();
    assert!(is_synced(&text));
    text["prefixes"][0]["as_replica"]["stage"] = json!("hold");
    text["prefixes"][0]["as_replica"]["reason"] = json!("the home was restored; look, then approve");
    text["datacenters"][0]["trouble"] = json!("connection refused");
    assert!(!is_synced(&text));
    let shown = table(&text);
    assert!(shown.ends_with("\nconfig/: the home was restored; look, then approve\ndatacenter dc1 (heard 0 s ago): connection refused\n"), "{shown}");
    text["prefixes"] = json!([]);
    assert!(table(&text).contains("no prefix is replicated"));
    let mut nobody = document();
    nobody["prefixes"][1]["active_node"] = Value::Null;
    assert!(!is_synced(&nobody));
}

#[tokio::test]
async fn exit_codes_tell_what_was_found() {
    let (address, _task) = agent().await;
    assert_eq!(ran(&address, &["status"]).await.unwrap(), code(0));
    assert_eq!(ran(&address, &["status", "--json"]).await.unwrap(), code(0));
    // Its home has a key more and another value.
    assert_eq!(ran(&address, &["verify", "config/"]).await.unwrap(), code(1));
    assert_eq!(ran(&address, &["diff", "--with", "same", "config/"]).await.unwrap(), code(0));
    let elsewhere = ["verify", "--json", "--datacenter", "dc3", "--with", "same", "config/"];
    assert_eq!(ran(&address, &elsewhere).await.unwrap(), code(0));
    for line in [
        ["verify", "--with", "gone", "config/"].as_slice(),
        &["verify", "--with", "locks", "config/"],
        &["verify", "other/"],
        &["verify", "--with", "dc2", "config/"],
        // At home it is compared with all others, of which one has no such list.
        &["verify", "local/"],
    ] {
        assert_eq!(ran(&address, line).await.unwrap(), code(crate::cli::EXIT_UNAVAILABLE), "{line:?}");
    }
    assert_eq!(ran(&address, &["approve", "config/"]).await.unwrap(), code(0));
    let error = ran(&address, &["approve", "other/"]).await.unwrap_err().to_string();
    assert!(error.contains("403") && error.contains("operator:write"), "{error}");
    let error = ran("http://127.0.0.1:1", &["status"]).await.unwrap_err().to_string();
    assert!(error.contains("is `causeway agent` running?"), "{error}");
}

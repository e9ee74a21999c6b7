//! The line that each write, lock and refusal leaves in the agent's log: who, what, which key and what came of it.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
};

use causeway::sync::endpoint::Response;
use serde_json::{Value, json};
use tracing::{Dispatch, Level, instrument::WithSubscriber as _};

use super::{
    rights::{NOBODYS, READER, ROOT, WRITER, make_tokens},
    world::{HOME, REPLICA, World, text},
};

const VALUE: &str = "a value that is nobody's business";

/// Method, target and body of a request; or act, key and outcome of a line.
type Three<'a> = (&'a str, &'a str, &'a str);

/// Is always there: of a single subscriber tracing takes for granted that it is that of the thread which meets a line first,
/// and that may be another test's, with none.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| {
    Dispatch::new(tracing_subscriber::fmt().with_max_level(Level::INFO).with_writer(io::sink).finish())
});

/// What was logged.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The answer to a request, and the audit's lines of it.
async fn audited(
    world: &World,
    at: usize,
    token: Option<&str>,
    request_id: &str,
    (method, target, body): Three<'_>,
) -> (Response, Vec<Value>) {
    LazyLock::force(&ANOTHER);
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(Level::INFO)
        .with_writer(move || writer.clone())
        .finish();
    let mut headers = vec![("X-Sync-Request-Id", request_id)];
    headers.extend(token.map(|token| ("X-Consul-Token", token)));
    let response = world.ask_with(at, &headers, method, target, body).with_subscriber(subscriber).await;
    let logged = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    let secrets = [VALUE, ROOT, WRITER, READER, NOBODYS];
    assert!(!secrets.iter().any(|secret| logged.contains(secret)), "{logged}");
    let lines = logged.lines().map(|line| serde_json::from_str(line).unwrap());
    (response, lines.filter(|line: &Value| line["target"] == "causeway::audit").collect())
}

/// Who a token is, as Consul calls it.
async fn accessor(world: &World, token: &str) -> String {
    let own = world.raw(HOME, &format!("/v1/acl/token/self?token={token}")).await;
    let own: Value = serde_json::from_str(&own).unwrap();
    own["AccessorID"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_or_refused_leaves_a_line() {
    let acl = json!({ "acl": { "enabled": true, "default_policy": "deny",
        "tokens": { "master": ROOT, "agent": ROOT } } });
    let world = World::start(acl).await;
    make_tokens(&world).await;
    let (writer, reader) = (accessor(&world, WRITER).await, accessor(&world, READER).await);
    let set = ("PUT", "/v1/kv/config/a", VALUE);
    let txn = r#"[{"KV":{"Verb":"set","Key":"config/t","Value":"eA=="}},{"KV":{"Verb":"get","Key":"config/a"}},
        {"KV":{"Verb":"delete-tree","Key":"config/d/"}}]"#;
    let cases: &[(Option<&str>, &str, Three<'_>, &[Three<'_>])] = &[
        (Some(WRITER), &writer, set, &[("set", "config/a", "done")]),
        (Some(WRITER), &writer, ("PUT", "/v1/kv/config/a?cas=1", VALUE), &[("cas", "config/a", "not done")]),
        (
            Some(WRITER),
            &writer,
            ("PUT", "/v1/kv/config/secret/a", VALUE),
            &[("set", "config/secret/a", "denied")],
        ),
        (Some(READER), &reader, set, &[("set", "config/a", "denied")]),
        (Some(NOBODYS), "unknown", set, &[("set", "config/a", "denied")]),
        (None, "anonymous", ("DELETE", "/v1/kv/config/a", ""), &[("delete", "config/a", "denied")]),
        (
            Some(WRITER),
            &writer,
            ("PUT", "/v1/txn", txn),
            &[("set", "config/t", "done"), ("delete-tree", "config/d/", "done")],
        ),
        (
            Some(WRITER),
            &writer,
            ("POST", "/v1/lock/config/l", r#"{"ttl":"10s"}"#),
            &[("lock-acquire", "config/l", "done")],
        ),
        (Some(WRITER), &writer, ("PUT", "/v1/kv/config/l", VALUE), &[("set", "config/l", "not done")]),
        (
            Some(READER),
            &reader,
            ("POST", "/v1/sync/resync?prefix=shared/", ""),
            &[("resync", "shared/", "denied")],
        ),
        // Nothing is written, or nothing that anybody replicates.
        (Some(READER), &reader, ("GET", "/v1/kv/config/a", ""), &[]),
        (Some(WRITER), &writer, ("PUT", "/v1/kv/plain/a", VALUE), &[]),
    ];
    for (number, (token, accessor, request, expected)) in cases.iter().enumerate() {
        // One id stands for one write.
        let id = format!("request-{number}");
        let (response, lines) = audited(&world, HOME, *token, &id, *request).await;
        let expected: Vec<Value> = expected
            .iter()
            .map(|(act, key, outcome)| {
                json!({ "message": "audit", "accessor": accessor, "act": act, "key": key, "outcome": outcome,
                    "from": "home", "request_id": id })
            })
            .collect();
        let told: Vec<Value> = lines.iter().map(|line| line["fields"].clone()).collect();
        assert_eq!(told, expected, "{request:?} of {accessor}: {} {}", response.status, text(&response));
        assert!(lines.iter().all(|line| line["level"] == "INFO"), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_passed_on_leaves_its_line_where_it_was_asked() {
    let world = World::start(json!({})).await;
    world.cut(true);
    let (response, lines) =
        audited(&world, REPLICA, None, "request-7", ("PUT", "/v1/kv/config/a", VALUE)).await;
    assert_eq!(response.status, 503, "{}", text(&response));
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(
        line["fields"],
        json!({ "message": "audit", "accessor": "anonymous", "act": "set", "key": "config/a",
            "outcome": "refused", "from": "replica", "request_id": "request-7" })
    );
}

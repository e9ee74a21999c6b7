//! With ACLs in default-deny a client can do through the agents exactly what its token could do at home.

use serde_json::json;

use super::world::{HOME, REPLICA, World, text};
use crate::rig::parts::http;

const ROOT: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8a002";
const WRITER: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8b001";
const READER: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8b002";
const NOBODYS: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8affe";

const SECRETS: [Option<&str>; 4] = [None, Some(NOBODYS), Some(READER), Some(WRITER)];

/// Requests whose outcome depends on rights. `P/` stands for the prefix.
const REQUESTS: &[(&str, &str, &str)] = &[
    ("GET", "/v1/kv/P/a", ""),
    ("GET", "/v1/kv/P/?recurse", ""),
    ("GET", "/v1/kv/P/?keys", ""),
    ("PUT", "/v1/kv/P/w", "v"),
    ("PUT", "/v1/kv/P/w?cas=0", "v"),
    ("PUT", "/v1/kv/P/secret/w", "v"),
    ("DELETE", "/v1/kv/P/w", ""),
    ("DELETE", "/v1/kv/P/d/?recurse", ""),
    ("DELETE", "/v1/kv/P/?recurse", ""),
    (
        "PUT",
        "/v1/txn",
        r#"[{"KV":{"Verb":"set","Key":"P/w","Value":"eA=="}},{"KV":{"Verb":"get","Key":"P/secret/a"}}]"#,
    ),
    (
        "PUT",
        "/v1/txn",
        r#"[{"KV":{"Verb":"set","Key":"P/w","Value":"eA=="}},{"KV":{"Verb":"check-index","Key":"P/secret/a","Index":1}}]"#,
    ),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"get","Key":"P/a"}},{"KV":{"Verb":"get","Key":"P/secret/a"}}]"#),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"delete","Key":"P/secret/a"}}]"#),
    (
        "PUT",
        "/v1/txn",
        r#"[{"KV":{"Verb":"set","Key":"P/w","Value":"eA=="}},{"KV":{"Verb":"get-tree","Key":"P/"}}]"#,
    ),
];

fn policies(prefix: &str, access: &str) -> String {
    format!(
        r#"key_prefix "{prefix}" {{ policy = "{access}" }} key_prefix "{prefix}secret/" {{ policy = "deny" }} "#
    )
}

/// Makes the tokens in both datacenters, whose ACLs know nothing of each other.
async fn make_tokens(world: &World) {
    for at in [HOME, REPLICA] {
        let to = world.consul(at).http;
        tokio::task::spawn_blocking(move || {
            for (name, secret, access) in [("writer", WRITER, "write"), ("reader", READER, "read")] {
                let rules = policies("config/", access) + &policies("plain/", access);
                let policy = json!({ "Name": name, "Rules": rules }).to_string();
                let made = http(to, "PUT", &format!("/v1/acl/policy?token={ROOT}"), &policy).unwrap();
                assert_eq!(made.status, 200, "{made:?}");
                let token = json!({ "SecretID": secret, "Policies": [{ "Name": name }] }).to_string();
                let made = http(to, "PUT", &format!("/v1/acl/token?token={ROOT}"), &token).unwrap();
                assert_eq!(made.status, 200, "{made:?}");
            }
        })
        .await
        .unwrap();
    }
}

async fn fill(world: &World, prefix: &str) {
    for key in ["a", "d/x", "secret/a"] {
        let written = world.ask_as(HOME, Some(ROOT), "PUT", &format!("/v1/kv/{prefix}{key}"), "v").await;
        assert_eq!(text(&written), "true");
    }
}

/// What matters of an answer: its status, and what it shows, without indexes.
async fn outcome(
    world: &World,
    at: usize,
    prefix: &str,
    secret: Option<&str>,
    request: (&str, &str, &str),
) -> String {
    let (method, target, body) = request;
    let (target, body) = (target.replace("P/", prefix), body.replace("P/", prefix));
    let response = world.ask_as(at, secret, method, &target, &body).await;
    let shown = super::without_indexes(&text(&response)).replace(prefix, "P/");
    // Consul's "Permission denied" is all it says; the endpoint names the right.
    let shown =
        if response.status == 403 { "denied" } else { shown.split(", current").next().unwrap_or_default() };
    format!("{} {shown}", response.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_can_do_what_its_token_could_do_at_home() {
    let acl = json!({ "acl": { "enabled": true, "default_policy": "deny",
        "tokens": { "master": ROOT, "agent": ROOT } } });
    let world = World::start(acl).await;
    make_tokens(&world).await;
    for secret in SECRETS {
        for request in REQUESTS {
            let mut outcomes = Vec::new();
            for (at, prefix) in [(HOME, "plain/"), (HOME, "config/"), (REPLICA, "config/")] {
                fill(&world, prefix).await;
                outcomes.push(outcome(&world, at, prefix, secret, *request).await);
            }
            assert_eq!(outcomes[0], outcomes[1], "at the home: {secret:?} {request:?}");
            assert_eq!(outcomes[0], outcomes[2], "at the replica: {secret:?} {request:?}");
        }
    }
    for secret in SECRETS {
        let target = "/v1/sync/resync?prefix=config/";
        let ordered = world.ask_as(REPLICA, secret, "POST", target, "").await;
        assert_eq!(ordered.status, 403, "{secret:?} {}", text(&ordered));
    }
    assert_eq!(
        world.ask_as(REPLICA, Some(ROOT), "POST", "/v1/sync/resync?prefix=config/", "").await.status,
        200
    );
}

//! With ACLs in default-deny a client can do through the agents exactly what its token could do at home.

use serde_json::json;

use super::world::{HOME, REPLICA, World, text};
use crate::rig::parts::http;

pub(super) const ROOT: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8a002";
pub(super) const WRITER: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8b001";
pub(super) const READER: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8b002";
pub(super) const NOBODYS: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8affe";

const SECRETS: [Option<&str>; 4] = [None, Some(NOBODYS), Some(READER), Some(WRITER)];

/// Requests whose outcome depends on rights: each verb and each form of a read, where the token may and below `secret/`, where
/// it may not. `P/` stands for the prefix, `@s;` for a session, `DC` for the home.
pub(crate) const REQUESTS: &[(&str, &str, &str)] = &[
    ("GET", "/v1/kv/P/a", ""),
    ("GET", "/v1/kv/P/a?raw", ""),
    ("GET", "/v1/kv/P/a?consistent", ""),
    ("GET", "/v1/kv/P/?recurse", ""),
    ("GET", "/v1/kv/P/?keys", ""),
    ("GET", "/v1/kv/P/?keys&separator=/", ""),
    ("GET", "/v1/kv/P/secret/a", ""),
    ("GET", "/v1/kv/P/secret/a?raw", ""),
    ("GET", "/v1/kv/P/secret/?recurse", ""),
    ("GET", "/v1/kv/P/secret/?keys", ""),
    ("PUT", "/v1/kv/P/w", "v"),
    ("PUT", "/v1/kv/P/w?cas=0", "v"),
    ("PUT", "/v1/kv/P/w?flags=7", "v"),
    ("PUT", "/v1/kv/P/secret/w", "v"),
    ("PUT", "/v1/kv/P/secret/a?cas=1", "v"),
    ("DELETE", "/v1/kv/P/w", ""),
    ("DELETE", "/v1/kv/P/a?cas=1", ""),
    ("DELETE", "/v1/kv/P/secret/a", ""),
    ("DELETE", "/v1/kv/P/secret/a?cas=1", ""),
    ("DELETE", "/v1/kv/P/d/?recurse", ""),
    ("DELETE", "/v1/kv/P/?recurse", ""),
    ("DELETE", "/v1/kv/P/secret/?recurse", ""),
    ("PUT", "/v1/kv/P/l?acquire=@s;", "v"),
    ("PUT", "/v1/kv/P/secret/l?acquire=@s;", "v"),
    ("PUT", "/v1/kv/P/l?release=@s;", "v"),
    ("PUT", "/v1/kv/P/secret/l?release=@s;", "v"),
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
    (
        "PUT",
        "/v1/txn",
        r#"[{"KV":{"Verb":"set","Key":"P/w","Value":"eA=="}},{"KV":{"Verb":"check-not-exists","Key":"P/secret/none"}}]"#,
    ),
    (
        "PUT",
        "/v1/txn",
        r#"[{"KV":{"Verb":"set","Key":"P/w","Value":"eA=="}},{"KV":{"Verb":"check-session","Key":"P/secret/a","Session":"@s;"}}]"#,
    ),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"get","Key":"P/a"}},{"KV":{"Verb":"get","Key":"P/secret/a"}}]"#),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"get-tree","Key":"P/"}}]"#),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"set","Key":"P/secret/w","Value":"eA=="}}]"#),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"cas","Key":"P/secret/a","Index":1,"Value":"eA=="}}]"#),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"delete","Key":"P/secret/a"}}]"#),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"delete-cas","Key":"P/secret/a","Index":1}}]"#),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"delete-tree","Key":"P/secret/"}}]"#),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"delete-tree","Key":"P/d/"}}]"#),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"lock","Key":"P/secret/l","Session":"@s;"}}]"#),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"unlock","Key":"P/secret/l","Session":"@s;"}}]"#),
    (
        "PUT",
        "/v1/txn",
        r#"[{"KV":{"Verb":"set","Key":"P/w","Value":"eA=="}},{"KV":{"Verb":"get-tree","Key":"P/"}}]"#,
    ),
    ("PUT", "/v1/session/create?dc=DC", r#"{"TTL":"10s","NodeChecks":[]}"#),
    ("GET", "/v1/session/info/@s;?dc=DC", ""),
    ("GET", "/v1/session/info/@s;", ""),
    ("GET", "/v1/session/list?dc=DC", ""),
    ("PUT", "/v1/session/renew/@s;?dc=DC", ""),
    ("PUT", "/v1/session/renew/@s;", ""),
    ("PUT", "/v1/session/destroy/@s;?dc=DC", ""),
];

/// The rules of a token with this access below a prefix, but for what is below its `secret/`.
pub(crate) fn rules(prefix: &str, access: &str) -> String {
    format!(
        r#"key_prefix "{prefix}" {{ policy = "{access}" }} key_prefix "{prefix}secret/" {{ policy = "deny" }} "#
    )
}

/// What matters of an answer: its status, and what it shows, without indexes.
pub(crate) fn seen(target: &str, status: u16, body: &str, prefix: &str) -> String {
    let shown = match status {
        // Consul's "Permission denied" is all it says; the endpoint names the right.
        403 => "denied".to_owned(),
        // Which sessions there are differs from one moment to the next.
        200 if target.starts_with("/v1/session/") => {
            (if body.trim() == "[]" { "none" } else { "some" }).to_owned()
        }
        _ => super::without_indexes(body).replace(prefix, "P/"),
    };
    format!("{status} {}", shown.split(", current").next().unwrap_or_default())
}

/// Makes the tokens in both datacenters, whose ACLs know nothing of each other.
pub(super) async fn make_tokens(world: &World) {
    for at in [HOME, REPLICA] {
        let to = world.consul(at).http;
        tokio::task::spawn_blocking(move || {
            for (name, secret, access) in [("writer", WRITER, "write"), ("reader", READER, "read")] {
                let sessions = format!(r#"session_prefix "" {{ policy = "{access}" }}"#);
                let rules = rules("config/", access) + &rules("plain/", access) + &sessions;
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

/// A session of somebody who may do everything.
async fn session(world: &World) -> String {
    let body = r#"{"TTL":"60s","LockDelay":"0s","NodeChecks":[]}"#;
    let made = world.ask_as(HOME, Some(ROOT), "PUT", "/v1/session/create?dc=home", body).await;
    super::operations::remembered(&text(&made)).unwrap()
}

async fn outcome(
    world: &World,
    at: usize,
    prefix: &str,
    secret: Option<&str>,
    request: (&str, &str, &str),
) -> String {
    let (method, target, body) = request;
    let has_session = target.contains("@s;") || body.contains("@s;");
    let session = if has_session { session(world).await } else { String::new() };
    let place = |text: &str| text.replace("P/", prefix).replace("@s;", &session).replace("DC", "home");
    let response = world.ask_as(at, secret, method, &place(target), &place(body)).await;
    let shown = seen(target, response.status, &text(&response), prefix);
    if !has_session {
        return shown;
    }
    // What it holds is let go before the next one wants it.
    let target = format!("/v1/session/destroy/{session}?dc=home");
    assert_eq!(world.ask_as(HOME, Some(ROOT), "PUT", &target, "").await.status, 200);
    for key in ["l", "secret/l"] {
        let target = format!("/v1/kv/{prefix}{key}");
        assert_eq!(text(&world.ask_as(HOME, Some(ROOT), "DELETE", &target, "").await), "true");
    }
    shown.replace(&session, "@s;")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_can_do_what_its_token_could_do_at_home() {
    let acl = json!({ "acl": { "enabled": true, "default_policy": "deny",
        "tokens": { "master": ROOT, "agent": ROOT } } });
    let world = World::start(acl).await;
    make_tokens(&world).await;
    let mut wrong = Vec::new();
    for secret in SECRETS {
        for request in REQUESTS {
            let mut outcomes = Vec::new();
            for (at, prefix) in [(HOME, "plain/"), (HOME, "config/"), (REPLICA, "config/")] {
                fill(&world, prefix).await;
                outcomes.push(outcome(&world, at, prefix, secret, *request).await);
            }
            if outcomes[0] != outcomes[1] || outcomes[0] != outcomes[2] {
                wrong.push(format!("{secret:?} {request:?}: Consul, home, replica: {outcomes:#?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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

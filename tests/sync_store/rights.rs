//! With ACLs that deny by default: what the shipped policy allows, and lists of which Consul leaves something out.

use bytes::Bytes;
use causeway::{
    consul::client::path,
    model::{kv::Op, secret::SecretText, session::Behavior},
    sync::{
        endpoint::{Origin, Raw, Request, Response},
        store::{Access, Read, Resource, Right, Store, StoreError, consul::ConsulStore},
    },
};
use http::Method;
use serde_json::{Value, json};

use super::{HOST, committed, keys, set, spec, store};
use crate::rig::parts::{Consul, PATIENCE};

const ROOT: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8a003";
const DEFAULT: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8a004";

struct Bench {
    consul: Consul,
    root: ConsulStore,
}

impl Bench {
    async fn start() -> Self {
        let tokens = json!({"master": ROOT, "agent": ROOT});
        let acl = json!({"enabled": true, "default_policy": "deny", "tokens": tokens});
        let consul = Consul::start(HOST, json!({"primary_datacenter": "dc1", "acl": acl}));
        let root = store(&consul, Some(ROOT));
        committed(&root, vec![set("config/a", "1"), set("config/b", "1"), set("secret", "1")]).await;
        Self { consul, root }
    }

    /// A store whose token has these rules.
    async fn store(&self, name: &str, rules: &str) -> ConsulStore {
        store(&self.consul, Some(&self.token(name, rules, json!({})).await))
    }

    async fn token(&self, name: &str, rules: &str, more: Value) -> String {
        let client = super::client(&self.consul, Some(ROOT));
        let ask = async |kind: &str, body| {
            let reply = client.put(&path(&["v1", "acl", kind]), &[], Some(body), PATIENCE).await.unwrap();
            reply.ok().unwrap().json::<Value>().unwrap()
        };
        ask("policy", json!({ "Name": name, "Rules": rules })).await;
        let mut token = json!({ "Policies": [{ "Name": name }] });
        token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ask("token", token).await["SecretID"].as_str().unwrap().to_owned()
    }
}

fn shipped() -> String {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/causeway-sync.hcl");
    std::fs::read_to_string(file).unwrap().replace("{{prefix}}", "config/")
}

fn key(access: Access, segment: &str) -> Right {
    Right { resource: Resource::Key, access, segment: segment.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_policy_suffices_and_allows_no_more() {
    let bench = Bench::start().await;
    let sync = bench.store("sync", &shipped()).await;
    assert_eq!(keys(&sync.list("config/", Read::Consistent).await.unwrap()), ["config/a", "config/b"]);
    assert!(sync.list("_sync/v1/config-0/", Read::Consistent).await.unwrap().value.is_empty());
    let session = sync.create_session(&spec(10, Behavior::Release)).await.unwrap();
    let lock = Op::Lock {
        key: "_sync/v1/config-0/duty/home".into(),
        value: Bytes::new(),
        flags: 0,
        session: session.clone(),
    };
    let tree = |prefix: &str| Op::DeleteTree { prefix: prefix.into() };
    committed(&sync, vec![lock, set("config/a", "2"), tree("config/b")]).await;
    assert_eq!(sync.renew_session(&session).await, Ok(true));
    sync.destroy_session(&session).await.unwrap();
    assert!(sync.max_txn_ops().await.is_ok());
    let client = super::client(&bench.consul, Some(&bench.token("sync2", &shipped(), json!({})).await));
    let service = json!({"Name": "causeway-sync", "Port": 8502, "Connect": {"Native": true}});
    client.register_service(service).await.unwrap();
    let leaf = path(&["v1", "agent", "connect", "ca", "leaf", "causeway-sync"]);
    client.get(&leaf, &[], PATIENCE).await.unwrap().ok().unwrap();

    for foreign in [set("secret", "2"), tree("config"), tree(""), Op::CheckNotExists { key: "x".into() }] {
        let error = sync.txn(vec![set("config/z", "1"), foreign.clone()]).await.unwrap_err();
        let names =
            |reason: &str| reason.contains("Permission denied") && reason.contains("policy = \"write\"");
        assert!(
            matches!(&error, StoreError::Refused { status: 403, reason } if names(reason)),
            "{foreign:?}: {error}"
        );
    }
    assert_eq!(sync.get("config/z", Read::Consistent).await.unwrap().value, None);
    let error = sync.get("secret", Read::Consistent).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { status: 403, .. }), "{error}");
    // What an agent made on its node, the next one renews and ends from another.
    let session = sync.create_session(&spec(10, Behavior::Release)).await.unwrap();
    let other = bench.store("other", &shipped()).await;
    assert_eq!(other.renew_session(&session).await, Ok(true));
    other.destroy_session(&session).await.unwrap();
    assert_eq!(sync.renew_session(&session).await, Ok(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_which_something_is_left_out_is_unusable() {
    let bench = Bench::start().await;
    let rules = [
        ("none", "key \"other\" { policy = \"write\" }"),
        ("exact", "key \"config/\" { policy = \"write\" }"),
        ("read", "key_prefix \"config/\" { policy = \"read\" }"),
        ("list", "key_prefix \"config/\" { policy = \"list\" }"),
        // Consul grants `list` on config/ to these, and leaves out config/b without a word.
        ("hole", "key_prefix \"config/\" { policy = \"write\" } key \"config/b\" { policy = \"deny\" }"),
        (
            "holes",
            "key_prefix \"config/\" { policy = \"list\" } key_prefix \"config/b\" { policy = \"deny\" }",
        ),
    ];
    for (name, rules) in rules {
        let store = bench.store(name, rules).await;
        for read in [Read::Consistent, Read::Default] {
            let error = store.list("config/", read).await.unwrap_err();
            assert!(
                matches!(&error, StoreError::Unusable(why) if why.contains("config/")),
                "{name}: {error}"
            );
        }
    }
    // Nor does it say of a key that is hidden that it is gone.
    let absent = |key: &str| vec![Op::CheckNotExists { key: key.into() }];
    let hole = bench.store("absent", rules[4].1).await;
    let error = hole.txn(absent("config/b")).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { status: 403, .. }), "{error}");
    committed(&hole, absent("config/c")).await;
    let unknown = store(&bench.consul, Some("5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8affe"));
    let error = unknown.list("config/", Read::Consistent).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { status: 403, .. }), "{error}");
    let nobody = store(&bench.consul, None);
    let error = nobody.list("config/", Read::Consistent).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_taken_away_is_noticed_at_the_next_list() {
    let bench = Bench::start().await;
    let token = bench.token("fading", "key_prefix \"config/\" { policy = \"write\" }", json!({})).await;
    let fading = store(&bench.consul, Some(&token));
    assert_eq!(fading.list("config/", Read::Consistent).await.unwrap().value.len(), 2);
    let client = super::client(&bench.consul, Some(ROOT));
    let found: Value = client.get("/v1/acl/policy/name/fading", &[], PATIENCE).await.unwrap().json().unwrap();
    // 1.8 has no policy by name.
    let id = match found["ID"].as_str() {
        Some(id) => id.to_owned(),
        None => {
            let all: Value = client.get("/v1/acl/policies", &[], PATIENCE).await.unwrap().json().unwrap();
            let all = all.as_array().unwrap();
            all.iter().find(|policy| policy["Name"] == "fading").unwrap()["ID"].as_str().unwrap().to_owned()
        }
    };
    let narrowed = json!({"Name": "fading", "Rules": "key \"config/a\" { policy = \"write\" }"});
    let path = path(&["v1", "acl", "policy", &id]);
    client.put(&path, &[], Some(narrowed), PATIENCE).await.unwrap().ok().unwrap();
    let error = fading.list("config/", Read::Consistent).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_rights_are_its_own() {
    let bench = Bench::start().await;
    let rules = "key_prefix \"config/\" { policy = \"write\" } operator = \"write\" session \"s1\" { policy = \"write\" }";
    let known = SecretText::from(bench.token("client", rules, json!({})).await);
    let operator = Right { resource: Resource::Operator, access: Access::Write, segment: String::new() };
    let session = Right { resource: Resource::Session, access: Access::Write, segment: "s1".into() };
    let mut rights = vec![operator, session];
    rights.extend(
        [Access::Read, Access::List, Access::Write, Access::WritePrefix].map(|access| key(access, "config/")),
    );
    rights.extend((0..64).map(|n| key(Access::Write, &format!("config/{n}"))));
    // The agent's own token is not asked about.
    let sync = bench.store("sync", "key_prefix \"own/\" { policy = \"write\" }").await;
    assert_eq!(sync.authorize(Some(&known), &rights).await, Ok(vec![true; rights.len()]));
    assert_eq!(bench.root.authorize(None, &rights).await, Ok(vec![false; rights.len()]));
    rights.push(key(Access::Read, "secret"));
    assert_eq!(sync.authorize(Some(&known), &rights).await.unwrap().last(), Some(&false));
    let unknown = SecretText::from("5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8affe");
    let error = bench.root.authorize(Some(&unknown), &rights).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused { status: 403, reason } if reason.contains("ACL not found")),
        "{error}"
    );
    assert!(!error.to_string().contains(unknown.expose()));
}

fn get(target: &str, headers: &[(&str, &str)]) -> Request {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Request::new(Method::GET, target, headers, Bytes::new())
}

async fn asked(store: &ConsulStore, request: &Request) -> Response {
    store.ask(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_passed_on_has_the_callers_token_and_no_other() {
    let bench = Bench::start().await;
    let reads = bench.token("reads", "key_prefix \"config/\" { policy = \"read\" }", json!({})).await;
    // The agent could do everything, and lends none of it.
    for (token, status) in [(None, 403), (Some("anonymous"), 403), (Some(reads.as_str()), 200)] {
        let header: Vec<_> = token.iter().map(|token| ("X-Consul-Token", *token)).collect();
        let reply = asked(&bench.root, &get("/v1/kv/config/a?raw", &header)).await;
        assert_eq!(reply.status, status, "{token:?}: {reply:?}");
    }
    let bearer = format!("Bearer {reads}");
    let reply = asked(&bench.root, &get("/v1/kv/config/a?raw", &[("Authorization", &bearer)])).await;
    assert_eq!((reply.status, reply.body.as_ref()), (200, b"1".as_ref()));
    assert!(reply.header("x-consul-index").is_some() && reply.header("x-consul-knownleader") == Some("true"));
    let reply = asked(&bench.root, &get(&format!("/v1/kv/config/a?raw&token={reads}"), &[])).await;
    assert_eq!(reply.status, 200);
    // Redirects and compressed answers come as they are.
    assert_eq!(asked(&bench.root, &get("/v1/kv/config//a", &[])).await.status, 301);
    let put = Request::new(
        Method::PUT,
        "/v1/kv/config/a?flags=7",
        vec![("X-Consul-Token".into(), reads)],
        Bytes::from_static(b"2"),
    );
    assert_eq!(asked(&bench.root, &put).await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asked_elsewhere_without_a_token_stays_anonymous() {
    let bench = Bench::start().await;
    let rules = "key_prefix \"config/\" { policy = \"read\" }";
    bench.token("default", rules, json!({"SecretID": DEFAULT})).await;
    let client = super::client(&bench.consul, Some(ROOT));
    let default = Some(json!({"Token": DEFAULT}));
    client.put("/v1/agent/token/default", &[], default, PATIENCE).await.unwrap().ok().unwrap();
    let mut request = get("/v1/kv/config/a?raw", &[]);
    assert_eq!(asked(&bench.root, &request).await.status, 200);
    request.origin = Some(Origin { datacenter: "dc2".into(), request_id: "r".into(), hops: 1 });
    assert_eq!(asked(&bench.root, &request).await.status, 403);
    assert_eq!(bench.root.authorize(None, &[key(Access::Read, "config/a")]).await, Ok(vec![false]));
}

//! Refusals beside Consul's own, where ACLs deny by default: status, headers and body of the same operations, recorded in
//! `denied.txt` as Consul gives them.

use crate::{
    lab_sync::{
        answers::{Desk, compare},
        rights::NOBODYS,
        world::World,
    },
    sync_endpoint::rights::rules,
};

/// As in `answers.rs`. There is a key `{p}a`.
const OPERATIONS: &[&str] = &[
    "GET /v1/kv/{p}a",
    "GET /v1/kv/{p}a?raw",
    "GET /v1/kv/{p}a?consistent",
    "GET /v1/kv/{p}a?index=1",
    "GET /v1/kv/{p}?recurse",
    "GET /v1/kv/{p}?keys",
    "GET /v1/kv/{p}secret/a",
    "PUT /v1/kv/{p}a x",
    "PUT /v1/kv/{p}a?cas=0 x",
    "DELETE /v1/kv/{p}a",
    "DELETE /v1/kv/{p}a?cas=1",
    "DELETE /v1/kv/{p}?recurse",
    "PUT /v1/kv/{p}l?acquire={s} x",
    "PUT /v1/kv/{p}l?release={s} x",
    "PUT /v1/txn [{\"KV\": {\"Verb\": \"set\", \"Key\": \"{p}a\", \"Value\": \"eA==\"}}]",
    "PUT /v1/txn [{\"KV\": {\"Verb\": \"get\", \"Key\": \"{p}a\"}}]",
    "PUT /v1/session/create?dc=primary {\"TTL\": \"20s\"}",
    "GET /v1/session/info/{s}?dc=primary",
    "GET /v1/session/list?dc=primary",
    "GET /v1/session/node/{n}?dc=primary",
    "PUT /v1/session/renew/{s}?dc=primary",
    "PUT /v1/session/destroy/{s}?dc=primary",
    "GET /v1/agent/self",
];

const BELOW: &str = "denied/";

pub(super) fn they_are_consuls_own(world: &World) {
    let rules = ["plain/", "config/"].map(|home| rules(&format!("{home}{BELOW}"), "read")).concat();
    let onlooker = world.make_token("onlooker", &(rules + r#"session_prefix "" { policy = "read" }"#));
    let who = [("nobody", None), ("an unknown token", Some(NOBODYS)), ("an onlooker", Some(&*onlooker))];
    compare(world, "denied.txt", BELOW, |address, prefix| {
        let written = world.ask("PUT", &format!("{address}/v1/kv/{prefix}a"), b"one");
        assert_eq!((written.status, written.text().as_str()), (200, "true"));
        let desk = Desk::new(address, prefix);
        let said = |(name, token): (&str, Option<&str>)| -> Vec<String> {
            let desk = desk.with_token(token);
            OPERATIONS.iter().map(|operation| format!("# {name}\n{}", desk.said(operation))).collect()
        };
        who.into_iter().flat_map(said).collect()
    });
}

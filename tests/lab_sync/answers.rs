//! The answers of each endpoint beside Consul's own: status, headers and body of the same operations, recorded in
//! `answers.txt` as Consul gives them.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use serde_json::Value;

use crate::lab_sync::{
    ask::{Reply, ask},
    world::World,
};

/// `{p}` is the prefix, `{s}` a session, `{i KEY}` the index of a key. The body stands behind the second space.
const OPERATIONS: &[&str] = &[
    "DELETE /v1/kv/{p}?recurse",
    "GET /v1/kv/{p}a",
    "GET /v1/kv/{p}?recurse",
    "GET /v1/kv/{p}?keys",
    "PUT /v1/kv/{p}a one",
    "GET /v1/kv/{p}a",
    "GET /v1/kv/{p}a?raw",
    "GET /v1/kv/{p}a?stale",
    "GET /v1/kv/{p}a?consistent",
    "GET /v1/kv/{p}a?stale&consistent",
    "GET /v1/kv/{p}a?pretty",
    "HEAD /v1/kv/{p}a",
    "POST /v1/kv/{p}a",
    "PATCH /v1/kv/{p}a",
    "OPTIONS /v1/kv/{p}a",
    "PUT /v1/kv/{p}b?flags=42 two",
    "PUT /v1/kv/{p}b?flags=x two",
    "PUT /v1/kv/{p}c?cas=0 three",
    "PUT /v1/kv/{p}c?cas=0 three",
    "PUT /v1/kv/{p}c?cas={i c} four",
    "PUT /v1/kv/{p}c?cas=x four",
    "PUT /v1/kv/{p}deep/er",
    "GET /v1/kv/{p}?recurse",
    "GET /v1/kv/{p}?keys",
    "GET /v1/kv/{p}?keys&separator=/",
    "GET /v1/kv/{p}?recurse&raw",
    "GET /v1/kv/{p}a?index=x",
    "GET /v1/kv/{p}a?wait=x",
    "GET /v1/kv/{p}a?index=1",
    "GET /v1/kv/{p}a?dc=nowhere",
    "DELETE /v1/kv/{p}c?cas=1",
    "DELETE /v1/kv/{p}c?cas=0",
    "DELETE /v1/kv/{p}c?cas={i c}",
    "DELETE /v1/kv/{p}missing",
    "DELETE /v1/kv/{p}missing?cas=7",
    "PUT /v1/kv/{p}l?acquire={s} held",
    "PUT /v1/kv/{p}l?acquire={s} held",
    "GET /v1/kv/{p}l",
    "PUT /v1/kv/{p}l?acquire=00000000-0000-0000-0000-000000000000 x",
    "PUT /v1/kv/{p}l?release=00000000-0000-0000-0000-000000000000 x",
    "PUT /v1/kv/{p}l?release={s} free",
    "GET /v1/kv/{p}l",
    "PUT /v1/kv/{p}l?acquire={s}&cas=1 x",
    "GET /v1/session/info/{s}?dc=primary",
    "GET /v1/session/info/00000000-0000-0000-0000-000000000000?dc=primary",
    "PUT /v1/session/renew/{s}?dc=primary",
    "PUT /v1/session/renew/00000000-0000-0000-0000-000000000000?dc=primary",
    "PUT /v1/session/create?dc=primary {\"TTL\": \"1s\"}",
    "PUT /v1/session/create?dc=primary {\"TTL\": \"20s\", \"Behavior\": \"explode\"}",
    "PUT /v1/session/create?dc=primary {",
    "GET /v1/session/create",
    "PUT /v1/txn [{\"KV\": {\"Verb\": \"set\", \"Key\": \"{p}t\", \"Value\": \"b25l\"}}, {\"KV\": {\"Verb\": \"get\", \"Key\": \"{p}a\"}}]",
    "PUT /v1/txn [{\"KV\": {\"Verb\": \"get\", \"Key\": \"{p}a\"}}, {\"KV\": {\"Verb\": \"get-tree\", \"Key\": \"{p}\"}}]",
    "PUT /v1/txn [{\"KV\": {\"Verb\": \"cas\", \"Key\": \"{p}t\", \"Index\": 1, \"Value\": \"b25l\"}}]",
    "PUT /v1/txn [{\"KV\": {\"Verb\": \"get\", \"Key\": \"{p}missing\"}}]",
    "PUT /v1/txn [{\"KV\": {\"Verb\": \"check-not-exists\", \"Key\": \"{p}a\"}}]",
    "PUT /v1/txn [{\"KV\": {\"Verb\": \"delete-tree\", \"Key\": \"{p}deep\"}}]",
    "PUT /v1/txn [{\"KV\": {\"Verb\": \"frobnicate\", \"Key\": \"{p}a\"}}]",
    "PUT /v1/txn []",
    "PUT /v1/txn {",
    "GET /v1/txn",
    "PUT /v1/session/destroy/{s}?dc=primary",
    "PUT /v1/session/destroy/{s}?dc=primary",
    "DELETE /v1/kv/{p}?recurse",
    "GET /v1/nothing/here",
];

/// Where an answer may differ, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("PUT /v1/session/create?dc=primary {", "the parser's own words on JSON that is none"),
    ("PUT /v1/txn {", "the parser's own words on JSON that is none"),
    (
        "PUT /v1/txn [{\"KV\": {\"Verb\": \"frobnicate\", \"Key\": \"{p}a\"}}]",
        "refused before it gets to Consul, which takes an unknown verb for a read",
    ),
];

pub(super) fn they_are_consuls_own(world: &World) {
    let record = recorded(&world.consul("primary-gateway"), "plain/answers/");
    let file = World::source("answers.txt");
    let text: String = record.iter().map(String::as_str).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == text,
        "Consul answers otherwise than recorded; UPDATE_GOLDEN=1 rewrites {}",
        file.display()
    );
    let mut wrong = String::new();
    let is_known =
        |told: &str| DIFFERENT.iter().any(|(operation, _)| told.starts_with(&format!("{operation}\n")));
    for node in ["primary-gateway", "primary-services", "secondary-gateway", "secondary-services"] {
        for (consuls, ours) in record.iter().zip(recorded(&world.agent(node), "config/answers/")) {
            if *consuls != ours && !is_known(&ours) {
                let _ = writeln!(wrong, "at {node}:\n{ours}Consul itself:\n{consuls}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn recorded(address: &str, prefix: &str) -> Vec<String> {
    let made = ask(
        "PUT",
        &format!("{address}/v1/session/create?dc=primary"),
        &[],
        br#"{"TTL": "30s", "LockDelay": "0s"}"#,
    );
    let made: Value = serde_json::from_slice(&made.unwrap().body).unwrap();
    let session = made["ID"].as_str().unwrap().to_owned();
    let run = |operation: &&str| {
        let line = operation.replace("{p}", prefix).replace("{s}", &session);
        let line = with_index(address, prefix, &line);
        let mut parts = line.splitn(3, ' ');
        let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
        let body = parts.next().unwrap_or_default();
        let reply = ask(method, &format!("{address}{path}"), &[], body.as_bytes());
        let reply = reply.unwrap_or_else(|error| panic!("{line}: {error}"));
        let shown = shown(&reply, method == "HEAD");
        format!("{operation}\n{}\n", shown.replace(prefix, "{p}").replace(&session, "{s}"))
    };
    OPERATIONS.iter().map(run).collect()
}

fn with_index(address: &str, prefix: &str, line: &str) -> String {
    let Some((head, rest)) = line.split_once("{i ") else { return line.to_owned() };
    let (key, tail) = rest.split_once('}').unwrap();
    let reply = ask("GET", &format!("{address}/v1/kv/{prefix}{key}"), &[], b"").unwrap();
    let pairs: Value =
        serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {reply:?}"));
    format!("{head}{}{tail}", pairs[0]["ModifyIndex"])
}

/// Without what differs from one run to the next, and without replication's own headers.
fn shown(reply: &Reply, is_head: bool) -> String {
    let own = |name: &str| name.starts_with("x-sync-") || name == "x-lock-token";
    let varies = |name: &str| ["date", "content-length", "transfer-encoding", "connection"].contains(&name);
    let headers: BTreeMap<&str, &str> = reply
        .headers
        .iter()
        .filter(|(name, _)| !own(name) && !varies(name))
        .map(|(name, value)| match name.as_str() {
            "x-consul-index" | "x-consul-lastcontact" => (name.as_str(), "N"),
            name => (name, value.as_str()),
        })
        .collect();
    let mut text = format!("{}\n", reply.status);
    for (name, value) in headers {
        let _ = writeln!(text, "{name}: {value}");
    }
    let body = if is_head { String::new() } else { without_numbers(&reply.text()) };
    // Consul says so when another agent than the asked one carried the request out.
    let body = body.replace("rpc error making call: ", "");
    format!("{text}\n{body}\n")
}

/// Without indexes, and without what a session says of who made it: one that was made for another datacenter is bound to
/// no node's health.
fn without_numbers(text: &str) -> String {
    let mut text = text.to_owned();
    for name in ["\"CreateIndex\":", "\"ModifyIndex\":", "\"Index\":"] {
        text = replaced(&text, name, |letter| letter.is_ascii_digit() || letter == ' ');
    }
    text = replaced(&text, "\"Node\":", |letter| letter != ',');
    replaced(&text, "\"NodeChecks\":", |letter| letter != ']')
}

/// What follows each `name`, as long as it is part of the value, becomes N.
fn replaced(text: &str, name: &str, is_value: impl Fn(char) -> bool) -> String {
    let mut parts = text.split(name);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| format!("{out}{name}N{}", part.trim_start_matches(&is_value)))
}

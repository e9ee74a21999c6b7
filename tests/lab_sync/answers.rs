//! The answers of each endpoint beside Consul's own: status, headers and body of the same operations, recorded in
//! `answers.txt` as Consul gives them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::Duration,
};

use causeway::lifecycle;
use serde_json::Value;

use crate::lab_sync::{
    ask::{Reply, ask},
    world::{AGENTS, World, with_token},
};

/// An answer that comes within this did not wait.
const MOMENT: Duration = Duration::from_millis(500);
/// What a query waits that nothing wakes.
const SHORT: (&str, Duration) = ("wait=1s", Duration::from_secs(1));

/// `{p}` is the prefix, `{s}` a session and `{n}` its node, `{i KEY}` the index of a key and `{x KEY}` the one to wait
/// with. The body stands behind the second space; that of `WAIT`, which is a `GET`, is written to `{p}w` while the query waits.
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
    "PUT /v1/kv/{p}w first",
    "GET /v1/kv/{p}w?index={x w}&wait=1s",
    "WAIT /v1/kv/{p}w?index={x w}&wait=60s second",
    "WAIT /v1/kv/{p}w?raw&index={x w}&wait=60s third",
    "WAIT /v1/kv/{p}?recurse&index={x ?recurse}&wait=60s fourth",
    "DELETE /v1/kv/{p}w",
    "GET /v1/kv/{p}a?ns=default",
    "PUT /v1/kv/{p}a?ns=default x",
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
    "GET /v1/session/list?dc=primary",
    "GET /v1/session/node/{n}?dc=primary",
    "GET /v1/session/node/nobody?dc=primary",
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
    "GET /v1/session/info/{s}?dc=primary",
    "DELETE /v1/kv/{p}?recurse",
    "GET /v1/agent/self",
    "GET /v1/nothing/here",
];

/// What each node's own Consul answers for itself.
const OWN: &[&str] = &["/v1/agent/self", "/v1/agent/services", "/v1/status/leader"];

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
    let told = |address: String, prefix| {
        let desk = Desk::new(address, prefix);
        OPERATIONS.iter().map(|operation| desk.said(operation)).collect()
    };
    compare(world, "answers.txt", "answers/", told);
}

pub(super) fn a_nodes_own_are_its_consuls(world: &World) {
    for node in AGENTS.iter().flat_map(|(_, nodes)| nodes) {
        for path in OWN {
            let told = |address: String| {
                let reply = world.ask("GET", &format!("{address}{path}"), b"");
                let mut body: Value =
                    serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {reply:?}"));
                // Measured anew for every answer.
                for measured in ["Coord", "Stats"] {
                    body.as_object_mut().and_then(|body| body.remove(measured));
                }
                (head(&reply), body)
            };
            assert_eq!(told(world.agent(node)), told(world.consul(node)), "{path} at {node}");
        }
    }
}

/// Holds what `told` hears from every agent below `config/` against what it hears from Consul below `plain/`, and that against
/// the file.
pub(super) fn compare(world: &World, file: &str, below: &str, told: impl Fn(String, String) -> Vec<String>) {
    let record = told(world.consul("primary-gateway"), format!("plain/{below}"));
    let file = World::source(file);
    let text = record.concat();
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
    for node in AGENTS.iter().flat_map(|(_, nodes)| nodes) {
        for (consuls, ours) in record.iter().zip(told(world.agent(node), format!("config/{below}"))) {
            if *consuls != ours && !is_known(&ours) {
                let _ = writeln!(wrong, "at {node}:\n{ours}Consul itself:\n{consuls}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Where operations are asked, and what stands for their placeholders.
pub(super) struct Desk {
    address: String,
    prefix: String,
    session: String,
    node: String,
}

impl Desk {
    pub(super) fn new(address: String, prefix: String) -> Self {
        let read = |method: &str, path: &str, body: &[u8]| -> Value {
            let reply = ask(method, &format!("{address}{path}"), &[], body).unwrap();
            serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {reply:?}"))
        };
        let spec = br#"{"TTL": "30s", "LockDelay": "0s"}"#;
        let made = read("PUT", "/v1/session/create?dc=primary", spec);
        let session = made["ID"].as_str().unwrap().to_owned();
        let made = read("GET", &format!("/v1/session/info/{session}?dc=primary"), b"");
        let node = made[0]["Node"].as_str().unwrap().to_owned();
        Self { address, prefix, session, node }
    }

    /// The same with another token, or none.
    pub(super) fn with_token(&self, token: Option<&str>) -> Self {
        let Self { address, prefix, session, node } = self;
        let (prefix, session, node) = (prefix.clone(), session.clone(), node.clone());
        Self { address: with_token(address, token), prefix, session, node }
    }

    /// The operation and its answer, without what differs from one run to the next and without replication's own headers.
    pub(super) fn said(&self, operation: &str) -> String {
        let line = self.filled(operation);
        let mut parts = line.splitn(3, ' ');
        let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
        let (url, body) = (format!("{}{path}", self.address), parts.next().unwrap_or_default());
        let began = lifecycle::now();
        let reply = match method {
            "WAIT" => self.woken(&url, body),
            _ => ask(method, &url, &[], body.as_bytes()),
        };
        let reply = reply.unwrap_or_else(|error| panic!("{line}: {error}"));
        let waited = if !path.ends_with(SHORT.0) {
            ""
        } else if began.elapsed() < SHORT.1 {
            "at once\n"
        } else {
            "after its time\n"
        };
        let body = if method == "HEAD" { String::new() } else { self.body(path, &reply) };
        let shown = format!("{}\n{body}\n{waited}", head(&reply));
        format!("{operation}\n{}\n", shown.replace(&self.prefix, "{p}").replace(&self.session, "{s}"))
    }

    /// The answer to a blocking query, which a write brings and nothing before it.
    fn woken(&self, url: &str, value: &str) -> Result<Reply, String> {
        let (told, answer) = sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(move || told.send(ask("GET", url, &[], b"")));
            let early = answer.recv_timeout(MOMENT);
            assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "{url} did not wait: {early:?}");
            let target = format!("{}/v1/kv/{}w", self.address, self.prefix);
            let written = ask("PUT", &target, &[], value.as_bytes())?;
            assert_eq!((written.status, written.text().as_str()), (200, "true"), "{target}");
            answer.recv().unwrap()
        })
    }

    fn filled(&self, operation: &str) -> String {
        let line = operation.replace("{p}", &self.prefix);
        let line = line.replace("{s}", &self.session).replace("{n}", &self.node);
        let line = self.with_number(&line, "{i ", |reply| {
            let pairs: Value =
                serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {reply:?}"));
            pairs[0]["ModifyIndex"].to_string()
        });
        self.with_number(&line, "{x ", |reply| reply.header("x-consul-index").unwrap().to_owned())
    }

    /// Puts in what is read of the answer for a key, where the line names it behind `mark`.
    fn with_number(&self, line: &str, mark: &str, read: impl Fn(&Reply) -> String) -> String {
        let Some((before, rest)) = line.split_once(mark) else { return line.to_owned() };
        let (key, behind) = rest.split_once('}').unwrap();
        let reply = ask("GET", &format!("{}/v1/kv/{}{key}", self.address, self.prefix), &[], b"").unwrap();
        format!("{before}{}{behind}", read(&reply))
    }

    fn body(&self, path: &str, reply: &Reply) -> String {
        let text = reply.text();
        let text = match path {
            // Each node's own, of which only the shape is the same everywhere.
            "/v1/agent/self" if reply.status == 200 => members(&text),
            path if path.starts_with("/v1/session/list") || path.starts_with("/v1/session/node/") => {
                only(&self.session, &text)
            }
            _ => text,
        };
        let text = without_numbers(&text);
        // An agent goes on and names the right.
        let text = if reply.status == 403 { text.split(": the token lacks").next().unwrap() } else { &text };
        // Consul says so when another agent than the asked one carried the request out.
        text.replace("rpc error making call: ", "")
    }
}

/// Status and headers, without what differs from one run to the next, and without replication's own.
fn head(reply: &Reply) -> String {
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
    text
}

fn members(text: &str) -> String {
    let body: BTreeMap<String, Value> = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    body.into_keys().collect::<Vec<_>>().join(" ")
}

/// Of a list of sessions the one with this id: others come and go.
fn only(session: &str, text: &str) -> String {
    let Some(list) = text.strip_prefix("[{").and_then(|rest| rest.strip_suffix("}]")) else {
        return text.to_owned();
    };
    let own: Vec<String> =
        list.split("},{").filter(|it| it.contains(session)).map(|it| format!("{{{it}}}")).collect();
    format!("[{}]", own.join(","))
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

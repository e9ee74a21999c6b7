//! Consul's own answers over HTTP: status, index and JSON of keys, transactions and sessions. What a wait waits for is
//! judged here, waiting is `store`'s.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use causeway::model::{
    kv::{Op, Pair, TxnReply},
    session::{Behavior, SessionId, SessionSpec},
};
use serde_json::{Value, json};

use super::{MAX_BODY_BYTES, Model, Session};

/// A request. Path and query are decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) body: Bytes,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    /// `X-Consul-Index`, on reads.
    pub(crate) index: Option<u64>,
    pub(crate) body: Bytes,
}

impl Told {
    fn text(status: u16, text: impl Into<String>) -> Self {
        Self { status, index: None, body: text.into().into() }
    }

    fn json(body: &Value) -> Self {
        Self::text(200, body.to_string())
    }

    fn at(self, index: u64) -> Self {
        Self { index: Some(index), ..self }
    }
}

impl Ask {
    /// A request without a body; parameters are `a=b` or `a`.
    pub(crate) fn new(method: &str, path: impl Into<String>, query: &[(&str, String)]) -> Self {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Self { method: method.to_owned(), path: path.into(), query, body: Bytes::new() }
    }

    pub(crate) fn with_body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    fn has(&self, name: &str) -> bool {
        self.query.contains_key(name)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.query.get(name)?.parse().ok()
    }

    /// The index that it waits to be passed, and how long.
    pub(crate) fn wait(&self) -> Option<(u64, Duration)> {
        let index = self.number("index").filter(|index| *index > 0)?;
        let wait = self.query.get("wait").and_then(|text| duration(text));
        Some((index, wait.unwrap_or(Duration::from_secs(300)).min(Duration::from_secs(600))))
    }
}

/// As Go writes them: `10s`, `1ms`, `1m`; without a unit nanoseconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    Some(match &text[digits..] {
        "" | "ns" => Duration::from_nanos(number),
        "us" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        "h" => Duration::from_secs(number * 3600),
        _ => return None,
    })
}

impl Model {
    /// Answers at once, whatever the request wants to wait for.
    pub(crate) fn answer(&mut self, ask: &Ask) -> Told {
        let path = ask.path.trim_start_matches("/v1/");
        match (ask.method.as_str(), path.split_once('/').unwrap_or((path, ""))) {
            ("GET", ("kv", key)) => self.read(key, ask),
            ("PUT", ("kv", key)) => self.write(key, ask),
            ("DELETE", ("kv", key)) => self.delete(key, ask),
            ("PUT", ("txn", "")) => self.transaction(&ask.body),
            (method, ("session", rest)) => self.session_request(method, rest, ask),
            ("GET", ("status", "leader")) => Told::json(&json!("127.0.0.1:8300")),
            _ => Told::text(404, ""),
        }
    }

    fn read(&self, key: &str, ask: &Ask) -> Told {
        if ask.has("keys") {
            return self.keys(key, ask.query.get("separator").map_or("", String::as_str));
        }
        if key.is_empty() && !ask.has("recurse") {
            return Told::text(400, "Missing key name");
        }
        let (index, pairs) = if ask.has("recurse") {
            self.list(key)
        } else {
            let (index, pair) = self.get(key);
            (index, pair.into_iter().collect())
        };
        match pairs.first() {
            None => Told::text(404, "").at(index),
            Some(pair) if ask.has("raw") => {
                Told { status: 200, index: Some(index), body: pair.value.clone() }
            }
            Some(_) => Told::json(&pairs.iter().map(shown).collect()).at(index),
        }
    }

    fn keys(&self, prefix: &str, separator: &str) -> Told {
        let (index, pairs) = self.list(prefix);
        let mut keys: Vec<&str> = Vec::new();
        for pair in &pairs {
            let rest = &pair.key[prefix.len()..];
            let cut = (!separator.is_empty()).then(|| rest.find(separator)).flatten();
            let key = cut.map_or(pair.key.as_str(), |at| &pair.key[..prefix.len() + at + separator.len()]);
            if keys.last() != Some(&key) {
                keys.push(key);
            }
        }
        // The root is always there.
        if keys.is_empty() && !prefix.is_empty() {
            return Told::text(404, "").at(index);
        }
        Told::json(&json!(keys)).at(index)
    }

    fn write(&mut self, key: &str, ask: &Ask) -> Told {
        if key.is_empty() {
            return Told::text(400, "Missing key name");
        }
        if ask.body.len() > MAX_BODY_BYTES {
            return Told::text(413, format!("Request body too large, max allowed is {MAX_BODY_BYTES}"));
        }
        let (key, value, flags) = (key.to_owned(), ask.body.clone(), ask.number("flags").unwrap_or(0));
        let session = |name: &str| ask.query.get(name).map(SessionId::from);
        let op = match (ask.number("cas"), session("acquire"), session("release")) {
            (Some(index), None, None) => Op::Cas { key, value, flags, index },
            (None, Some(session), None) => Op::Lock { key, value, flags, session },
            (None, None, Some(session)) => Op::Unlock { key, value, flags, session },
            (None, None, None) => Op::Set { key, value, flags },
            _ => return Told::text(400, "Conflicting flags"),
        };
        self.single(op)
    }

    fn delete(&mut self, key: &str, ask: &Ask) -> Told {
        let key = key.to_owned();
        let op = match ask.number("cas") {
            _ if ask.has("recurse") => Op::DeleteTree { prefix: key },
            _ if key.is_empty() => return Told::text(400, "Missing key name"),
            Some(index) => Op::DeleteCas { key, index },
            None => Op::Delete { key },
        };
        self.single(op)
    }

    /// A verb by itself says true or false; only what names no session that there is, is an error.
    fn single(&mut self, op: Op) -> Told {
        match self.txn(&[op]) {
            Ok(TxnReply::Committed(_)) => Told::text(200, "true"),
            Ok(TxnReply::RolledBack(errors)) => {
                let what = errors.first().map_or("", |error| error.what.as_str());
                if what.starts_with("invalid session") || what.starts_with("missing session") {
                    return Told::text(500, what);
                }
                Told::text(200, "false")
            }
            Err(error) => Told::text(413, error.to_string()),
        }
    }

    fn transaction(&mut self, body: &Bytes) -> Told {
        let Some(ops) = serde_json::from_slice::<Vec<Value>>(body)
            .ok()
            .and_then(|ops| ops.iter().map(|op| read_op(&op["KV"])).collect::<Option<Vec<Op>>>())
        else {
            return Told::text(400, "Failed to parse body");
        };
        match self.txn(&ops) {
            Ok(TxnReply::Committed(pairs)) => {
                let results: Vec<Value> = pairs.iter().map(|pair| json!({"KV": shown(pair)})).collect();
                Told::json(&json!({"Results": results, "Errors": null}))
            }
            Ok(TxnReply::RolledBack(errors)) => {
                let shown =
                    |e: &causeway::model::kv::TxnError| json!({"OpIndex": e.op_index, "What": e.what});
                let errors: Vec<Value> = errors.iter().map(shown).collect();
                Told::text(409, json!({"Results": null, "Errors": errors}).to_string())
            }
            Err(error) => Told::text(413, error.to_string()),
        }
    }

    fn session_request(&mut self, method: &str, rest: &str, ask: &Ask) -> Told {
        let (verb, id) = rest.split_once('/').unwrap_or((rest, ""));
        let id = SessionId::from(id);
        let found = |session: Option<&Session>| session.map(|s| shown_session(&id, s)).into_iter().collect();
        match (method, verb) {
            ("PUT", "create") => match self.create_session(&read_spec(&ask.body)) {
                Ok(id) => Told::json(&json!({"ID": id})),
                Err(reason) => Told::text(500, reason),
            },
            ("PUT", "destroy") => {
                self.end_session(&id);
                Told::text(200, "true")
            }
            ("PUT", "renew") if !self.renew_session(&id) => {
                Told::text(404, format!("Session id '{id}' not found"))
            }
            ("PUT", "renew") => Told::json(&found(self.session(&id))),
            ("GET", "info") => Told::json(&found(self.session(&id))),
            _ => Told::text(404, ""),
        }
    }
}

fn shown(pair: &Pair) -> Value {
    let mut shown = json!({
        "LockIndex": pair.lock_index, "Key": pair.key, "Flags": pair.flags, "Value": null,
        "CreateIndex": pair.create_index, "ModifyIndex": pair.modify_index,
    });
    if !pair.value.is_empty() {
        shown["Value"] = json!(BASE64_STANDARD.encode(&pair.value));
    }
    if let Some(session) = &pair.session {
        shown["Session"] = json!(session);
    }
    shown
}

fn shown_session(id: &SessionId, session: &Session) -> Value {
    let spec = &session.spec;
    let ttl = if spec.ttl.is_zero() { String::new() } else { format!("{}s", spec.ttl.as_secs()) };
    let behavior = if spec.behavior == Behavior::Delete { "delete" } else { "release" };
    json!({
        "ID": id, "Name": spec.name, "Node": "s1", "LockDelay": u64::try_from(spec.lock_delay.as_nanos()).unwrap(),
        "Behavior": behavior, "TTL": ttl, "CreateIndex": session.create_index, "ModifyIndex": session.create_index,
    })
}

fn read_spec(body: &Bytes) -> SessionSpec {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let time = |name: &str| body[name].as_str().and_then(duration);
    SessionSpec {
        name: body["Name"].as_str().unwrap_or_default().to_owned(),
        ttl: time("TTL").unwrap_or_default(),
        lock_delay: time("LockDelay").unwrap_or(Duration::from_secs(15)),
        behavior: if body["Behavior"] == "delete" { Behavior::Delete } else { Behavior::Release },
    }
}

fn read_op(op: &Value) -> Option<Op> {
    let text = |name: &str| op[name].as_str().unwrap_or_default().to_owned();
    let (key, flags, index) =
        (text("Key"), op["Flags"].as_u64().unwrap_or(0), op["Index"].as_u64().unwrap_or(0));
    let value: Bytes = BASE64_STANDARD.decode(text("Value")).ok()?.into();
    let session = SessionId::from(text("Session"));
    Some(match op["Verb"].as_str()? {
        "set" => Op::Set { key, value, flags },
        "cas" => Op::Cas { key, value, flags, index },
        "lock" => Op::Lock { key, value, flags, session },
        "unlock" => Op::Unlock { key, value, flags, session },
        "get" => Op::Get { key },
        "get-tree" => Op::GetTree { prefix: key },
        "check-index" => Op::CheckIndex { key, index },
        "check-session" => Op::CheckSession { key, session },
        "check-not-exists" => Op::CheckNotExists { key },
        "delete" => Op::Delete { key },
        "delete-tree" => Op::DeleteTree { prefix: key },
        "delete-cas" => Op::DeleteCas { key, index },
        _ => return None,
    })
}

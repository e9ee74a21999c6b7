//! What came of a request, as Consul 1.8.7 would have said it. Pure.

use bytes::Bytes;

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    model::{
        kv::{Op, Pair, TxnError, TxnReply},
        sync::{Position, Token},
    },
    sync::{endpoint::message::Response, refusal::Refusal},
};

/// Why one operation does not hold although nothing is wrong with the request: Consul answers `false` then.
const NOT_NOW: &[&str] = &[
    "index is stale",
    "lock is already held",
    "due to lock delay",
    "lock isn't held, or is held by another session",
];

/// A refusal of ours.
pub fn refusal(refusal: &Refusal) -> Response {
    let response = Response::text(refusal.status(), refusal.to_string());
    match refusal {
        Refusal::OutcomeUnknown { request_id, .. } => response.with("x-sync-request-id", request_id),
        Refusal::Busy(_) | Refusal::NotServing(_) | Refusal::HomeUnreachable { .. } => {
            response.with("retry-after", "1")
        }
        _ => response,
    }
}

/// The outcome of a `PUT` or `DELETE` of one key or tree.
pub fn single(op: &Op, reply: &TxnReply) -> Response {
    let errors = match reply {
        TxnReply::Committed(_) => return boolean(true),
        TxnReply::RolledBack(errors) => errors,
    };
    let what = errors.first().map_or("the transaction was rolled back without a reason", |error| &error.what);
    let can_be_false =
        matches!(op, Op::Cas { .. } | Op::DeleteCas { .. } | Op::Lock { .. } | Op::Unlock { .. });
    if can_be_false && NOT_NOW.iter().any(|reason| what.ends_with(reason)) {
        boolean(false)
    } else {
        Response::text(if what == "Permission denied" { 403 } else { 500 }, what)
    }
}

/// The outcome of a transaction that could write.
pub fn txn(reply: &TxnReply, is_pretty: bool) -> Response {
    match reply {
        TxnReply::Committed(pairs) => {
            let results: Vec<String> = pairs.iter().map(|pair| format!("{{\"KV\":{}}}", kv(pair))).collect();
            let body = format!("{{\"Results\":[{}],\"Errors\":null}}", results.join(","));
            json(200, body, is_pretty)
        }
        TxnReply::RolledBack(errors) => {
            let errors: Vec<(usize, String)> =
                errors.iter().map(|TxnError { op_index, what }| (*op_index, what.clone())).collect();
            rolled_back(&errors, is_pretty)
        }
    }
}

/// The answer to a transaction of which nothing holds: number of the operation, and why.
pub fn rolled_back(errors: &[(usize, String)], is_pretty: bool) -> Response {
    let one = |(at, what): &(usize, String)| format!("{{\"OpIndex\":{at},\"What\":{}}}", string(what));
    let errors: Vec<String> = errors.iter().map(one).collect();
    json(409, format!("{{\"Results\":null,\"Errors\":[{}]}}", errors.join(",")), is_pretty)
}

/// The headers of a write that home carried out.
pub fn written(response: Response, home: &str, at: Position, tokens: &[(String, Token)]) -> Response {
    let response = response.with("x-sync-home", home).with("x-sync-seq", at.to_string());
    match tokens.last() {
        Some((_, token)) => response.with("x-lock-token", token.to_string()),
        None => response,
    }
}

/// `true` or `false`.
pub fn boolean(holds: bool) -> Response {
    Response::json(200, if holds { "true" } else { "false" })
}

/// A JSON body, laid out for people when they ask for it.
pub fn json(status: u16, compact: String, is_pretty: bool) -> Response {
    Response::json(status, Bytes::from(if is_pretty { pretty(&compact) } else { compact }))
}

/// A key as in a transaction's results.
fn kv(pair: &Pair) -> String {
    // Consul shows an empty value as null everywhere.
    let value = if pair.value.is_empty() {
        "null".to_owned()
    } else {
        format!("\"{}\"", BASE64_STANDARD.encode(&pair.value))
    };
    let session =
        pair.session.as_ref().map_or_else(String::new, |id| format!("\"Session\":{},", string(id.as_str())));
    format!(
        "{{\"LockIndex\":{},\"Key\":{},\"Flags\":{},\"Value\":{value},{session}\"CreateIndex\":{},\"ModifyIndex\":{}}}",
        pair.lock_index,
        string(&pair.key),
        pair.flags,
        pair.create_index,
        pair.modify_index,
    )
}

/// A JSON string as Go writes it: what means something in HTML is escaped too.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Compact JSON as `?pretty` lays it out.
fn pretty(compact: &str) -> String {
    let mut out = String::with_capacity(compact.len() * 2);
    let (mut depth, mut in_string, mut is_escaped) = (0, false, false);
    let mut chars = compact.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"    ".repeat(depth));
    };
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            in_string = is_escaped || c != '"';
            is_escaped = !is_escaped && c == '\\';
            continue;
        }
        match c {
            '[' | '{' => {
                out.push(c);
                if let Some(end) = chars.next_if(|next| matches!(next, ']' | '}')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            ']' | '}' => {
                depth -= 1;
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            '"' => {
                out.push(c);
                in_string = true;
            }
            c => out.push(c),
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests;

//! Requests whose answers are compared. `P/` stands for the prefix.

/// One request. `@name;` in it is what the operation of that name gave: a session's id, or a key's `ModifyIndex`.
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    pub(super) target: &'static str,
    pub(super) body: &'static str,
}

const fn op(name: &'static str, method: &'static str, target: &'static str, body: &'static str) -> Operation {
    Operation { name, method, target, body }
}

/// The id of a session that was made, else the last `ModifyIndex` in an answer.
pub(super) fn remembered(body: &str) -> Option<String> {
    if let Some(id) = body.strip_prefix(r#"{"ID":""#) {
        return Some(id.chars().take(36).collect());
    }
    let (_, index) = body.rsplit_once(r#""ModifyIndex":"#)?;
    let digits: String = index.trim_start().chars().take_while(char::is_ascii_digit).collect();
    (!digits.is_empty()).then_some(digits)
}

pub(super) const OPERATIONS: &[Operation] = &[
    op("", "GET", "/v1/kv/P/missing", ""),
    op("", "GET", "/v1/kv/P/?recurse", ""),
    op("", "GET", "/v1/kv/P/?keys", ""),
    op("", "DELETE", "/v1/kv/P/missing", ""),
    op("", "DELETE", "/v1/kv/P/missing?cas=7", ""),
    op("", "PUT", "/v1/kv/P/a", "x?"),
    op("a", "GET", "/v1/kv/P/a", ""),
    op("", "GET", "/v1/kv/P/a?raw", ""),
    op("", "GET", "/v1/kv/P/a?pretty", ""),
    op("", "GET", "/v1/kv/P%2Fa", ""),
    op("", "GET", "/v1/kv/P/a?stale", ""),
    op("", "GET", "/v1/kv/P/a?consistent", ""),
    op("", "GET", "/v1/kv/P/a?consistent&stale", ""),
    op("", "GET", "/v1/kv/P/a?index=x", ""),
    op("", "PUT", "/v1/kv/P/a?cas=0", "no"),
    op("", "PUT", "/v1/kv/P/a?cas=@a;", "yes"),
    op("", "PUT", "/v1/kv/P/a?cas=@a;", "no"),
    op("", "PUT", "/v1/kv/P/new?cas=0&flags=42", ""),
    op("", "GET", "/v1/kv/P/new", ""),
    op("", "PUT", "/v1/kv/P/dir/", ""),
    op("", "PUT", "/v1/kv/P/dir/b", "b"),
    op("", "PUT", "/v1/kv/P/dir/c%3Cd%3E%26%20e", "<&>"),
    op("", "GET", "/v1/kv/P/?recurse", ""),
    op("", "GET", "/v1/kv/P/?recurse&pretty", ""),
    op("", "GET", "/v1/kv/P/?keys", ""),
    op("", "GET", "/v1/kv/P/?keys&separator=/", ""),
    op("", "GET", "/v1/kv/P/dir/?keys&separator=%2F", ""),
    op("", "PUT", "/v1/kv/P/a?flags=x", ""),
    op("", "PUT", "/v1/kv/P/a?cas=", ""),
    op("", "PUT", "/v1/kv/P/a?cas=1&acquire=2", ""),
    op("", "PUT", "/v1/kv/P/a?acquire=", ""),
    op("", "PUT", "/v1/kv/P/a?acquire=abc", ""),
    op("", "PUT", "/v1/kv/P/a?acquire=11111111-1111-1111-1111-111111111111", ""),
    op("", "PUT", "/v1/kv/P/a?release=abc", ""),
    op("", "POST", "/v1/kv/P/a", ""),
    op("", "PUT", "/v1/kv/P//a", ""),
    op("", "GET", "/v1/kv/P/./a", ""),
    op(
        "s",
        "PUT",
        "/v1/session/create?dc=home",
        r#"{"TTL":"60s","LockDelay":"0s","Name":"s","NodeChecks":[]}"#,
    ),
    op("s2", "PUT", "/v1/session/create?dc=home", r#"{"TTL":"60s","LockDelay":"0s","NodeChecks":[]}"#),
    op("", "GET", "/v1/session/info/11111111-1111-1111-1111-111111111111", ""),
    op("", "PUT", "/v1/session/renew/11111111-1111-1111-1111-111111111111", ""),
    op("", "PUT", "/v1/kv/P/l?acquire=@s;", "first"),
    op("", "PUT", "/v1/kv/P/l?acquire=@s2;", "second"),
    op("", "GET", "/v1/kv/P/l", ""),
    op("", "GET", "/v1/kv/P/l?raw", ""),
    op("", "GET", "/v1/kv/P/?recurse", ""),
    op("", "PUT", "/v1/kv/P/l?release=@s2;", "second"),
    op("", "PUT", "/v1/kv/P/l?release=@s;", "first"),
    op("l", "GET", "/v1/kv/P/l", ""),
    op("", "DELETE", "/v1/kv/P/l?cas=@l;", ""),
    op("", "PUT", "/v1/session/destroy/@s;", ""),
    op(
        "",
        "PUT",
        "/v1/txn",
        r#"[{"KV":{"Verb":"set","Key":"P/t/a","Value":"eD8=","Flags":7}},{"KV":{"Verb":"get","Key":"P/t/a"}}]"#,
    ),
    op("ta", "GET", "/v1/kv/P/t/a", ""),
    op("", "PUT", "/v1/txn", r#"[{"KV":{"Verb":"get","Key":"P/t/a"}}]"#),
    op("", "PUT", "/v1/txn?pretty", r#"[{"KV":{"Verb":"get-tree","Key":"P/t/"}}]"#),
    op("", "PUT", "/v1/txn", r#"[{"KV":{"Verb":"get","Key":"P/t/missing"}}]"#),
    op(
        "",
        "PUT",
        "/v1/txn",
        r#"[{"KV":{"Verb":"set","Key":"P/t/b","Value":""}},{"KV":{"Verb":"delete","Key":"P/t/b"}},{"KV":{"Verb":"delete-tree","Key":"P/t/c"}}]"#,
    ),
    op("", "PUT", "/v1/txn", r#"[{"KV":{"Verb":"delete","Key":"P/t/b"}}]"#),
    op(
        "",
        "PUT",
        "/v1/txn?pretty",
        r#"[{"KV":{"Verb":"cas","Key":"P/t/a","Index":@ta;,"Value":"eQ=="}},{"KV":{"Verb":"check-not-exists","Key":"P/t/none"}}]"#,
    ),
    op(
        "",
        "PUT",
        "/v1/txn",
        r#"[{"KV":{"Verb":"cas","Key":"P/t/a","Index":0}},{"KV":{"Verb":"cas","Key":"P/t/a","Index":1}},{"KV":{"Verb":"delete-cas","Key":"P/t/a","Index":1}},{"KV":{"Verb":"delete-cas","Key":"P/t/none","Index":1}}]"#,
    ),
    op(
        "",
        "PUT",
        "/v1/txn",
        r#"[{"KV":{"Verb":"lock","Key":"P/t/a","Session":"abc"}},{"KV":{"Verb":"lock","Key":"P/t/a"}},{"KV":{"Verb":"unlock","Key":"P/t/a","Session":"abc"}},{"KV":{"Verb":"check-session","Key":"P/t/a","Session":"abc"}}]"#,
    ),
    op(
        "",
        "PUT",
        "/v1/txn",
        r#"[{"KV":{"Verb":"set","Key":"P/t/z","Value":"eA=="}},{"KV":{"Verb":"check-index","Key":"P/t/none","Index":4}}]"#,
    ),
    op("", "GET", "/v1/kv/P/t/z", ""),
    op("", "PUT", "/v1/txn", ""),
    op("", "PUT", "/v1/txn", "[]"),
    op("", "GET", "/v1/txn", ""),
    op("", "DELETE", "/v1/kv/P/a?cas=1", ""),
    op("", "DELETE", "/v1/kv/P/a?cas=1&recurse", ""),
    op("", "DELETE", "/v1/kv/P/dir/?recurse", ""),
    op("", "DELETE", "/v1/kv/P/new", ""),
    op("", "GET", "/v1/kv/P/?keys", ""),
    op("", "DELETE", "/v1/kv/P/?recurse", ""),
    op("", "GET", "/v1/kv/P/?recurse", ""),
    op("", "GET", "/v1/agent/members?wan=x&segment=none", ""),
];

use super::*;

fn rolled(what: &str) -> TxnReply {
    TxnReply::RolledBack(vec![TxnError { op_index: 0, what: what.to_owned() }])
}

fn text(response: &Response) -> (u16, &str) {
    (response.status, std::str::from_utf8(&response.body).unwrap())
}

/// Each text is that of Consul 1.8.7.
#[test]
fn one_write_is_true_false_or_an_error() {
    let (key, value, session) = (|| "l".to_owned(), Bytes::new, || "s".into());
    let set = Op::Set { key: key(), value: value(), flags: 0 };
    let cas = Op::Cas { key: key(), value: value(), flags: 0, index: 1 };
    let lock = Op::Lock { key: key(), value: value(), flags: 0, session: session() };
    let unlock = Op::Unlock { key: key(), value: value(), flags: 0, session: session() };
    for (op, reply, expected) in [
        (&set, TxnReply::Committed(vec![]), (200, "true")),
        (&cas, rolled(r#"failed to set key "l", index is stale"#), (200, "false")),
        (&lock, rolled(r#"failed to lock key "l", lock is already held"#), (200, "false")),
        (&lock, rolled(r#"failed to lock key "l" due to lock delay"#), (200, "false")),
        (&lock, rolled(r#"invalid session "s""#), (500, r#"invalid session "s""#)),
        (&lock, rolled("missing session"), (500, "missing session")),
        (
            &lock,
            rolled("failed session lookup: index error: UUID must be 36 characters"),
            (500, "failed session lookup: index error: UUID must be 36 characters"),
        ),
        (
            &unlock,
            rolled(r#"failed to unlock key "l", lock isn't held, or is held by another session"#),
            (200, "false"),
        ),
        (&set, rolled("index is stale"), (500, "index is stale")),
        (&set, rolled("Permission denied"), (403, "Permission denied")),
    ] {
        assert_eq!(text(&single(op, &reply)), expected, "{op:?} {reply:?}");
    }
    assert_eq!(single(&set, &TxnReply::RolledBack(vec![])).status, 500);
}

/// Recorded from Consul 1.8.7.
#[test]
fn transactions_look_as_consul_writes_them() {
    let pair = |key: &str, value: &'static [u8], session: Option<&str>| Pair {
        key: key.into(),
        value: Bytes::from_static(value),
        flags: 7,
        session: session.map(Into::into),
        lock_index: 1,
        create_index: 39,
        modify_index: 45,
    };
    let reply = TxnReply::Committed(vec![pair("t/a", b"x?", None), pair("l", b"", Some("6fc3"))]);
    assert_eq!(
        text(&txn(&reply, false)),
        (
            200,
            r#"{"Results":[{"KV":{"LockIndex":1,"Key":"t/a","Flags":7,"Value":"eD8=","CreateIndex":39,"ModifyIndex":45}},{"KV":{"LockIndex":1,"Key":"l","Flags":7,"Value":null,"Session":"6fc3","CreateIndex":39,"ModifyIndex":45}}],"Errors":null}"#
        )
    );
    assert_eq!(text(&txn(&TxnReply::Committed(vec![]), false)), (200, r#"{"Results":[],"Errors":null}"#));
    let errors = TxnReply::RolledBack(vec![
        TxnError { op_index: 0, what: r#"key "a" exists"#.into() },
        TxnError { op_index: 2, what: "x".into() },
    ]);
    assert_eq!(
        text(&txn(&errors, false)),
        (
            409,
            r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"key \"a\" exists"},{"OpIndex":2,"What":"x"}]}"#
        )
    );
    assert_eq!(
        text(&txn(&TxnReply::Committed(vec![pair("a,b:{\"", b"", None)]), true)).1,
        r#"{
    "Results": [
        {
            "KV": {
                "LockIndex": 1,
                "Key": "a,b:{\"",
                "Flags": 7,
                "Value": null,
                "CreateIndex": 39,
                "ModifyIndex": 45
            }
        }
    ],
    "Errors": null
}
"#
    );
    assert_eq!(
        text(&txn(&TxnReply::Committed(vec![]), true)).1,
        "{\n    \"Results\": [],\n    \"Errors\": null\n}\n"
    );
}

#[test]
fn strings_are_escaped_as_go_does() {
    assert_eq!(
        string("a\"\\\n\t\u{1}<&>\u{2028}ü\u{7f}"),
        "\"a\\\"\\\\\\n\\t\\u0001\\u003c\\u0026\\u003e\\u2028ü\u{7f}\""
    );
}

#[test]
fn what_passes_is_worth_another_try() {
    let passing = refusal(&Refusal::NotServing("x".into()));
    assert_eq!((passing.status, passing.header("retry-after")), (503, Some("1")));
    let lasting = refusal(&Refusal::Misfit("x".into()));
    assert_eq!((lasting.status, lasting.header("retry-after")), (503, None));
    let open = refusal(&Refusal::OutcomeUnknown { request_id: "r".into(), reason: "cut".into() });
    assert_eq!((open.status, open.header("x-sync-request-id")), (504, Some("r")));
    assert!(text(&open).1.starts_with("outcome=unknown: cut; "));
}

#[test]
fn a_write_tells_its_place() {
    let token = ("l".to_owned(), Token { epoch: 1, n: 2 });
    let response = written(boolean(true), "primary", Position { epoch: 1, seq: 9 }, &[token]);
    assert_eq!(response.header("x-sync-seq"), Some("1.9"));
    assert_eq!(response.header("x-sync-home"), Some("primary"));
    assert_eq!(response.header("x-lock-token"), Some("1.2"));
}

use bytes::Bytes;
use http::HeaderMap;

use super::*;

const PAIR: &str =
    r#"[{"LockIndex":0,"Key":"a/x","Flags":0,"Value":"MQ==","CreateIndex":28,"ModifyIndex":28}]"#;
const LED: &[(&str, &str)] = &[("x-consul-index", "29"), ("x-consul-knownleader", "true")];

fn reply(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Reply {
    let headers: HeaderMap = headers.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
    let status = StatusCode::from_u16(status).unwrap();
    Reply::recorded("GET /v1/kv/a/x".into(), status, &headers, Bytes::from_static(body.as_bytes()))
}

fn kind(error: &KvError) -> &'static str {
    match error {
        KvError::NotSent(_) => "not sent",
        KvError::Refused { .. } => "refused",
        KvError::Unknown(_) => "unknown",
        KvError::Unusable(_) => "unusable",
    }
}

#[test]
fn only_a_plain_404_of_a_consul_with_a_leader_says_that_there_is_nothing() {
    assert_eq!(no_pairs(&reply(404, LED, "")), Ok(29));
    assert_eq!(get(&reply(404, LED, ""), "a/x"), Ok((None, 29)));
    let filtered = [LED[0], LED[1], ("x-consul-results-filtered-by-acls", "true")];
    let leaderless = [LED[0], ("x-consul-knownleader", "false")];
    let doubtful = [
        reply(404, &filtered, ""),
        reply(404, &leaderless, ""),
        reply(404, &LED[..1], ""),
        reply(404, &LED[1..], ""),
        reply(404, &[], ""),
        reply(404, LED, "404 page not found"),
        reply(204, LED, ""),
        reply(200, &filtered, PAIR),
        reply(200, &leaderless, PAIR),
        reply(200, &[], PAIR),
        reply(200, LED, "[]"),
        reply(200, LED, "null"),
        reply(200, LED, ""),
        reply(200, LED, "<html>"),
        reply(200, LED, &PAIR[..40]),
    ];
    for reply in doubtful {
        assert_eq!(kind(&get(&reply, "a/x").unwrap_err()), "unusable", "{reply:?}");
    }
    assert_eq!(kind(&get(&reply(200, LED, PAIR), "a/y").unwrap_err()), "unusable");
    assert_eq!(get(&reply(200, LED, PAIR), "a/x").unwrap().0.unwrap().value, "1");
    for (status, said) in
        [(403, "refused"), (429, "refused"), (301, "refused"), (500, "unknown"), (503, "unknown")]
    {
        assert_eq!(kind(&get(&reply(status, LED, ""), "a/x").unwrap_err()), said, "{status}");
        assert_eq!(kind(&no_pairs(&reply(status, LED, "")).unwrap_err()), said, "{status}");
    }
}

#[test]
fn a_write_that_may_have_been_executed_is_never_called_refused() {
    let ops = [Op::Get { key: "a".into() }, Op::Delete { key: "b".into() }];
    let told = |status, body| txn(&reply(status, &[], body), &ops);
    for (status, body) in [
        (500, "No cluster leader"),
        (502, ""),
        (503, ""),
        (504, ""),
        (408, ""),
        (499, ""),
        (204, ""),
        (200, "<html>"),
        (200, ""),
        (409, ""),
        (409, "conflict"),
        (409, r#"{"Errors":[]}"#),
    ] {
        assert_eq!(kind(&told(status, body).unwrap_err()), "unknown", "{status} {body}");
    }
    for status in [301, 400, 401, 403, 404, 405, 413, 429] {
        assert_eq!(kind(&told(status, "no").unwrap_err()), "refused", "{status}");
    }
    let stale =
        r#"{"Results":null,"Errors":[{"OpIndex":1,"What":"failed to delete key \"b\", index is stale"}]}"#;
    assert!(matches!(told(409, stale), Ok(TxnReply::RolledBack(errors)) if errors[0].op_index == 1));
    // Consul 1.8 calls this a rollback. It is this agent's own lack, and no answer to whoever asked.
    let denied = r#"{"Results":null,"Errors":[{"OpIndex":1,"What":"Permission denied"}]}"#;
    let error = told(409, denied).unwrap_err();
    assert!(
        matches!(&error, KvError::Refused { status: 403, reason } if reason.contains(" on b; ")),
        "{error}"
    );
}

#[test]
fn what_was_not_sent_is_told_from_what_was() {
    let act = || "PUT /v1/txn".to_owned();
    let cut = || ClientError::Cut { act: act(), reason: "reset".into() };
    let long = || ClientError::TooLong { act: act(), limit: 1 };
    let closed = ClientError::Connect { address: "a".into(), reason: "refused".into(), remedy: "start it" };
    assert_eq!(kind(&KvError::of_write(closed)), "not sent");
    assert_eq!(kind(&KvError::of_write(ClientError::Path { path: "a b".into() })), "not sent");
    assert_eq!(kind(&KvError::of_write(cut())), "unknown");
    assert_eq!(kind(&KvError::of_write(long())), "unknown");
    assert_eq!(kind(&KvError::of_read(cut())), "unknown");
    assert_eq!(kind(&KvError::of_read(long())), "unusable");
}

#[test]
fn keys_that_a_path_cannot_name_are_refused() {
    for key in ["a", "a/", "a/b c", "a/ü?#%", "...", "a/.../b", "", "a.b/..c"] {
        assert!(path_of(key).is_ok(), "{key}");
    }
    assert_eq!(path_of("a/b c?").unwrap(), "/v1/kv/a/b%20c%3F");
    assert_eq!(path_of("a/").unwrap(), "/v1/kv/a/");
    assert_eq!(path_of("").unwrap(), "/v1/kv/");
    for key in ["/", "/a", "a//b", "a//", "//", ".", "..", "a/..", "a/./b", "../a"] {
        assert_eq!(kind(&path_of(key).unwrap_err()), "refused", "{key}");
    }
}

use bytes::Bytes;

use super::*;

fn request(method: Method, target: &str, body: &str) -> Request {
    Request::new(method, target, Vec::new(), Bytes::from(body.to_owned()))
}

fn asked(method: Method, target: &str, body: &str) -> Ask {
    ask(&request(method, target, body)).unwrap_or_else(|response| panic!("{target}: {response:?}"))
}

fn refused(method: Method, target: &str, body: &str) -> (u16, String) {
    let response = ask(&request(method, target, body)).expect_err(target);
    (response.status, String::from_utf8(response.body.to_vec()).unwrap())
}

fn read(target: &str) -> (String, What) {
    match asked(Method::GET, target, "") {
        Ask::Read(Read { key, what }) => (key, what),
        other => panic!("{target}: {other:?}"),
    }
}

#[test]
fn keys_are_read_in_every_form() {
    for (target, key, what) in [
        ("/v1/kv/a", "a", What::Pair),
        ("/v1/kv/a%2Fb%20c", "a/b c", What::Pair),
        ("/v1/kv/a/", "a/", What::Pair),
        ("/v1/kv/a?raw", "a", What::Value),
        ("/v1/kv/a?raw&recurse", "a", What::Tree),
        ("/v1/kv/?recurse=", "", What::Tree),
        ("/v1/kv/a?keys&recurse&raw", "a", What::Keys(String::new())),
        ("/v1/kv/?keys&separator=%2F", "", What::Keys("/".into())),
        ("/v1/kv/?keys&seperator=-", "", What::Keys("-".into())),
        ("/v1/kv/?keys&seperator=-&separator=", "", What::Keys(String::new())),
    ] {
        assert_eq!(read(target), (key.to_owned(), what), "{target}");
    }
    assert_eq!(refused(Method::GET, "/v1/kv/", ""), (400, "Missing key name".into()));
}

#[test]
fn writes_are_verbs() {
    let (key, value) = (|| "a".to_owned(), || Bytes::from_static(b"v"));
    let session = || SessionId::from("s");
    for (target, op) in [
        ("/v1/kv/a", Op::Set { key: key(), value: value(), flags: 0 }),
        ("/v1/kv/a?flags=18446744073709551615", Op::Set { key: key(), value: value(), flags: u64::MAX }),
        ("/v1/kv/a?cas=0&flags=1", Op::Cas { key: key(), value: value(), flags: 1, index: 0 }),
        ("/v1/kv/a?acquire=s", Op::Lock { key: key(), value: value(), flags: 0, session: session() }),
        ("/v1/kv/a?release=s", Op::Unlock { key: key(), value: value(), flags: 0, session: session() }),
    ] {
        assert_eq!(asked(Method::PUT, target, "v"), Ask::Write(op), "{target}");
    }
    for (target, op) in [
        ("/v1/kv/a", Op::Delete { key: key() }),
        ("/v1/kv/a?cas=7", Op::DeleteCas { key: key(), index: 7 }),
        ("/v1/kv/a?recurse", Op::DeleteTree { prefix: key() }),
        ("/v1/kv/?recurse", Op::DeleteTree { prefix: String::new() }),
    ] {
        assert_eq!(asked(Method::DELETE, target, ""), Ask::Write(op), "{target}");
    }
    for method in [Method::POST, Method::HEAD, Method::OPTIONS, Method::PATCH] {
        assert_eq!(asked(method, "/v1/kv/a", "v"), Ask::Other);
    }
}

/// Each text is that of Consul 1.8.7.
#[test]
fn wrong_writes_are_refused_in_consuls_words() {
    for (method, target, status, text) in [
        (Method::PUT, "/v1/kv/", 400, "Missing key name"),
        (Method::DELETE, "/v1/kv/", 400, "Missing key name"),
        (Method::PUT, "/v1/kv/a?cas=1&acquire=2", 400, "Conflicting flags: acquire=2&cas=1"),
        (Method::DELETE, "/v1/kv/a?cas=1&recurse", 400, "Conflicting flags: cas=1&recurse="),
        (Method::PUT, "/v1/kv/a?flags=x", 500, r#"strconv.ParseUint: parsing "x": invalid syntax"#),
        (Method::PUT, "/v1/kv/a?flags=-1", 500, r#"strconv.ParseUint: parsing "-1": invalid syntax"#),
        (Method::PUT, "/v1/kv/a?flags=+1", 500, r#"strconv.ParseUint: parsing " 1": invalid syntax"#),
        (Method::PUT, "/v1/kv/a?cas=", 500, r#"strconv.ParseUint: parsing "": invalid syntax"#),
        (
            Method::DELETE,
            "/v1/kv/a?cas=18446744073709551616",
            500,
            r#"strconv.ParseUint: parsing "18446744073709551616": value out of range"#,
        ),
    ] {
        assert_eq!(refused(method, target, "v"), (status, text.to_owned()), "{target}");
    }
}

#[test]
fn paths_that_are_not_the_shortest_move() {
    for (target, location) in [
        ("/v1/kv/a//b", "/v1/kv/a/b"),
        ("/v1/kv/a%2F%2Fb?x=1", "/v1/kv/a/b?x=1"),
        ("/v1/kv/a/./b", "/v1/kv/a/b"),
        ("/v1/kv/a/%2e%2e/b", "/v1/kv/b"),
        ("/v1/kv/a//b/", "/v1/kv/a/b/"),
        ("/v1/kv//%20", "/v1/kv/%20"),
        ("/v1/kv?keys", "/v1/kv/?keys"),
    ] {
        let response = ask(&request(Method::PUT, target, "v")).unwrap_err();
        assert_eq!((response.status, response.header("location")), (301, Some(location)), "{target}");
    }
    assert_eq!(read("/v1/kv/a%2Fb").0, "a/b");
    assert_eq!(read("/v1/kv/a...b/..c").0, "a...b/..c");
}

#[test]
fn transactions_are_read_as_consul_reads_them() {
    let txn = |body: &str| match asked(Method::PUT, "/v1/txn", body) {
        Ask::Txn(txn) => txn,
        other => panic!("{body}: {other:?}"),
    };
    let all = txn(
        r#"[{"KV":{"Verb":"set","Key":"a","Value":"eD8=","Flags":7}},{"kv":{"verb":"cas","key":"a","index":3,"Namespace":"x"}},
            {"KV":{"Verb":"lock","Key":"a","Session":"s","Value":null}},{"KV":{"Verb":"get-tree","Key":""}},{},
            {"KV":{"Verb":"delete-cas","Key":"a","Index":18446744073709551615}},{"Node":{"Verb":"get"}}] trailing"#,
    );
    assert!(all.has_others && all.is_write());
    let key = || "a".to_owned();
    assert_eq!(
        all.ops,
        [
            Op::Set { key: key(), value: Bytes::from_static(b"x?"), flags: 7 },
            Op::Cas { key: key(), value: Bytes::new(), flags: 0, index: 3 },
            Op::Lock { key: key(), value: Bytes::new(), flags: 0, session: "s".into() },
            Op::GetTree { prefix: String::new() },
            Op::DeleteCas { key: key(), index: u64::MAX },
        ]
    );
    for nothing in ["null", "[]", "[{}]", r#"[{"KV":null}]"#] {
        assert_eq!(txn(nothing), Txn { ops: vec![], has_others: false }, "{nothing}");
    }
    assert!(!txn(r#"[{"KV":{"Verb":"check-not-exists","Key":"a"}}]"#).is_write());
    assert_eq!(asked(Method::GET, "/v1/txn", ""), Ask::Other);
}

#[test]
fn wrong_transactions_are_refused() {
    let status = |body: &str| refused(Method::PUT, "/v1/txn", body);
    for (body, text) in [
        ("", "Failed to parse body: EOF"),
        (
            r#"[{"KV":{"Verb":"set","Key":"a","more":1}}]"#,
            r#"Failed to parse body: json: unknown field "more""#,
        ),
        (r#"[{"Keys":1}]"#, r#"Failed to parse body: json: unknown field "Keys""#),
    ] {
        assert_eq!(status(body), (400, text.to_owned()), "{body}");
    }
    for body in [
        "garbage",
        "{}",
        "[1]",
        r#"[{"KV":1}]"#,
        r#"[{"KV":{"Verb":"set","Key":"a","Value":5}}]"#,
        r#"[{"KV":{"Verb":"set","Key":"a","Value":"not base64!"}}]"#,
        r#"[{"KV":{"Verb":"set","Key":"a","Flags":-1}}]"#,
        r#"[{"KV":{"Verb":"set","Key":"a","Flags":1.5}}]"#,
        r#"[{"KV":{"Verb":"set","Key":"a""#,
    ] {
        let (code, text) = status(body);
        assert!(code == 400 && text.starts_with("Failed to parse body: "), "{body}: {text}");
    }
    assert_eq!(
        status(r#"[{"KV":{"Verb":"SET","Key":"a"}},{"KV":{"Verb":"set","Key":""}}]"#),
        (
            409,
            r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"unknown KV verb \"SET\""},{"OpIndex":1,"What":"Must provide key"}]}"#.into()
        )
    );
    let (code, text) = status(&" ".repeat(524_289));
    assert!(code == 413 && text.starts_with("Request body(524289 bytes) too large"), "{text}");
}

/// Go merges members whose names differ in case, and Consul executes one kind of an operation that has several: each of
/// these is something else to another reader.
#[test]
fn transactions_that_two_readers_understand_differently_are_refused() {
    for (body, told) in [
        (r#"[{"KV":{"Verb":"set","Key":"config/x","Value":"YQ=="},"Node":{}}]"#, "is one of KV, Node"),
        (r#"[{"Service":{},"KV":{"Verb":"set","Key":"config/x"}}]"#, "is one of KV, Node"),
        (r#"[{"Check":{},"Node":{}}]"#, "is one of KV, Node"),
        (r#"[{"KV":{"Verb":"get","Key":"a"},"KV":{"Verb":"set","Key":"a"}}]"#, r#"has "KV" twice"#),
        (r#"[{"kv":{"Verb":"get","Key":"a"},"KV":{"Verb":"set","Key":"a"}}]"#, r#"has "KV" twice"#),
        (r#"[{"kv":null,"KV":{"Verb":"set","Key":"a"}}]"#, r#"an operation has "KV" twice"#),
        (r#"[{"KV":{"Verb":"set","key":"config/x","Key":"x"}}]"#, r#"KV has "Key" twice"#),
        (r#"[{"KV":{"Verb":"set","Key":"x","key":"config/x"}}]"#, r#"KV has "key" twice"#),
        (r#"[{"KV":{"Verb":"get","Key":"x","Verb":"set"}}]"#, r#"KV has "Verb" twice"#),
        (r#"[{"KV":{"Verb":"set","K\u0065y":"x","KEY":"y"}}]"#, r#"KV has "KEY" twice"#),
    ] {
        let (status, text) = refused(Method::PUT, "/v1/txn", body);
        assert!(status == 400 && text.starts_with("Failed to parse body: ") && text.contains(told), "{text}");
    }
    // Null says nothing.
    let body = r#"[{"Node":null,"KV":{"Verb":"get","Key":"a","Session":null},"Service":null}]"#;
    let txn = Txn { ops: vec![Op::Get { key: "a".into() }], has_others: false };
    assert_eq!(asked(Method::PUT, "/v1/txn", body), Ask::Txn(txn));
}

#[test]
fn a_semicolon_in_the_query_is_refused() {
    for (method, target) in [
        (Method::DELETE, "/v1/kv/conf?a=1;recurse"),
        (Method::DELETE, "/v1/kv/conf?token=t;recurse"),
        (Method::PUT, "/v1/kv/a?;acquire=s"),
        (Method::GET, "/v1/kv//a?raw;keys"),
        (Method::PUT, "/v1/txn?a;dc=x"),
        (Method::PUT, "/v1/agent/service/register?a;token=t"),
    ] {
        let (status, text) = refused(method, target, "");
        assert!(status == 400 && text.contains("%3B"), "{target}: {text}");
        assert!(!text.contains("token"), "{text}");
    }
    assert_eq!(read("/v1/kv/a;b?keys&separator=%3B"), ("a;b".into(), What::Keys(";".into())));
}

#[test]
fn sessions_locks_and_sync() {
    let session = |method, rest: &str| asked(method, &format!("/v1/session/{rest}"), "");
    assert_eq!(session(Method::PUT, "create?dc=x"), Ask::Session(SessionAsk::Create));
    assert_eq!(session(Method::PUT, "renew/s"), Ask::Session(SessionAsk::Renew("s".into())));
    assert_eq!(session(Method::PUT, "destroy/s"), Ask::Session(SessionAsk::Destroy("s".into())));
    assert_eq!(session(Method::GET, "info/s"), Ask::Session(SessionAsk::Info("s".into())));
    assert_eq!(session(Method::GET, "list"), Ask::Session(SessionAsk::List));
    for (method, rest) in [(Method::GET, "create"), (Method::PUT, "destroy/"), (Method::GET, "node/n")] {
        assert_eq!(session(method, rest), Ask::Other);
    }
    let lock = |method, rest: &str| match asked(method, &format!("/v1/lock/{rest}"), "") {
        Ask::Lock(LockAsk { key, act }) => (key, act),
        other => panic!("{rest}: {other:?}"),
    };
    let key = "locks/deploy".to_owned();
    assert_eq!(lock(Method::POST, "locks/deploy"), (key.clone(), LockAct::Acquire));
    assert_eq!(lock(Method::PUT, "locks/deploy/renew"), (key.clone(), LockAct::Renew));
    assert_eq!(lock(Method::PUT, "locks%2Fdeploy/release"), (key.clone(), LockAct::Release));
    assert_eq!(lock(Method::GET, "locks/deploy"), (key.clone(), LockAct::Look));
    assert_eq!(lock(Method::GET, "locks/deploy?leader"), (key, LockAct::Leader));
    assert_eq!(refused(Method::PUT, "/v1/lock/locks/deploy", "").0, 400);
    assert_eq!(refused(Method::POST, "/v1/lock/", "").0, 400);
    assert_eq!(refused(Method::DELETE, "/v1/lock/a", "").0, 405);
    let sync = |method, rest: &str| asked(method, &format!("/v1/sync/{rest}"), "");
    assert_eq!(sync(Method::GET, "status"), Ask::Sync(SyncAsk::Status));
    assert_eq!(sync(Method::POST, "approve?prefix=config%2F"), Ask::Sync(SyncAsk::Approve("config/".into())));
    assert_eq!(sync(Method::PUT, "resync?prefix=a"), Ask::Sync(SyncAsk::Resync("a".into())));
    for (method, rest, code) in [
        (Method::POST, "status", 405),
        (Method::GET, "approve?prefix=a", 405),
        (Method::POST, "approve", 400),
    ] {
        assert_eq!(refused(method, &format!("/v1/sync/{rest}"), "").0, code, "{rest}");
    }
    assert_eq!(refused(Method::GET, "/v1/sync/promote", "").0, 404);
    assert_eq!(asked(Method::GET, "/v1/agent/self", ""), Ask::Other);
    assert_eq!(asked(Method::GET, "/ui/", ""), Ask::Other);
}

#[test]
fn wishes_are_understood_or_refused() {
    let of = |headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = Request::new(Method::PUT, "/v1/kv/a", headers, Bytes::new());
        wishes(&request, &ask(&request).unwrap()).map_err(|response| response.status)
    };
    assert_eq!(of(&[]), Ok(Wishes::default()));
    let all = of(&[
        ("X-Sync-Min-Seq", "1.7"),
        ("X-Lock", "locks/a"),
        ("X-Lock-Token", "2.3"),
        ("X-Sync-Request-Id", "r-1"),
    ]);
    assert_eq!(
        all,
        Ok(Wishes {
            min_seq: Some(Position { epoch: 1, seq: 7 }),
            guard: Some(("locks/a".into(), Token { epoch: 2, n: 3 })),
            request_id: Some("r-1".into()),
        })
    );
    for wrong in [
        ("X-Sync-Min-Seq", "7"),
        ("X-Lock", "locks/a"),
        ("X-Lock-Token", "2.3"),
        ("X-Lock-Token", "x"),
        ("X-Sync-Request-Id", ""),
        ("X-Sync-Request-Id", "a b"),
    ] {
        assert_eq!(of(&[wrong]), Err(400), "{wrong:?}");
    }
    assert_eq!(of(&[("X-Sync-Request-Id", &"x".repeat(129))]), Err(400));
}

#[test]
fn the_token_of_a_lock_itself_is_no_guard() {
    let headers = vec![("X-Lock-Token".to_owned(), "2.3".to_owned())];
    let request = Request::new(Method::PUT, "/v1/lock/locks/a/release", headers, Bytes::new());
    assert_eq!(wishes(&request, &ask(&request).unwrap()), Ok(Wishes::default()));
}

#[test]
fn a_namespace_is_refused_as_consul_without_them_does() {
    let session = "/v1/session/create";
    for (method, target) in [
        (Method::GET, "/v1/kv/a"),
        (Method::PUT, "/v1/kv/"),
        (Method::DELETE, "/v1/kv/a"),
        (Method::PUT, session),
    ] {
        let (status, text) = refused(method.clone(), &format!("{target}?ns=default&cas=x"), "");
        assert_eq!(
            (status, text.as_str()),
            (
                400,
                "Bad request: Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature"
            ),
            "{target}"
        );
        let header = ("X-Consul-Namespace".to_owned(), "default".to_owned());
        let request = Request::new(method, target, vec![header], Bytes::new());
        let response = ask(&request).unwrap_err();
        let text = b"Bad request: Invalid header: \"X-Consul-Namespace\" - Namespaces are a Consul Enterprise feature";
        assert_eq!((response.status, response.body.as_ref()), (400, text.as_slice()), "{target}");
    }
    assert!(matches!(asked(Method::GET, "/v1/kv/a?ns=", ""), Ask::Read(_)));
    // Consul says first that it takes no such method.
    assert_eq!(asked(Method::POST, "/v1/kv/a?ns=default", ""), Ask::Other);
    assert_eq!(asked(Method::GET, "/v1/session/create?ns=default", ""), Ask::Other);
}

#[test]
fn who_wishes_for_a_position_is_not_answered_by_a_server_that_may_be_behind() {
    let read = || Request::new(Method::GET, "/v1/kv/a/b?raw&stale", Vec::new(), Bytes::new());
    let wished = Wishes { min_seq: Some(Position { epoch: 1, seq: 2 }), ..Wishes::default() };
    assert!(!wished.recent(read()).has("stale") && wished.recent(read()).has("raw"));
    assert!(Wishes::default().recent(read()).has("stale"));
}

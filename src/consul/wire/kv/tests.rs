use proptest::prelude::*;

use super::*;

/// A transaction of every verb that leaves something, as Consul 1.8.7 answered it.
const COMMITTED: &str = include_str!("../../../../tests/recorded/consul-1.8.7/kv/txn-committed.json");
const ROLLED_BACK: &str = include_str!("../../../../tests/recorded/consul-1.8.7/kv/txn-rolled-back.json");
const READ_ROLLED_BACK: &str =
    include_str!("../../../../tests/recorded/consul-1.8.7/kv/txn-read-rolled-back.json");
const TOO_MANY: &str = include_str!("../../../../tests/recorded/consul-1.8.7/kv/txn-too-many.txt");
const LIST: &str = include_str!("../../../../tests/recorded/consul-1.8.7/kv/list.json");

fn cut(text: &[u8], size: usize) -> Result<Vec<Pair>, WireError> {
    let (mut list, mut found) = (Pairs::of(""), Vec::new());
    for piece in text.chunks(size.max(1)) {
        found.extend(list.page(piece)?);
    }
    assert_eq!(list.end()?, found.len() as u64);
    Ok(found)
}

#[test]
fn results_of_a_transaction_are_those_of_the_verbs_that_leave_a_pair() {
    let TxnReply::Committed(pairs) = committed(COMMITTED.as_bytes()).unwrap() else {
        panic!("it was committed")
    };
    let shown: Vec<_> = pairs.iter().map(|pair| (pair.key.as_str(), pair.value.as_ref())).collect();
    // lock, check-session, set, get, get-tree, set of an empty value, cas, unlock; and none for three deletes and
    // a check-not-exists.
    let quoted = "a/ü \"q";
    let expected: [(&str, &[u8]); 8] = [
        ("l", b""),
        ("l", b""),
        (quoted, b""),
        (quoted, b"\x00\x01\xff"),
        (quoted, b"\x00\x01\xff"),
        ("empty", b""),
        ("c", b""),
        ("l", b""),
    ];
    assert_eq!(shown, expected);
    assert_eq!(pairs[2].flags, u64::MAX);
    assert!(pairs[0].session.is_some() && pairs[0].lock_index == 1 && pairs[7].session.is_none());
    assert_eq!(committed(br#"{"Results":null,"Errors":null}"#), Ok(TxnReply::Committed(Vec::new())));
}

#[test]
fn a_rolled_back_transaction_names_its_verbs() {
    let TxnReply::RolledBack(errors) = rolled_back(ROLLED_BACK.as_bytes()).unwrap() else {
        panic!("it was rolled back")
    };
    assert_eq!(errors.iter().map(|error| error.op_index).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(errors[1].what, "failed to set key \"c\", index is stale");
    assert!(
        matches!(rolled_back(READ_ROLLED_BACK.as_bytes()), Ok(TxnReply::RolledBack(errors)) if errors.len() == 1)
    );
}

#[test]
fn what_is_no_answer_to_a_transaction_is_refused() {
    for bad in
        ["", "{}", "[]", "<html>", r#"{"Results":[{"Node":{}}]}"#, r#"{"Errors":[]}"#, r#"{"Errors":null}"#]
    {
        assert!(rolled_back(bad.as_bytes()).is_err(), "{bad}");
    }
    for bad in ["", "{}", "[]", "<html>", r#"{"Results":[{"Node":{}}]}"#, &COMMITTED[..400]] {
        assert!(committed(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn the_limit_of_verbs_is_read_from_the_refusal() {
    assert_eq!(most_verbs(TOO_MANY), Some(64));
    assert_eq!(most_verbs("Transaction contains too many operations (129 > 128)"), Some(128));
    for other in
        ["", "Request body(525364 bytes) too large, max size: 524288 bytes", "too many operations (x > y)"]
    {
        assert_eq!(most_verbs(other), None);
    }
}

#[test]
fn verbs_are_written_as_consul_reads_them() {
    let session = SessionId::from("s");
    let key = || "k".to_owned();
    let value = || Bytes::from_static(b"\x00\xff");
    let body = txn(&[
        Op::Set { key: key(), value: value(), flags: u64::MAX },
        Op::Cas { key: key(), value: Bytes::new(), flags: 0, index: 0 },
        Op::Lock { key: key(), value: value(), flags: 1, session: session.clone() },
        Op::Unlock { key: key(), value: value(), flags: 1, session: session.clone() },
        Op::Get { key: key() },
        Op::GetTree { prefix: key() },
        Op::CheckIndex { key: key(), index: 7 },
        Op::CheckSession { key: key(), session },
        Op::CheckNotExists { key: key() },
        Op::Delete { key: key() },
        Op::DeleteTree { prefix: key() },
        Op::DeleteCas { key: key(), index: 8 },
    ]);
    let verbs: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
    let texts: Vec<String> = verbs.iter().map(|verb| verb["KV"].to_string()).collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    {"Flags":18446744073709551615,"Key":"k","Value":"AP8=","Verb":"set"}
    {"Flags":0,"Index":0,"Key":"k","Value":"","Verb":"cas"}
    {"Flags":1,"Key":"k","Session":"s","Value":"AP8=","Verb":"lock"}
    {"Flags":1,"Key":"k","Session":"s","Value":"AP8=","Verb":"unlock"}
    {"Key":"k","Verb":"get"}
    {"Key":"k","Verb":"get-tree"}
    {"Index":7,"Key":"k","Verb":"check-index"}
    {"Key":"k","Session":"s","Verb":"check-session"}
    {"Key":"k","Verb":"check-not-exists"}
    {"Key":"k","Verb":"delete"}
    {"Key":"k","Verb":"delete-tree"}
    {"Index":8,"Key":"k","Verb":"delete-cas"}
    "#);
}

#[test]
fn a_list_is_the_same_however_it_is_cut() {
    let whole = cut(LIST.as_bytes(), LIST.len()).unwrap();
    assert!(whole.len() > 3 && whole.iter().any(|pair| pair.value.is_empty()));
    for size in 1..40 {
        assert_eq!(cut(LIST.as_bytes(), size).as_ref(), Ok(&whole));
    }
    assert_eq!(cut(b" [ ]\n", 1), Ok(Vec::new()));
}

#[test]
fn a_list_that_ends_early_is_none() {
    let text = LIST.trim_end().as_bytes();
    for length in 0..text.len() {
        assert!(cut(&text[..length], 7).is_err(), "{length} of {} bytes", text.len());
    }
    for bad in ["null", "{}", "[1]", "[,]", "[]]", "[{}]", "[] {", r#"[{"Key":"a"} {"Key":"b"}]"#] {
        assert!(cut(bad.as_bytes(), 3).is_err(), "{bad}");
    }
    let bad_value = r#"[{"Key":"a","Value":"?","CreateIndex":1,"ModifyIndex":1}]"#;
    assert!(cut(bad_value.as_bytes(), 9).is_err());
}

#[test]
fn a_list_of_other_keys_or_in_another_order_is_none() {
    assert!(Pairs::of("a/").page(LIST.as_bytes()).is_err());
    let one = |key: &str| format!(r#"{{"Key":"{key}","CreateIndex":1,"ModifyIndex":1}}"#);
    for keys in [["a", "a"], ["b", "a"]] {
        let text = format!("[{},{}]", one(keys[0]), one(keys[1]));
        assert!(cut(text.as_bytes(), 9).is_err(), "{text}");
    }
}

#[test]
fn one_key_is_one_pair() {
    let first = &LIST[..=LIST.find('}').unwrap()];
    assert!(only(format!("{first}]").as_bytes()).is_ok());
    for bad in ["[]", "null", "", LIST] {
        assert!(only(bad.as_bytes()).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_pair_survives(key in ".*", value in proptest::collection::vec(any::<u8>(), 0..40), flags: u64, size in 1usize..30) {
        let wire = serde_json::json!([{
            "Key": key, "Value": BASE64_STANDARD.encode(&value), "Flags": flags, "CreateIndex": 3, "ModifyIndex": 4, "LockIndex": 0,
        }]);
        let pairs = cut(wire.to_string().as_bytes(), size).unwrap();
        prop_assert_eq!(&pairs[0].key, &key);
        prop_assert_eq!(pairs[0].value.as_ref(), &value[..]);
        prop_assert_eq!(pairs[0].flags, flags);
    }
}

use super::*;

const BODY: &str = r#"[{"LockIndex":3,"Key":"config/a\u003c","Flags":12,"Value":"MTI=","CreateIndex":12,"ModifyIndex":120},{"LockIndex":0,"Key":"x","Flags":0,"Value":null,"CreateIndex":1,"ModifyIndex":2}]"#;

fn shown(key: &str, local: u64) -> Shown {
    match key {
        "config/a<" => {
            assert_eq!(local, 120);
            Shown::As { create: 7, modify: 4_000_000_000_000, lock: 0 }
        }
        _ => Shown::AsIs,
    }
}

#[test]
fn only_indexes_are_replaced() {
    let expected = r#"[{"LockIndex":0,"Key":"config/a\u003c","Flags":12,"Value":"MTI=","CreateIndex":7,"ModifyIndex":4000000000000},{"LockIndex":0,"Key":"x","Flags":0,"Value":null,"CreateIndex":1,"ModifyIndex":2}]"#;
    let translated = pairs(BODY.as_bytes(), shown).unwrap();
    assert_eq!(String::from_utf8(translated.body).unwrap(), expected);
    assert!(translated.unknown.is_empty());
    let txn_of = |list: &str| {
        let items: Vec<String> =
            list.trim_matches(['[', ']']).split_inclusive("},").map(str::to_owned).collect();
        let items = items.iter().map(|item| format!(r#"{{"KV":{}}}"#, item.trim_end_matches(',')));
        format!(r#"{{"Results":[{}],"Errors":null,"Index":0}}"#, items.collect::<Vec<_>>().join(","))
    };
    let translated = txn(txn_of(BODY).as_bytes(), shown).unwrap();
    assert_eq!(String::from_utf8(translated.body).unwrap(), txn_of(expected));
}

#[test]
fn the_layout_of_people_stays() {
    let body = "[\n    {\n        \"LockIndex\": 0,\n        \"Key\": \"a\",\n        \"Flags\": 0,\n        \"Value\": null,\n        \"CreateIndex\": 5,\n        \"ModifyIndex\": 6\n    }\n]\n";
    let translated = pairs(body.as_bytes(), |_, _| Shown::As { create: 50, modify: 60, lock: 2 }).unwrap();
    let expected = body
        .replace(": 5,", ": 50,")
        .replace(": 6\n", ": 60\n")
        .replace("\"LockIndex\": 0", "\"LockIndex\": 2");
    assert_eq!(String::from_utf8(translated.body).unwrap(), expected);
}

#[test]
fn what_is_not_known_can_win_no_cas() {
    let translated = pairs(BODY.as_bytes(), |_, _| Shown::Unknown).unwrap();
    assert_eq!(translated.unknown, ["config/a<", "x"]);
    let text = String::from_utf8(translated.body).unwrap();
    assert_eq!(text.matches("\"ModifyIndex\":9007199254740991").count(), 2);
}

#[test]
fn what_is_no_list_of_keys_is_told() {
    for body in [
        "",
        "{}",
        "[1]",
        r#"[{"Key":"a"}]"#,
        r#"[{"LockIndex":0,"Key":"a","CreateIndex":1,"ModifyIndex":-1}]"#,
        "\u{0}",
    ] {
        assert!(pairs(body.as_bytes(), |_, _| Shown::Unknown).is_err(), "{body}");
    }
    assert!(txn(br#"{"Results":null,"Errors":[]}"#, |_, _| Shown::Unknown).unwrap().unknown.is_empty());
    assert!(pairs(b"[\xff]", |_, _| Shown::AsIs).is_err());
}

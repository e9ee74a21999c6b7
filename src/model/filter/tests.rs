use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use serde_json::{Value, json};

use super::*;

fn entry() -> Value {
    json!({
        "Node": {"ID": "", "Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc1", "TaggedAddresses": null,
            "Meta": {"rack": "r1", "with space": "yes"}},
        "Service": {"ID": "w1", "Service": "web", "Tags": ["a", "canary"], "Address": "", "Meta": {"version": "v1.2"},
            "TaggedAddresses": {"lan": {"Address": "10.0.0.9", "Port": 81}}, "Port": 80,
            "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": false, "Proxy": {"MeshGateway": {}},
            "Connect": {}},
        "Checks": [{"CheckID": "c1", "Status": "passing", "ServiceTags": ["a"]}, {"CheckID": "c2", "Status": "warning"}],
    })
}

fn matches(filter: &str) -> bool {
    Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}")).matches(&entry()).unwrap()
}

fn refusal(filter: &str) -> String {
    Filter::parse(filter).expect_err(filter).to_string()
}

#[test]
fn what_holds_and_what_does_not() {
    for filter in [
        "",
        " \n",
        "Service.Port == 80",
        "Service.Port==\"0x50\"",
        "Service.Meta.version == `v1.2`",
        "\"canary\" in Service.Tags",
        "canary in Service.Tags and not other in Service.Tags",
        "Service.Tags not contains other",
        "Service.Meta.absent != 1",
        "Node.Meta[\"with space\"] == yes",
        "Service.Kind == \"\"",
        "Service.Connect.Native == false",
        "Service.TaggedAddresses.lan.Port == 81",
        "Node.TaggedAddresses is empty",
        "Checks.Status == warning and Checks.Status != warning",
        "Checks.ServiceTags contains a",
        "(Service.Port == 1 or Service.Port == 80)",
        "Service.Port == 80 or Service.Port == 1 and Service.Port == 2",
        "Service.Meta.version matches `^v1\\.\\d$`",
        "Service.Meta.absent matches x and Service.Meta.absent not matches x",
        "not not Service.ID contains 1",
        "not in Service.ID or Service.ID == w1",
    ] {
        assert!(matches(filter), "{filter}");
    }
    for filter in [
        "Service.Meta.absent == \"\"",
        "Service.Proxy.Upstreams.LocalBindPort != 1",
        "Service.Meta is empty",
        "not Service.Port == 80",
        "Service.Tags is not empty and Checks is empty",
        "not in Service.Tags",
    ] {
        assert!(!matches(filter), "{filter}");
    }
}

#[test]
fn what_consul_refuses_is_refused_with_place_and_remedy() {
    insta::assert_snapshot!(
        [
            "Service.Prt == 80",
            "Service.Port == eighty",
            "Service.Port contains 8",
            "Service == web",
            "Service.Meta.a-b == c",
            "Service.Meta[x] == c",
            "Service.ID = web",
            "Service.ID == 'web'",
            "Service.ID == \"web",
            "Service.ID == \"a\\qb\"",
            "Service.Port == 080",
            "Service.ID == a AND Service.ID == b",
            "(Service.ID == a",
            "Service.ID == a)",
            "\"/Service/ID\" == a",
            "any Checks as c { c.Status == passing }",
            "Service.ID matches `(?x)a`",
            "Service.ID matches `a**`",
            "Service.ID matches `a{1000}{1000}`",
            "not",
            "\u{e4} == 1",
        ]
        .map(|filter| format!("{filter}\n    {}", refusal(filter)))
        .join("\n"),
        @r#"
        Service.Prt == 80
            at character 1 of the filter: `Service.Prt` is no field of a health entry; write one of Kind, ID, Service, Tags, Address, TaggedAddresses, Meta, Port, Weights, EnableTagOverride, Proxy, Connect, SocketPath, PeerName, Ports
        Service.Port == eighty
            at character 1 of the filter: `Service.Port` is a whole number, `eighty` is none
        Service.Port contains 8
            at character 1 of the filter: `Service.Port` takes == and !=
        Service == web
            at character 1 of the filter: `Service` takes no operator, only its parts do
        Service.Meta.a-b == c
            at character 15 of the filter: an operator is due here; a name with other characters than letters, digits and `_` is written ["so"]
        Service.Meta[x] == c
            at character 14 of the filter: a name in double quotes or backquotes is due after `[`
        Service.ID = web
            at character 11 of the filter: an operator is due here: ==, !=, [not] in, [not] contains, [not] matches or is [not] empty
        Service.ID == 'web'
            at character 15 of the filter: text is written in double quotes or backquotes, not in single ones
        Service.ID == "web
            at character 15 of the filter: these quotes are not closed
        Service.ID == "a\qb"
            at character 15 of the filter: this escape is unknown; write the text in backquotes, where `\` is itself
        Service.Port == 080
            at character 17 of the filter: this is no number; write a text that begins with a digit or `-` in quotes
        Service.ID == a AND Service.ID == b
            at character 17 of the filter: `and`, `or` or the end is due here; write them in lower case with blanks around them
        (Service.ID == a
            at character 17 of the filter: `and`, `or` or `)` is due here
        Service.ID == a)
            at character 16 of the filter: `and`, `or` or the end is due here; write them in lower case with blanks around them
        "/Service/ID" == a
            at character 1 of the filter: a field is due before the operator, like Service.Meta["version"]; JSON pointers and quoted fields are not part of Consul's filters
        any Checks as c { c.Status == passing }
            at character 4 of the filter: `any` and `all` are not part of Consul's filters; a field of Checks holds if one check has it
        Service.ID matches `(?x)a`
            at character 1 of the filter: the pattern `(?x)a` cannot be used: `(?x` is no group that Consul's patterns have
        Service.ID matches `a**`
            at character 1 of the filter: the pattern `a**` cannot be used: two repetitions follow each other; put the first in parentheses
        Service.ID matches `a{1000}{1000}`
            at character 1 of the filter: the pattern `a{1000}{1000}` cannot be used: two repetitions follow each other; put the first in parentheses
        not
            at character 4 of the filter: an operator is due here: ==, !=, [not] in, [not] contains, [not] matches or is [not] empty
        ä == 1
            at character 1 of the filter: a field, a text in quotes, a word or a number is due here
        "#
    );
}

#[test]
fn limits_hold() {
    let deep = |depth: usize| format!("{}Service.Port == 80{}", "(".repeat(depth), ")".repeat(depth));
    assert!(matches(&deep(MAX_DEPTH)));
    assert!(refusal(&deep(MAX_DEPTH + 1)).contains("nest deeper"));
    assert!(refusal(&"not ".repeat(20_000 / 4)).contains("nest deeper"));
    assert!(refusal(&"(".repeat(MAX_BYTES)).contains("nest deeper"));
    let many = |count: usize| vec!["Service.Port == 80"; count].join(" and ");
    assert!(matches(&many(MAX_COMPARISONS)));
    assert!(refusal(&many(MAX_COMPARISONS + 1)).contains("more than 256 comparisons"));
    assert!(refusal(&format!("Service.ID == \"{}\"", "a".repeat(MAX_BYTES))).contains("longer than"));
    assert!(refusal("Service.ID matches `(\\pL{1000}){1000}`").contains("too large"));
}

#[test]
fn an_entry_of_another_shape_is_an_error() {
    for (filter, entry) in [
        ("Service.Port == 80", json!({"Service": {"Port": "80"}})),
        ("Service.Port == 80", json!([])),
        ("Service.Tags contains a", json!({"Service": {"Tags": "a"}})),
        ("Checks.Status == a", json!({"Checks": [1]})),
        ("Service.Meta.a == a", json!({"Service": {"Meta": {"a": 1}}})),
    ] {
        assert!(Filter::parse(filter).unwrap().matches(&entry).is_err(), "{filter} {entry}");
    }
    assert!(Filter::parse("Service.Port == 0").unwrap().matches(&json!({})).unwrap());
}

#[test]
fn patterns_mean_what_they_mean_in_go() {
    let found = |pattern: &str, text: &str| pattern::compile(pattern).unwrap().is_match(text.as_bytes());
    for (pattern, text) in [
        (r"^\d+$", "12"),
        (r"\bweb\b", "a web b"),
        ("a{", "a{"),
        ("a{,2}", "a{,2}"),
        ("a{2}", "aa"),
        (r"\Qa.b\E", "a.b"),
        (r"\Qa.b", "a.b"),
        (r"\101\x42\x{43}", "ABC"),
        ("[[a]", "["),
        ("[a&&b]", "&"),
        ("[+--]", ","),
        ("[]a]", "]"),
        (r"[^\D]", "7"),
        (r"[\w-]", "-"),
        ("[[:alpha:]_]", "_"),
        (r"\p{^Greek}", "a"),
        (r"\PL", "1"),
        (r"\_\ \-", "_ -"),
        ("(?i)WEB", "web"),
        ("(?P<x>a)", "a"),
        ("", "anything"),
        ("^.$", "\u{e4}"),
    ] {
        assert!(found(pattern, text), "{pattern} {text}");
    }
    assert!(!found(r"\d", "\u{663}"));
    assert!(!found(r"\w", "\u{e4}"));
    assert!(!found(r"\s", "\u{b}"));
    assert!(found(r"\b", "a\u{e4}"));
    for pattern in [
        r"\",
        "a**",
        "a*+",
        "(?x)a",
        "(?u)a",
        r"\1",
        r"\u1234",
        r"\E",
        "(a",
        "a)",
        "[a",
        "[b-a]",
        r"[a-\d]",
        "[[:foo:]]",
        "a{1001}",
        "a{2,1}",
        r"\pé",
        "(?=a)",
        "*",
        r"\Z",
        r"[\b]",
    ] {
        assert!(pattern::compile(pattern).is_err(), "{pattern}");
    }
}

/// Texts made of the language's own pieces, so that they come far into the parser.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "not",
        "and",
        "or",
        "in",
        "is",
        "empty",
        "contains",
        "matches",
        "==",
        "!=",
        "(",
        ")",
        "[",
        "]",
        ".",
        "\"",
        "`",
        " ",
        "\\",
        "Service.Meta",
        "Service.Port",
        "Checks.Status",
        "80",
        "-",
        "v1",
        "\u{e4}",
        "{2,3}",
        "*",
        "[^a-z]",
    ];
    let piece = prop_oneof![
        proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        any::<char>().prop_map(String::from)
    ];
    proptest::collection::vec(piece, 0..24)
        .prop_flat_map(|parts| prop_oneof![Just(parts.concat()), Just(parts.join(" "))])
}

proptest! {
    #[test]
    fn reading_and_asking_never_panics(text in pieces(), noise in any::<String>()) {
        for text in [text, noise] {
            if let Ok(filter) = Filter::parse(&text) {
                let _ = filter.matches(&entry());
            }
            let _ = pattern::compile(&text);
        }
    }

    #[test]
    fn a_quoted_text_is_found_again(text in "[^`\r]*") {
        let filter = Filter::parse(&format!("Service.ID == `{text}`")).unwrap();
        assert!(filter.matches(&json!({"Service": {"ID": text}})).unwrap());
        let quoted = Filter::parse(&format!("Service.ID matches `^\\Q{}\\E$`", text.replace('\\', ""))).unwrap();
        assert!(quoted.matches(&json!({"Service": {"ID": text.replace('\\', "")}})).unwrap());
    }
}

#[test]
fn a_written_filter_is_read_where_it_enters() {
    let written = |text: &str| WrittenFilter::from(text.to_owned());
    let regex = r#"Service.Meta.version matches "^1""#;
    let kept = written(regex);
    let (first, second) = (kept.read().unwrap(), kept.read().unwrap());
    let expression = |filter: &Filter| filter.expression.clone().unwrap();
    assert!(Arc::ptr_eq(&expression(first), &expression(second)));
    assert!(kept.read().unwrap().text == regex && kept == written(regex) && kept != written(""));
    assert!(written("Service.Meta ==").read().is_err());
    assert_eq!(serde_json::to_value(&kept).unwrap(), regex);
}

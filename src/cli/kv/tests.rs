use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    kv: KvArgs,
}

#[test]
fn a_key_has_no_leading_slash() {
    assert_eq!((key("/a/b/"), key("a"), key("/")), ("a/b/", "a", ""));
}

#[test]
fn what_does_not_go_together_is_refused() {
    let line = |text: &str| Line::try_parse_from(["kv"].into_iter().chain(text.split(' '))).map(drop);
    for good in [
        "get a",
        "get --recurse",
        "get --keys --separator= a",
        "put a b --cas --modify-index 0",
        "put a -",
        "put a b --acquire --session s",
        "delete a --cas --modify-index 7",
        "delete --recurse a/",
        "list",
        "watch --recurse --json a/",
        "import --prefix p/ -",
        "export",
    ] {
        assert!(line(good).is_ok(), "{good}: {:?}", line(good));
    }
    for bad in [
        "get --recurse --keys a",
        "get --separator=/ a",
        "get --stale --consistent a",
        "put a b --cas",
        "put a b --acquire",
        "put a b --acquire --release --session s",
        "delete a --cas",
        "delete a --cas --modify-index 0",
        "delete a --recurse --cas --modify-index 7",
        "delete",
        "watch",
        "import",
    ] {
        assert!(line(bad).is_err(), "{bad}");
    }
}

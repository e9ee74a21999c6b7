//! `causeway kv` beside `consul kv`: the same flags at the same server have the same outcome. What an agent adds is not
//! seen here; a Consul server answers what an agent passes through.

use std::{
    io::Write,
    net::Ipv4Addr,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::rig::parts::{Consul, Process, causeway, http, tool, until};

const HOST: Ipv4Addr = Ipv4Addr::new(127, 77, 3, 11);

struct Bench {
    consul: Consul,
}

fn run(command: &mut Command, args: &[&str], input: &str) -> (bool, String) {
    let mut child = command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    if !status.success() {
        return (false, String::from_utf8(stderr).unwrap());
    }
    (true, String::from_utf8(stdout).unwrap())
}

impl Bench {
    fn start() -> Self {
        Self { consul: Consul::registered(HOST) }
    }

    fn ours(&self, args: &[&str], input: &str) -> (bool, String) {
        run(causeway().env("CAUSEWAY_HTTP_ADDR", self.consul.address()).arg("kv"), args, input)
    }

    fn theirs(&self, args: &[&str], input: &str) -> (bool, String) {
        let mut command = Command::new(tool("consul", "CONSUL_BIN"));
        run(command.env("CONSUL_HTTP_ADDR", self.consul.address()).arg("kv"), args, input)
    }

    fn done(&self, args: &[&str]) -> String {
        let (is_done, text) = self.ours(args, "");
        assert!(is_done, "{args:?}: {text}");
        text
    }
}

#[test]
fn reads_print_what_consuls_own_command_prints() {
    let bench = Bench::start();
    for (key, value) in
        [("a/x", "1"), ("a/y/z", "two\nlines"), ("a/ü &?%", "odd"), ("a/folder/", ""), ("b", "")]
    {
        bench.done(&["put", "--flags=42", key, value]);
    }
    let lines = [
        "get a/x",
        "get /a/x",
        "get b",
        "get -base64 a/y/z",
        "get -detailed a/x",
        "get -detailed -base64 a/x",
        "get -recurse a/",
        "get -recurse",
        "get -recurse -detailed a/",
        "get -recurse -base64 a/",
        "get -recurse none/",
        "get -keys",
        "get -keys a/",
        "get -keys -separator= a/",
        "get -keys -separator=x a/",
        "get -stale a/x",
        "export a/y",
        "export b",
    ];
    for line in lines {
        let args: Vec<&str> = line.split(' ').collect();
        let ours = line.replace(" -", " --");
        let ours: Vec<&str> = ours.split(' ').collect();
        assert_eq!(bench.ours(&ours, ""), bench.theirs(&args, ""), "{line}");
    }
    // Go writes some characters as escapes, which is the same JSON.
    for line in [["export", "a/"].as_slice(), &["export"], &["export", "none/"]] {
        let read = |told: (bool, String)| serde_json::from_str::<Value>(&told.1).unwrap();
        assert_eq!(read(bench.ours(line, "")), read(bench.theirs(line, "")), "{line:?}");
    }
    for missing in [["get", "none"].as_slice(), &["get", ""]] {
        assert!(!bench.ours(missing, "").0 && !bench.theirs(missing, "").0, "{missing:?}");
    }
    let listed: Value = serde_json::from_str(&bench.done(&["list", "--json", "a/"])).unwrap();
    assert_eq!(listed, json!(["a/folder/", "a/x", "a/y/z", "a/ü &?%"]));
    let mut pairs = bench.consul.get("/v1/kv/a/?recurse");
    for pair in pairs.as_array_mut().unwrap().iter_mut().filter(|pair| pair["Value"].is_null()) {
        pair["Value"] = json!("");
    }
    let tree: Value = serde_json::from_str(&bench.done(&["get", "--recurse", "--json", "a/"])).unwrap();
    assert_eq!(tree, pairs);
    assert_eq!(bench.done(&["get", "--recurse", "--json", "none/"]), "[]\n");
}

#[test]
fn writes_do_what_consuls_own_command_does() {
    let bench = Bench::start();
    let session = http(
        bench.consul.http,
        "PUT",
        "/v1/session/create",
        &json!({"TTL": "60s", "LockDelay": "0s", "Checks": []}).to_string(),
    );
    let session = session.unwrap().json();
    let session = session["ID"].as_str().unwrap();
    let with = |line: &str| line.replace("SESSION", session);
    // In turn at one server: each finds what the other left.
    let lines = [
        ("put a 1", true),
        ("put -cas -modify-index=1 a 2", false),
        ("put NEW 2", true),
        ("put -acquire -session=SESSION NEWl x", true),
        ("put -release -session=SESSION NEWl x", true),
        ("put -base64 a aGVsbG8=", true),
        ("put d -", true),
        ("delete -cas -modify-index=1 d", false),
        ("delete d", true),
        ("delete none", true),
        ("delete -recurse N", true),
    ];
    for (line, is_done) in lines {
        let told: Vec<(bool, String)> = [true, false]
            .into_iter()
            .map(|is_ours| {
                let line = with(line).replace("NEW", if is_ours { "N1" } else { "N2" });
                // Theirs have one dash, and one dash alone is standard input.
                let ours = line.replace(" -", " --").replace("d --", "d -");
                let args: Vec<&str> =
                    if is_ours { ours.split(' ').collect() } else { line.split(' ').collect() };
                let told =
                    if is_ours { bench.ours(&args, "from stdin") } else { bench.theirs(&args, "from stdin") };
                (told.0, told.1.replace("N1", "N2"))
            })
            .collect();
        assert_eq!(told[0].0, is_done, "{line}: {told:?}");
        assert_eq!(told[1].0, is_done, "{line}: {told:?}");
        if is_done {
            assert_eq!(told[0].1, told[1].1, "{line}");
        }
    }
    assert_eq!(bench.done(&["get", "a"]), "hello\n");
    assert_eq!(bench.done(&["list"]), "a\n");
    // Theirs writes something else then.
    assert!(!bench.ours(&["put", "--base64", "a", "?"], "").0);
    // Consul's API takes 0 for a key that is not there, and its command does not let one say so.
    let create = ["put", "--cas", "--modify-index=0", "new", "1"];
    assert!(bench.ours(&create, "").0 && !bench.ours(&create, "").0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    std::fs::write(&file, [0, 255, 10]).unwrap();
    bench.done(&["put", "bin", &format!("@{}", file.display())]);
    assert_eq!(bench.done(&["get", "--base64", "bin"]), "AP8K\n");
}

#[test]
fn exports_are_read_by_both_sides() {
    const KEYS: usize = 1000;
    let bench = Bench::start();
    let entry = |n: usize| json!({"key": format!("k/{n:04}"), "flags": n, "value": "dg=="});
    let all: Value = (0..KEYS).map(entry).collect();
    let (is_done, text) = bench.ours(&["import", "-"], &all.to_string());
    assert_eq!((is_done, text.as_str()), (true, "Imported 1000 keys\n"));
    let exported = bench.done(&["export", "k/"]);
    assert_eq!(serde_json::from_str::<Value>(&exported).unwrap(), all);
    // Theirs reads ours, and ours reads theirs.
    bench.done(&["delete", "--recurse", "k/"]);
    assert!(bench.theirs(&["import", "-"], &exported).0);
    let (_, theirs) = bench.theirs(&["export", "k/"], "");
    assert_eq!(theirs, exported);
    let (is_done, text) = bench.ours(&["import", "--json", "--prefix=copy/", "-"], &theirs);
    assert_eq!((is_done, text.as_str()), (true, "{\"imported\":1000}\n"));
    assert_eq!(bench.done(&["list", "copy/"]).lines().count(), KEYS);
    // Values beyond what a transaction takes, and what is cut off.
    let large = json!([{"key": "large", "value": "AAAA".repeat(130_000)}, {"key": "x", "value": ""}]);
    assert!(bench.ours(&["import", "-"], &large.to_string()).0);
    assert_eq!(bench.done(&["get", "large"]).len(), 390_001);
    let (is_done, why) = bench.ours(&["import", "-"], &exported[..exported.len() / 2]);
    assert!(!is_done && why.contains("all of it"), "{why}");
    let (is_done, why) = bench.ours(&["import", "[{\"key\":\"big\",\"value\":\"\"},"], "");
    assert!(!is_done, "{why}");
}

#[test]
fn a_watch_tells_each_change() {
    let bench = Bench::start();
    bench.done(&["put", "w/a", "1"]);
    let mut command = causeway();
    command.env("CAUSEWAY_HTTP_ADDR", bench.consul.address()).args([
        "kv",
        "watch",
        "--recurse",
        "--json",
        "w/",
    ]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out");
    command.stdout(std::fs::File::create(&file).unwrap());
    let mut watch = Process::start(&mut command);
    let seen = |count: usize| {
        until("the watch tells it", || {
            let text = std::fs::read_to_string(&file).unwrap();
            (text.lines().count() >= count).then_some(text)
        })
    };
    seen(1);
    bench.done(&["put", "w/b", "2"]);
    seen(2);
    bench.done(&["put", "other", "2"]);
    bench.done(&["put", "w/b", "3"]);
    seen(3);
    bench.done(&["delete", "w/a"]);
    let text = seen(4);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<(&str, &Value)> =
        lines.iter().map(|line| (line["Key"].as_str().unwrap(), &line["Value"])).collect();
    assert_eq!(
        told,
        [("w/a", &json!("MQ==")), ("w/b", &json!("Mg==")), ("w/b", &json!("Mw==")), ("w/a", &Value::Null)]
    );
    assert_eq!(lines[3]["Deleted"], true);
    assert!(watch.is_running());
}

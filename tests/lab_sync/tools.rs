//! The real `consul` commands, unchanged, against the agents' addresses.

use std::{fs, io::Write as _, process::Stdio};

use serde_json::{Value, json};

use crate::lab_sync::{
    ask::ask,
    world::{AGENTS, World, until},
};

/// Where the comparison's own Consul keeps its keys: below no replicated prefix.
const PLAIN: &str = "plain/kv/";
/// The same for the agents.
const MANAGED: &str = "config/kv/";

/// Every verb of `consul kv` with its flags. `{p}` is the prefix, `{session}` and `{other}` are sessions, `{index KEY}` is
/// the index of a key, `{file}` holds a value and `{import}` an export.
const KV: &[&str] = &[
    "put {p}a one",
    "get {p}a",
    "get -detailed {p}a",
    "put {p}b -",
    "get {p}b",
    "put {p}c @{file}",
    "get {p}c",
    "put -base64 {p}d b25l",
    "get {p}d",
    "put -flags=42 {p}e v",
    "get -detailed {p}e",
    "get -base64 {p}e",
    "put {p}empty",
    "get {p}empty",
    "put {p}folder/",
    "put {p}folder/sp%20ce/ü value",
    "get {p}folder/sp%20ce/ü",
    "put -cas -modify-index=0 {p}new v",
    "put -cas -modify-index=0 {p}new v",
    "put -cas -modify-index={index new} {p}new v2",
    "put -cas -modify-index=1 {p}new v3",
    "get {p}new",
    "get -keys {p}",
    "get -keys -separator=e {p}",
    "get -keys -separator= {p}",
    "get -recurse {p}",
    "get -recurse -detailed {p}",
    "get -stale {p}a",
    "get -consistent {p}a",
    "get -datacenter=primary {p}a",
    "put -datacenter=primary {p}a two",
    "get {p}a",
    "get {p}missing",
    "get -recurse {p}missing/",
    "get -keys {p}missing/",
    "put -acquire -session={session} {p}lock held",
    "get -detailed {p}lock",
    "put -acquire -session={other} {p}lock stolen",
    "put -release -session={other} {p}lock freed",
    "put -release -session={session} {p}lock freed",
    "get -detailed {p}lock",
    "put -acquire -session=00000000-0000-0000-0000-000000000000 {p}lock x",
    "delete {p}a",
    "get {p}a",
    "delete {p}a",
    "delete -cas -modify-index=1 {p}b",
    "delete -cas -modify-index={index b} {p}b",
    "delete -cas {p}c",
    "export {p}",
    "export {p}missing/",
    "delete -recurse {p}folder/",
    "get -keys {p}",
    "delete -recurse {p}",
    "get -recurse {p}",
    "import @{import}",
    "get -recurse {p}",
    "delete -recurse {p}",
];

pub(super) fn consul_kv_does_what_it_does_against_consul(world: &World) {
    let own = transcript(world, &world.consul("primary-gateway"), PLAIN);
    for (datacenter, nodes) in AGENTS {
        for node in nodes {
            let ours = transcript(world, &world.agent(node), MANAGED);
            for (consuls, agents) in own.iter().zip(&ours) {
                assert_eq!(agents, consuls, "through {node} in {datacenter}; the right one is Consul's own");
            }
        }
    }
}

/// What each command says and how it ends, without what differs from run to run.
fn transcript(world: &World, address: &str, prefix: &str) -> Vec<String> {
    world.run(address, &["kv", "delete", "-recurse", prefix]);
    let (session, other) = (session(address), session(address));
    let file = world.write("value.txt", "from a file\n");
    let exported = json!([{ "key": format!("{prefix}imported"), "flags": 7, "value": "b25l" }]);
    let import = world.write("import.json", &exported.to_string());
    let run = |line: &&str| {
        let line = line.replace("{p}", prefix).replace("{session}", &session).replace("{other}", &other);
        let line = line.replace("{file}", &file.display().to_string());
        let line = with_index(address, prefix, &line.replace("{import}", &import.display().to_string()));
        let mut command = world.tool(address, &["kv"]);
        command.args(line.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"from stdin").unwrap();
        let output = child.wait_with_output().unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let text = format!(
            "consul kv {line}\n{}{}exit {:?}\n",
            said(&output.stdout),
            said(&output.stderr),
            output.status.code()
        );
        steady(&text, prefix).replace(&session, "SESSION").replace(&other, "OTHER")
    };
    let told = KV.iter().map(run).collect();
    for session in [&session, &other] {
        world.ask("PUT", &format!("{address}/v1/session/destroy/{session}?dc=primary"), b"");
    }
    told
}

/// A session at the home of `config/`.
fn session(address: &str) -> String {
    let body = br#"{"Name": "lab", "TTL": "60s", "LockDelay": "0s"}"#;
    let reply = ask("PUT", &format!("{address}/v1/session/create?dc=primary"), &[], body).unwrap();
    let made: Value =
        serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {reply:?}"));
    made["ID"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned()
}

/// Puts the index of a key where the line names it.
fn with_index(address: &str, prefix: &str, line: &str) -> String {
    let Some((head, rest)) = line.split_once("{index ") else { return line.to_owned() };
    let (key, tail) = rest.split_once('}').unwrap();
    // A key that is not there shows as the difference that it is.
    let reply = ask("GET", &format!("{address}/v1/kv/{prefix}{key}"), &[], b"").unwrap();
    let pairs: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    format!("{head}{}{tail}", pairs[0]["ModifyIndex"].as_u64().unwrap_or_default())
}

/// Without prefixes, and without numbers behind the names of indexes.
fn steady(text: &str, prefix: &str) -> String {
    let line = |line: &str| match line.split_once(' ') {
        Some((name @ ("CreateIndex" | "ModifyIndex"), _)) => format!("{name} N\n"),
        _ => format!("{line}\n"),
    };
    let numbered = |word: &str| word.starts_with("-modify-index=") && word != "-modify-index=0";
    let words = |line: String| {
        let words: Vec<&str> =
            line.split(' ').map(|word| if numbered(word) { "-modify-index=N" } else { word }).collect();
        words.join(" ")
    };
    // Consul says so when another agent than the asked one carried the request out.
    let text = text.replace(prefix, "{p}").replace("rpc error making call: ", "");
    text.lines().map(line).map(words).collect()
}

/// A command that says that it runs, and goes on until a file is there.
fn held(world: &World, name: &str) -> String {
    let (runs, done) = (world.path(&format!("{name}.runs")), world.path(&format!("{name}.done")));
    format!("touch {}; while [ ! -e {} ]; do sleep 0.05; done", runs.display(), done.display())
}

fn until_runs(world: &World, name: &str) {
    let file = world.path(&format!("{name}.runs"));
    until(&format!("{name} has its lock"), || if file.exists() { Ok(()) } else { Err("not yet".to_owned()) });
}

fn release(world: &World, name: &str) {
    fs::write(world.path(&format!("{name}.done")), "").unwrap();
}

pub(super) fn consul_lock_excludes_the_other_datacenter(world: &World) {
    let (here, there) = (world.agent("primary-services"), world.agent("secondary-services"));
    for (number, (holder, other)) in [(&here, &there), (&there, &here)].into_iter().enumerate() {
        let (name, lock) = (format!("holder-{number}"), format!("locks/deploy-{number}"));
        let child = world.background(world.tool(holder, &["lock", &lock, &held(world, &name)]));
        until_runs(world, &name);
        let refused = world.run(other, &["lock", "-timeout=2s", &lock, "touch /nowhere/never"]);
        assert!(!refused.status.success(), "two holders: {refused:?}");
        release(world, &name);
        assert!(child.wait().success());
        let file = world.path(&format!("{name}.next"));
        let next = world.run(other, &["lock", "-shell=false", &lock, "touch", &file.display().to_string()]);
        assert!(next.status.success() && file.exists(), "{next:?}");
        let left = world.ask("GET", &format!("{other}/v1/kv/{lock}/.lock?consistent"), b"");
        assert_eq!(left.status, 404, "`consul lock` removes its key: {}", left.text());
    }
    let consul = world.consul("secondary-server");
    for flags in [&["-child-exit-code"][..], &[]] {
        let code = |address: &str| {
            let args = [&["lock"], flags, &["locks/exit", "exit 3"]].concat();
            world.run(address, &args).status.code()
        };
        assert_eq!(code(&here), code(&consul), "flags {flags:?}");
    }
}

pub(super) fn consul_lock_with_several_holders(world: &World) {
    const LOCK: &str = "locks/several";
    let (here, there) = (world.agent("primary-gateway"), world.agent("secondary-gateway"));
    let hold = |address: &str, name: &str| {
        let child = world.background(world.tool(address, &["lock", "-n=2", LOCK, &held(world, name)]));
        until_runs(world, name);
        child
    };
    let (first, second) = (hold(&here, "first"), hold(&there, "second"));
    let third = world.run(&here, &["lock", "-n=2", "-timeout=2s", LOCK, "true"]);
    assert!(!third.status.success(), "three holders of two: {third:?}");
    release(world, "first");
    assert!(first.wait().success());
    let third = world.run(&here, &["lock", "-n=2", LOCK, "true"]);
    assert!(third.status.success(), "{third:?}");
    release(world, "second");
    assert!(second.wait().success());
}

pub(super) fn consul_watch_sees_what_the_other_datacenter_writes(world: &World) {
    for (from, to) in [("primary-services", "secondary-gateway"), ("secondary-services", "primary-gateway")] {
        let (writer, reader) = (world.agent(from), world.agent(to));
        for (kind, flag, watched) in [
            ("key", "-key", format!("config/watch/{to}")),
            ("keyprefix", "-prefix", format!("config/watch/{to}/")),
        ] {
            let file = world.path(&format!("{to}-{kind}.seen"));
            let key = if kind == "key" { watched.clone() } else { format!("{watched}below") };
            let command = format!("cat >> {}", file.display());
            let args = ["watch", &format!("-type={kind}"), &format!("{flag}={watched}"), &command];
            let mut watch = world.tool(&reader, &args);
            watch.stdout(Stdio::null()).stderr(Stdio::null());
            let watch = world.background(watch);
            // In base64: "one" and "two".
            for (value, shown) in [("one", "b25l"), ("two", "dHdv")] {
                let put = world.run(&writer, &["kv", "put", &key, value]);
                assert!(put.status.success(), "{put:?}");
                until(&format!("`consul watch -type={kind}` at {to} saw {value}"), || {
                    let seen = fs::read_to_string(&file).unwrap_or_default();
                    if seen.contains(shown) { Ok(()) } else { Err(seen) }
                });
            }
            drop(watch);
        }
    }
}

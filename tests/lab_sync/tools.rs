//! The real `consul` commands, unchanged, against the agents' addresses.

use std::{fs, io::Write as _, process::Stdio};

use causeway::lab::plan::{PRIMARY, SECONDARY};
use serde_json::{Value, json};

use crate::lab_sync::{
    ask::{ask, without_token},
    rights::NOBODYS,
    world::{World, until},
};

/// Where the comparison's own Consul keeps its keys: below no replicated prefix.
const PLAIN: &str = "plain/kv/";
/// The same for the agents, with each of the two datacenters as its home, and who is asked. Each asks below its own name.
const MANAGED: [(&str, &str, &[&str]); 2] = [
    (
        PRIMARY,
        "config/kv/",
        &["primary-gateway", "primary-services", "secondary-gateway", "secondary-services"],
    ),
    (SECONDARY, "locks/kv/", &["primary-gateway", "secondary-services"]),
];

/// Every verb of `consul kv` with its flags, but for those of TLS, which the agents' HTTP does not have. `{p}` is the prefix
/// and `{home}` its datacenter, `{session}` and `{other}` are sessions, `{index KEY}` is the index of a key, `{file}` holds a
/// value, `{import}` an export and `{token_file}` the `{token}`; `{wrong}` is another one. `{json}` is an export as well.
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
    "get -datacenter={home} {p}a",
    "put -datacenter={home} {p}a two",
    "get {p}a",
    "get -datacenter=nowhere {p}a",
    "get -detailed -base64 {p}e",
    "get -recurse -base64 {p}",
    "put -stale {p}a two",
    "put -base64 {p}bad ?",
    "get {p}bad",
    "put -http-addr={address} {p}addressed v",
    "get -http-addr={address} {p}addressed",
    "get -http-addr={bare} {p}addressed",
    "export -http-addr={address} {p}addressed",
    "delete -http-addr={address} {p}addressed",
    "import -http-addr={address} {json}",
    "put -token={token} {p}token v",
    "get -token={token} {p}token",
    "export -token={token} {p}token",
    "import -token={token} {json}",
    "delete -token={token} {p}token",
    "put -token-file={token_file} {p}token v",
    "get -token-file={token_file} {p}token",
    "export -token-file={token_file} {p}token",
    "import -token-file={token_file} {json}",
    "delete -token-file={token_file} {p}token",
    "put -token={wrong} {p}token v",
    "get -token={wrong} {p}token",
    "get -token={wrong} -recurse {p}",
    "get -token={wrong} -keys {p}",
    "export -token={wrong} {p}",
    "import -token={wrong} {json}",
    "delete -token={wrong} {p}token",
    "delete -token={wrong} -recurse {p}folder/",
    "get -token-file=/nowhere/token {p}a",
    "put -namespace=default {p}spaced v",
    "get -namespace=default {p}a",
    "get -namespace=default -recurse {p}",
    "export -namespace=default {p}",
    "import -namespace=default {json}",
    "delete -namespace=default {p}a",
    "get -keys {p}",
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
    "export -stale {p}",
    "export -datacenter={home} {p}",
    "export {p}missing/",
    "delete -recurse {p}folder/",
    "get -keys {p}",
    "delete -recurse {p}",
    "get -recurse {p}",
    "import @{import}",
    "get -recurse {p}",
    "import -",
    "import {json}",
    "import -datacenter={home} -",
    "import -stale @{import}",
    "import @/nowhere/import.json",
    "import nonsense",
    "get -recurse -detailed {p}",
    "delete -stale {p}from-argument",
    "delete -datacenter={home} {p}from-stdin",
    "get -keys {p}",
    "delete -recurse {p}",
    "get -keys {p}",
];

pub(super) fn consul_kv_does_what_it_does_against_consul(world: &World) {
    for (home, prefix, nodes) in MANAGED {
        let told = |address: String, prefix: String| Desk::new(world, address, home, prefix).transcript();
        let (own, all) = std::thread::scope(|scope| {
            let at_agent = |node: &&str| {
                let (address, prefix) = (world.agent(node), format!("{prefix}{node}/"));
                scope.spawn(move || told(address, prefix))
            };
            let all: Vec<_> = nodes.iter().map(at_agent).collect();
            let own = told(world.consul(&format!("{home}-gateway")), PLAIN.to_owned());
            (own, all.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>())
        });
        for (node, ours) in nodes.iter().zip(all) {
            for (consuls, agents) in own.iter().zip(&ours) {
                assert_eq!(
                    agents, consuls,
                    "through {node}, {prefix} in {home}; the right one is Consul's own"
                );
            }
        }
    }
}

/// Where commands are run, and what stands for their placeholders.
struct Desk<'w> {
    world: &'w World,
    address: String,
    home: &'w str,
    prefix: String,
    sessions: [String; 2],
}

impl<'w> Desk<'w> {
    fn new(world: &'w World, address: String, home: &'w str, prefix: String) -> Self {
        world.run(&address, &["kv", "delete", "-recurse", &prefix]);
        let sessions = [(); 2].map(|()| session(&address, home));
        Self { world, address, home, prefix, sessions }
    }

    /// What each command says and how it ends, without what differs from run to run.
    fn transcript(self) -> Vec<String> {
        let told = KV.iter().map(|line| self.said(line)).collect();
        for session in &self.sessions {
            let path = format!("/v1/session/destroy/{session}?dc={}", self.home);
            self.world.ask("PUT", &format!("{}{path}", self.address), b"");
        }
        told
    }

    fn said(&self, line: &str) -> String {
        let mut command = self.world.tool(&self.address, &["kv"]);
        // What a flag says is not said by the environment as well.
        for (flag, name) in [("-http-addr", "CONSUL_HTTP_ADDR"), ("-token", "CONSUL_HTTP_TOKEN")] {
            if line.contains(flag) {
                command.env_remove(name);
            }
        }
        let input =
            if line.starts_with("import") { self.exported("from-stdin") } else { "from stdin".into() };
        command.args(self.filled(line).split(' '));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that reads no input may have ended by now.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (said(&output.stdout), said(&output.stderr));
        let text = format!("consul kv {line}\n{out}{err}exit {:?}\n", output.status.code());
        let text = text.replace(without_token(&self.address).0.trim_start_matches("http://"), "ADDRESS");
        let [one, other] = &self.sessions;
        steady(&text, &self.prefix).replace(one, "SESSION").replace(other, "OTHER")
    }

    /// The line with what its placeholders stand for.
    fn filled(&self, line: &str) -> String {
        let (address, token) = without_token(&self.address);
        // Where there are no ACLs any token will do.
        let token = token.unwrap_or(NOBODYS);
        let own = self.prefix.replace('/', "-");
        let file =
            |name: &str, text: &str| self.world.write(&format!("{own}{name}"), text).display().to_string();
        let [session, other] = &self.sessions;
        let line = line
            .replace("{home}", self.home)
            .replace("{session}", session)
            .replace("{other}", other)
            .replace("{file}", &file("value.txt", "from a file\n"))
            .replace("{import}", &file("import.json", &self.exported("imported")))
            .replace("{json}", &self.exported("from-argument"))
            .replace("{token_file}", &file("token.txt", token))
            .replace("{token}", token)
            .replace("{wrong}", NOBODYS)
            .replace("{bare}", address.trim_start_matches("http://"))
            .replace("{address}", &address)
            .replace("{p}", &self.prefix);
        with_index(&self.address, &self.prefix, &line)
    }

    /// An export of one key, as `consul kv export` writes it.
    fn exported(&self, key: &str) -> String {
        json!([{ "key": format!("{}{key}", self.prefix), "flags": 7, "value": "b25l" }]).to_string()
    }
}

/// A session in that datacenter.
fn session(address: &str, datacenter: &str) -> String {
    let body = br#"{"Name": "lab", "TTL": "600s", "LockDelay": "0s"}"#;
    let reply = ask("PUT", &format!("{address}/v1/session/create?dc={datacenter}"), &[], body).unwrap();
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

/// Without prefixes, without numbers behind the names of indexes, and without what a refusal says of the right that lacks.
fn steady(text: &str, prefix: &str) -> String {
    let line = |line: &str| match (line.split_once(' '), line.split_once("response code: 403 (")) {
        (Some((name @ ("CreateIndex" | "ModifyIndex"), _)), _) => format!("{name} N\n"),
        (_, Some((head, _))) => format!("{head}response code: 403\n"),
        _ => format!("{line}\n"),
    };
    // Consul says so when another agent than the asked one carried the request out.
    let text = text.replace(prefix, "{p}").replace("rpc error making call: ", "");
    text.lines().map(line).collect()
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

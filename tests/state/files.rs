//! The files: what cannot be used, what cannot be written, and that nothing changes by being written.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
};

use causeway::{
    model::catalog::{Catalog, Topics},
    state::{keep::Keep, record, store::Store},
};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{catalog_of, host, metric, names, now_s, service, versions};
use crate::{
    golden,
    rig::{
        parts::{Agent, Consul, Home, Process, causeway},
        stream::Stream,
    },
};

/// Nobody listens there.
const NO_CONSUL: &str = "http://127.59.0.9:9";

#[test]
fn files_that_cannot_be_used_are_moved_aside() {
    let home = Home::new(host(3));
    let dir = home.path("state");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("catalog.state"), "causeway-state 1 catalog 0 garbage\n").unwrap();
    fs::write(dir.join("keys.state"), "causeway-state 99 keys\n").unwrap();
    fs::create_dir(dir.join("tokens.state")).unwrap();
    let more = format!("state.dir = \"{}\"", dir.display());
    let mut agent = Agent::with(home, NO_CONSUL, &more, &[]);
    for (file, why) in [
        ("catalog.state.damaged-", "its checksum is another"),
        ("tokens.state.foreign-", "it is no plain file"),
    ] {
        agent.log().line(&["WARN", file, why, "moved aside"]);
        assert!(names(&dir).iter().any(|name| name.starts_with(file)), "{file}: {:?}", names(&dir));
    }
    agent.log().line(&["WARN", "keys.state", "a newer Causeway wrote it", "removed"]);
    assert!(names(&dir).iter().all(|name| !name.starts_with("keys.state")), "{:?}", names(&dir));
    assert_eq!(agent.get("/healthz").status, 200);
    assert_eq!(agent.get("/readyz").status, 503, "it knows nothing");
    agent.process.signal(Signal::SIGTERM);
    assert!(agent.process.ended().success());
    assert!(names(&dir).iter().all(|name| !name.ends_with(".state")), "nothing is known, so nothing is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_of_once_and_the_agent_serves_on() {
    let consul = Consul::start(host(4), json!({}));
    consul.register(&service("web", host(4), 8080, 21_000, json!([])));
    let home = Home::new(host(4));
    let dir = home.path("state");
    let file = home.write(&consul.address(), &format!("state.dir = \"{}\"", dir.display()));
    // No file may have a byte: what write(2) says then is of the same kind as on a full disk.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -S -f 0; exec \"$@\"", "sh"]).arg(causeway().get_program());
    limited.args(["agent", "--config"]).arg(file).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let agent = Agent { process: Process::start(limited.stdout(Stdio::null())), home };
    agent.log().line(&["agent ready"]);
    agent.log().line(&["WARN", "last known good not written", "make room there"]);
    let socket = agent.home.socket();
    let mut stream = Stream::over_unix(&socket, "web-sidecar-proxy").await.unwrap();
    stream.until(&["local_app"]).await.unwrap();
    assert_eq!(metric(&agent, "causeway_state_failing"), 1);
    assert_eq!(names(&dir), BTreeSet::new(), "nothing half written is left");

    let pid = agent.process.pid().to_string();
    let freed = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status().unwrap();
    assert!(freed.success());
    agent.log().line(&["INFO", "last known good is written again"]);
    assert_eq!(agent.log().text().matches("last known good not written").count(), 1);
    assert_eq!(metric(&agent, "causeway_state_failing"), 0);
    let kept = Store::new(&dir).load(true, now_s()).topics;
    assert!(kept.keys().any(|topic| topic.to_string() == "registration/web-sidecar-proxy"), "{kept:?}");
}

/// Every answer of the golden cases comes back from disk as it was, and the same is made of them.
#[test]
fn what_consul_says_comes_back_from_disk_as_it_was() {
    let mut count = 0;
    for (name, case) in golden::all_cases() {
        let Ok((catalog, ..)) = golden::hear(&case) else { panic!("{name}") };
        let shelf = Topics::new();
        let keep = Keep::of(&catalog, &shelf, 0);
        let (mut topics, skipped) = record::read_topics(&record::write_topics(&keep));
        assert_eq!(skipped.count, 0, "{name}: {skipped}");
        topics.extend(record::read_leaves(&record::write_leaves(&keep), 0).0);
        assert_same(&name, &catalog, &topics);
        // As they were for an agent that had seen Consul go: of gateways that are told of twice it trusts the replicas.
        let mut silent = catalog.clone();
        for (topic, _) in catalog.topics() {
            silent.lose(topic, "no answer".into());
        }
        let made = |catalog: &Catalog| versions(catalog, &case.proxy, case.options);
        assert_eq!(made(&catalog_of(&topics)), made(&silent), "{name}: the same versions");
        count += topics.len();
    }
    println!("{count} answers");
    assert!(count > 300, "{count}");
}

fn assert_same(name: &str, catalog: &Catalog, read: &Topics) {
    for (topic, heard) in catalog.topics() {
        let is_absent = serde_json::to_value(&*heard.answer).unwrap() == json!({ "registration": null });
        match read.get(topic) {
            Some(read) => assert!(
                read.answer == heard.answer && read.notes == heard.notes && read.is_from_disk(),
                "{name}: {topic}"
            ),
            None => assert!(is_absent, "{name}: {topic} is not kept"),
        }
    }
}

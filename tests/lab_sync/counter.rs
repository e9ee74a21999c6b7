//! A client library of another language, unchanged, takes locks in both datacenters.

use std::{
    collections::BTreeSet,
    process::{Command, Output, Stdio},
};

use causeway::model::sync::Token;

use crate::lab_sync::world::World;

const TIMES: usize = 40;
const LOCK: &str = "locks/counter/lock";
const COUNTER: &str = "locks/counter/value";

/// Debian's own, which is the one that sees what apt installs.
const PYTHON: &str = "/usr/bin/python3";

pub(super) fn a_library_hands_a_lock_from_one_datacenter_to_the_other(world: &World) {
    let (here, there) = (world.agent("primary-services"), world.agent("secondary-gateway"));
    let client = client(&["turns", "locks/turns", &here, &there]).output().unwrap();
    assert!(client.status.success(), "{}", said(&client));
}

pub(super) fn two_processes_in_both_datacenters_lose_no_increment(world: &World) {
    let start = |node: &str| {
        let mut client = client(&["count", LOCK, COUNTER, &TIMES.to_string(), &world.agent(node)]);
        client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let clients = ["primary-services", "secondary-gateway"].map(start);
    let mut all = BTreeSet::new();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let tokens: Vec<Token> =
            text.lines().filter_map(|line| line.strip_prefix("token ")?.parse().ok()).collect();
        assert_eq!(tokens.len(), TIMES, "every grant has a token: {text}");
        assert!(tokens.is_sorted_by(|one, next| one < next), "tokens grow: {tokens:?}");
        assert!(tokens.into_iter().all(|token| all.insert(token)), "no token is given twice");
    }
    let value = world.value(&world.agent("primary-gateway"), COUNTER);
    assert_eq!(value, Some((2 * TIMES).to_string()), "increments were lost");
}

/// The driver of the library, told of nothing but its arguments: the library reads `CONSUL_HTTP_ADDR` and proxies from the
/// environment.
fn client(args: &[&str]) -> Command {
    let mut probe = python();
    let has_library = probe.args(["-c", "import consul; consul.Consul.Session"]).output();
    assert!(
        has_library.as_ref().is_ok_and(|it| it.status.success()),
        "{PYTHON} lacks the library python-consul: apt-get install python3-consul\n{}",
        has_library.map_or_else(|error| error.to_string(), |it| said(&it))
    );
    let mut client = python();
    client.arg(World::source("lock_client.py")).args(args);
    client
}

fn python() -> Command {
    let mut python = Command::new(PYTHON);
    python.env_clear().args(["-I", "-B"]).stdin(Stdio::null());
    python
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

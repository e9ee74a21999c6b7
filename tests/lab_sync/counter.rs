//! A client library of another language takes locks in both datacenters.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

use causeway::model::sync::Token;

use crate::lab_sync::world::World;

const TIMES: usize = 40;
const LOCK: &str = "locks/counter/lock";
const COUNTER: &str = "locks/counter/value";

pub(super) fn two_processes_in_both_datacenters_lose_no_increment(world: &World) {
    let start = |node: &str| {
        let mut client = Command::new("python3");
        client.arg(World::source("lock_client.py")).args([&world.agent(node), LOCK, COUNTER]);
        client.arg(TIMES.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
        client
            .spawn()
            .unwrap_or_else(|error| panic!("{error}; python3 runs the client: apt-get install python3"))
    };
    let clients = ["primary-services", "secondary-gateway"].map(start);
    let mut all = BTreeSet::new();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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

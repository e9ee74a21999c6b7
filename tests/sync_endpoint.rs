//! The endpoint over real Consuls: what clients are answered at a home and at a replica is what Consul itself answers,
//! for the same operations in the same order.

mod age;
mod audit;
mod operations;
pub(crate) mod rights;
mod trouble;
mod world;

use std::time::Duration;

use causeway::sync::endpoint::Response;

use crate::rig::parts::PATIENCE;

use self::{
    operations::{OPERATIONS, Operation},
    world::{World, text},
};

/// What differs between Consuls by nature: raft indexes.
pub(crate) fn without_indexes(body: &str) -> String {
    let mut out = String::new();
    let mut rest = body;
    while let Some(at) = rest.find("Index\"") {
        let digits = rest[at..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |digits| at + digits);
        let is_raft = rest[..at].ends_with("Create") || rest[..at].ends_with("Modify");
        let end = rest[digits..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        out.push_str(if is_raft { &rest[..digits] } else { &rest[..end] });
        rest = &rest[end..];
    }
    out + rest
}

/// What a client sees of an answer, but for raft indexes.
fn seen(response: &Response) -> String {
    let header = |name| response.header(name).unwrap_or("-").to_owned();
    let index = if response.header("x-consul-index").is_some() { "index" } else { "-" };
    let body = without_indexes(&text(response));
    let body = body.split(", current modify index").next().unwrap_or_default();
    format!("{} {} {} {index}\n{body}", response.status, header("content-type"), header("location"))
}

/// Runs all operations there; a value `@name` of a query or body is the index or session that an earlier one gave.
async fn run(world: &World, at: usize, prefix: &str) -> Vec<String> {
    let mut memory: Vec<(&str, String)> = Vec::new();
    let mut all = Vec::new();
    for Operation { name, method, target, body } in OPERATIONS {
        let fill = |text: &str| {
            let mut text = text.replace("P/", prefix);
            for (name, value) in &memory {
                text = text.replace(&format!("@{name};"), value);
            }
            text
        };
        let response = world.ask(at, method, &fill(target), &fill(body)).await;
        if let Some(found) = operations::remembered(&text(&response)) {
            memory.push((*name, found));
        }
        let mut seen = seen(&response);
        for (name, value) in &memory {
            if value.len() == 36 {
                seen = seen.replace(value, &format!("@{name}"));
            }
        }
        all.push(format!(
            "{method} {target} {body}\n{}",
            seen.replace(prefix, "P/").replace(&prefix.replace('/', "%2F"), "P/")
        ));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_consuls_own_at_home_and_at_a_replica() {
    let world = World::start(serde_json::json!({})).await;
    // Keys that nobody replicates are answered by Consul as it is: this is what the others are held against.
    let plain = run(&world, world::HOME, "plain/").await;
    let home = run(&world, world::HOME, "config/").await;
    for (plain, home) in plain.iter().zip(&home) {
        assert_eq!(plain, home, "at the home");
    }
    let replica = run(&world, world::REPLICA, "far/").await;
    for (plain, replica) in plain.iter().zip(&replica) {
        assert_eq!(plain, replica, "at the replica");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_show_the_homes_indexes() {
    let world = World::start(serde_json::json!({})).await;
    // The two rafts are at different numbers.
    for n in 0..50 {
        world.ask(world::REPLICA, "PUT", &format!("/v1/kv/plain/{n}"), "v").await;
    }
    for n in 0..5 {
        assert_eq!(text(&world.ask(world::REPLICA, "PUT", &format!("/v1/kv/config/{n}"), "v").await), "true");
    }
    let home = world.ask(world::HOME, "GET", "/v1/kv/config/?recurse", "").await;
    let replica = world.ask(world::REPLICA, "GET", "/v1/kv/config/?recurse", "").await;
    assert_eq!(text(&home), text(&replica));
    assert_eq!(replica.header("x-sync-home"), Some("home"));
    assert_eq!(replica.header("x-sync-stale"), None);
    // An index of the replica's own raft wins no cas.
    let own = world.raw(world::REPLICA, "/v1/kv/config/3").await;
    let index = operations::remembered(&own).unwrap();
    let cas = |index: String| format!("/v1/kv/config/3?cas={index}");
    assert_eq!(text(&world.ask(world::REPLICA, "PUT", &cas(index), "w").await), "false");
    let shown = text(&world.ask(world::REPLICA, "GET", "/v1/kv/config/3", "").await);
    let index = operations::remembered(&shown).unwrap();
    let written = world.ask(world::REPLICA, "PUT", &cas(index), "w").await;
    assert_eq!((text(&written).as_str(), written.header("x-sync-applied")), ("true", None));
    let raw = world.ask(world::REPLICA, "GET", "/v1/kv/config/3?raw", "").await;
    assert_eq!(text(&raw), "w");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_at_a_replica_wakes_with_the_homes_index() {
    let world = World::start(serde_json::json!({})).await;
    world.ask(world::REPLICA, "PUT", "/v1/kv/config/watched", "1").await;
    let at = world.ask(world::REPLICA, "GET", "/v1/kv/config/watched", "").await;
    let index = at.header("x-consul-index").unwrap().to_owned();
    let target = format!("/v1/kv/config/watched?index={index}&wait=60s");
    let (woken, _) = tokio::join!(world.ask(world::REPLICA, "GET", &target, ""), async {
        world.ask(world::HOME, "PUT", "/v1/kv/config/watched", "2").await
    });
    let home = world.ask(world::HOME, "GET", "/v1/kv/config/watched", "").await;
    assert_eq!(text(&woken), text(&home));
    // An index of the home's, as a client has it after the home answered, is not waited for here.
    let foreign = "/v1/kv/config/watched?index=1000000&wait=600s";
    let answer = tokio::time::timeout(PATIENCE, world.ask(world::REPLICA, "GET", foreign, "")).await;
    assert_eq!(text(&answer.unwrap()), text(&home));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_home_answers_at_once_to_an_index_that_it_never_gave() {
    let world = World::start(serde_json::json!({})).await;
    world.ask(world::REPLICA, "PUT", "/v1/kv/config/a", "v").await;
    let began = causeway::lifecycle::now();
    let target = "/v1/kv/config/a?consistent&raw&index=99999999&wait=20s";
    let answer = world.ask(world::REPLICA, "GET", target, "").await;
    assert_eq!((answer.status, text(&answer).as_str()), (200, "v"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_trees_are_the_homes() {
    let world = World::start(serde_json::json!({})).await;
    let session =
        text(&world.ask(world::REPLICA, "PUT", "/v1/session/create?dc=home", r#"{"TTL":"30s"}"#).await);
    let session = operations::remembered(&session).unwrap();
    world.ask(world::REPLICA, "PUT", "/v1/kv/config/a", "v").await;
    world.ask(world::REPLICA, "PUT", "/v1/kv/plain/here", "v").await;
    let locked = world.ask(world::REPLICA, "PUT", &format!("/v1/kv/config/l?acquire={session}"), "me").await;
    assert_eq!((text(&locked).as_str(), locked.header("x-lock-token")), ("true", Some("1.1")));
    let held = text(&world.ask(world::REPLICA, "GET", "/v1/kv/config/l", "").await);
    assert!(held.contains(&session), "{held}");
    let keys = text(&world.ask(world::REPLICA, "GET", "/v1/kv/?keys&separator=/", "").await);
    assert_eq!(keys, r#"["_sync/","config/","plain/"]"#);
    let tree = text(&world.ask(world::REPLICA, "GET", "/v1/kv/?recurse", "").await);
    assert!(tree.contains(r#""Key":"config/l""#) && tree.contains(r#""Key":"plain/here""#), "{tree}");
    let plain = world.ask(world::REPLICA, "PUT", "/v1/kv/config/l", "other").await;
    assert_eq!(plain.status, 409, "{}", text(&plain));
    // Renewed and found from anywhere without naming its datacenter, and of no use for a key with another home.
    for at in [world::HOME, world::REPLICA] {
        assert_eq!(world.ask(at, "PUT", &format!("/v1/session/renew/{session}"), "").await.status, 200);
    }
    let elsewhere = world.ask(world::HOME, "PUT", &format!("/v1/kv/shared/l?acquire={session}"), "").await;
    assert_eq!(elsewhere.status, 409, "{}", text(&elsewhere));
    assert!(text(&elsewhere).contains("lives in home and shared/l in replica"), "{}", text(&elsewhere));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_told_in_time_and_reads_go_on() {
    let world = World::start(serde_json::json!({})).await;
    world.ask(world::REPLICA, "PUT", "/v1/kv/config/a", "v").await;
    let before = text(&world.ask(world::REPLICA, "GET", "/v1/kv/config/a", "").await);
    world.cut(true);
    let began = causeway::lifecycle::now();
    let refused = world.ask(world::REPLICA, "PUT", "/v1/kv/config/a", "w").await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(refused.status, 503);
    assert!(text(&refused).contains("home_unreachable"), "{}", text(&refused));
    let read = world.ask(world::REPLICA, "GET", "/v1/kv/config/a", "").await;
    assert_eq!((text(&read), read.header("x-sync-home")), (before, Some("home")));
    assert_eq!(world.ask(world::HOME, "PUT", "/v1/kv/config/a", "x").await.status, 200);
    world.cut(false);
    assert_eq!(text(&world.ask(world::REPLICA, "PUT", "/v1/kv/config/a", "y").await), "true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_with_two_homes_is_refused_and_the_rest_goes_on() {
    let theirs = [
        &[("config/", world::HOME), ("far/", world::HOME)][..],
        &[("config/", world::REPLICA), ("far/", world::HOME)],
    ];
    let world = World::start_with(serde_json::json!({}), theirs).await;
    for at in [world::HOME, world::REPLICA] {
        let refused = world.ask(at, "PUT", "/v1/kv/config/a", "v").await;
        assert_eq!(refused.status, 503, "{}", text(&refused));
        for part in ["`config/`", "in home", "in replica", "same prefixes"] {
            assert!(text(&refused).contains(part), "{}", text(&refused));
        }
        assert_eq!(text(&world.ask(at, "PUT", "/v1/kv/far/a", "v").await), "true");
    }
}

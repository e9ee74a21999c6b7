//! What a client may rely on where a replica is behind: its own writes, and how old an answer is at most.

use std::time::Duration;

use causeway::{model::sync::Position, sync::engine::Times};
use serde_json::json;

use super::world::{HOME, REPLICA, World, text, until};

const KEY: &str = "/v1/kv/config/a?raw";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_with_the_position_of_a_write_sees_it() {
    let world = World::start(json!({})).await;
    for n in 0..20 {
        let written = world.ask(HOME, "PUT", "/v1/kv/config/a", &n.to_string()).await;
        let at = written.header("x-sync-seq").unwrap().to_owned();
        let wish = [("X-Sync-Min-Seq", at.as_str())];
        let read = world.ask_with(REPLICA, &wish, "GET", KEY, "").await;
        assert_eq!((read.status, text(&read)), (200, n.to_string()));
        let seen: Position = read.header("x-sync-seq").unwrap().parse().unwrap();
        assert!(seen >= at.parse::<Position>().unwrap(), "{seen} after {at}");
    }
    let never = world.ask_with(REPLICA, &[("X-Sync-Min-Seq", "1.1000000")], "GET", KEY, "").await;
    assert_eq!(never.status, 504, "{}", text(&never));
    for part in ["`config/` in replica", "1.1000000 within 2000 ms", "?consistent"] {
        assert!(text(&never).contains(part), "{}", text(&never));
    }
    for nonsense in ["", "7", "one.two"] {
        let told = world.ask_with(REPLICA, &[("X-Sync-Min-Seq", nonsense)], "GET", KEY, "").await;
        assert!(told.status == 400 && text(&told).contains("X-Sync-Min-Seq"), "{nonsense}: {}", text(&told));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_tells_that_the_replica_lacks_it() {
    let world = World::start(json!({})).await;
    let here = world.ask(REPLICA, "PUT", "/v1/kv/config/a", "old").await;
    assert_eq!((text(&here).as_str(), here.header("x-sync-applied")), ("true", None));
    world.deafen(true);
    let written = world.ask(REPLICA, "PUT", "/v1/kv/config/a", "new").await;
    assert_eq!((text(&written).as_str(), written.header("x-sync-applied")), ("true", Some("false")));
    let at = written.header("x-sync-seq").unwrap().to_owned();
    let wish = [("X-Sync-Min-Seq", at.as_str())];
    let txn = r#"[{"KV":{"Verb":"set","Key":"config/b","Value":""}}]"#;
    let written = world.ask(REPLICA, "PUT", "/v1/txn", txn).await;
    assert_eq!((written.status, written.header("x-sync-applied")), (200, Some("false")));
    // It is durable at home, where nobody has to wait for a replica.
    let at_home = world.ask(HOME, "PUT", "/v1/kv/config/c", "").await;
    assert_eq!((text(&at_home).as_str(), at_home.header("x-sync-applied")), ("true", None));
    assert_eq!(text(&world.ask(HOME, "GET", KEY, "").await), "new");

    let old = world.ask(REPLICA, "GET", KEY, "").await;
    assert_eq!((text(&old).as_str(), old.header("x-sync-stale")), ("old", Some("true")));
    let behind = world.ask_with(REPLICA, &wish, "GET", KEY, "").await;
    assert!(behind.status == 504 && text(&behind).contains(&at), "{}", text(&behind));
    let consistent = world.ask_with(REPLICA, &wish, "GET", &format!("{KEY}&consistent"), "").await;
    assert_eq!((consistent.status, text(&consistent).as_str()), (200, "new"));

    world.deafen(false);
    let ask = || world.ask_with(REPLICA, &wish, "GET", KEY, "");
    let read = until("the replica has it", ask, |read| read.status != 504).await;
    assert_eq!((read.status, text(&read).as_str()), (200, "new"));
    let written = world.ask(REPLICA, "PUT", "/v1/kv/config/a", "newer").await;
    assert_eq!((text(&written).as_str(), written.header("x-sync-applied")), ("true", None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_too_old_answers_no_read() {
    let times = Times { max_staleness: Some(Duration::from_secs(1)), ..Times::default() };
    let world = World::start_with_times(times).await;
    assert_eq!(text(&world.ask(REPLICA, "PUT", "/v1/kv/config/a", "v").await), "true");
    assert_eq!(text(&world.ask(REPLICA, "PUT", "/v1/kv/shared/a", "v").await), "true");
    let ask = || world.ask(REPLICA, "GET", KEY, "");
    until("the replica is level", ask, |read| read.status == 200).await;
    world.deafen(true);
    let refused = until("the replica is too old", ask, |read| read.status != 200).await;
    assert_eq!(refused.status, 503, "{}", text(&refused));
    for part in ["`config/` in replica", "ms behind its home home", "max_staleness"] {
        assert!(text(&refused).contains(part), "{}", text(&refused));
    }
    let trees = world.ask(REPLICA, "GET", "/v1/kv/config/?recurse", "").await;
    assert_eq!(trees.status, 503, "{}", text(&trees));
    // What the home itself says is of no age, nor is what is at home here, nor what nobody replicates.
    for (at, key) in
        [(REPLICA, "/v1/kv/config/a?raw&consistent"), (HOME, KEY), (REPLICA, "/v1/kv/shared/a?raw")]
    {
        let read = world.ask(at, "GET", key, "").await;
        assert_eq!((read.status, text(&read).as_str()), (200, "v"), "{key}");
    }
    assert_eq!(world.ask(REPLICA, "GET", "/v1/kv/plain/none", "").await.status, 404);
    // Cut off from its home as well, it has nothing else to show.
    world.cut(true);
    let refused = world.ask(REPLICA, "GET", KEY, "").await;
    assert!(refused.status == 503 && text(&refused).contains("max_staleness"), "{}", text(&refused));
    world.cut(false);
    world.deafen(false);
    until("the replica is level again", ask, |read| read.status == 200).await;
}

//! What goes wrong on the way: answers that are lost, a datacenter that is away, limits that differ.

use std::time::Duration;

use causeway::lifecycle;

use super::{
    operations::remembered,
    world::{HOME, REPLICA, World, text},
};
use crate::rig::parts::PATIENCE;

/// Twice what a forward may take, for machines that are busy.
const BOUND: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_is_executed_once_however_often_it_is_sent() {
    let world = World::start(serde_json::json!({})).await;
    world.lose_answers(true);
    let lost = world.ask(REPLICA, "PUT", "/v1/kv/config/once", "v").await;
    assert_eq!(lost.status, 504, "{}", text(&lost));
    let id = lost.header("x-sync-request-id").unwrap().to_owned();
    assert!(text(&lost).contains("outcome=unknown") && text(&lost).contains(&id), "{}", text(&lost));
    // A read changes nothing, so that it is only not answered.
    let read = world.ask(REPLICA, "GET", "/v1/kv/config/once?consistent", "").await;
    assert_eq!(read.status, 503, "{}", text(&read));
    world.lose_answers(false);

    let headers = [("X-Sync-Request-Id", id.as_str())];
    let mut seen = Vec::new();
    for at in [REPLICA, HOME, REPLICA] {
        let again = world.ask_with(at, &headers, "PUT", "/v1/kv/config/once", "v").await;
        assert_eq!((again.status, text(&again).as_str()), (200, "true"));
        seen.push(again.header("x-sync-seq").unwrap().to_owned());
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "one entry and no other: {seen:?}");
    let pair = text(&world.ask(HOME, "GET", "/v1/kv/config/once", "").await);
    let created = pair.split("\"CreateIndex\":").nth(1).and_then(|rest| rest.split(',').next());
    assert_eq!(created.map(str::to_owned), remembered(&pair), "written once: {pair}");
    // The id stands for that write, and for no other.
    let other = world.ask_with(REPLICA, &headers, "PUT", "/v1/kv/config/once", "w").await;
    assert!((400..500).contains(&other.status), "{} {}", other.status, text(&other));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_sought_in_bounded_time_past_a_datacenter_that_is_away() {
    let world = World::start(serde_json::json!({})).await;
    let body = r#"{"TTL":"60s","NodeChecks":[]}"#;
    let made = text(&world.ask(REPLICA, "PUT", "/v1/session/create?dc=replica", body).await);
    let own = remembered(&made).unwrap();
    world.cut(true);
    const NONE: &str = "11111111-1111-1111-1111-111111111111";
    for (method, target) in [
        ("GET", format!("/v1/session/info/{NONE}")),
        ("PUT", format!("/v1/session/renew/{NONE}")),
        ("PUT", format!("/v1/session/destroy/{NONE}")),
    ] {
        let began = lifecycle::now();
        let answer = world.ask(REPLICA, method, &target, "").await;
        assert!(began.elapsed() < BOUND, "{target}: {:?}", began.elapsed());
        // It may live there: nobody can say that there is none.
        assert!(answer.status == 503 && text(&answer).contains("home_unreachable"), "{}", text(&answer));
    }
    let renewed = world.ask(REPLICA, "PUT", &format!("/v1/session/renew/{own}"), "").await;
    assert_eq!(renewed.status, 200, "one that is here is found: {}", text(&renewed));
    // A key with its home here, and a session that nobody here has.
    let began = lifecycle::now();
    let answer = world.ask(REPLICA, "PUT", &format!("/v1/kv/shared/l?acquire={NONE}"), "").await;
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    assert!(answer.status == 500 && text(&answer).contains("invalid session"), "{}", text(&answer));
    world.cut(false);
    assert_eq!(text(&world.ask(REPLICA, "PUT", "/v1/kv/config/a", "v").await), "true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_held_against_the_smallest_limit_of_all_datacenters() {
    let world = World::start_with_limits([256 << 10, 1_000]).await;
    let value = "x".repeat(1_001);
    // The home hears of the limit with its first greeting that is answered.
    let told = async {
        loop {
            let refused = world.ask(HOME, "PUT", "/v1/kv/config/a", &value).await;
            if refused.status == 413 {
                return text(&refused);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(told.contains("1001 bytes, and the limit is 1000"), "{told}");
    let refused = world.ask(REPLICA, "PUT", "/v1/kv/config/a", &value).await;
    assert_eq!((refused.status, text(&refused)), (413, told));
    assert_eq!(world.ask(REPLICA, "PUT", "/v1/kv/config/a", &value[1..]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_told_so_and_change_nothing() {
    let world = World::start(serde_json::json!({})).await;
    let session = text(&world.ask(HOME, "PUT", "/v1/session/create?dc=home", r#"{"TTL":"60s"}"#).await);
    let session = remembered(&session).unwrap();
    let two = r#"[{"KV":{"Verb":"set","Key":"config/a","Value":""}},{"KV":{"Verb":"set","Key":"shared/a","Value":""}}]"#;
    let elsewhere = format!("/v1/kv/shared/l?acquire={session}");
    let cases: &[(&str, &str, &str, u16, &[&str])] = &[
        ("PUT", "/v1/kv/_sync/v1/x", "", 400, &["_sync/v1/x", "reserved", "another key"]),
        ("DELETE", "/v1/kv/?recurse", "", 400, &["reserved"]),
        (
            "PUT",
            "/v1/txn",
            two,
            400,
            &["config/a is written in home", "shared/a in replica", "two transactions"],
        ),
        ("PUT", "/v1/kv/config/a?dc=replica", "", 400, &["config/a", "in home only"]),
        ("PUT", &elsewhere, "", 409, &["lives in home", "shared/l in replica", "?dc=replica"]),
        ("PUT", "/v1/kv/config/l?acquire=nonsense", "", 500, &["UUID must be 36 characters"]),
        ("POST", "/v1/lock/plain/l", "", 400, &["no replicated prefix", "config/"]),
        ("POST", "/v1/lock/config/l", r#"{"ttl":"1s"}"#, 400, &["between 10s and 24h"]),
        ("PUT", "/v1/lock/config/l/renew", r#"{"token":"1.7"}"#, 409, &["1.7", "acquire the lock again"]),
    ];
    for at in [HOME, REPLICA] {
        for (method, target, body, status, parts) in cases {
            let answer = world.ask(at, method, target, body).await;
            assert_eq!(answer.status, *status, "{method} {target}: {}", text(&answer));
            for part in *parts {
                assert!(text(&answer).contains(part), "{method} {target}: {}", text(&answer));
            }
        }
        let unknown = world.ask(at, "GET", "/v1/kv/config/a?dc=nowhere", "").await;
        assert!(
            unknown.status == 500 && text(&unknown).contains("No path to datacenter"),
            "{}",
            text(&unknown)
        );
    }
    let keys = text(&world.ask(HOME, "GET", "/v1/kv/?keys&separator=/", "").await);
    assert_eq!(keys, r#"["_sync/"]"#, "nothing is written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_of_one_datacenter_with_different_prefixes_refuse_what_they_differ_in() {
    let world = World::start(serde_json::json!({})).await;
    assert_eq!(world.status(HOME).disagreements, Vec::<String>::new());
    world.meet("other-1", &[("config/", REPLICA), ("far/", HOME), ("shared/", REPLICA), ("new/", HOME)]);
    for at in [HOME, REPLICA] {
        let told = world.status(at).disagreements;
        assert!(
            matches!(&told[..], [config, new] if config.contains("`config/` (home home)")
            && config.contains("(home replica) of the one on other-1") && new.contains("`new/`")),
            "{told:#?}"
        );
        for (method, target, body) in [
            ("PUT", "/v1/kv/config/a", "v"),
            ("PUT", "/v1/kv/new/a", "v"),
            ("GET", "/v1/kv/new/a", ""),
            ("DELETE", "/v1/kv/new/?recurse", ""),
            ("DELETE", "/v1/kv/ne?recurse", ""),
            ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"set","Key":"new/a","Value":""}}]"#),
        ] {
            let refused = world.ask(at, method, target, body).await;
            assert_eq!(refused.status, 503, "{method} {target}: {}", text(&refused));
            for part in ["other-1", "same datacenter", "same prefixes"] {
                assert!(text(&refused).contains(part), "{method} {target}: {}", text(&refused));
            }
        }
        for key in ["far/a", "shared/a", "plain/a"] {
            assert_eq!(text(&world.ask(at, "PUT", &format!("/v1/kv/{key}"), "v").await), "true", "{key}");
        }
    }
    let keys = text(&world.ask(HOME, "GET", "/v1/kv/?keys&separator=/", "").await);
    assert_eq!(keys, r#"["_sync/","far/","plain/","shared/"]"#, "nothing is written past a journal");
    world.meet("other-1", &[("config/", HOME), ("far/", HOME), ("shared/", REPLICA)]);
    assert_eq!(world.ask(HOME, "PUT", "/v1/kv/config/a", "v").await.status, 200);
}

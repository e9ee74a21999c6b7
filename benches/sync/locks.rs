//! Locks through the agent's own API: how many, and how soon the next holder has one whose holder died.

use std::time::Duration;

use causeway::lifecycle;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    figures::median,
    site::{AWAY, Door, HOME, Site},
};

const RUNS: usize = 5;
const RUN: Duration = Duration::from_secs(3);
/// The least that Consul takes.
const TTL: &str = "10s";
/// What Consul gives who names none.
const DELAY: &str = "15s";

pub(crate) async fn all(site: &Site) -> String {
    // `locks/` has its home in the secondary.
    let (at_home, away) = (site.agent(AWAY), site.agent(HOME));
    let mut text =
        String::from("acquire and release of a lock, pairs each second (median of 5 runs of 3 s)\n");
    for clients in [1, 16] {
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            near.push(pairs(&at_home, clients).await);
            far.push(pairs(&away, clients).await);
        }
        text += &format!(
            "  {clients:>2} clients, a lock each: at home {}, from the other datacenter {}\n     runs: {near:?} / {far:?}\n",
            median(near.iter().copied()),
            median(far.iter().copied())
        );
    }
    text += &format!(
        "hand-over after a holder's death, TTL {TTL}; Consul ends a session after twice that at most\n"
    );
    for delay in [DELAY, "0s"] {
        let mut handed = Vec::new();
        for _ in 0..3 {
            handed.push(hand_over(&at_home, &away, delay).await);
        }
        text +=
            &format!("  lock-delay {delay}: {} ms (median of {handed:?})\n", median(handed.iter().copied()));
    }
    text
}

async fn acquire(door: &Door, lock: &str, wait: &str, delay: &str) -> String {
    let body = json!({ "ttl": TTL, "wait": wait, "lock_delay": delay }).to_string();
    let reply = door.ask(Method::POST, &format!("/v1/lock/{lock}"), &[], body).await.unwrap();
    let text = String::from_utf8_lossy(&reply.body);
    assert_eq!(reply.status, 200, "{text}");
    let granted: Value = serde_json::from_str(&text).unwrap();
    granted["token"].as_str().unwrap_or_else(|| panic!("{text}")).to_owned()
}

async fn release(door: &Door, lock: &str, token: &str) {
    door.put(&format!("/v1/lock/{lock}/release"), json!({ "token": token }).to_string()).await;
}

async fn pairs(door: &Door, clients: usize) -> u64 {
    let end = lifecycle::now() + RUN;
    let mut all = JoinSet::new();
    for client in 0..clients {
        let door = door.clone();
        all.spawn(async move {
            let (lock, mut done) = (format!("locks/bench/{client}"), 0_u64);
            while lifecycle::now() < end {
                let token = acquire(&door, &lock, "10s", DELAY).await;
                release(&door, &lock, &token).await;
                done += 1;
            }
            done
        });
    }
    all.join_all().await.into_iter().sum::<u64>() / RUN.as_secs()
}

/// The holder says nothing any more; somebody in the other datacenter waits.
async fn hand_over(holder: &Door, next: &Door, delay: &str) -> u64 {
    const LOCK: &str = "locks/bench/handed";
    acquire(holder, LOCK, "60s", delay).await;
    let start = lifecycle::now();
    let token = acquire(next, LOCK, "60s", delay).await;
    let took = u64::try_from(start.elapsed().as_millis()).unwrap();
    release(next, LOCK, &token).await;
    took
}

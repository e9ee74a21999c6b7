//! Many keys: through the journal, beside a loop of one PUT for each key, and as the first snapshot of a replica.

use std::{fmt::Write as _, time::Duration};

use causeway::lifecycle;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    figures::median,
    site::{AWAY, Door, HOME, Site, until},
};

/// As many keys as the comparison with a loop of one PUT per key.
const BULK: usize = 20_000;
const RUNS: usize = 5;
/// Sets in a client's transaction: what fits beside the journal's own verbs.
const BATCH: usize = 60;
const WRITERS: usize = 8;
const VALUE: [u8; 100] = [b'v'; 100];

/// 20,000 keys to the other datacenter, in turns with the loop.
pub(crate) async fn bulk(site: &Site) -> String {
    let (mut behind, mut along, mut loops) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        loops.push(one_put_per_key(site, run).await);
        behind.push(catching_up(site, run).await);
        along.push(while_written(site, run).await);
    }
    let [own, written, peer] = [&behind, &along, &loops].map(|runs| median(runs.iter().copied()));
    format!(
        "bulk replication of {BULK} keys of {} bytes, keys/s (median of {RUNS} runs, in turns)\n  \
         all of them at home, as for the loop: {own}, to reach: 10000 and 10 times the loop\n  \
         from the first write at home, {WRITERS} clients: {written}\n  \
         a loop of one PUT for each key there, as consul-replicate does: {peer} (the journal {:.1} times)\n     \
         runs: {behind:?} / {along:?} / {loops:?}\n",
        VALUE.len(),
        own as f64 / peer.max(1) as f64
    )
}

/// The replica's agent stands still while the keys are written, and then applies what the journal has.
async fn catching_up(site: &Site, run: usize) -> u64 {
    let prefix = format!("config/behind{run}/");
    site.lab.signal(AWAY, "causeway", Signal::SIGSTOP).unwrap();
    let last = fill(&site.agent(HOME), &prefix, BULK).await.unwrap();
    let start = lifecycle::now();
    site.lab.signal(AWAY, "causeway", Signal::SIGCONT).unwrap();
    applied(site, &prefix, &last).await;
    rate(BULK, start.elapsed())
}

async fn while_written(site: &Site, run: usize) -> u64 {
    let prefix = format!("config/along{run}/");
    let start = lifecycle::now();
    let last = fill(&site.agent(HOME), &prefix, BULK).await.unwrap();
    applied(site, &prefix, &last).await;
    let took = start.elapsed();
    assert_eq!(site.consul(AWAY).count(&prefix).await.unwrap(), BULK);
    rate(BULK, took)
}

/// Until the replica says that it has that position, which it knows by its own transactions.
async fn applied(site: &Site, prefix: &str, position: &str) {
    let (door, target) = (site.agent(AWAY), format!("/v1/kv/{prefix}none"));
    until("the replica has all", async || {
        let reply = door.ask(http::Method::GET, &target, &[("x-sync-min-seq", position)], "").await?;
        Ok((reply.status == 404).then_some(()))
    })
    .await;
}

/// Reads the source through the other datacenter, as consul-replicate does, and writes one key after the other.
async fn one_put_per_key(site: &Site, run: usize) -> u64 {
    let prefix = format!("plain/bulk{run}/");
    fill(&site.consul(HOME), &prefix, BULK).await;
    let there = site.consul(AWAY);
    let start = lifecycle::now();
    let list = there.get(&format!("/v1/kv/{prefix}?recurse&dc=primary&stale")).await.unwrap();
    let pairs: Vec<Value> = serde_json::from_slice(&list.body).unwrap();
    assert_eq!(pairs.len(), BULK);
    for pair in pairs {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let value = BASE64_STANDARD.decode(pair["Value"].as_str().unwrap()).unwrap();
        let (key, flags) = (pair["Key"].as_str().unwrap(), &pair["Flags"]);
        there.put(&format!("/v1/kv/{key}?flags={flags}"), value).await;
    }
    rate(BULK, start.elapsed())
}

/// A replica that has nothing, and a home that has all.
pub(crate) async fn initial(site: &Site) -> String {
    let mut text = String::from("initial copy of a replica, from the start of its agent\n");
    for keys in [100_000, 1_000_000] {
        stop_agents(site).await;
        for (door, prefix) in [(site.consul(HOME), "config/"), (site.consul(AWAY), "config/")] {
            door.ask(http::Method::DELETE, &format!("/v1/kv/{prefix}?recurse"), &[], "").await.unwrap();
            door.ask(http::Method::DELETE, "/v1/kv/_sync/?recurse", &[], "").await.unwrap();
        }
        fill(&site.consul(HOME), "config/copy/", keys).await;
        site.lab.restart(HOME, "causeway").await.unwrap();
        let start = lifecycle::now();
        site.lab.restart(AWAY, "causeway").await.unwrap();
        let there = site.consul(AWAY);
        until("the copy is whole", async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok((there.count("config/copy/").await? == keys).then_some(()))
        })
        .await;
        let took = start.elapsed();
        let goal = if keys == 1_000_000 { "; to reach: 90 s, 300 MiB" } else { "" };
        let _ = writeln!(
            text,
            "  {keys:>7} keys of {} bytes: {:.1} s, {} keys/s; peak memory of the replica's agent {} MiB, of the home's {} MiB{goal}",
            VALUE.len(),
            took.as_secs_f64(),
            rate(keys, took),
            site.peak_mib(AWAY),
            site.peak_mib(HOME)
        );
        site.until_serving().await;
    }
    text
}

async fn stop_agents(site: &Site) {
    for node in [AWAY, HOME] {
        site.lab.terminate(node, "causeway").await.unwrap();
    }
}

/// Sets so many keys, eight transactions at a time; gives the position of the last, where the door is an agent's.
async fn fill(door: &Door, prefix: &str, keys: usize) -> Option<String> {
    let mut all = JoinSet::new();
    for writer in 0..WRITERS {
        let (door, prefix) = (door.clone(), prefix.to_owned());
        all.spawn(async move {
            let mut last = None;
            for first in (writer * BATCH..keys).step_by(WRITERS * BATCH) {
                let names = (first..(first + BATCH).min(keys))
                    .map(|number| format!("{prefix}{:03}/{number:07}", number % 512));
                last = door.set_all(names, &VALUE).await.position();
            }
            last
        });
    }
    all.join_all().await.into_iter().flatten().max().map(|(epoch, seq)| format!("{epoch}.{seq}"))
}

fn rate(keys: usize, took: Duration) -> u64 {
    (keys as f64 / took.as_secs_f64()) as u64
}

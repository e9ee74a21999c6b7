//! Writes at home: how many, beside plain Consul, and how soon the replica has them.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use causeway::lifecycle;
use http::Method;
use tokio::{sync::Mutex, task::JoinSet, time::Instant};

use crate::{
    figures::{median, percentile},
    site::{AWAY, Door, HOME, Site},
};

const RUNS: usize = 5;
const RUN: Duration = Duration::from_secs(3);
const VALUE: [u8; 256] = [b'v'; 256];
/// Every so many writes one is looked for at the replica.
const SAMPLE: u64 = 10;

/// Acknowledged writes each second for 1, 16 and 64 clients, in turns with Consul itself.
pub(crate) async fn clients(site: &Site) -> String {
    let (agent, consul) = (site.agent(HOME), site.consul(HOME));
    let far = site.agent(AWAY);
    let mut text =
        "writes of 256 bytes acknowledged each second (median of 5 runs of 3 s, in turns)\n".to_owned();
    for clients in [1, 16, 64] {
        let (mut ours, mut plain, mut from_far) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..RUNS {
            plain.push(rate(&consul, &format!("plain/w{run}/"), clients).await);
            ours.push(rate(&agent, &format!("config/w{run}/"), clients).await);
            from_far.push(rate(&far, &format!("config/f{run}/"), clients).await);
        }
        let goal = if clients == 64 { ", to reach: 1500" } else { "" };
        let _ = writeln!(
            text,
            "  {clients:>2} clients: journaled {}{goal}; from the other datacenter {}; plain Consul {}\n     runs: {ours:?} / {from_far:?} / {plain:?}",
            median(ours.iter().copied()),
            median(from_far.iter().copied()),
            median(plain.iter().copied())
        );
    }
    text
}

async fn rate(door: &Door, prefix: &str, clients: usize) -> u64 {
    let end = lifecycle::now() + RUN;
    let mut all = JoinSet::new();
    for client in 0..clients {
        let (door, prefix) = (door.clone(), prefix.to_owned());
        all.spawn(async move {
            let mut done = 0_u64;
            while lifecycle::now() < end {
                door.put(&format!("/v1/kv/{prefix}{client}/{}", done % 1000), &VALUE[..]).await;
                done += 1;
            }
            done
        });
    }
    let done: u64 = all.join_all().await.into_iter().sum();
    done / RUN.as_secs()
}

/// From a write's acknowledgement at home to its being readable at the replica.
pub(crate) async fn lag(site: &Site) -> String {
    let mut text =
        "replica lag: from the acknowledgement at home to the answer of a read there with its position\n"
            .to_owned();
    for rate in [100, 1000] {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(lag_at(site, rate).await);
        }
        let of = |part| median(runs.iter().map(|(_, lags)| percentile(lags, part)));
        let _ = writeln!(
            text,
            "  {rate:>4} writes/s: p50 {} us, p99 {} us (median of {RUNS} runs); to reach: p99 RTT + 50 ms",
            of(50),
            of(99),
        );
        for (achieved, lags) in runs {
            let _ = writeln!(text, "     {achieved} writes/s; samples, us: {lags:?}");
        }
    }
    text
}

async fn lag_at(site: &Site, rate: u64) -> (u64, Vec<u64>) {
    const SECONDS: u64 = 5;
    let (home, away) = (site.agent(HOME), site.agent(AWAY));
    let lags = Arc::new(Mutex::new(Vec::new()));
    let mut all = JoinSet::new();
    let start = lifecycle::now();
    for number in 0..rate * SECONDS {
        let due = start + Duration::from_secs_f64(number as f64 / rate as f64);
        tokio::time::sleep_until(due).await;
        let (home, away, lags) = (home.clone(), away.clone(), lags.clone());
        all.spawn(async move {
            let reply = home.put(&format!("/v1/kv/config/lag/{}", number % 500), number.to_string()).await;
            let acked: Instant = lifecycle::now();
            if number % SAMPLE == 0 {
                let seq = reply.headers["x-sync-seq"].to_str().unwrap().to_owned();
                let read = format!("/v1/kv/config/lag/{}", number % 500);
                let reply = away.ask(Method::GET, &read, &[("x-sync-min-seq", &seq)], "").await.unwrap();
                assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
                lags.lock().await.push(u64::try_from(acked.elapsed().as_micros()).unwrap());
            }
        });
    }
    all.join_all().await;
    let achieved = (rate * SECONDS * 1000) / u64::try_from(start.elapsed().as_millis()).unwrap();
    let lags = std::mem::take(&mut *lags.lock().await);
    (achieved, lags)
}

//! Replication over the lab's two datacenters, all traffic between them through the mesh gateways: bulk replication,
//! journaled writes, lag, initial copies and locks, beside plain Consul and a loop of one PUT for each key, which is how
//! consul-replicate writes. Prints all beside the figures to reach, and keeps every run in a file. It judges nothing.
//! `cargo bench --bench sync -- bulk copies` measures these alone, and keeps nothing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot be made ends with a panic"
)]

#[path = "sync/copies.rs"]
mod copies;
#[path = "kit/figures.rs"]
mod figures;
#[path = "sync/locks.rs"]
mod locks;
#[path = "sync/site.rs"]
mod site;
#[path = "sync/writes.rs"]
mod writes;

use std::{env, fs};

use crate::site::Site;

const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/sync.txt");

const MEASURES: [&str; 5] = ["writes", "lag", "bulk", "locks", "copies"];

fn main() {
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_wanted = |measure: &&str| words.is_empty() || words.iter().any(|word| word == measure);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut report = format!("{}\n\n", figures::machine());
    let site = runtime.block_on(Site::start());
    for measure in MEASURES.into_iter().filter(is_wanted) {
        let text = runtime.block_on(async {
            match measure {
                "writes" => writes::clients(&site).await,
                "lag" => writes::lag(&site).await,
                "bulk" => copies::bulk(&site).await,
                "locks" => locks::all(&site).await,
                _ => copies::initial(&site).await,
            }
        });
        println!("{text}");
        report += &text;
        report.push('\n');
    }
    runtime.block_on(site.stop());
    if words.is_empty() {
        fs::write(RESULTS, report).unwrap();
        println!("every run: {RESULTS}");
    }
}

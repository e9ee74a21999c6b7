//! Percentiles, medians, and what a measurement ran on.
#![allow(dead_code, reason = "each measurement uses a part of it")]

use std::fs;

/// What it ran on: times are worth little without it. Load is the mean number of runnable tasks in the last minute,
/// those of others included.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().unwrap();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{cores} cores for all parts, load {}", load.split_whitespace().next().unwrap_or("unknown"))
}

/// The value that this percentage of values does not exceed.
pub(crate) fn percentile(values: &[u64], percent: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

/// The middle of a few runs.
pub(crate) fn median(values: impl IntoIterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// User and system time of this process so far, in microseconds. `stat` counts hundredths of a second, too coarse
/// for little; `schedstat` nanoseconds.
pub(crate) fn cpu_us() -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let ns = threads.map(|thread| {
        let text = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
    });
    ns.sum::<u64>() / 1_000
}

/// Resident memory of this process, in KiB.
pub(crate) fn rss_kib() -> u64 {
    rss_kib_of(std::process::id())
}

/// The same of another.
pub(crate) fn rss_kib_of(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

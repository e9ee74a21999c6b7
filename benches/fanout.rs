//! The xDS server with many delta ADS streams: how long until the last of them has one changed endpoint, what a
//! stream takes in memory, and what a reconnect of all of them costs.
//!
//! Every run is a process of its own that serves, and another that connects to it over a Unix socket, so that memory
//! and CPU are the server's alone; both share this machine's cores. The peer is a bare tonic stream that pushes the
//! same encoded resource to as many of the same clients and decides nothing: the floor for whoever serves with tonic.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot be made ends with a panic"
)]

#[path = "fanout/answer.rs"]
mod answer;
#[path = "kit/catalog.rs"]
mod catalog;
#[path = "fanout/clients.rs"]
mod clients;
#[path = "kit/figures.rs"]
mod figures;
#[path = "fanout/floor.rs"]
mod floor;
#[path = "fanout/http2.rs"]
mod http2;
#[path = "fanout/load.rs"]
mod load;
#[path = "fanout/server.rs"]
mod server;

use std::{
    env,
    fmt::Write as _,
    fs,
    process::{Command, Stdio},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::figures::{machine, median, percentile};

const RUNS: usize = 5;
/// Streams, and changes in each run.
const SIZES: [(usize, usize); 3] = [(100, 100), (1_000, 60), (5_000, 15)];
/// Changes each second to `CHURN_STREAMS`, for so many seconds; `CHURN_SECONDS` in the environment makes a soak of it.
const CHURN: [usize; 3] = [10, 100, 1_000];
const CHURN_STREAMS: usize = 1_000;
const CHURN_SECONDS: usize = 20;
const VANISHING: usize = 100_000;
const HERD: usize = 5_000;
const MEMORY_STREAMS: usize = 1_000;
const RECONNECTS: usize = 1_000;
/// What a process needs beside a descriptor for each connection.
const OTHER_FILES: u64 = 200;
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/fanout.txt");

/// What a serving process measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Task {
    /// Changes to that many streams of Causeway's server.
    Push {
        streams: usize,
        changes: usize,
    },
    /// The same of the bare stream.
    Floor {
        streams: usize,
        changes: usize,
    },
    /// Streams with 100 clusters and their endpoints, and all listeners of these or a single one.
    Memory {
        streams: usize,
        all_listeners: bool,
    },
    Reconnect {
        streams: usize,
    },
    /// Changes of one endpoint at a steady rate.
    Churn {
        streams: usize,
        per_second: usize,
        seconds: usize,
    },
    /// Clients that are refused or vanish.
    Vanish {
        connects: usize,
    },
    /// All connect at once, while one is served.
    Herd {
        streams: usize,
    },
}

/// What it found.
#[derive(Debug, Serialize, Deserialize)]
enum Found {
    Pushes {
        /// From the change to its arrival at the last stream, of each change.
        us: Vec<u64>,
        /// The server's CPU time for all of them.
        cpu_us: u64,
    },
    Memory {
        kib_before: u64,
        kib_after: u64,
    },
    Reconnect {
        /// From the first connection to the last client's answer.
        us: u64,
        /// The most that any client was sent, all of HTTP/2 included.
        bytes: u64,
    },
    Churn {
        /// How long clients lacked a change before they got it or a later one, of all responses.
        p50: u64,
        p99: u64,
        max: u64,
        /// Snapshots made: changes that come while one is made go into one.
        published: usize,
        responses: usize,
        cpu_us: u64,
        /// After a quarter of the time, and at its end.
        kib_early: u64,
        kib_late: u64,
    },
    Vanish {
        us: u64,
        before: load::Traces,
        after: load::Traces,
    },
    Herd {
        /// From the first connection until the last has everything.
        us: u64,
        /// From a change to its arrival at the one that was there before: while it was alone, and meanwhile.
        quiet: Vec<u64>,
        meanwhile: Vec<u64>,
    },
}

fn main() {
    let limit = raise_file_limit();
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    match words.first().map(String::as_str) {
        Some("serve") => {
            let found = server::run(serde_json::from_str(&words[1]).unwrap());
            println!("{}", serde_json::to_string(&found).unwrap());
        }
        Some("clients") => clients::run(serde_json::from_str(&words[1]).unwrap()),
        _ => measure(limit),
    }
}

/// Each stream is a descriptor in either process. Gives the limit that holds now.
fn raise_file_limit() -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard)
}

fn measure(limit: u64) {
    let mut raw = String::new();
    let mut report = format!("{} at the start, {limit} files open at most\n\n", machine());
    let _ = writeln!(
        report,
        "One changed endpoint to the last of n delta ADS streams, median of {RUNS} runs, in ms\n\n\
         {:<38} {:>8} {:>8} {:>8} {:>22}",
        "", "p50", "p99", "max", "CPU s per 1,000 pushes"
    );
    for (streams, changes) in SIZES {
        if limit < u64::try_from(streams).unwrap() + OTHER_FILES {
            let _ = writeln!(report, "{streams} streams: not run, the hard limit of open files is {limit}");
            continue;
        }
        for (name, task) in [
            ("causeway", Task::Push { streams, changes }),
            ("bare stream (floor)", Task::Floor { streams, changes }),
        ] {
            let runs: Vec<_> = (0..RUNS).map(|_| pushes(run(task))).collect();
            write_pushes(&mut report, &format!("{name}, {streams} streams"), streams, &runs);
            for (number, (us, cpu_us)) in runs.iter().enumerate() {
                let _ = writeln!(
                    raw,
                    "\n{name}, {streams} streams, run {number}: CPU {cpu_us} us, each us: {us:?}"
                );
            }
        }
        keep(&report, &raw);
    }
    report.push_str("to reach                  1,000 streams: p50 15, p99 40; 5,000 streams: p99 250\n");
    write_memory(&mut report, &mut raw);
    write_reconnect(&mut report, &mut raw);
    keep(&report, &raw);
    write_load(&mut report, &mut raw);
    let _ = writeln!(report, "\n{} at the end", machine());
    print!("{report}");
    keep(&report, &raw);
    println!("\nevery single time: {RESULTS}");
}

/// Keeps what there is so far: the whole takes minutes.
fn keep(report: &str, raw: &str) {
    fs::write(RESULTS, format!("{report}{raw}")).unwrap();
}

/// Runs a serving process.
fn run(task: Task) -> Found {
    let mut command = Command::new(env::current_exe().unwrap());
    command.arg("serve").arg(serde_json::to_string(&task).unwrap());
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{task:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn pushes(found: Found) -> (Vec<u64>, u64) {
    match found {
        Found::Pushes { us, cpu_us } => (us, cpu_us),
        other => panic!("not about pushes: {other:?}"),
    }
}

fn write_pushes(report: &mut String, name: &str, streams: usize, runs: &[(Vec<u64>, u64)]) {
    let ms = |percent| median(runs.iter().map(|(us, _)| percentile(us, percent))) as f64 / 1_000.0;
    // In nanoseconds for each push, which is microseconds for 1,000.
    let cpu = median(runs.iter().map(|(us, cpu_us)| {
        let pushes = u64::try_from(us.len() * streams).unwrap();
        cpu_us * 1_000 / pushes
    }));
    let cpu_s = cpu as f64 / 1_000_000.0;
    let _ = writeln!(report, "{name:<38} {:>8.2} {:>8.2} {:>8.2} {cpu_s:>22.4}", ms(50), ms(99), ms(100));
}

fn write_memory(report: &mut String, raw: &mut String) {
    let _ = writeln!(
        report,
        "\nMemory of the server for each of {MEMORY_STREAMS} streams with 100 upstreams, in KiB; to reach: 150"
    );
    for (name, all_listeners) in [("one listener", false), ("all 101 listeners", true)] {
        let task = Task::Memory { streams: MEMORY_STREAMS, all_listeners };
        let runs: Vec<u64> = (0..RUNS)
            .map(|_| match run(task) {
                Found::Memory { kib_before, kib_after } => kib_after - kib_before,
                other => panic!("not about memory: {other:?}"),
            })
            .collect();
        let each = |kib: u64| kib as f64 / MEMORY_STREAMS as f64;
        let _ = writeln!(report, "{name:<38} {:>8.1}", each(median(runs.iter().copied())));
        let _ = writeln!(raw, "\nmemory for {MEMORY_STREAMS} streams with {name}, KiB: {runs:?}");
    }
}

fn write_reconnect(report: &mut String, raw: &mut String) {
    let runs: Vec<(u64, u64)> = (0..RUNS)
        .map(|_| match run(Task::Reconnect { streams: RECONNECTS }) {
            Found::Reconnect { us, bytes } => (us, bytes),
            other => panic!("not about reconnects: {other:?}"),
        })
        .collect();
    let ms = median(runs.iter().map(|(us, _)| *us)) as f64 / 1_000.0;
    let bytes = median(runs.iter().map(|(_, bytes)| *bytes));
    let _ = writeln!(
        report,
        "\n{RECONNECTS} unchanged clients reconnect: all answered after {ms:.0} ms; to reach: 1,000 ms\n\
         sent to the one that was sent most, HTTP/2 included: {bytes} bytes; to reach: 5,000"
    );
    let _ = writeln!(raw, "\nreconnect, (us, most bytes sent to one): {runs:?}");
}

fn write_load(report: &mut String, raw: &mut String) {
    let seconds = env::var("CHURN_SECONDS").map_or(CHURN_SECONDS, |text| text.parse().unwrap());
    let _ = writeln!(
        report,
        "\nOne endpoint changes without end, {CHURN_STREAMS} streams, {seconds} s each: how long clients lacked a change, in ms\n\n\
         {:<38} {:>8} {:>8} {:>8} {:>22} {:>20}",
        "", "p50", "p99", "max", "cores of the server", "MiB early, at the end"
    );
    for per_second in CHURN {
        let found = run(Task::Churn { streams: CHURN_STREAMS, per_second, seconds });
        let Found::Churn { p50, p99, max, published, responses, cpu_us, kib_early, kib_late } = found else {
            panic!("not about churn: {found:?}")
        };
        let [p50, p99, max] = [p50, p99, max].map(|us| us as f64 / 1_000.0);
        let cores = cpu_us as f64 / 1_000_000.0 / seconds as f64;
        let name = format!("{per_second} changes each second");
        let _ = writeln!(
            report,
            "{name:<38} {p50:>8.1} {p99:>8.1} {max:>8.1} {cores:>22.2} {:>9} {:>10}",
            kib_early / 1024,
            kib_late / 1024
        );
        let _ = writeln!(raw, "\n{name}: {published} snapshots, {responses} responses");
    }
    let found = run(Task::Vanish { connects: VANISHING });
    let Found::Vanish { us, before, after } = found else { panic!("not about vanishing: {found:?}") };
    let _ = writeln!(
        report,
        "\n{VANISHING} clients that are refused or vanish, in {:.1} s: files {} and then {}, tasks {} and {}, MiB {} and {}",
        us as f64 / 1_000_000.0,
        before.files,
        after.files,
        before.tasks,
        after.tasks,
        before.kib / 1024,
        after.kib / 1024
    );
    let found = run(Task::Herd { streams: HERD });
    let Found::Herd { us, quiet, meanwhile } = found else { panic!("not about a herd: {found:?}") };
    let ms = |of: &[u64], percent| percentile(of, percent) as f64 / 1_000.0;
    let _ = writeln!(
        report,
        "\n{HERD} streams at once: all served after {:.1} s; a change to one that was there before, ms: p50 {:.1}, max {:.1} \
         meanwhile ({:.1}, {:.1} before)",
        us as f64 / 1_000_000.0,
        ms(&meanwhile, 50),
        ms(&meanwhile, 100),
        ms(&quiet, 50),
        ms(&quiet, 100)
    );
    let _ = writeln!(raw, "\nherd, us of each change: {meanwhile:?}, before: {quiet:?}");
}

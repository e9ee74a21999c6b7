//! The xDS server with many delta ADS streams: how long until the last of them has one changed endpoint, what a
//! stream takes in memory, and what a reconnect of all of them costs.
//!
//! Every run is a process of its own that serves, and another that connects to it over a Unix socket, so that memory
//! and CPU are the server's alone (but for clients that vanish, which come from its own process); both share this machine's cores. The peer is a bare tonic stream that pushes the
//! same encoded resource to as many of the same clients and decides nothing: the floor for whoever serves with tonic.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot be made ends with a panic"
)]

#[path = "kit/answer.rs"]
mod answer;
#[path = "kit/catalog.rs"]
mod catalog;
#[path = "kit/clients.rs"]
mod clients;
#[path = "kit/figures.rs"]
mod figures;
#[path = "fanout/floor.rs"]
mod floor;
#[path = "kit/http2.rs"]
mod http2;
#[path = "fanout/load.rs"]
mod load;
#[path = "kit/ports.rs"]
mod ports;
#[path = "fanout/server.rs"]
mod server;
#[path = "kit/visitors.rs"]
mod visitors;

use std::{
    env,
    fmt::Write as _,
    fs,
    process::{Command, Stdio},
};

use causeway::xds::server::Limits;
use serde::{Deserialize, Serialize};

use crate::{
    clients::raise_file_limit,
    figures::{machine, median, percentile},
    load::{Churn, Round},
};

const RUNS: usize = 5;
/// Streams, and changes in each run.
const SIZES: [(usize, usize); 3] = [(100, 100), (1_000, 60), (5_000, 15)];
/// Changes each second to `CHURN_STREAMS`.
const CHURN: [usize; 3] = [10, 100, 1_000];
const CHURN_STREAMS: usize = 1_000;
/// No client lacks a change for longer, in ms, however fast they come.
const CHURN_BOUND_MS: u32 = 1_000;
const CHURN_ROUNDS: usize = 4;
const CHURN_SECONDS: usize = 5;
/// The soak, in rounds of a minute: an hour, unless `SOAK_MINUTES` in the environment says otherwise.
const SOAK_MINUTES: usize = 60;
const SOAK_PER_SECOND: usize = 10;
const SOAK_PASSING: usize = 600;
/// The first minute at whose end buffers have had their sizes.
const SETTLED: usize = 5;
const VANISHING: usize = 100_000;
const HERD: usize = 5_000;
const MEMORY_STREAMS: usize = 1_000;
const RECONNECTS: usize = 1_000;
/// What a process needs beside a descriptor for each connection.
const OTHER_FILES: u64 = 200;
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/fanout.txt");
const SOAK_RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/soak.txt");

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
    Churn(Churn),
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
    Churn(Vec<Round>),
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
        Some("soak") => soak(),
        _ => measure(limit),
    }
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

fn churn(of: Churn) -> Vec<Round> {
    match run(Task::Churn(of)) {
        Found::Churn(rounds) => rounds,
        other => panic!("not about churn: {other:?}"),
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

fn write_load(report: &mut String, raw: &mut String) {
    let _ = writeln!(
        report,
        "\nOne endpoint changes without end, {CHURN_STREAMS} streams, {CHURN_ROUNDS} rounds of {CHURN_SECONDS} s: how long \
         clients lacked a change, in ms (median of p50, worst p99 and max)\n\n\
         {:<38} {:>8} {:>8} {:>8} {:>22} {:>26}",
        "", "p50", "p99", "max", "cores of the server", "MiB after first, last round"
    );
    for per_second in CHURN {
        let (seconds, rounds) = (CHURN_SECONDS, CHURN_ROUNDS);
        let rounds = churn(Churn { streams: CHURN_STREAMS, per_second, seconds, rounds, passing: 0 });
        let p50 = ms(median(rounds.iter().map(|it| it.p50)));
        let [p99, max] = [|it: &Round| it.p99, |it: &Round| it.max]
            .map(|of| ms(rounds.iter().map(of).max().unwrap_or_default()));
        let cpu_us: u64 = rounds.iter().map(|it| it.cpu_us).sum();
        let cores = cpu_us as f64 / 1_000_000.0 / (CHURN_ROUNDS * CHURN_SECONDS) as f64;
        let mib = |round: Option<&Round>| round.map_or(0, |it| it.traces.kib / 1_024);
        let name = format!("{per_second} changes each second");
        let (first, last) = (mib(rounds.first()), mib(rounds.last()));
        let _ = writeln!(
            report,
            "{name:<38} {p50:>8.1} {p99:>8.1} {max:>8.1} {cores:>22.2} {first:>18} {last:>7}"
        );
        let _ = writeln!(raw, "\n{name}: {rounds:?}");
    }
    let _ = writeln!(
        report,
        "{:<38} {:>8} {:>8} {:>8} {:>22} {:>26}",
        "to reach", "", "", CHURN_BOUND_MS, "", "the same"
    );
    let found = run(Task::Vanish { connects: VANISHING });
    let Found::Vanish { us, before, after } = found else { panic!("not about vanishing: {found:?}") };
    let _ = writeln!(
        report,
        "\n{VANISHING} clients that are refused or vanish, in {:.1} s: files {} and then {}, tasks {} and {}, MiB {} and {}; \
         to reach: the same",
        ms(us) / 1_000.0,
        before.files,
        after.files,
        before.tasks,
        after.tasks,
        before.kib / 1024,
        after.kib / 1024
    );
    let found = run(Task::Herd { streams: HERD });
    let Found::Herd { us, quiet, meanwhile } = found else { panic!("not about a herd: {found:?}") };
    let of = |values: &[u64], percent| ms(percentile(values, percent));
    let _ = writeln!(
        report,
        "\n{HERD} streams at once: all served after {:.1} s, {:.0} each second; a change to one that was there before, ms: p50 {:.1}, max {:.1} \
         meanwhile, of {} ({:.1}, {:.1} before); to reach: {} at once, then as many let in each second and no more, all of \
         them served",
        ms(us) / 1_000.0,
        HERD as f64 / (ms(us) / 1_000.0),
        of(&meanwhile, 50),
        of(&meanwhile, 100),
        meanwhile.len(),
        of(&quiet, 50),
        of(&quiet, 100),
        Limits::default().new_streams_per_second
    );
    let _ = writeln!(raw, "\nherd, us of each change: {meanwhile:?}, before: {quiet:?}");
}

/// An hour of changes, with clients that come and vanish: a line for each minute.
fn soak() {
    let rounds = env::var("SOAK_MINUTES").map_or(SOAK_MINUTES, |text| text.parse().unwrap());
    let (streams, per_second, passing) = (CHURN_STREAMS, SOAK_PER_SECOND, SOAK_PASSING);
    let began = machine();
    let rounds = churn(Churn { streams, per_second, seconds: 60, rounds, passing });
    let mut report = format!(
        "{began} at the start, {} at the end\n\n{streams} streams, {per_second} changes each second, and {passing} clients at the \
         beginning of each minute that\nare refused or vanish: how long clients lacked a change, and what the server held\n\n\
         {:>6} {:>8} {:>8} {:>8} {:>10} {:>8} {:>8} {:>8}\n",
        machine(),
        "minute",
        "p50 ms",
        "p99 ms",
        "max ms",
        "responses",
        "KiB",
        "files",
        "tasks"
    );
    for (minute, Round { p50, p99, max, responses, traces, .. }) in (1..).zip(&rounds) {
        let _ = writeln!(
            report,
            "{minute:>6} {:>8.1} {:>8.1} {:>8.1} {responses:>10} {:>8} {:>8} {:>8}",
            ms(*p50),
            ms(*p99),
            ms(*max),
            traces.kib,
            traces.files,
            traces.tasks
        );
    }
    let _ = writeln!(
        report,
        "\nto reach: no change lacked for more than {CHURN_BOUND_MS} ms, and what is held after the first minutes the same at the \
         end\nseen:     {:.1} ms at most; from minute {SETTLED} on {} to {} KiB, {} to {} files, {} to {} tasks",
        ms(rounds.iter().map(|round| round.max).max().unwrap_or_default()),
        held(&rounds, |traces| traces.kib).0,
        held(&rounds, |traces| traces.kib).1,
        held(&rounds, |traces| traces.files).0,
        held(&rounds, |traces| traces.files).1,
        held(&rounds, |traces| traces.tasks).0,
        held(&rounds, |traces| traces.tasks).1,
    );
    print!("{report}");
    fs::write(SOAK_RESULTS, report).unwrap();
}

/// The least and the most that was held at the end of a minute, from [`SETTLED`] on.
fn held<T: Ord + Copy + Default>(rounds: &[Round], of: impl Fn(&load::Traces) -> T) -> (T, T) {
    let values = || rounds.iter().skip(SETTLED - 1).map(|round| of(&round.traces));
    (values().min().unwrap_or_default(), values().max().unwrap_or_default())
}

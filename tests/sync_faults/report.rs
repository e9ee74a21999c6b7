//! What came of all rounds, as text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    time::Duration,
};

use crate::sync_faults::{holder::Followed, nemesis::Fault, promise::Kept};

/// What came of one round.
pub(super) struct Row {
    pub(super) seed: u64,
    faults: Vec<Fault>,
    pub(super) lasted: Duration,
    /// From the end of the fault until all agents take all writes.
    pub(super) writes_after: Duration,
    /// The same until all replicas have what was written after it.
    pub(super) replicas_after: Duration,
    /// Calls of clients.
    pub(super) covered: BTreeMap<&'static str, usize>,
    pub(super) kept: Vec<Kept>,
    /// What does not hold.
    pub(super) broken: Vec<String>,
    followed: Option<(Duration, Duration)>,
}

impl Row {
    pub(super) fn new(seed: u64, faults: &[Fault]) -> Self {
        Self {
            seed,
            faults: faults.to_vec(),
            lasted: Duration::ZERO,
            writes_after: Duration::ZERO,
            replicas_after: Duration::ZERO,
            covered: BTreeMap::new(),
            kept: Vec::new(),
            broken: Vec::new(),
            followed: None,
        }
    }

    /// A round that did not come to its end.
    pub(super) fn failed(seed: u64, faults: &[Fault], reason: String) -> Self {
        Self { broken: vec![reason], ..Self::new(seed, faults) }
    }

    pub(super) fn note(&mut self, followed: &Followed) {
        self.followed = Some((followed.stopped, followed.granted));
        self.broken.extend(followed.broken.iter().cloned());
    }

    pub(super) fn name(&self) -> String {
        self.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ")
    }

    fn measured(&self) -> String {
        let holder = self.followed.map(|(stopped, granted)| {
            let (stopped, granted) = (stopped.as_secs_f32(), granted.as_secs_f32());
            format!("cut-off holder stopped {stopped:.1} s, next grant {granted:.1} s")
        });
        let kept = self.kept.iter().map(ToString::to_string).chain(holder);
        kept.collect::<Vec<_>>().join("; ")
    }

    /// A line of the table.
    pub(super) fn line(&self) -> String {
        let count = |what: &str| self.covered.get(what).copied().unwrap_or_default();
        let calls = format!(
            "{} / {} / {} / {}",
            count("acknowledged") + count("granted"),
            count("read"),
            count("refused"),
            count("open")
        );
        let seconds = |time: Duration| format!("{:.1}", time.as_secs_f32());
        let verdict = if self.broken.is_empty() {
            "holds".to_owned()
        } else {
            format!("**{} broken**", self.broken.len())
        };
        format!(
            "| {} | {} | {} | {} | {} | {calls} | {} | {verdict} |",
            self.seed,
            self.name(),
            seconds(self.lasted),
            seconds(self.writes_after),
            seconds(self.replicas_after),
            self.measured(),
        )
    }
}

const HEAD: &str = "\
| seed | fault | lasted, s | writes after, s | replicas after, s | calls done / read / refused / open | measured meanwhile | verdict |
|---|---|---|---|---|---|---|---|
";

/// The report that is kept.
pub(super) fn text(rows: &[Row], fenced: &str) -> String {
    let broken: usize = rows.iter().filter(|row| !row.broken.is_empty()).count();
    let seeds = rows.iter().map(|row| row.seed).collect::<BTreeSet<_>>().len();
    let mut text = format!(
        "# Faults of replication on the real lab\n\n\
         Written by `make soak` (`tests/sync_faults`): two datacenters, three Consul 1.8.7 servers each, all traffic between them \
         through the mesh gateways and a relay that can be cut. In each round clients in both datacenters write, compare, delete, \
         append and lock through all agents while the fault lasts; the history of their calls is judged by the checkers of the \
         simulation, and both Consuls are looked at all the time. \"Writes after\" is the time from the end of the fault until \
         every agent takes every write, \"replicas after\" until every replica has what was written then.\n\n\
         {}\n\n{seeds} seeds, {} rounds, {broken} of them broken.\n\nFencing: {fenced}\n\n## By fault\n\n\
         | fault | rounds | writes after, s: median, most | replicas after, s: median, most |\n|---|---|---|---|\n",
        machine(),
        rows.len(),
    );
    for (kind, rows) in by_kind(rows) {
        let spread = |time: fn(&Row) -> Duration| {
            let mut times: Vec<f32> = rows.iter().map(|row| time(row).as_secs_f32()).collect();
            times.sort_by(f32::total_cmp);
            format!("{:.1}, {:.1}", times[times.len() / 2], times[times.len() - 1])
        };
        let (writes, replicas) = (spread(|row| row.writes_after), spread(|row| row.replicas_after));
        let _ = writeln!(text, "| {kind} | {} | {writes} | {replicas} |", rows.len());
    }
    let lines: Vec<String> = rows.iter().map(Row::line).collect();
    text + "\n## All rounds\n\n" + HEAD + &lines.join("\n") + "\n"
}

fn by_kind(rows: &[Row]) -> BTreeMap<String, Vec<&Row>> {
    let mut kinds: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        // Without whom it hit.
        let names: Vec<&str> = row.faults.iter().map(|fault| fault.kind()).collect();
        kinds.entry(names.join(" + ")).or_default().push(row);
    }
    kinds
}

/// What it ran on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    let (model, memory) =
        (field(&read("/proc/cpuinfo"), "model name"), field(&read("/proc/meminfo"), "MemTotal"));
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("Machine: {cores} cores ({model}), {memory}, Linux {}, load {load} at the end", kernel.trim())
}

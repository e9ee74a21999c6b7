//! How long it takes from a change of the catalog to the snapshot that is published: the catalog's copy and what is
//! different in it, `mesh::build` and the topics it needs, `World::assemble` and `Snapshot::next`, for mesh gateways of
//! growing size and for a sidecar. First from nothing, then after one endpoint changed. One thread, no sockets.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot be made ends with a panic"
)]

#[path = "kit/catalog.rs"]
mod catalog;
#[path = "kit/figures.rs"]
mod figures;
#[path = "kit/ports.rs"]
mod ports;

use std::{collections::BTreeSet, fmt::Write as _, fs, sync::Arc};

use causeway::{
    lifecycle,
    mesh::{self, Options, Proxy, world::World},
    model::catalog::{Catalog, Topic},
    xds::snapshot::{Draft, Snapshot},
};

use crate::{
    catalog::Sketch,
    figures::{machine, median, percentile},
};

const RUNS: usize = 5;
/// Rebuilds of each run; the file keeps every single time.
const CHANGES: usize = 20;
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/mesh.txt");

fn main() {
    let mut report = format!("{} at the start\n\n", machine());
    let _ =
        writeln!(report, "Resources of one proxy, 10 endpoints a service, median of {RUNS} runs, in ms\n");
    let stages = ["all", "catalog", "build", "assemble", "snapshot"];
    let _ = write!(report, "{:<42} {:>9}", "", "resources");
    for stage in stages {
        let _ = write!(report, " {stage:>9}");
    }
    let mut raw = String::new();
    for (what, sketch) in [
        ("sidecar, 100 upstreams", Sketch::sidecar(100)),
        ("mesh gateway, 100 services", Sketch::gateway(100)),
        ("mesh gateway, 1,000 services", Sketch::gateway(1_000)),
        ("mesh gateway, 2,000 services", Sketch::gateway(2_000)),
        ("mesh gateway, 10,000 services", Sketch::gateway(10_000)),
    ] {
        let runs = measure(&sketch);
        let _ = writeln!(report);
        write_row(&mut report, &format!("{what}, first"), &runs, |run| vec![run.first]);
        write_row(&mut report, &format!("{what}, one endpoint changed"), &runs, |run| run.changes.clone());
        for (number, run) in runs.iter().enumerate() {
            let _ = writeln!(
                raw,
                "\n{what}, run {number}, us (catalog, build, assemble, snapshot): first {:?}",
                run.first.0
            );
            let _ = writeln!(raw, "{what}, run {number}, one endpoint changed: {:?}", run.changes);
        }
    }
    let _ = writeln!(report, "\n{} at the end", machine());
    print!("{report}");
    fs::write(RESULTS, report + &raw).unwrap();
    println!("\nevery single time: {RESULTS}");
}

const STAGES: usize = 4;

/// Microseconds of catalog, build, assemble and snapshot.
#[derive(Clone, Copy, Debug)]
struct Stages([u64; STAGES]);

impl Stages {
    fn all(self) -> u64 {
        self.0.iter().sum()
    }
}

struct Run {
    resources: usize,
    first: Stages,
    changes: Vec<Stages>,
}

fn measure(sketch: &Sketch) -> Vec<Run> {
    let mut catalog = sketch.catalog();
    let run = |_| {
        let mut held = Held::default();
        let first = held.build(sketch, &catalog);
        assert!(held.snapshot.is_complete() && held.snapshot.dangling().is_empty());
        let change = |round| {
            sketch.change(&mut catalog, round * 37 % sketch.services, fastrand::usize(..20_000));
            let before = held.snapshot.clone();
            let stages = held.build(sketch, &catalog);
            let changed = held.snapshot.diff_text(&before).lines().count();
            assert!(changed <= 1, "one endpoint, {changed} resources");
            stages
        };
        let changes = (0..CHANGES).map(change).collect();
        Run { resources: held.snapshot.iter().count(), first, changes }
    };
    (0..RUNS).map(run).collect()
}

/// What the watches and the publisher keep.
struct Held {
    catalog: Arc<Catalog>,
    needs: BTreeSet<Topic>,
    world: World,
    snapshot: Arc<Snapshot>,
}

impl Default for Held {
    fn default() -> Self {
        let snapshot = Arc::new(Snapshot::empty());
        Self { catalog: Arc::default(), needs: BTreeSet::new(), world: World::default(), snapshot }
    }
}

impl Held {
    fn build(&mut self, sketch: &Sketch, catalog: &Catalog) -> Stages {
        let start = lifecycle::now();
        let published = Arc::new(catalog.clone());
        let changed = published.changed_since(&self.catalog).len();
        assert!(self.needs.is_empty() || changed == 1, "one endpoint, {changed} topics");
        self.catalog = published;
        let is_told = lifecycle::now();
        let built = mesh::build(&self.catalog, &sketch.proxy, Options::default());
        let Proxy::Built(mut built) = built else { panic!("{} is known", sketch.proxy) };
        let needs = std::mem::take(&mut built.needs);
        if needs != self.needs {
            self.needs = needs;
        }
        let is_built = lifecycle::now();
        let whole = self.world.assemble(built);
        let is_assembled = lifecycle::now();
        let draft = Draft { resources: whole.resources, partial: whole.partial, complete: whole.complete };
        self.snapshot = self.snapshot.next(draft);
        let ends =
            [is_told - start, is_built - is_told, is_assembled - is_built, lifecycle::now() - is_assembled];
        Stages(ends.map(|took| u64::try_from(took.as_micros()).unwrap()))
    }
}

fn write_row(report: &mut String, name: &str, runs: &[Run], of: impl Fn(&Run) -> Vec<Stages>) {
    let median_of = |stage: &dyn Fn(Stages) -> u64| {
        let of_run = |run: &Run| percentile(&of(run).into_iter().map(stage).collect::<Vec<_>>(), 50);
        median(runs.iter().map(of_run)) as f64 / 1_000.0
    };
    let _ = write!(report, "{name:<42} {:>9} {:>9.3}", runs[0].resources, median_of(&|stages| stages.all()));
    for stage in 0..STAGES {
        let _ = write!(report, " {:>9.3}", median_of(&|stages| stages.0[stage]));
    }
    let _ = writeln!(report);
}

//! The fault matrix of replication on the real lab: three Consul servers in each datacenter, all traffic between them through
//! the gateways and links that can be cut, clients in both, and the checkers of the simulation over what they saw.
//!
//! Every run plays each kind of fault once. `SYNC_FAULT_SEEDS=n` plays all of them alone with so many seeds, by which their
//! victims, moments and lengths are drawn; `SYNC_FAULT_SEED=s` those of one seed; `SYNC_FAULT_ONLY=text` only faults whose
//! name has the text. `SYNC_FAULT_LABS=n` shares the rounds among so many labs at once. `SYNC_FAULT_REPORT=file` writes the
//! report.

mod clients;
mod holder;
mod nemesis;
mod promise;
mod report;
mod restore;
mod round;
mod watcher;

use std::{collections::VecDeque, panic::AssertUnwindSafe, path::Path, sync::Mutex, time::Duration};

use causeway::lab::plan::PREFIXES;

use crate::{
    lab_sync::{
        fencing::{Fenced, counted},
        world::World,
    },
    sync::compare::number,
    sync_faults::{report::Row, round::Plan, watcher::Watcher},
};

/// Consul's servers in each datacenter.
const SERVERS: u8 = 3;

/// Draws moments and lengths of the run that plays each kind once.
const SEED: u64 = 1;

/// In that run no fault lasts longer, but for what has to be noticed first: that agents are gone.
const SHORT: Duration = Duration::from_secs(3);

/// Increments of each worker, and before which of them it is paused past its lease.
const INCREMENTS: u64 = 1000;
const PAUSES: [[u64; 3]; 2] = [[150, 500, 900], [300, 600, 800]];

/// All rounds, by the seeds that are asked for.
fn plans() -> Vec<(Plan, fastrand::Rng)> {
    let seeds = match (number("SYNC_FAULT_SEED"), number("SYNC_FAULT_SEEDS")) {
        (Some(seed), _) => seed..=seed,
        (None, Some(seeds)) => 1..=seeds,
        (None, None) => {
            let mut rng = fastrand::Rng::with_seed(SEED);
            let mut plans = numbered(SEED, nemesis::once(), &mut rng);
            for (plan, _) in &mut plans {
                let has_agents = plan.faults.iter().any(|fault| fault.is_of_agents());
                plan.length = if has_agents { promise::LEASE } else { plan.length.min(SHORT) };
            }
            return plans;
        }
    };
    let of_seed = |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let faults = nemesis::matrix(&mut rng).into_iter().map(|fault| vec![fault]).collect();
        numbered(seed, faults, &mut rng)
    };
    seeds.flat_map(of_seed).collect()
}

fn numbered(
    seed: u64,
    rounds: Vec<Vec<nemesis::Fault>>,
    rng: &mut fastrand::Rng,
) -> Vec<(Plan, fastrand::Rng)> {
    let plan = |(at, faults): (usize, Vec<nemesis::Fault>)| {
        let length = faults.iter().map(|fault| fault.length(rng)).max().unwrap_or(Duration::ZERO);
        (Plan { seed, name: format!("s{seed}r{at}"), faults, length }, rng.fork())
    };
    rounds.into_iter().enumerate().map(plan).collect()
}

#[test]
fn replication_holds_under_each_fault() {
    let only = std::env::var("SYNC_FAULT_ONLY").unwrap_or_default();
    let mut plans = plans();
    plans.retain(|(plan, _)| Row::new(plan.seed, &plan.faults).name().contains(&only));
    let work = Work { left: Mutex::new(plans.into()), done: Mutex::default() };
    let labs = number("SYNC_FAULT_LABS").unwrap_or(1);
    std::thread::scope(|scope| {
        for lab in 0..labs {
            let work = &work;
            scope.spawn(move || play_all(work, lab == 0 && number("SYNC_FAULT_SEEDS").is_some()));
        }
    });
    let done = work.done.into_inner().unwrap();
    done.report();
    let broken: Vec<String> = done.rows.iter().filter(|row| !row.broken.is_empty()).map(Row::name).collect();
    assert!(broken.is_empty(), "broken, each with its reason above: {broken:?}");
}

/// What all labs share.
struct Work {
    left: Mutex<VecDeque<(Plan, fastrand::Rng)>>,
    done: Mutex<Done>,
}

/// What came of it so far.
#[derive(Default)]
struct Done {
    rows: Vec<Row>,
    fenced: Option<Fenced>,
}

/// A lab plays rounds while some are left; before, workers count in it if they are to.
fn play_all(work: &Work, counts: bool) {
    let world = World::start_as(|options| (options.servers, options.links) = (SERVERS, true));
    let watcher = Watcher::new(&world);
    watcher.settle();
    let (mut left, mut has_broken) = (Vec::new(), false);
    std::thread::scope(|scope| {
        let watching = Watching(&watcher);
        // Whoever looks only afterwards may find that the journal was trimmed.
        scope.spawn(|| watcher.run());
        if counts {
            let of_all = PAUSES.map(Vec::from);
            let fenced = counted(&world, "locks/fenced", INCREMENTS, of_all);
            work.done.lock().unwrap().fenced = Some(fenced);
            left.push("locks/fenced/".to_owned());
            round::sweep(&world, &watcher, &mut left);
        }
        loop {
            let Some((plan, mut rng)) = work.left.lock().unwrap().pop_front() else { break };
            let row = || round::play(&world, &watcher, &plan, &mut rng);
            let row = std::panic::catch_unwind(AssertUnwindSafe(row)).unwrap_or_else(|panic| {
                let reason =
                    panic.downcast::<String>().map_or_else(|_| "it panicked".to_owned(), |text| *text);
                Row::failed(plan.seed, &plan.faults, reason)
            });
            println!("{}", row.line());
            row.broken.iter().for_each(|broken| println!("  SYNC_FAULT_SEED={}: {broken}", plan.seed));
            has_broken |= !row.broken.is_empty();
            work.done.lock().unwrap().take(row);
            left.extend(PREFIXES.map(|(prefix, _)| format!("{prefix}{}/", plan.name)));
            round::sweep(&world, &watcher, &mut left);
        }
        drop(watching);
    });
    world.stop(has_broken);
}

impl Done {
    /// Writes what there is so far, for a run of hours that is broken off.
    fn take(&mut self, row: Row) {
        self.rows.push(row);
        self.rows.sort_by_key(|row| row.seed);
        self.report();
    }

    fn report(&self) {
        if let Some(file) = std::env::var_os("SYNC_FAULT_REPORT") {
            let fenced = self.fenced.as_ref().map_or_else(|| "not run".to_owned(), Fenced::to_string);
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            std::fs::write(file, report::text(&self.rows, &fenced)).unwrap();
        }
    }
}

/// Ends the watcher also when an assertion fails, since the scope waits for it.
struct Watching<'w>(&'w Watcher<'w>);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

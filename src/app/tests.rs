//! The mesh side simulated: the agent's own watches, needs, build, snapshots and streams over a simulated Consul and
//! simulated Envoys, with faults at every step, all from one seed.
//!
//! `MESH_SEEDS=n` runs so many seeds, `MESH_SEED=s` one of them. A seed that fails is printed with a plan that was made as
//! short as possible.

mod agent;
mod client;
mod consul;
mod fault;
mod land;
mod plan;
mod record;
mod run;
mod trouble;

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::app::tests::{
    fault::{Invariant, Planted, Violation},
    plan::Plan,
    run::run,
    trouble::Trouble,
};

/// Seeds of each run.
const SEEDS: u64 = 100;
/// How soon a planted fault has to be found.
const SEEDS_TO_FIND_A_FAULT: u64 = 60;
/// So many meet every kind of trouble.
const SEEDS_TO_MEET_ALL: u64 = 80;
/// After so many that failed there is no need for more.
const MOST_FAILED: usize = 12;
/// How many runs it may take to make a plan short.
const RUNS_TO_SHRINK: usize = 60;
/// Two at a time: more only wait for each other.
const THREADS: usize = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Past the test harness, which would keep it to itself.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn first_of(plan: &Plan, planted: Option<Planted>) -> Option<Violation> {
    run(plan, planted).violations.into_iter().next()
}

/// Leaves out what the violation does not need: halves, quarters, single steps, for as long as it may take.
fn shrink(mut plan: Plan, planted: Option<Planted>, mut violation: Violation) -> (Plan, Violation) {
    let (mut size, mut runs) = (plan.steps.len().div_ceil(2), 0);
    while size > 0 {
        let (mut at, mut has_shrunk) = (0, false);
        while at < plan.steps.len() && runs < RUNS_TO_SHRINK {
            runs += 1;
            let mut fewer = plan.clone();
            fewer.steps.drain(at..(at + size).min(plan.steps.len()));
            match first_of(&fewer, planted) {
                Some(found) if found.invariant == violation.invariant => {
                    (plan, violation, has_shrunk) = (fewer, found, true);
                }
                _ => at += size,
            }
        }
        if runs == RUNS_TO_SHRINK {
            break;
        }
        size = if has_shrunk { size.min(plan.steps.len()) } else { size / 2 };
    }
    (plan, violation)
}

#[test]
fn every_client_has_what_it_should_whatever_went_wrong() {
    let (first, last) = match (number("MESH_SEED"), number("MESH_SEEDS")) {
        (Some(seed), _) => (seed, seed),
        (None, count) => (1, count.unwrap_or(SEEDS)),
    };
    let (next, received) = (AtomicU64::new(first), AtomicUsize::new(0));
    let failed: Mutex<BTreeMap<u64, Violation>> = Mutex::default();
    let met: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > last || failed.lock().unwrap().len() >= MOST_FAILED {
                return;
            }
            let outcomes = run(&Plan::of(seed), None);
            received.fetch_add(outcomes.received, Ordering::Relaxed);
            for (name, count) in outcomes.met {
                *met.lock().unwrap().entry(name).or_default() += count;
            }
            if let Some(violation) = outcomes.violations.into_iter().next() {
                failed.lock().unwrap().insert(seed, violation);
            }
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap();
    if let Some((seed, violation)) = failed.first_key_value() {
        let lines: String = failed
            .iter()
            .map(|(seed, it)| format!("  MESH_SEED={seed} {:?}: {}\n", it.invariant, it.told))
            .collect();
        let (plan, shortest) = shrink(Plan::of(*seed), None, violation.clone());
        // Whoever looks at one seed wants to see what happened.
        if first == last {
            run(&plan, None).trace.iter().for_each(|line| say(line));
        }
        panic!("\n{lines}of the first of them:\n{}\nin short:\n{}", shortest.told, plan.shown());
    }
    let (received, met) = (received.into_inner(), met.into_inner().unwrap());
    say(&format!(
        "mesh simulation: seeds {first} to {last}, clients were sent {received} resources; questions met {met:?}"
    ));
    assert!(received > 0, "nobody was sent anything");
    if last - first + 1 >= SEEDS_TO_MEET_ALL {
        let missed: Vec<_> = Trouble::NAMES.into_iter().filter(|name| !met.contains_key(name)).collect();
        assert!(missed.is_empty(), "no question met {missed:?}");
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 1..=3 {
        let trace = || run(&Plan::of(seed), None).trace;
        let (first, second) = (trace(), trace());
        let differs = first.iter().zip(&second).position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!("MESH_SEED={seed}, line {at} of {}: {}\nand then: {}", first.len(), first[at], second[at]);
        }
        assert_eq!(first.len(), second.len(), "MESH_SEED={seed}");
        assert!(first.len() > 100, "{first:?}");
    }
}

#[test]
fn every_planted_fault_is_found() {
    let mut missed = Vec::new();
    for planted in Planted::ALL {
        let found = (1..=SEEDS_TO_FIND_A_FAULT).find_map(|seed| {
            let plan = Plan::of(seed);
            if !planted.can_show(&plan) {
                return None;
            }
            let violation =
                first_of(&plan, Some(planted)).filter(|found| found.invariant == planted.breaks())?;
            Some((seed, plan, violation))
        });
        match found {
            None => missed.push(planted),
            Some((seed, plan, violation)) => {
                let (plan, violation) = shrink(plan, Some(planted), violation);
                let steps = plan.steps.len();
                say(&format!(
                    "planted {planted:?}: found with seed {seed}, {steps} steps are enough: {}",
                    violation.told
                ));
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
    let invariants: std::collections::BTreeSet<Invariant> =
        Planted::ALL.iter().map(|it| it.breaks()).collect();
    assert_eq!(invariants.len(), 4, "each invariant has its fault: {invariants:?}");
}

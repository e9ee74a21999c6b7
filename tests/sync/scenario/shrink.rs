//! Makes a program that fails shorter while it still fails in the same way.

use super::{
    program::Program,
    run::{Report, run},
};

/// Runs at most.
const MAX_RUNS: usize = 120;

/// The shortest that was found, with what came of it.
pub(super) fn shortest(program: Program, report: Report) -> (Program, Report) {
    let mut best = (program, report);
    let mut runs = 0;
    let mut step = best.0.tasks.len().max(2) / 2;
    while step > 0 && runs < MAX_RUNS {
        let mut at = 0;
        while at < best.0.tasks.len() + best.0.faults.len() && runs < MAX_RUNS {
            let shorter = without(&best.0, at, step);
            let report = run(&shorter);
            runs += 1;
            if fails_alike(&best.1, &report) {
                best = (shorter, report);
            } else {
                at += step;
            }
        }
        step /= 2;
    }
    best
}

/// Without so many tasks, or faults, which stand behind all tasks.
fn without(program: &Program, at: usize, count: usize) -> Program {
    let mut shorter = program.clone();
    let tasks = shorter.tasks.len();
    let is_kept = |place: usize| !(at..at + count).contains(&place);
    let mut place = 0..;
    shorter.tasks.retain(|_| place.next().is_some_and(is_kept));
    let mut place = tasks..;
    shorter.faults.retain(|_| place.next().is_some_and(is_kept));
    shorter
}

/// By the name of the invariant.
fn fails_alike(one: &Report, other: &Report) -> bool {
    let name = |report: &Report| {
        report
            .violations
            .first()
            .map(|violation| violation.0.split(':').next().unwrap_or_default().to_owned())
    };
    name(one) == name(other) && !other.violations.is_empty()
}

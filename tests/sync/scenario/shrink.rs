//! Makes a program that fails shorter while it still fails in the same way: tasks and faults go in ever smaller groups, then
//! what is left is made simpler, until neither helps any more.

use std::collections::BTreeMap;

use super::{
    program::Program,
    run::{Report, run},
};
use crate::sync::{
    client::{Task, Work},
    net::Weather,
};

/// Runs at most.
const MAX_RUNS: usize = 300;

/// The shortest that was found so far.
struct Best {
    program: Program,
    report: Report,
    runs: usize,
}

/// The shortest that was found, with what came of it.
pub(crate) fn shortest(program: Program, report: Report) -> (Program, Report) {
    let mut best = Best { program, report, runs: 0 };
    while best.has_less() | best.is_simpler() {}
    (best.program, best.report)
}

impl Best {
    /// Takes a program that fails alike.
    fn take(&mut self, program: Program) -> bool {
        if self.runs >= MAX_RUNS {
            return false;
        }
        self.runs += 1;
        let report = run(&program);
        let is_alike = fails_alike(&self.report, &report);
        if is_alike {
            (self.program, self.report) = (program, report);
        }
        is_alike
    }

    fn len(&self) -> usize {
        self.program.tasks.len() + self.program.faults.len()
    }

    /// Leaves out what can be left out; false when nothing could.
    fn has_less(&mut self) -> bool {
        let before = self.len();
        let mut step = before.max(2) / 2;
        while step > 0 {
            let mut at = 0;
            while at < self.len() {
                if !self.take(without(&self.program, at, step)) {
                    at += step;
                }
            }
            step /= 2;
        }
        self.len() < before
    }

    /// Takes away bad weather and waits; false when all of it matters.
    fn is_simpler(&mut self) -> bool {
        let mut has_changed = false;
        let weather = self.program.plan.weather;
        let calm = Weather { delay_ms: weather.delay_ms, ..Weather::default() };
        if weather != calm {
            let mut calmer = self.program.clone();
            calmer.plan.weather = calm;
            has_changed |= self.take(calmer);
        }
        for at in 0..self.program.tasks.len() {
            for simpler in [without_hold, without_rest] {
                let mut program = self.program.clone();
                if simpler(&mut program, at) {
                    has_changed |= self.take(program);
                }
            }
        }
        has_changed
    }
}

fn without_hold(program: &mut Program, at: usize) -> bool {
    match &mut program.tasks[at].work {
        Work::Count { hold_ms } | Work::Session { hold_ms } | Work::Checked { hold_ms } => {
            std::mem::take(hold_ms) > 0
        }
        _ => false,
    }
}

fn without_rest(program: &mut Program, at: usize) -> bool {
    std::mem::take(&mut program.tasks[at].after_ms) > 0
}

/// Without so many tasks, or faults, which stand behind all tasks. What a client does afterwards is done when it was before:
/// it rests for as long as what is left out took, about.
fn without(program: &Program, at: usize, count: usize) -> Program {
    let mut shorter = program.clone();
    let is_kept = |place: usize| !(at..at + count).contains(&place);
    let mut owed: BTreeMap<usize, u64> = BTreeMap::new();
    shorter.tasks.clear();
    for (place, task) in program.tasks.iter().enumerate() {
        let owed = owed.entry(task.client).or_default();
        if is_kept(place) {
            let after_ms = task.after_ms + std::mem::take(owed);
            shorter.tasks.push(Task { after_ms, ..task.clone() });
        } else {
            *owed += task.after_ms + held_ms(&task.work);
        }
    }
    let mut place = program.tasks.len()..;
    shorter.faults.retain(|_| place.next().is_some_and(is_kept));
    shorter
}

fn held_ms(work: &Work) -> u64 {
    match work {
        Work::Count { hold_ms } | Work::Session { hold_ms } | Work::Checked { hold_ms } => *hold_ms,
        _ => 0,
    }
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

//! Each mutant is caught, by the checker that is for it, within a few seeds.

use super::Mutant;
use crate::sync::{
    client::{Strategy, Task, Work},
    scenario::{Fault, Kind, Program, Report, Timed, run, shortest, shown},
};

/// Seeds to try at most: a mutant that survives these is not caught.
const SEEDS: u64 = 300;

/// Runs programs of this kind, changed, until one of these invariants is found broken.
fn is_caught(kind: Kind, invariants: &[&str], change: impl Fn(&mut Program)) {
    drop(caught(kind, invariants, change));
}

/// The program that broke it.
fn caught(kind: Kind, invariants: &[&str], change: impl Fn(&mut Program)) -> (Program, Report) {
    let mut seen = Vec::new();
    for seed in 1..=SEEDS {
        let mut program = Program::of(seed, kind);
        change(&mut program);
        let report = run(&program);
        let is_about = |text: &str| invariants.iter().any(|invariant| text.starts_with(invariant));
        if let Some(violation) = report.violations.iter().find(|violation| is_about(&violation.0)) {
            println!("caught at seed {seed}: {}", violation.0);
            return (program, report);
        }
        seen.extend(report.violations.into_iter().map(|violation| violation.0));
    }
    panic!("not caught in {SEEDS} seeds; other violations: {seen:#?}");
}

fn with(mutant: Mutant) -> impl Fn(&mut Program) {
    move |program| program.plan.mutant = mutant
}

/// Instead of its own faults.
fn faults(program: &mut Program, faults: &[(u64, u64, Fault)]) {
    let timed =
        |(at_ms, for_ms, fault): &(u64, u64, Fault)| Timed { at_ms: *at_ms, for_ms: *for_ms, fault: *fault };
    program.faults = faults.iter().map(timed).collect();
}

/// Instead of its own work: clients that do the same again and again, one at a time.
fn work(program: &mut Program, clients: usize, each: usize, after_ms: u64, work: &Work) {
    let datacenters = program.plan.datacenters;
    let task = |number: usize| Task {
        client: number % clients,
        after_ms,
        datacenter: number % datacenters,
        agent: number / datacenters % 2,
        number: number as u64 + 1,
        token: None,
        work: work.clone(),
    };
    program.tasks = (0..clients * each).map(task).collect();
}

#[test]
fn commits_without_session_check_are_caught() {
    is_caught(Kind::Faults, &["duty"], with(Mutant::NoSessionCheck));
}

/// Contenders of one lock, each every other time for longer than its session lives; each writes its own number into the lock's
/// key before it counts, as a late commit of a former holder did.
fn late_commits(program: &mut Program) {
    program.strategy = Strategy::ValueFirst;
    work(program, 4, 8, 7_000, &Work::Checked { hold_ms: 25_000 });
    for round in program.tasks.chunks_mut(4).step_by(2) {
        round.iter_mut().for_each(|task| task.work = Work::Checked { hold_ms: 2_000 });
    }
}

#[test]
fn ownership_of_a_lock_by_value_is_caught() {
    is_caught(Kind::Calm, &["I6", "I7"], |program| {
        program.plan.mutant = Mutant::OwnValue;
        late_commits(program);
    });
}

/// The same clients, and ownership is the session's: so it is the look at the value that was caught.
#[test]
fn a_lock_whose_value_others_write_is_still_its_session_s() {
    for seed in 1..=5 {
        let mut program = Program::of(seed, Kind::Calm);
        late_commits(&mut program);
        let report = run(&program);
        assert_eq!(report.violations, [], "SYNC_SEED={seed}");
        let covered = report.covered();
        assert!(covered.contains_key("counted") && covered.contains_key("refused"), "{covered:?}");
    }
}

#[test]
fn lock_index_as_token_is_caught() {
    is_caught(Kind::Faults, &["I5"], |program| {
        program.strategy = Strategy::LockIndex;
        work(program, 3, 5, 500, &Work::Session { hold_ms: 50 });
        program.tasks.iter_mut().step_by(3).for_each(|task| task.work = Work::DeleteLock);
    });
}

#[test]
fn a_watermark_on_modify_index_is_caught() {
    is_caught(Kind::Restore, &["I3", "I8"], with(Mutant::Watermark));
}

#[test]
fn deletes_by_an_empty_list_are_caught() {
    is_caught(Kind::Faults, &["I3", "I8"], |program| {
        program.plan.mutant = Mutant::EmptyList;
        let crash = |agent| Fault::Crash { at: 1, agent };
        let filter = Fault::Filter { at: 0 };
        faults(program, &[(15_000, 1_000, crash(0)), (15_000, 1_000, crash(1)), (14_000, 40_000, filter)]);
    });
}

#[test]
fn progress_outside_the_transaction_is_caught() {
    is_caught(Kind::Faults, &["I3"], with(Mutant::SplitProgress));
}

#[test]
fn cas_on_a_replica_s_own_index_is_caught() {
    is_caught(Kind::Calm, &["I1"], |program| {
        program.strategy = Strategy::OwnIndex;
        work(program, 4, 12, 10, &Work::Cas(0));
    });
}

#[test]
fn acknowledging_before_it_is_durable_is_caught() {
    is_caught(Kind::Faults, &["I1", "I2", "I7"], with(Mutant::EarlyAck));
}

#[test]
fn keeping_no_position_on_disk_is_caught() {
    is_caught(Kind::Alone, &["I5"], with(Mutant::NoDisk));
}

#[test]
fn transactions_without_session_check_are_seen_in_the_history() {
    is_caught(Kind::Faults, &["I6", "I7"], |program| {
        program.plan.mutant = Mutant::NoSessionCheck;
        work(program, 4, 8, 2_000, &Work::Checked { hold_ms: 25_000 });
        faults(program, &[]);
    });
}

#[test]
fn rights_that_nobody_asks_for_are_caught() {
    is_caught(Kind::Faults, &["rights"], with(Mutant::NoRights));
}

#[test]
fn what_is_printed_of_a_violation_is_short() {
    let (program, report) = caught(Kind::Alone, &["I5"], with(Mutant::NoDisk));
    let (short, report) = shortest(program, report);
    let text = shown(&short, &report);
    println!("{text}");
    assert!(text.starts_with("I5: ") && text.contains(&format!("seed: {}", short.plan.seed)), "{text}");
    // A grant before the restore and one after it, and a task more where the time between them matters.
    assert!(short.tasks.len() <= 4 && report.calls.len() <= 24, "{text}");
    let is_needed = |timed: &Timed| !matches!(timed.fault, Fault::Pause { .. } | Fault::Freeze { .. });
    assert!(short.faults.iter().all(is_needed), "{text}");
}

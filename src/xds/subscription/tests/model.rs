//! The model test: clients that do anything a client may do, in both variants, over random catalogs. After the dust
//! has settled a client holds what it should; on the way nothing is sent twice without cause, nothing refused is
//! offered again, nothing names what the client cannot have.
//!
//! Cases and their catalogs come from seeds: always the same few, or others from `MODEL_SEED` on. `MODEL_STEPS` says how
//! many steps each variant takes.

mod catalog;
mod check;
mod client;
mod fault;
mod op;
mod reference;

use std::{
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
};

use self::{catalog::Catalog, client::Client, fault::Fault, op::Op};
use crate::xds::subscription::Variant;

/// Steps that each of the two variants takes, so that both together take a million and some.
const STEPS: u64 = 520_000;

/// How soon a planted fault has to be found.
const STEPS_TO_FIND_A_FAULT: u64 = 200_000;

/// Where `make test` starts: each takes its share of the steps.
const SEEDS: [u64; 4] = [20_260_801, 314_159_265, 7_777_777_777, 1];

/// What one case did: the steps that the machine took, or what went wrong after how many.
type Outcome = Result<u64, (u64, String)>;

/// A failure in its shortest form.
struct Failure {
    seed: u64,
    steps: u64,
    error: String,
    ops: Vec<Op>,
    catalog: Catalog,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn play(variant: Variant, fault: Option<Fault>, catalog: &Catalog, ops: &[Op]) -> Outcome {
    let mut client = Client::new(variant, fault);
    let played = catch_unwind(AssertUnwindSafe(|| client.play(ops, catalog)));
    match played {
        Ok(Ok(())) => Ok(client.steps),
        Ok(Err(error)) => Err((client.steps, error)),
        Err(_) => Err((client.steps, "the machine panicked".into())),
    }
}

/// Plays random cases until so many steps are taken or one fails.
fn explore(
    variant: Variant,
    fault: Option<Fault>,
    first: u64,
    steps: u64,
) -> Result<(u64, u64), Box<Failure>> {
    let mut catalog = Catalog::of_case(first);
    let mut taken = 0;
    for seed in first.. {
        if !catalog.is_of(seed) {
            catalog = Catalog::of_case(seed);
        }
        let ops = op::random(seed, &catalog);
        match play(variant, fault, &catalog, &ops) {
            Ok(more) => taken += more,
            // Planted bugs have to be seen for what they are.
            Err((more, error)) if fault.is_some_and(|fault| !fault.explains(&error)) => taken += more,
            Err((more, error)) => {
                let steps = taken + more;
                let failure = Failure { seed, steps, error, ops, catalog };
                return Err(Box::new(shrink(variant, fault, failure)));
            }
        }
        if taken >= steps {
            return Ok((taken, seed - first + 1));
        }
    }
    unreachable!("seeds do not run out")
}

/// Leaves out what the failure does not need: halves, quarters, single operations.
fn shrink(variant: Variant, fault: Option<Fault>, mut failure: Failure) -> Failure {
    let mut size = failure.ops.len().div_ceil(2);
    loop {
        let mut at = 0;
        let mut has_shrunk = false;
        // The last offers a complete catalog: without it there is nothing to settle on.
        while at + 1 < failure.ops.len() {
            let mut fewer = failure.ops.clone();
            fewer.drain(at..(at + size).min(fewer.len() - 1));
            match play(variant, fault, &failure.catalog, &fewer) {
                Err((_, error)) if fault.is_none_or(|fault| fault.explains(&error)) => {
                    failure = Failure { error, ops: fewer, ..failure };
                    has_shrunk = true;
                }
                _ => at += size,
            }
        }
        if size == 1 && !has_shrunk {
            return failure;
        }
        size = if has_shrunk { size } else { size.div_ceil(2).min(size - 1).max(1) };
    }
}

/// Past the test harness, which would keep it to itself.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn holds(variant: Variant) {
    let seeds = number("MODEL_SEED").map_or_else(|| SEEDS.to_vec(), |seed| vec![seed]);
    let shares = u64::try_from(seeds.len()).unwrap();
    let steps = number("MODEL_STEPS").unwrap_or(STEPS).div_ceil(shares);
    for seed in seeds {
        holds_from(variant, seed, steps);
    }
}

fn holds_from(variant: Variant, first: u64, steps: u64) {
    match explore(variant, None, first, steps) {
        Ok((steps, cases)) => {
            say(&format!("model test, {variant:?}: {steps} steps in {cases} cases from seed {first}"));
        }
        Err(failure) => {
            let Failure { seed, steps, error, ops, catalog } = *failure;
            let ops: Vec<String> = ops.iter().map(|op| format!("  {}", op.told(&catalog))).collect();
            panic!(
                "{variant:?}: {error}\nafter {steps} steps; MODEL_SEED={seed} reproduces it; in short:\n{}",
                ops.join("\n")
            );
        }
    }
}

#[test]
fn a_delta_client_ends_up_with_what_it_should_have() {
    holds(Variant::Delta);
}

#[test]
fn a_state_of_the_world_client_ends_up_with_what_it_should_have() {
    holds(Variant::StateOfTheWorld);
}

#[test]
fn every_planted_fault_is_found() {
    let mut missed = Vec::new();
    for fault in Fault::ALL {
        for variant in fault.variants() {
            match explore(*variant, Some(fault), SEEDS[0], STEPS_TO_FIND_A_FAULT) {
                Ok(_) => missed.push(format!("{fault:?} in {variant:?}")),
                Err(failure) => say(&format!(
                    "planted fault {fault:?}, {variant:?}: found after {} steps, {} operations are enough: {}",
                    failure.steps,
                    failure.ops.len(),
                    failure.error
                )),
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}

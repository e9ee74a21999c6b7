//! Every decoder that meets bytes from outside, fed with damaged inputs: none may panic, overflow its stack, take memory
//! or time without bound, or read back something else than was written.
//!
//! Each target runs in a process of its own (`child`), on a thread with the stack that the agent's threads have, with a
//! limit on memory. Inputs come from `corpus/<target>/` by chance (`mutate`), the same ones for the same seed. There is
//! no feedback from coverage: engines that have it need a nightly compiler or build C++ beside this; what they would
//! find behind a checksum or a magic number, targets reach by a door of their own.
//!
//! `FUZZ_SECONDS=n` runs each target so long instead of a fixed number of inputs, `FUZZ_SEED=s` from another seed,
//! `FUZZ_ONLY=target` one alone. An input that fails is kept under `target/fuzz/`; mended, it moves into the corpus.

mod child;
mod hunt;
mod mutate;
mod planted;
mod targets;

use std::time::Duration;

use self::{
    hunt::{Effort, Failure, hunt},
    targets::TARGETS,
};

/// So many inputs take a fraction of a second.
const INPUTS: u64 = 1_500;

/// What the agent's threads have: tokio's default.
const STACK_BYTES: usize = 2 << 20;

/// A decoder, and whatever must hold of what it read. It panics when that does not.
type Decode = fn(&[u8]);

/// One decoder or several of one kind.
struct Target {
    /// Also the folder of its corpus.
    name: &'static str,
    decode: Decode,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn every_decoder_takes_every_input() {
    if child::is_one() {
        return child::run();
    }
    let seed = number("FUZZ_SEED").unwrap_or(1);
    let effort = match number("FUZZ_SECONDS") {
        Some(seconds) => Effort::Time(Duration::from_secs(seconds)),
        None => Effort::Inputs(INPUTS),
    };
    let only = std::env::var("FUZZ_ONLY").ok();
    let chosen: Vec<_> =
        TARGETS.iter().filter(|target| only.as_deref().is_none_or(|only| only == target.name)).collect();
    assert!(!chosen.is_empty(), "FUZZ_ONLY={only:?} is none of the targets");
    println!("seed {seed}");
    let mut failures = Vec::new();
    for target in chosen {
        match hunt(target.name, seed, effort) {
            Ok(tally) => println!("{:<20} {tally}", target.name),
            Err(failure) => {
                println!("{:<20} FAILED", target.name);
                failures.push(told(target.name, seed, &failure));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}

fn told(target: &str, seed: u64, failure: &Failure) -> String {
    let kept = failure.keep(target);
    format!(
        "{target}, seed {seed}: {failure}\nthe input is in {}; mend the decoder, and move it to tests/fuzz/corpus/{target}/",
        kept.display()
    )
}

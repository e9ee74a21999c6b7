//! The parent's side: runs a target in a process of its own, and tells how that ended.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

/// How long, or how much.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effort {
    Inputs(u64),
    Time(Duration),
}

/// What a target went through.
#[derive(Debug)]
pub(super) struct Tally {
    inputs: u64,
    slowest_ms: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} inputs, the slowest {} ms", self.inputs, self.slowest_ms)
    }
}

/// An input that a target does not take.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) input: Vec<u8>,
    words: String,
}

/// In which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Panic,
    Stack,
    Memory,
    Time,
    /// The process ended otherwise; its words tell more.
    Other,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {} bytes:\n{}", self.kind, self.input.len(), self.words.trim())
    }
}

impl Failure {
    /// Writes the input where whoever mends the decoder finds it.
    pub(super) fn keep(&self, target: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz").join(target);
        std::fs::create_dir_all(&folder).unwrap();
        let name = blake3::hash(&self.input).to_hex();
        let path = folder.join(&name.as_str()[..16]);
        std::fs::write(&path, &self.input).unwrap();
        path
    }
}

/// The test that this is part of: a child runs the same.
const TEST: &str = "fuzz::every_decoder_takes_every_input";

pub(super) fn hunt(target: &str, seed: u64, effort: Effort) -> Result<Tally, Failure> {
    let state = tempfile::NamedTempFile::new().unwrap();
    let (kind, amount) = match effort {
        Effort::Inputs(inputs) => ("inputs", inputs),
        Effort::Time(time) => ("ms", u64::try_from(time.as_millis()).unwrap()),
    };
    let output = Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture", "--test-threads=1"])
        .env("FUZZ_CHILD", target)
        .env("FUZZ_SEED", seed.to_string())
        .env("FUZZ_EFFORT", format!("{kind} {amount}"))
        .env("FUZZ_INPUT", state.path())
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(tally) = tally(&text(&output.stdout)).filter(|_| output.status.success()) {
        return Ok(tally);
    }
    let words = format!("{}{}", text(&output.stderr), text(&output.stdout));
    let input = std::fs::read(state.path()).unwrap();
    Err(Failure { kind: kind_of(&output, &words), input, words })
}

fn tally(text: &str) -> Option<Tally> {
    let line = text.lines().find_map(|line| line.split_once("fuzzed ").map(|(_, tally)| tally))?;
    let (inputs, slowest_ms) = line.split_once(' ')?;
    Some(Tally { inputs: inputs.parse().ok()?, slowest_ms: slowest_ms.parse().ok()? })
}

fn kind_of(output: &Output, words: &str) -> Kind {
    const SIGNS: [(&str, Kind); 4] = [
        ("overflowed its stack", Kind::Stack),
        ("memory allocation of", Kind::Memory),
        ("of processor time", Kind::Time),
        ("panicked at", Kind::Panic),
    ];
    let sign = SIGNS.iter().find(|(sign, _)| words.contains(sign));
    sign.map_or(Kind::Other, |(_, kind)| if output.status.success() { Kind::Other } else { *kind })
}

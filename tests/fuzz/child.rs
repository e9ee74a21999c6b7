//! The child's side: one target, input after input, each written down before it is tried.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use causeway::lifecycle;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Decode, STACK_BYTES, mutate::Mutator, planted::PLANTED, targets::TARGETS};

/// What a decoder may take for an input of [`super::mutate::MAX_BYTES`], beside what the process has already.
const MEMORY_BYTES: u64 = 256 << 20;

/// What one input may take on a processor. The slowest decoders take some 50 ms.
const LIMIT: Duration = Duration::from_secs(1);

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) fn is_one() -> bool {
    std::env::var_os("FUZZ_CHILD").is_some()
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("a child needs {name}"))
}

pub(super) fn run() {
    let name = variable("FUZZ_CHILD");
    let mut targets = TARGETS.iter().chain(PLANTED);
    let target = targets.find(|target| target.name == name).unwrap_or_else(|| panic!("no target `{name}`"));
    let seed: u64 = variable("FUZZ_SEED").parse().unwrap();
    let corpus = corpus(target.name);
    let input = File::create(variable("FUZZ_INPUT")).unwrap();
    limit_memory();
    let decode = target.decode;
    let worker = std::thread::Builder::new().name(name).stack_size(STACK_BYTES);
    let watched = Watched::default();
    let (inputs, slowest) = std::thread::scope(|scope| {
        let work = || {
            let _over = Over(&watched);
            Run { decode, input: &input, watched: &watched }.all(Mutator::new(seed, corpus))
        };
        let worker = worker.spawn_scoped(scope, work).unwrap();
        watched.watch();
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    println!("fuzzed {inputs} {}", slowest.as_millis());
}

/// The files of a target's corpus, by name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn limit_memory() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let data = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    let data_kb: u64 = data.trim().trim_end_matches(" kB").parse().unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_DATA).unwrap();
    setrlimit(Resource::RLIMIT_DATA, data_kb * 1024 + MEMORY_BYTES, hard).unwrap();
}

struct Run<'a> {
    decode: Decode,
    input: &'a File,
    watched: &'a Watched,
}

impl Run<'_> {
    /// First the corpus as it is, then what comes of it by chance. Tells how many inputs, and the slowest.
    fn all(&self, mut mutator: Mutator) -> (u64, Duration) {
        let effort = variable("FUZZ_EFFORT");
        let (kind, amount) = effort.split_once(' ').unwrap();
        let amount: u64 = amount.parse().unwrap();
        let until = lifecycle::now() + Duration::from_millis(amount);
        let is_enough = |done: u64| if kind == "ms" { lifecycle::now() >= until } else { done >= amount };
        let mut slowest = Duration::ZERO;
        for input in mutator.corpus() {
            slowest = slowest.max(self.one(&input));
        }
        let mut done = 0;
        while !is_enough(done) {
            slowest = slowest.max(self.one(&mutator.next()));
            done += 1;
        }
        (done, slowest)
    }

    fn one(&self, input: &[u8]) -> Duration {
        self.input.set_len(0).unwrap();
        self.input.write_all_at(input, 0).unwrap();
        let begun = own_time();
        *self.watched.begun.lock().unwrap() = Some((thread_file(), begun));
        (self.decode)(input);
        *self.watched.begun.lock().unwrap() = None;
        let took = own_time().saturating_sub(begun);
        assert!(took <= LIMIT, "one input took {took:?} of processor time");
        took
    }
}

/// What looks after a decoder that does not come to an end.
#[derive(Default)]
struct Watched {
    /// The input that is under way: whose time, and how much of that had passed before.
    begun: Mutex<Option<(PathBuf, Duration)>>,
    is_over: AtomicBool,
}

/// Ends the watch, also when the worker panics.
struct Over<'a>(&'a Watched);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
    }
}

impl Watched {
    fn watch(&self) {
        while !self.is_over.load(Ordering::Acquire) {
            std::thread::sleep(LOOK_EVERY);
            let Some((file, begun)) = self.begun.lock().unwrap().clone() else { continue };
            let took = time_of(&file).saturating_sub(begun);
            // Twice the limit: below that the worker itself tells.
            if took > 2 * LIMIT {
                eprintln!("one input takes more than {took:?} of processor time, and goes on");
                std::process::abort();
            }
        }
    }
}

fn thread_file() -> PathBuf {
    fs::read_link("/proc/thread-self").map(|own| Path::new("/proc").join(own).join("schedstat")).unwrap()
}

fn own_time() -> Duration {
    time_of(Path::new("/proc/thread-self/schedstat"))
}

/// The time that a thread had a processor; zero once it has ended.
fn time_of(schedstat: &Path) -> Duration {
    let text = fs::read_to_string(schedstat).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default())
}

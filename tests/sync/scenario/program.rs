//! What is done and what goes wrong, drawn from a seed.

use std::time::Duration;

use crate::sync::{
    client::{REGISTERS, Strategy, Task, Work},
    consul_model::Waits,
    mutants::Mutant,
    net::{PART, READER, Weather},
    world::{AGENTS, Plan},
};

/// When clients begin: by then every prefix has a home that serves.
pub(super) const WARM_UP: Duration = Duration::from_secs(5);

/// Faults begin within this time.
const FAULTS_MS: u64 = 45_000;

/// What kind of program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No faults at all.
    Calm,
    /// Any faults that lose nothing.
    Faults,
    /// The home is restored from a snapshot of a while before.
    Restore,
    /// The same with the home of the locks, while nobody can be asked who knows better and its agents are down.
    Alone,
}

impl Kind {
    /// Whether something that was acknowledged is undone.
    pub(crate) fn restores(self) -> bool {
        matches!(self, Self::Restore | Self::Alone)
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// An agent is killed, and started again after a while.
    Crash {
        at: usize,
        agent: usize,
    },
    /// An agent is stopped, and goes on after a while.
    Pause {
        at: usize,
        agent: usize,
    },
    Cut {
        from: usize,
        to: usize,
        is_both: bool,
    },
    /// Consul answers nobody.
    Freeze {
        at: usize,
    },
    Leaderless {
        at: usize,
    },
    /// Another server of Consul leads from now on.
    Lead {
        at: usize,
    },
    /// Consul forgets what was deleted.
    Reap {
        at: usize,
    },
    /// Consul's lists come filtered.
    Filter {
        at: usize,
    },
    /// A token has no rights.
    Revoke {
        token: &'static str,
    },
    Save {
        at: usize,
    },
    Restore {
        at: usize,
        is_fresh: bool,
        waits: Waits,
    },
}

/// When, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timed {
    pub(crate) at_ms: u64,
    pub(crate) for_ms: u64,
    pub(crate) fault: Fault,
}

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) kind: Kind,
    pub(crate) plan: Plan,
    pub(crate) strategy: Strategy,
    pub(crate) tasks: Vec<Task>,
    pub(crate) faults: Vec<Timed>,
}

impl Program {
    /// The program of a seed.
    pub(crate) fn of(seed: u64, kind: Kind) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let datacenters = rng.usize(2..=3);
        let locks_home = rng.usize(0..datacenters);
        let weather = weather(&mut rng, kind);
        let plan = Plan {
            seed,
            datacenters,
            prefixes: vec![("config/", 0), ("locks/", locks_home)],
            weather,
            mutant: Mutant::None,
        };
        let (tasks, faults) = if kind == Kind::Alone {
            (grants(&mut rng, locks_home), alone(&mut rng, datacenters, locks_home))
        } else {
            (tasks(&mut rng, datacenters), faults(&mut rng, datacenters, kind))
        };
        Self { kind, plan, strategy: Strategy::Told, tasks, faults }
    }

    /// As text, a line for each.
    pub(crate) fn shown(&self) -> String {
        let tasks = self.tasks.iter().map(|task| format!("  {task:?}\n"));
        let faults = self.faults.iter().map(|fault| format!("  {fault:?}\n"));
        format!("  {:?} {:?}\n", self.plan, self.strategy)
            + &faults.collect::<String>()
            + &tasks.collect::<String>()
    }
}

fn weather(rng: &mut fastrand::Rng, kind: Kind) -> Weather {
    let delay_ms = *rng.choice(&[1, 2, 5, 10]).unwrap_or(&1);
    if kind == Kind::Calm || rng.bool() {
        return Weather { delay_ms, ..Weather::default() };
    }
    Weather {
        delay_ms,
        refused: rng.u32(0..5),
        unanswered: rng.u32(0..5),
        doubled: rng.u32(0..10),
        broken: rng.u32(0..5),
    }
}

fn tasks(rng: &mut fastrand::Rng, datacenters: usize) -> Vec<Task> {
    let (clients, each) = (rng.usize(3..=5), rng.usize(6..=12));
    let mut tasks = Vec::new();
    for client in 0..clients {
        for _ in 0..each {
            let number = tasks.len() as u64 + 1;
            let (datacenter, agent) = (rng.usize(0..datacenters), rng.usize(0..AGENTS));
            let after_ms = *rng.choice(&[0, 10, 500, 3_000, 8_000]).unwrap_or(&0);
            let token = *rng.choice(&[None, None, None, None, Some(READER), Some(PART)]).unwrap_or(&None);
            tasks.push(Task { client, after_ms, datacenter, agent, number, token, work: work(rng) });
        }
    }
    tasks
}

/// Clients at home that do nothing but take the lock, before the restore and after it.
fn grants(rng: &mut fastrand::Rng, home: usize) -> Vec<Task> {
    let (clients, each) = (rng.usize(2..=3), 24);
    let task = |number: u64| {
        let hold_ms = *rng.choice(&[0, 50, 500]).unwrap_or(&0);
        let work = if rng.bool() { Work::Count { hold_ms } } else { Work::Session { hold_ms } };
        let (client, after_ms) = (rng.usize(0..clients), rng.u64(500..4_000));
        Task { client, after_ms, datacenter: home, agent: rng.usize(0..AGENTS), number, token: None, work }
    };
    (1..=clients as u64 * each).map(task).collect()
}

fn alone(rng: &mut fastrand::Rng, datacenters: usize, home: usize) -> Vec<Timed> {
    let saved = rng.u64(5_000..15_000);
    let cut = saved + rng.u64(5_000..15_000);
    let others = (0..datacenters).filter(|at| *at != home);
    let cuts = others.map(|to| (cut, 60_000, Fault::Cut { from: home, to, is_both: true }));
    let crashes = (0..AGENTS).map(|agent| (cut + 100, 2_000, Fault::Crash { at: home, agent }));
    let waits = if rng.bool() { Waits::End } else { Waits::Hang };
    let restore = Fault::Restore { at: home, is_fresh: rng.bool(), waits };
    let mut faults = vec![(saved, 0, Fault::Save { at: home }), (cut + 1_000, 0, restore)];
    faults.extend(cuts.chain(crashes));
    faults.sort_by_key(|(at_ms, ..)| *at_ms);
    faults.into_iter().map(|(at_ms, for_ms, fault)| Timed { at_ms, for_ms, fault }).collect()
}

fn work(rng: &mut fastrand::Rng) -> Work {
    let key = rng.usize(0..REGISTERS.len());
    // Mostly short, sometimes beyond every lease.
    let hold_ms = *rng.choice(&[0, 50, 500, 25_000]).unwrap_or(&0);
    match rng.u32(0..100) {
        0..18 => Work::Read(key),
        18..30 => Work::LocalRead(key),
        30..45 => Work::Write(key),
        45..60 => Work::Cas(key),
        60..66 => Work::Delete(key),
        66..70 => Work::DeleteTree,
        70..78 => Work::Append,
        78..82 => Work::ReadLists,
        82..91 => Work::Count { hold_ms },
        91 => Work::DeleteLock,
        92..94 => Work::Checked { hold_ms },
        _ => Work::Session { hold_ms },
    }
}

fn faults(rng: &mut fastrand::Rng, datacenters: usize, kind: Kind) -> Vec<Timed> {
    let mut faults = Vec::new();
    let count = if kind == Kind::Calm { 0 } else { rng.usize(0..=5) };
    for _ in 0..count {
        let (at_ms, for_ms) =
            (rng.u64(0..FAULTS_MS), *rng.choice(&[300, 3_000, 12_000, 30_000]).unwrap_or(&0));
        faults.push(Timed { at_ms, for_ms, fault: fault(rng, datacenters) });
    }
    if kind == Kind::Restore {
        let waits = if rng.bool() { Waits::End } else { Waits::Hang };
        let (at_ms, is_fresh) = (rng.u64(2_000..30_000), rng.bool());
        let later = at_ms + rng.u64(1_000..15_000);
        faults.push(Timed { at_ms, for_ms: 0, fault: Fault::Save { at: 0 } });
        faults.push(Timed { at_ms: later, for_ms: 0, fault: Fault::Restore { at: 0, is_fresh, waits } });
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

fn fault(rng: &mut fastrand::Rng, datacenters: usize) -> Fault {
    let (at, agent) = (rng.usize(0..datacenters), rng.usize(0..AGENTS));
    let to = (at + rng.usize(1..datacenters)) % datacenters;
    match rng.u32(0..11) {
        10 => Fault::Revoke { token: if rng.bool() { READER } else { PART } },
        0..2 => Fault::Crash { at, agent },
        2..5 => Fault::Pause { at, agent },
        5..7 => Fault::Cut { from: at, to, is_both: rng.bool() },
        7 if rng.bool() => Fault::Reap { at },
        7 => Fault::Freeze { at },
        8 if rng.bool() => Fault::Leaderless { at },
        8 => Fault::Filter { at },
        _ => Fault::Lead { at },
    }
}

//! One program from its beginning to the end of all faults, and the judgement.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use causeway::lifecycle;
use futures_util::future::join_all;
use tokio::time::{sleep, sleep_until};

use super::program::{Fault, Kind, Program, Timed, WARM_UP};
use crate::sync::{
    client::{self, Record, Task},
    history::{self, Act, Call, Outcome, Violation},
    world::{World, after, datacenter, node, simulate},
};

/// How long after the last fault everything must be equal: two ends of a session, a connection that is noticed as dead,
/// the longest pause between attempts, and an audit.
const CALM_AFTER: Duration = Duration::from_secs(150);

/// What came of a program.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) calls: Vec<Call>,
    pub(crate) violations: Vec<Violation>,
}

impl Report {
    /// How many calls came out how.
    pub(crate) fn covered(&self) -> BTreeMap<&'static str, u64> {
        let mut covered = BTreeMap::new();
        for call in &self.calls {
            let what = match (&call.act, call.outcome) {
                (_, Outcome::Open) => "open",
                (_, Outcome::Refused) => "refused",
                (Act::Read { .. } | Act::Lists { .. }, _) => "read",
                (Act::Grant { .. }, _) => "granted",
                (Act::Count { .. }, _) => "counted",
                (Act::Append { .. }, _) => "appended",
                (Act::Cas { is_done: false, .. }, _) => "missed",
                _ => "acknowledged",
            };
            *covered.entry(what).or_default() += 1;
        }
        covered
    }
}

/// Runs it.
pub(crate) fn run(program: &Program) -> Report {
    simulate(live(program))
}

async fn live(program: &Program) -> Report {
    let world = World::start(program.plan.clone());
    let record = Record::default();
    sleep(WARM_UP).await;
    let mut clients: BTreeMap<usize, Vec<Task>> = BTreeMap::new();
    for task in &program.tasks {
        clients.entry(task.client).or_default().push(task.clone());
    }
    let work =
        clients.into_values().map(|tasks| client::run(&world, record.clone(), tasks, program.strategy));
    tokio::join!(join_all(work), schedule(&world, &program.faults));
    world.net.heal();
    let mut violations = settle(&world, &record, program.kind).await;
    let calls = record.calls();
    let mut found = world.found();
    found.extend(judged(&calls, program.kind));
    found.append(&mut violations);
    Report { calls, violations: found }
}

/// What a restore takes back was acknowledged and is gone: then only tokens are judged, and what replicas hold.
fn judged(calls: &[Call], kind: Kind) -> Vec<Violation> {
    if kind == Kind::Restore {
        let found = history::locks(calls);
        return found.into_iter().filter(|violation| !violation.0.starts_with("I7")).collect();
    }
    history::judge(calls)
}

/// I9, and what was read at the end.
async fn settle(world: &Arc<World>, record: &Record, kind: Kind) -> Vec<Violation> {
    let end = after(CALM_AFTER);
    let mut found = Vec::new();
    if kind == Kind::Restore {
        sleep(Duration::from_secs(60)).await;
        return found;
    }
    while !world.behind().is_empty() && lifecycle::now() < end {
        sleep(Duration::from_secs(1)).await;
    }
    found.extend(world.behind().into_iter().map(|behind| Violation(format!("I9: {behind}"))));
    if let Err(reason) = client::read_all(world, record, after(CALM_AFTER)).await {
        found.push(Violation(format!("I9: {reason}")));
    }
    found
}

async fn schedule(world: &Arc<World>, faults: &[Timed]) {
    let began = lifecycle::now();
    let each = faults.iter().map(|timed| async move {
        sleep_until(began + Duration::from_millis(timed.at_ms)).await;
        begin(world, timed.fault);
        sleep(Duration::from_millis(timed.for_ms)).await;
        end(world, timed.fault);
    });
    join_all(each).await;
}

fn begin(world: &World, fault: Fault) {
    let net = &world.net;
    match fault {
        Fault::Crash { at, agent } => world.crash(at, agent),
        Fault::Pause { at, agent } => net.fault(|faults| drop(faults.paused.insert(node(at, agent)))),
        Fault::Cut { from, to, is_both } => net.fault(|faults| {
            faults.cut.insert((datacenter(from), datacenter(to)));
            if is_both {
                faults.cut.insert((datacenter(to), datacenter(from)));
            }
        }),
        Fault::Freeze { at } => net.fault(|faults| drop(faults.frozen.insert(datacenter(at)))),
        Fault::Leaderless { at } => net.fault(|faults| drop(faults.leaderless.insert(datacenter(at)))),
        Fault::Filter { at } => net.fault(|faults| drop(faults.filtered.insert(datacenter(at)))),
        Fault::Lead { at } => net.consul(&datacenter(at)).with(|model| model.lead_anew()),
        Fault::Save { at } => world.save(at),
        Fault::Restore { at, is_fresh, waits } => world.restore(at, is_fresh, waits),
    }
}

fn end(world: &World, fault: Fault) {
    let net = &world.net;
    match fault {
        Fault::Crash { at, agent } => world.boot(at, agent),
        Fault::Pause { at, agent } => net.fault(|faults| drop(faults.paused.remove(&node(at, agent)))),
        Fault::Cut { from, to, .. } => net.fault(|faults| {
            faults.cut.remove(&(datacenter(from), datacenter(to)));
            faults.cut.remove(&(datacenter(to), datacenter(from)));
        }),
        Fault::Freeze { at } => net.fault(|faults| drop(faults.frozen.remove(&datacenter(at)))),
        Fault::Leaderless { at } => net.fault(|faults| drop(faults.leaderless.remove(&datacenter(at)))),
        Fault::Filter { at } => net.fault(|faults| drop(faults.filtered.remove(&datacenter(at)))),
        Fault::Lead { .. } | Fault::Save { .. } | Fault::Restore { .. } => {}
    }
}

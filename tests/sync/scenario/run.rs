//! One program from its beginning to the end of all faults, and the judgement.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use causeway::{lifecycle, sync::replica::machine::Stage};
use futures_util::future::join_all;
use http::Method;
use tokio::time::{sleep, sleep_until};

use super::program::{Fault, Kind, Program, Timed, WARM_UP};
use crate::sync::{
    client::{self, Record, Task},
    history::{self, Act, Call, May, Outcome, Violation},
    net::{Faults, own},
    world::{Behind, World, after, datacenter, node, simulate},
};

/// How long after the last fault everything must be equal: two ends of a session, a connection that is noticed as dead,
/// the longest pause between attempts, and an audit.
const CALM_AFTER: Duration = Duration::from_secs(150);

/// What came of a program.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) calls: Vec<Call>,
    pub(crate) violations: Vec<Violation>,
    /// Replicas that waited for a person's word at the end.
    pub(crate) holds: u64,
}

impl Report {
    /// How many calls came out how.
    pub(crate) fn covered(&self) -> BTreeMap<&'static str, u64> {
        let mut covered = BTreeMap::from([("held", self.holds)]);
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
    let (holds, mut violations) = settle(&world, &record, program.kind).await;
    let calls = record.calls();
    let mut found = world.found();
    found.extend(history::judge_restored(&calls, &world.restored()));
    found.extend(history::reads(&record.shown()));
    found.extend(history::rights(&record.uses(), &world.net.turns_of_rights()));
    found.append(&mut violations);
    world.net.let_go();
    Report { calls, violations: found, holds }
}

/// I9, and what was read at the end. Besides, how many replicas waited for a person's word.
async fn settle(world: &Arc<World>, record: &Record, kind: Kind) -> (u64, Vec<Violation>) {
    let mut found = Vec::new();
    until_equal(world).await;
    let held = world.behind();
    for behind in &held {
        approve(world, kind, behind, &mut found).await;
    }
    until_equal(world).await;
    for behind in world.behind() {
        found.push(Violation(format!("I9: {behind}: {:?}", world.stages(&behind))));
    }
    if let Err(reason) = client::read_all(world, record, after(CALM_AFTER)).await {
        found.push(Violation(format!("I9: {reason}")));
    }
    found.extend(world.followers_at_home().map(|text| Violation(format!("followers: {text}"))));
    (held.len() as u64, found)
}

async fn until_equal(world: &World) {
    let end = after(CALM_AFTER);
    while !world.behind().is_empty() && lifecycle::now() < end {
        sleep(Duration::from_secs(1)).await;
    }
}

/// Whoever is not where its home is is on hold, says why and what to do, and goes on when people say so. Where nothing was
/// restored the only reason for a hold is the guard of deletes.
async fn approve(world: &World, kind: Kind, behind: &Behind, found: &mut Vec<Violation>) {
    let stages = world.stages(behind);
    let hold = stages.iter().find(|(stage, _)| *stage == Stage::Hold);
    let Some(reason) = hold.map(|(_, reason)| reason.clone().unwrap_or_default()) else {
        return found.push(Violation(format!("hold: {behind} and not on hold: {stages:?}")));
    };
    if !reason.contains("causeway sync approve") {
        found.push(Violation(format!("hold: without a remedy: {reason}")));
    }
    if !kind.restores() && !reason.contains("would be deleted") {
        found.push(Violation(format!("hold: {behind}, though nothing was restored: {reason}")));
    }
    let target = format!("/v1/sync/approve?prefix={}", behind.prefix);
    let _ = world.ask(behind.at, 0, Method::POST, &target, &[], "").await;
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
    match fault {
        Fault::Crash { at, agent } => world.crash(at, agent),
        Fault::Lead { at } => world.net.consul(&datacenter(at)).with(|model| model.lead_anew()),
        Fault::Reap { at } => world.net.consul(&datacenter(at)).with(|model| model.reap()),
        Fault::Revoke { token } => world.net.allow(token, May::Nothing),
        Fault::Save { at } => world.save(at),
        Fault::Restore { at, is_fresh, waits } => world.restore(at, is_fresh, waits),
        lasting => world.net.fault(|faults| turn(faults, lasting, true)),
    }
}

fn end(world: &World, fault: Fault) {
    match fault {
        Fault::Crash { at, agent } => world.boot(at, agent),
        Fault::Revoke { token } => world.net.allow(token, own(token)),
        lasting => world.net.fault(|faults| turn(faults, lasting, false)),
    }
}

/// Turns on or off what lasts.
fn turn(faults: &mut Faults, fault: Fault, is_on: bool) {
    fn put<T: Ord>(set: &mut BTreeSet<T>, item: T, is_on: bool) {
        if is_on {
            set.insert(item);
        } else {
            set.remove(&item);
        }
    }
    match fault {
        Fault::Pause { at, agent } => put(&mut faults.paused, node(at, agent), is_on),
        Fault::Cut { from, to, is_both } => {
            put(&mut faults.cut, (datacenter(from), datacenter(to)), is_on);
            if is_both {
                put(&mut faults.cut, (datacenter(to), datacenter(from)), is_on);
            }
        }
        Fault::Freeze { at } => put(&mut faults.frozen, datacenter(at), is_on),
        Fault::Leaderless { at } => put(&mut faults.leaderless, datacenter(at), is_on),
        Fault::Filter { at } => put(&mut faults.filtered, datacenter(at), is_on),
        Fault::Crash { .. }
        | Fault::Lead { .. }
        | Fault::Reap { .. }
        | Fault::Revoke { .. }
        | Fault::Save { .. }
        | Fault::Restore { .. } => {}
    }
}

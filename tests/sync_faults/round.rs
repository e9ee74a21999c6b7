//! One round: clients at work, a fault, what was promised meanwhile, its end, and the judgement of all that was seen.

use std::{collections::BTreeSet, time::Duration};

use causeway::{
    lab::plan::{PREFIXES, PRIMARY, SECONDARY},
    lifecycle,
};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    lab_sync::{
        ask::ask_within,
        world::{AGENTS, World, until},
    },
    sync::history::{self, Act, Call, Outcome, Restored, Violation},
    sync_faults::{
        clients::Load,
        holder::Holder,
        nemesis::{Done, Fault, Victim, other},
        promise::{Promises, nodes},
        report::Row,
        restore,
        watcher::Watcher,
    },
};

/// Acknowledged writes before the fault, and again after it.
const WRITES: u64 = 40;

/// All writes are taken and all replicas follow so long after a fault: an agent's session ends after 20 s, and the longest
/// pause between two attempts of a replica is 30 s.
const RECOVERED: Duration = Duration::from_secs(60);

/// What a round is about.
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) name: String,
    /// All at once.
    pub(super) faults: Vec<Fault>,
    /// How long they last at least.
    pub(super) length: Duration,
}

/// What was done to the lab; it is taken back in any case.
struct Healing<'w> {
    world: &'w World,
    done: Vec<Done>,
}

impl Healing<'_> {
    fn heal(&mut self) {
        self.done.drain(..).for_each(|done| done.heal(self.world));
    }
}

impl Drop for Healing<'_> {
    fn drop(&mut self) {
        self.heal();
    }
}

/// Ends the clients also when an assertion fails, since the scope waits for them.
struct Finish<'l>(&'l Load);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Plays it.
pub(super) fn play(world: &World, watcher: &Watcher<'_>, plan: &Plan, rng: &mut fastrand::Rng) -> Row {
    let load = Load::new(world, &plan.name);
    Promises::prepare(world, &plan.name);
    let mut row = Row::new(plan.seed, &plan.faults);
    let mut restores = Vec::new();
    std::thread::scope(|scope| {
        let finish = Finish(&load);
        load.start(scope, rng);
        until_acknowledged(&load);
        restores.extend(under_faults(world, watcher, plan, &load, &mut row));
        until_acknowledged(&load);
        drop(finish);
    });
    calm(world, watcher, &mut row);
    load.read_all();
    row.covered = load.covered();
    let violations = history::judge_restored(&judged(load.calls(), &restores), &restores).into_iter();
    let violations = violations.chain(positions(&load, plan)).chain(watcher.found());
    row.broken.extend(violations.map(|violation| violation.0));
    if restores.is_empty() {
        row.broken.extend(load.breaches());
    }
    row
}

/// Waits until each datacenter can lose a server. One that has just come back has no vote at first (Consul's autopilot gives
/// it back after 10 s of good health): without it, losing another one is losing the majority, which is another fault.
fn until_whole(world: &World) {
    for datacenter in [PRIMARY, SECONDARY] {
        let url = format!("{}/v1/operator/autopilot/health", world.consul(&format!("{datacenter}-server")));
        until(&format!("all servers of {datacenter} vote and are healthy"), || {
            let reply = ask_within(RECOVERED, "GET", &url, &[], b"").map_err(|error| error.to_string())?;
            let health: Value = serde_json::from_slice(&reply.body).map_err(|_| reply.text())?;
            let can_lose_one = health["FailureTolerance"].as_u64().is_some_and(|servers| servers > 0);
            if health["Healthy"] == true && can_lose_one { Ok(()) } else { Err(reply.text()) }
        });
    }
}

/// From the beginning of the faults until nothing is left of them. Gives what was restored.
fn under_faults(
    world: &World,
    watcher: &Watcher<'_>,
    plan: &Plan,
    load: &Load,
    row: &mut Row,
) -> Option<Restored> {
    let holder = plan.faults.contains(&Fault::Cut).then(|| Holder::start(world, &plan.name));
    let restored = plan.faults.iter().find_map(|fault| fault.restored());
    let restore = restored.map(|datacenter| restore::restore(world, load, watcher, datacenter, &plan.name));
    until_whole(world);
    let mut healing = Healing { world, done: Vec::new() };
    let began = lifecycle::now();
    let promises = Promises::new(world, &plan.name);
    healing.done.extend(plan.faults.iter().map(|fault| fault.begin(world)));
    let hit: BTreeSet<String> = healing.done.iter().flat_map(Done::agents).collect();
    let followed = std::thread::scope(|scope| {
        let followed = holder.map(|holder| scope.spawn(move || holder.follow(began)));
        plan.faults.iter().for_each(|fault| promises.ask(*fault, plan.length, &hit));
        std::thread::sleep(plan.length.saturating_sub(began.elapsed()));
        followed.map(|followed| followed.join().unwrap())
    });
    row.lasted = began.elapsed();
    healing.heal();
    let healed = lifecycle::now();
    (row.kept, row.broken) = promises.end();
    if let Some(datacenter) = restored {
        restore::approve(world, datacenter);
    }
    recovered(world, &plan.name, healed, row);
    if let Some(mut followed) = followed {
        followed.is_fenced(world);
        row.note(&followed);
    }
    restore
}

/// Waits until every agent takes every write again, and every replica has what was written after the fault.
fn recovered(world: &World, round: &str, healed: Instant, row: &mut Row) {
    for (prefix, _) in PREFIXES {
        let target = format!("/v1/kv/{prefix}{round}/healed");
        for node in AGENTS.iter().flat_map(|(_, nodes)| nodes) {
            let url = format!("{}{target}", world.agent(node));
            until(&format!("{node} takes writes of {prefix}"), || {
                match ask_within(RECOVERED, "PUT", &url, &[], b"healed") {
                    Ok(reply) if reply.status == 200 => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
    }
    row.writes_after = healed.elapsed();
    for (prefix, home) in PREFIXES {
        let (value, replica) = (format!("{round} followed"), other(home));
        let target = format!("/v1/kv/{prefix}{round}/followed");
        world.ask("PUT", &format!("{}{target}", world.agent(nodes(home)[0])), value.as_bytes());
        // Past the agents: what Consul has there.
        let url = format!("{}{target}?raw", world.consul(&format!("{replica}-services")));
        until(&format!("the replica of {prefix} in {replica} follows"), || {
            let reply = ask_within(RECOVERED, "GET", &url, &[], b"").map_err(|error| error.to_string())?;
            if reply.text() == value {
                return Ok(());
            }
            let hold = restore::holding(world, prefix);
            Err(format!("{} {}; on hold: {hold:?}", reply.status, reply.text()))
        });
    }
    row.replicas_after = healed.elapsed();
    if row.replicas_after > RECOVERED {
        row.broken.push(format!("recovered only after {:?}", row.replicas_after));
    }
}

/// I9: with no client at work each replica comes to be what its home is.
fn calm(world: &World, watcher: &Watcher<'_>, row: &mut Row) {
    let began = lifecycle::now();
    let mut behind = Vec::new();
    while began.elapsed() < RECOVERED {
        watcher.look();
        behind = watcher.behind();
        if behind.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let holds = PREFIXES.map(|(prefix, _)| restore::holding(world, prefix));
    row.broken.push(format!("I9: {}; on hold: {holds:?}", behind.join("; ")));
}

/// Of what was restored, without what compared and missed: a restore leaves all open that came after the snapshot, and where
/// something missed each of that may matter to it, which makes the search for an order too long.
fn judged(mut calls: Vec<Call>, restores: &[Restored]) -> Vec<Call> {
    let is_hit = |key: &str| {
        restores.iter().flat_map(|restore| &restore.prefixes).any(|prefix| key.starts_with(prefix.as_str()))
    };
    calls.retain(|call| match &call.act {
        Act::Cas { key, is_done: false, .. } => call.outcome == Outcome::Open || !is_hit(key),
        _ => true,
    });
    calls
}

/// I4 as clients saw it. A restored Consul's replica has gone back; and a server of Consul's that has just begun to lead, or
/// was stopped and believes that it still does, shows for a moment what was before (such reads are not `?consistent`).
fn positions(load: &Load, plan: &Plan) -> Vec<Violation> {
    let is_of_leader = |fault: &Fault| {
        matches!(
            fault,
            Fault::Kill(Victim::Leader(_) | Victim::Majority(_))
                | Fault::Stop(Victim::Leader(_) | Victim::Majority(_))
        )
    };
    if plan.faults.iter().any(|fault| is_of_leader(fault) || fault.restored().is_some()) {
        return Vec::new();
    }
    history::reads(&load.positions())
}

fn until_acknowledged(load: &Load) {
    let wanted = load.acknowledged() + WRITES;
    until(&format!("{WRITES} more writes are acknowledged"), || {
        let have = load.acknowledged();
        if have >= wanted { Ok(()) } else { Err(format!("{have} of {wanted}")) }
    });
}

/// Deletes what rounds wrote. A lock that is still held keeps its tree; it is tried again later.
pub(super) fn sweep(world: &World, watcher: &Watcher<'_>, left: &mut Vec<String>) {
    left.retain(|tree| {
        let url = format!("{}/v1/kv/{tree}?recurse", world.agent(nodes(PRIMARY)[0]));
        world.ask("DELETE", &url, b"").status != 200
    });
    watcher.settle();
    watcher.forget_the_past();
}

//! Workers in both datacenters count under one lock and are paused past their leases: no update is lost, no token comes
//! twice or goes back, and what a paused worker writes is refused.

use std::{collections::BTreeSet, fmt, sync::Mutex, time::Duration};

use causeway::{lifecycle, model::sync::Token};
use serde_json::{Value, json};

use crate::{
    lab_sync::{
        ask::{NoAnswer, ask_within},
        world::{World, until},
    },
    sync::history::{Act, Call, Moment, Outcome, judge, shown},
};

/// Increments of each worker in the run that goes with every test.
const TIMES: u64 = 60;

/// Longer than the wait in line below.
const PATIENCE: Duration = Duration::from_secs(70);

/// A worker of one datacenter.
struct Worker<'r> {
    run: &'r Run,
    number: usize,
    agent: String,
    /// Before these of its increments it sleeps past its lease.
    pauses: BTreeSet<u64>,
}

/// What both workers of a lock share.
struct Run {
    lock: String,
    counter: String,
    times: u64,
    began: tokio::time::Instant,
    calls: Mutex<Vec<Call>>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Fenced {
    workers: usize,
    times: u64,
    took: Duration,
    pauses: usize,
    /// Writes of workers that had been paused, all of them refused.
    refused: usize,
    grants: usize,
}

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, times, took, pauses, refused, grants } = self;
        let seconds = took.as_secs_f32();
        write!(
            f,
            "{workers} workers of {times} increments: {grants} grants, {pauses} pauses past the lease, {refused} guarded \
             writes refused, no update lost, no token twice or back; {seconds:.1} s"
        )
    }
}

/// Two locks at once, with one pause each: a lease of Consul's ends after 10 s at the earliest.
pub(super) fn what_a_paused_worker_writes_is_refused(world: &World) {
    std::thread::scope(|scope| {
        let pauses = [[vec![20], vec![]], [vec![], vec![20]]];
        let runs = pauses.into_iter().enumerate().map(|(number, pauses)| {
            scope.spawn(move || counted(world, &format!("locks/fenced-{number}"), TIMES, pauses))
        });
        let runs: Vec<_> = runs.collect();
        for run in runs {
            let fenced = run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            println!("  {fenced}");
        }
    });
}

/// Counts, one worker in each datacenter, and judges what happened.
pub(crate) fn counted(world: &World, name: &str, times: u64, pauses: [Vec<u64>; 2]) -> Fenced {
    let run = Run {
        lock: format!("{name}/lock"),
        counter: format!("{name}/counter"),
        times,
        began: lifecycle::now(),
        calls: Mutex::default(),
    };
    let planned = pauses.iter().map(Vec::len).sum();
    let agents = ["primary-services", "secondary-gateway"].map(|node| world.agent(node));
    std::thread::scope(|scope| {
        for (number, (agent, pauses)) in agents.into_iter().zip(pauses).enumerate() {
            let pauses = pauses.into_iter().collect();
            let worker = Worker { run: &run, number, agent, pauses };
            scope.spawn(move || worker.work());
        }
    });
    let took = run.began.elapsed();
    let calls = run.calls.into_inner().unwrap();
    let violations = judge(&calls);
    assert!(violations.is_empty(), "{violations:?}");
    let count = |is: fn(&Call) -> bool| calls.iter().filter(|call| is(call)).count();
    let refused = count(|call| matches!(call.act, Act::Count { .. }) && call.outcome == Outcome::Refused);
    assert!(refused >= planned, "{planned} pauses and {refused} refused writes:\n{}", shown(&calls));
    let counts = |outcome: Outcome| {
        calls.iter().filter(|call| matches!(call.act, Act::Count { .. }) && call.outcome == outcome).count()
            as u64
    };
    let value = world.value(&world.agent("primary-gateway"), &run.counter);
    let value: u64 = value.and_then(|value| value.parse().ok()).unwrap_or_default();
    // Under load an answer may come too late to be known: such a write may count or not.
    let (done, open) = (counts(Outcome::Done), counts(Outcome::Open));
    assert!(done >= 2 * times && (done..=done + open).contains(&value), "{value} of {done} and {open} open");
    let grants = count(|call| matches!(call.act, Act::Grant { .. }));
    Fenced { workers: 2, times, took, pauses: planned, refused, grants }
}

impl Worker<'_> {
    fn work(mut self) {
        let mut done = 0;
        while done < self.run.times {
            let (token, session) = self.acquire();
            let seen = self.counter();
            let is_paused = self.pauses.remove(&done);
            if is_paused {
                self.sleep_past_the_lease(token);
            }
            let is_written = self.write(token, seen);
            assert!(!(is_paused && is_written), "a write with the token {token} of an ended lease passed");
            done += u64::from(is_written);
            let body = json!({ "token": token.to_string(), "session": session }).to_string();
            let _ = self.ask("PUT", &format!("/v1/lock/{}/release", self.run.lock), &[], &body);
        }
    }

    fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<(u16, String), NoAnswer> {
        let url = format!("{}{target}", self.agent);
        ask_within(PATIENCE, method, &url, headers, body.as_bytes()).map(|reply| (reply.status, reply.text()))
    }

    fn acquire(&self) -> (Token, Value) {
        let body = json!({"ttl": "10s", "wait": "60s", "lock_delay": "1s", "id": "worker"}).to_string();
        let target = format!("/v1/lock/{}", self.run.lock);
        until(&format!("worker {} has the lock", self.number), || {
            let began = self.now();
            let (status, text) = self.ask("POST", &target, &[], &body).map_err(|error| error.to_string())?;
            let granted: Value = serde_json::from_str(&text).unwrap_or_default();
            let token = granted["token"].as_str().and_then(|token| token.parse::<Token>().ok());
            let token = token.filter(|_| status == 200).ok_or_else(|| format!("{status} {text}"))?;
            self.note(began, Outcome::Done, Act::Grant { lock: self.run.lock.clone(), token });
            Ok((token, granted["session"].clone()))
        })
    }

    fn counter(&self) -> u64 {
        until("the counter is read", || {
            let target = format!("/v1/kv/{}?raw&consistent", self.run.counter);
            match self.ask("GET", &target, &[], "").map_err(|error| error.to_string())? {
                (404, _) => Ok(0),
                (200, text) => text.parse().map_err(|error| format!("{error}: {text}")),
                (status, text) => Err(format!("{status} {text}")),
            }
        })
    }

    /// Until somebody else was granted the lock.
    fn sleep_past_the_lease(&self, token: Token) {
        let lock = &self.run.lock;
        until(&format!("the other worker is granted {lock} after {token}"), || {
            let calls = self.run.calls.lock().unwrap();
            let is_later =
                |call: &Call| matches!(&call.act, Act::Grant { token: other, .. } if *other > token);
            if calls.iter().any(is_later) { Ok(()) } else { Err("not yet".to_owned()) }
        });
    }

    fn write(&self, token: Token, from: u64) -> bool {
        let Run { lock, counter, .. } = self.run;
        let (began, to) = (self.now(), from + 1);
        let guard = [("X-Lock", lock.as_str()), ("X-Lock-Token", &token.to_string())];
        let outcome = match self.ask("PUT", &format!("/v1/kv/{counter}"), &guard, &to.to_string()) {
            Ok((status, _)) => Outcome::of(status),
            Err(NoAnswer::NotSent(_)) => Outcome::Refused,
            Err(NoAnswer::Lost(_)) => Outcome::Open,
        };
        self.note(began, outcome, Act::Count { lock: lock.clone(), token, from, to });
        outcome == Outcome::Done
    }

    fn note(&self, began: Moment, outcome: Outcome, act: Act) {
        let call = Call { client: self.number, began, ended: self.now(), outcome, act };
        self.run.calls.lock().unwrap().push(call);
    }

    fn now(&self) -> Moment {
        u64::try_from(self.run.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

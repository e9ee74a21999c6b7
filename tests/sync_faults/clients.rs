//! Clients in both datacenters, through all agents: registers, lists, locks and what locks guard. What each call came to is
//! recorded as in the simulation, and judged by the same checkers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use causeway::{lifecycle, model::sync::Token};
use serde_json::{Value, json};

use crate::{
    lab_sync::{
        ask::{NoAnswer, Reply, ask_within},
        world::{AGENTS, World},
    },
    sync::history::{self, Act, Call, Moment, Number, Outcome},
};

/// Longer than an agent takes to say that it does not know: 2 s to reach a home and 5 s to commit.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two calls of a client.
const THINK_MS: std::ops::Range<u64> = 10..80;

/// A client that had no answer takes a breath.
const BREATH: Duration = Duration::from_millis(300);

/// Makes the value a blob's.
const BIG: usize = 5000;

/// Shown where a home's index is not known: no raft reaches it.
const UNKNOWN_INDEX: u64 = 9_007_199_254_740_991;

/// What all clients of one round share.
pub(super) struct Load {
    round: String,
    agents: Vec<Vec<String>>,
    calls: Mutex<Vec<Call>>,
    positions: Mutex<Vec<history::Shown>>,
    breaches: Mutex<Vec<String>>,
    number: AtomicU64,
    acknowledged: AtomicU64,
    is_done: AtomicBool,
    /// Held by every call; who wants that none is under way takes it alone.
    gate: RwLock<()>,
    began: tokio::time::Instant,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Registers,
    Locks,
    /// Keys that nobody else writes, read back at once.
    Own,
}

/// Who works where: by the number of the datacenter.
const CLIENTS: [(Work, usize); 8] = [
    (Work::Registers, 0),
    (Work::Registers, 1),
    (Work::Registers, 0),
    (Work::Registers, 1),
    (Work::Locks, 0),
    (Work::Locks, 1),
    (Work::Own, 0),
    (Work::Own, 1),
];

impl Load {
    /// Of a round, whose keys are its own.
    pub(super) fn new(world: &World, round: &str) -> Self {
        let agents = |nodes: &[&str; 2]| nodes.iter().map(|node| world.agent(node)).collect();
        Self {
            round: round.to_owned(),
            agents: AGENTS.iter().map(|(_, nodes)| agents(nodes)).collect(),
            calls: Mutex::default(),
            positions: Mutex::default(),
            breaches: Mutex::default(),
            number: AtomicU64::new(1),
            acknowledged: AtomicU64::new(0),
            is_done: AtomicBool::new(false),
            gate: RwLock::new(()),
            began: lifecycle::now(),
        }
    }

    /// Starts all clients in this scope.
    pub(super) fn start<'s>(&'s self, scope: &'s std::thread::Scope<'s, '_>, rng: &mut fastrand::Rng) {
        for (number, (work, datacenter)) in CLIENTS.into_iter().enumerate() {
            let client = Client { load: self, number, datacenter, rng: rng.fork() };
            scope.spawn(move || client.run(work));
        }
    }

    pub(super) fn end(&self) {
        self.is_done.store(true, Ordering::Relaxed);
    }

    /// Does something while no call is under way.
    pub(super) fn at_rest<T>(&self, act: impl FnOnce() -> T) -> T {
        let _alone = self.gate.write().unwrap();
        act()
    }

    /// How many writes were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// How far answers said that replicas are.
    pub(super) fn positions(&self) -> Vec<history::Shown> {
        self.positions.lock().unwrap().clone()
    }

    /// What broke a promise that a client sees by itself.
    pub(super) fn breaches(&self) -> Vec<String> {
        self.breaches.lock().unwrap().clone()
    }

    /// Reads everything once more, now that all is well: what is there is part of the history.
    pub(super) fn read_all(&self) {
        let mut client = Client { load: self, number: 99, datacenter: 1, rng: fastrand::Rng::with_seed(1) };
        let own = (0..CLIENTS.len()).filter(|number| CLIENTS[*number].0 == Work::Own).map(own);
        for name in REGISTERS.into_iter().map(str::to_owned).chain(own) {
            client.read(&self.config(&name));
        }
        client.read_lists();
    }

    /// How many calls came out how.
    pub(super) fn covered(&self) -> BTreeMap<&'static str, usize> {
        let mut covered = BTreeMap::new();
        for call in self.calls.lock().unwrap().iter() {
            let what = match (call.outcome, &call.act) {
                (Outcome::Open, _) => "open",
                (Outcome::Refused, _) => "refused",
                (_, Act::Read { .. } | Act::Lists { .. }) => "read",
                (_, Act::Grant { .. }) => "granted",
                (_, Act::Cas { is_done: false, .. }) => "missed",
                _ => "acknowledged",
            };
            *covered.entry(what).or_default() += 1;
        }
        covered
    }

    fn config(&self, name: &str) -> String {
        format!("config/{}/{name}", self.round)
    }

    fn locks(&self, name: &str) -> String {
        format!("locks/{}/{name}", self.round)
    }

    /// A read of this key said how far the replica is.
    fn note_position(&self, client: usize, agent: &str, began: Moment, key: &str, reply: &Reply) {
        let position = reply.header("x-sync-seq").and_then(|position| position.parse().ok());
        let Some(position) = position.filter(|_| matches!(reply.status, 200 | 404)) else { return };
        let reader = format!("client {client} at {agent}");
        let prefix = key.split_inclusive('/').next().unwrap_or_default().to_owned();
        self.positions.lock().unwrap().push(history::Shown { reader, prefix, began, position });
    }

    /// Of this round, in ns.
    pub(super) fn now(&self) -> Moment {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Registers; those below `t/` are deleted together too, and the big one goes through blobs.
const REGISTERS: [&str; 5] = ["a", "b", "t/a", "t/b", "big"];

/// Lists that one transaction appends to.
const LISTS: [&str; 2] = ["list1", "list2"];

struct Client<'l> {
    load: &'l Load,
    number: usize,
    datacenter: usize,
    rng: fastrand::Rng,
}

/// A key as it was shown.
struct Shown {
    value: Vec<u8>,
    index: u64,
}

impl Client<'_> {
    fn run(mut self, work: Work) {
        let mut open = BTreeSet::new();
        while !self.load.is_done.load(Ordering::Relaxed) {
            let is_answered = match work {
                Work::Registers => self.register(),
                Work::Locks => self.count(),
                Work::Own => self.own(&mut open),
            };
            let think = Duration::from_millis(self.rng.u64(THINK_MS));
            std::thread::sleep(if is_answered { think } else { BREATH });
        }
    }

    /// An agent of the client's datacenter.
    fn agent(&mut self) -> String {
        let agents = &self.load.agents[self.datacenter];
        agents[self.rng.usize(0..agents.len())].clone()
    }

    fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, NoAnswer> {
        let agent = self.agent();
        self.ask_at(&agent, method, target, headers, body)
    }

    fn ask_at(
        &self,
        agent: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, NoAnswer> {
        let _under_way = self.load.gate.read().unwrap();
        ask_within(PATIENCE, method, &format!("{agent}{target}"), headers, body.as_bytes())
    }

    fn note(&self, began: Moment, outcome: Outcome, act: Act) -> bool {
        let ended = if outcome == Outcome::Open { Moment::MAX } else { self.load.now() };
        let is_write = !matches!(act, Act::Read { .. } | Act::Lists { .. });
        if outcome == Outcome::Done && is_write {
            self.load.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        let call = Call { client: self.number, began, ended, outcome, act };
        self.load.calls.lock().unwrap().push(call);
        outcome == Outcome::Done
    }

    fn next_number(&self) -> Number {
        self.load.number.fetch_add(1, Ordering::Relaxed)
    }

    fn register(&mut self) -> bool {
        let key = self.load.config(REGISTERS[self.rng.usize(0..REGISTERS.len())]);
        match self.rng.u32(0..100) {
            0..25 => self.read(&key),
            25..50 => self.write(&key),
            50..70 => self.cas(&key),
            70..78 => self.delete(&key),
            78..82 => self.delete_tree(),
            82..95 => self.append(),
            _ => self.read_lists(),
        }
    }

    /// None in the answer for a key that is missing; none at all when there is no answer.
    fn get(&mut self, key: &str, query: &str) -> Option<Option<Shown>> {
        let (agent, began) = (self.agent(), self.load.now());
        let reply = self.ask_at(&agent, "GET", &format!("/v1/kv/{key}{query}"), &[], "").ok()?;
        self.load.note_position(self.number, &agent, began, key, &reply);
        match reply.status {
            404 => Some(None),
            200 => shown(&reply).map(Some),
            _ => None,
        }
    }

    fn read(&mut self, key: &str) -> bool {
        let began = self.load.now();
        let Some(shown) = self.get(key, "?consistent") else { return false };
        let seen = shown.map(|shown| number(&shown.value));
        self.note(began, Outcome::Done, Act::Read { key: key.to_owned(), seen })
    }

    /// A write that says true or false.
    fn change(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (Outcome, bool) {
        match self.ask(method, target, headers, body) {
            Ok(reply) => (Outcome::of(reply.status), reply.body.trim_ascii() == b"true"),
            Err(NoAnswer::NotSent(_)) => (Outcome::Refused, false),
            Err(NoAnswer::Lost(_)) => (Outcome::Open, false),
        }
    }

    fn write(&mut self, key: &str) -> bool {
        let (began, number) = (self.load.now(), self.next_number());
        let (outcome, _) = self.change("PUT", &format!("/v1/kv/{key}"), &[], &value(key, number));
        self.note(began, outcome, Act::Write { key: key.to_owned(), value: Some(number) })
    }

    fn delete(&mut self, key: &str) -> bool {
        let began = self.load.now();
        let (outcome, _) = self.change("DELETE", &format!("/v1/kv/{key}"), &[], "");
        self.note(began, outcome, Act::Write { key: key.to_owned(), value: None })
    }

    fn delete_tree(&mut self) -> bool {
        let (began, prefix) = (self.load.now(), self.load.config("t/"));
        let (outcome, _) = self.change("DELETE", &format!("/v1/kv/{prefix}?recurse"), &[], "");
        let keys = REGISTERS.iter().map(|name| self.load.config(name));
        let keys = keys.filter(|key| key.starts_with(&prefix)).collect();
        self.note(began, outcome, Act::DeleteTree { prefix, keys })
    }

    /// Compares with what the own datacenter shows, which may be old: that must come out as a refusal.
    fn cas(&mut self, key: &str) -> bool {
        let Some(seen) = self.get(key, "") else { return false };
        let (from, index) = seen.map_or((None, 0), |shown| (Some(number(&shown.value)), shown.index));
        if index == UNKNOWN_INDEX {
            return false;
        }
        let (began, to) = (self.load.now(), self.next_number());
        let (outcome, is_done) =
            self.change("PUT", &format!("/v1/kv/{key}?cas={index}"), &[], &value(key, to));
        self.note(began, outcome, Act::Cas { key: key.to_owned(), from, to, is_done })
    }

    fn append(&mut self) -> bool {
        let item = self.next_number();
        let (mut lists, mut ops) = (Vec::new(), Vec::new());
        for name in LISTS {
            let key = self.load.config(name);
            let Some(shown) = self.get(&key, "?consistent") else { return false };
            let (items, index) = shown.map_or((Vec::new(), 0), |shown| (items(&shown.value), shown.index));
            let longer: Vec<Number> = items.iter().copied().chain([item]).collect();
            let value = BASE64_STANDARD.encode(json!(longer).to_string());
            ops.push(json!({"KV": {"Verb": "cas", "Key": key, "Value": value, "Index": index}}));
            lists.push((key, items));
        }
        let began = self.load.now();
        let (outcome, _) = self.change("PUT", "/v1/txn", &[], &json!(ops).to_string());
        self.note(began, outcome, Act::Append { item, lists })
    }

    fn read_lists(&mut self) -> bool {
        let began = self.load.now();
        let op = |name| json!({"KV": {"Verb": "get", "Key": self.load.config(name)}});
        let ops: Vec<Value> = LISTS.into_iter().map(op).collect();
        let Ok(reply) = self.ask("PUT", "/v1/txn?consistent", &[], &json!(ops).to_string()) else {
            return false;
        };
        // A list that is missing is a 409.
        let Some(body) = json_of(&reply).filter(|_| reply.status == 200) else { return false };
        let seen = body["Results"].as_array().into_iter().flatten().filter_map(|result| {
            let key = result["KV"]["Key"].as_str()?.to_owned();
            Some((key, items(&BASE64_STANDARD.decode(result["KV"]["Value"].as_str()?).ok()?)))
        });
        self.note(began, Outcome::Done, Act::Lists { seen: seen.collect() })
    }

    /// One increment under the lock, by the lock API or with a session.
    fn count(&mut self) -> bool {
        let lock = self.load.locks("lock");
        if self.rng.u32(0..4) == 0 { self.count_with_session(&lock) } else { self.count_with_lock(&lock) }
    }

    fn count_with_lock(&mut self, lock: &str) -> bool {
        let began = self.load.now();
        let body = json!({"ttl": "10s", "wait": "5s", "lock_delay": "0s", "id": "fault"}).to_string();
        let Ok(reply) = self.ask("POST", &format!("/v1/lock/{lock}"), &[], &body) else { return false };
        let Some(granted) = json_of(&reply).filter(|_| reply.status == 200) else { return false };
        let token = granted["token"].as_str().and_then(|token| token.parse().ok());
        let token: Token = token.unwrap_or_else(|| panic!("a lock without a token: {granted}"));
        self.note(began, Outcome::Done, Act::Grant { lock: lock.to_owned(), token });
        let is_counted = self.increment(lock, token);
        let body = json!({"token": token.to_string(), "session": granted["session"]}).to_string();
        self.insist("PUT", &format!("/v1/lock/{lock}/release"), &body);
        is_counted
    }

    /// As a client of Consul's own API does: a session, acquire, work, release.
    fn count_with_session(&mut self, lock: &str) -> bool {
        let body = json!({"TTL": "10s", "LockDelay": "0s", "Behavior": "release"}).to_string();
        let Ok(reply) = self.ask("PUT", "/v1/session/create", &[], &body) else { return false };
        let Some(id) = json_of(&reply).and_then(|made| Some(made["ID"].as_str()?.to_owned())) else {
            return false;
        };
        let began = self.load.now();
        let acquired = self.ask("PUT", &format!("/v1/kv/{lock}?acquire={id}"), &[], "fault");
        let is_held = |reply: &Reply| reply.status == 200 && reply.body.trim_ascii() == b"true";
        let mut is_counted = false;
        if let Some(reply) = acquired.ok().filter(is_held) {
            let token = reply.header("x-lock-token").and_then(|token| token.parse().ok());
            let token: Token = token.unwrap_or_else(|| panic!("a lock without a token: {reply:?}"));
            self.note(began, Outcome::Done, Act::Grant { lock: lock.to_owned(), token });
            is_counted = self.increment(lock, token);
            self.insist("PUT", &format!("/v1/kv/{lock}?release={id}"), "");
        }
        self.insist("PUT", &format!("/v1/session/destroy/{id}"), "");
        is_counted
    }

    fn increment(&mut self, lock: &str, token: Token) -> bool {
        let counter = self.load.locks("counter");
        let Some(shown) = self.get(&counter, "?consistent") else { return false };
        let from = shown.map_or(0, |shown| number(&shown.value));
        let began = self.load.now();
        let guard = [("x-lock", lock), ("x-lock-token", &token.to_string())];
        let to = from + 1;
        let (outcome, _) = self.change("PUT", &format!("/v1/kv/{counter}"), &guard, &to.to_string());
        self.note(began, outcome, Act::Count { lock: lock.to_owned(), token, from, to })
    }

    /// Gives something back: what is not given back is free when its session expires.
    fn insist(&mut self, method: &str, target: &str, body: &str) {
        for _ in 0..3 {
            match self.ask(method, target, &[], body) {
                Ok(reply) if reply.status < 500 => return,
                _ => std::thread::sleep(BREATH),
            }
        }
    }

    /// Read your writes. A write whose outcome is not known may be executed after a later one.
    fn own(&mut self, open: &mut BTreeSet<Number>) -> bool {
        let key = self.load.config(&own(self.number));
        let (began, written, agent) = (self.load.now(), self.next_number(), self.agent());
        let at = format!("{agent}/v1/kv/{key}");
        let _under_way = self.load.gate.read().unwrap();
        let reply = ask_within(PATIENCE, "PUT", &at, &[], written.to_string().as_bytes());
        let outcome = match &reply {
            Ok(reply) => Outcome::of(reply.status),
            Err(NoAnswer::NotSent(_)) => Outcome::Refused,
            Err(NoAnswer::Lost(_)) => Outcome::Open,
        };
        if outcome == Outcome::Open {
            open.insert(written);
        }
        let act = Act::Write { key: key.clone(), value: Some(written) };
        let is_done = self.note(began, outcome, act);
        let is_applied = |reply: &Reply| reply.status == 200 && reply.header("x-sync-applied").is_none();
        if !reply.as_ref().is_ok_and(is_applied) {
            return is_done;
        }
        let began = self.load.now();
        let Ok(reply) = ask_within(PATIENCE, "GET", &at, &[], b"") else { return false };
        self.load.note_position(self.number, &agent, began, &key, &reply);
        let seen = shown(&reply).map(|shown| number(&shown.value));
        let is_seen = seen.is_some_and(|seen| seen >= written || open.contains(&seen));
        if matches!(reply.status, 200 | 404) && !is_seen {
            let text = format!("G5: {at} shows {seen:?} after {written} was acknowledged: {reply:?}");
            self.load.breaches.lock().unwrap().push(text);
        }
        is_done
    }
}

/// The key that only this client writes.
fn own(number: usize) -> String {
    format!("own-{number}")
}

fn value(key: &str, number: Number) -> String {
    if key.ends_with("big") { format!("{number} {}", "x".repeat(BIG)) } else { number.to_string() }
}

fn json_of(reply: &Reply) -> Option<Value> {
    serde_json::from_slice(&reply.body).ok()
}

fn shown(reply: &Reply) -> Option<Shown> {
    let body = json_of(reply)?;
    let pair = body.get(0)?;
    let value = BASE64_STANDARD.decode(pair["Value"].as_str().unwrap_or_default()).ok()?;
    Some(Shown { value, index: pair["ModifyIndex"].as_u64()? })
}

/// The number that a value begins with; one that none of ours begins with, where it is none.
fn number(value: &[u8]) -> Number {
    let text = String::from_utf8_lossy(value);
    text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(Number::MAX)
}

fn items(value: &[u8]) -> Vec<Number> {
    serde_json::from_slice(value)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(value)))
}

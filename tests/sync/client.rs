//! What clients do, and how they record what came of it.

mod locks;
mod shown;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use causeway::{lifecycle, sync::endpoint::Response};
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use self::shown::{Shown, items, json_of, number, shown};
use crate::sync::{
    history::{self, Act, Call, Moment, Number, Outcome, Use},
    world::{Reply, World, node},
};

/// Shown where a home's index is not known: no raft reaches it.
const UNKNOWN_INDEX: u64 = 9_007_199_254_740_991;

/// The keys of registers; those below `TREE` are deleted together too.
pub(crate) const REGISTERS: [&str; 5] = ["config/a", "config/b", "config/t/a", "config/t/b", "config/big"];
const TREE: &str = "config/t/";

/// Lists that one transaction appends to.
pub(crate) const LISTS: [&str; 2] = ["config/list1", "config/list2"];

/// A lock and the counter that it guards.
pub(crate) const LOCK: &str = "locks/lock";
pub(crate) const COUNTER: &str = "locks/counter";

/// What is done.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Read(usize),
    LocalRead(usize),
    Write(usize),
    Cas(usize),
    Delete(usize),
    DeleteTree,
    Append,
    ReadLists,
    /// Deletes the key of the lock, as `consul lock` does at its end.
    DeleteLock,
    /// Counts under the lock, so many ms after it was granted.
    Count {
        hold_ms: u64,
    },
    /// The same with a session, as `consul lock` takes locks.
    Session {
        hold_ms: u64,
    },
    /// The same, and the count is guarded as Consul's own users do: by `check-session` in its transaction.
    Checked {
        hold_ms: u64,
    },
}

/// Work of one client at one agent.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) client: usize,
    /// After the client's work before.
    pub(crate) after_ms: u64,
    pub(crate) datacenter: usize,
    pub(crate) agent: usize,
    /// Its own, and the value of what it writes.
    pub(crate) number: Number,
    /// Without one everything is allowed.
    pub(crate) token: Option<&'static str>,
    pub(crate) work: Work,
}

/// What was recorded. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Record {
    calls: Arc<Mutex<Vec<Call>>>,
    uses: Arc<Mutex<Vec<Use>>>,
    shown: Arc<Mutex<Vec<history::Shown>>>,
}

impl Record {
    /// All of it.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// How far replicas were said to be.
    pub(crate) fn shown(&self) -> Vec<history::Shown> {
        self.shown.lock().unwrap().clone()
    }

    /// What was done with tokens.
    pub(crate) fn uses(&self) -> Vec<Use> {
        self.uses.lock().unwrap().clone()
    }
}

/// One client at work.
pub(crate) struct Client<'w> {
    pub(crate) world: &'w World,
    pub(crate) record: Record,
    pub(crate) task: Task,
    /// The token of a lock is what the client takes for one.
    pub(crate) strategy: Strategy,
}

/// What a client takes for a token, and for an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// What it was told.
    #[default]
    Told,
    /// `LockIndex` of the lock's key.
    LockIndex,
    /// Compares with the index in the Consul of its own datacenter, read past the agent.
    OwnIndex,
    /// Commits as the datastore did whose owner is told by the lock key's value: writes its own number there, whoever
    /// holds the lock now, and then what the lock guards.
    ValueFirst,
}

impl Client<'_> {
    /// Does its work to the end.
    pub(crate) async fn work(&self) {
        match self.task.work {
            Work::Read(at) => self.read(REGISTERS[at]).await,
            Work::LocalRead(at) => drop(self.get(REGISTERS[at], "").await),
            Work::Write(at) => self.write(REGISTERS[at]).await,
            Work::Cas(at) => self.cas(REGISTERS[at]).await,
            Work::Delete(at) => self.delete(REGISTERS[at]).await,
            Work::DeleteTree => self.delete_tree().await,
            Work::DeleteLock => self.delete_lock().await,
            Work::Append => self.append().await,
            Work::ReadLists => self.read_lists().await,
            Work::Count { hold_ms } => self.count(hold_ms).await,
            Work::Session { hold_ms } => self.session(hold_ms, false).await,
            Work::Checked { hold_ms } => self.session(hold_ms, true).await,
        }
    }

    fn began(&self) -> Moment {
        self.world.net.moment()
    }

    fn note(&self, began: Moment, outcome: Outcome, act: Act) {
        let ended = if outcome == Outcome::Open { Moment::MAX } else { self.world.net.moment() };
        if outcome == Outcome::Done {
            written(&act).into_iter().for_each(|key| self.used(began, key, true));
        }
        self.record.calls.lock().unwrap().push(Call { client: self.task.client, began, ended, outcome, act });
    }

    /// It was done with the client's token.
    fn used(&self, began: Moment, key: &str, is_write: bool) {
        let (Some(token), ended) = (self.task.token, self.world.net.moment()) else { return };
        self.record.uses.lock().unwrap().push(Use { token, key: key.to_owned(), is_write, began, ended });
    }

    async fn ask(&self, method: Method, target: &str, headers: &[(&str, String)], body: String) -> Reply {
        let token = self.task.token.map(|token| ("x-consul-token", token.to_owned()));
        let headers: Vec<(&str, String)> = headers.iter().cloned().chain(token).collect();
        let headers = headers.as_slice();
        self.world.ask(self.task.datacenter, self.task.agent, method, target, headers, body).await
    }

    /// None in the answer for a key that is missing; none at all when there is no answer.
    async fn get(&self, key: &str, query: &str) -> Option<Option<Shown>> {
        let began = self.began();
        let reply = self.ask(Method::GET, &format!("/v1/kv/{key}{query}"), &[], String::new()).await;
        let Reply::Answer(response) = reply else { return None };
        if matches!(response.status, 200 | 404) {
            self.used(began, key, false);
            self.note_position(began, key, &response);
        }
        match response.status {
            404 => Some(None),
            200 => {
                let shown = shown(&response)?;
                if shown.index != UNKNOWN_INDEX && !key.starts_with("locks/") {
                    self.world.check_index(key, shown.index, &shown.value);
                }
                Some(Some(shown))
            }
            _ => None,
        }
    }

    /// A replica that was restored has gone back, and says so.
    fn note_position(&self, began: Moment, key: &str, response: &Response) {
        let at = self.task.datacenter;
        let position = response.header("x-sync-seq").and_then(|position| position.parse().ok());
        let Some(position) = position.filter(|_| !self.world.is_restored(at)) else { return };
        let reader = format!("client {} at {}", self.task.client, node(at, self.task.agent));
        let prefix = key.split_inclusive('/').next().unwrap_or_default().to_owned();
        self.record.shown.lock().unwrap().push(history::Shown { reader, prefix, began, position });
    }

    async fn read(&self, key: &str) {
        let began = self.began();
        if let Some(shown) = self.get(key, "?consistent").await {
            let seen = shown.map(|shown| number(&shown.value));
            self.note(began, Outcome::Done, Act::Read { key: key.to_owned(), seen });
        }
    }

    /// A write that says true or false.
    async fn change(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, String)],
        body: String,
    ) -> (Outcome, bool) {
        match self.ask(method, target, headers, body).await {
            Reply::Answer(response) => (Outcome::of(response.status), response.body.trim_ascii() == b"true"),
            Reply::NotSent => (Outcome::Refused, false),
            Reply::Silence => (Outcome::Open, false),
        }
    }

    /// What is large goes through blobs.
    fn value(&self, key: &str) -> String {
        let number = self.task.number;
        if key.ends_with("big") { format!("{number} {}", "x".repeat(5000)) } else { number.to_string() }
    }

    async fn write(&self, key: &str) {
        let began = self.began();
        let (outcome, _) = self.change(Method::PUT, &format!("/v1/kv/{key}"), &[], self.value(key)).await;
        self.note(began, outcome, Act::Write { key: key.to_owned(), value: Some(self.task.number) });
    }

    async fn delete(&self, key: &str) {
        let began = self.began();
        let (outcome, _) = self.change(Method::DELETE, &format!("/v1/kv/{key}"), &[], String::new()).await;
        self.note(began, outcome, Act::Write { key: key.to_owned(), value: None });
    }

    async fn delete_tree(&self) {
        let began = self.began();
        let target = format!("/v1/kv/{TREE}?recurse");
        let (outcome, _) = self.change(Method::DELETE, &target, &[], String::new()).await;
        let keys =
            REGISTERS.iter().filter(|key| key.starts_with(TREE)).map(|key| (*key).to_owned()).collect();
        self.note(began, outcome, Act::DeleteTree { prefix: TREE.to_owned(), keys });
    }

    /// Compares with what the own datacenter shows, which may be old: that must come out as a refusal.
    async fn cas(&self, key: &str) {
        let seen = match self.strategy {
            Strategy::OwnIndex => Some(self.local(key)),
            _ => self.get(key, "").await,
        };
        let Some(seen) = seen else { return };
        let (from, index) = seen.map_or((None, 0), |shown| (Some(number(&shown.value)), shown.index));
        let began = self.began();
        let target = format!("/v1/kv/{key}?cas={index}");
        let (outcome, is_done) = self.change(Method::PUT, &target, &[], self.value(key)).await;
        let is_told = outcome != Outcome::Done || is_done || index != UNKNOWN_INDEX;
        let outcome = if is_told { outcome } else { Outcome::Refused };
        let act = Act::Cas { key: key.to_owned(), from, to: self.task.number, is_done };
        self.note(began, outcome, act);
    }

    /// Past the agent.
    fn local(&self, key: &str) -> Option<Shown> {
        let consul = self.world.net.consul(&crate::sync::world::datacenter(self.task.datacenter)).clone();
        consul.look(|model| model.get(key).1).map(|pair| Shown {
            value: pair.value.to_vec(),
            index: pair.modify_index,
            lock_index: pair.lock_index,
        })
    }

    async fn append(&self) {
        let mut lists = Vec::new();
        let mut ops = Vec::new();
        for key in LISTS {
            let Some(shown) = self.get(key, "?consistent").await else { return };
            let (items, index) = shown.map_or((Vec::new(), 0), |shown| (items(&shown.value), shown.index));
            let longer: Vec<Number> = items.iter().copied().chain([self.task.number]).collect();
            let value = BASE64_STANDARD.encode(json!(longer).to_string());
            ops.push(json!({"KV": {"Verb": "cas", "Key": key, "Value": value, "Index": index}}));
            lists.push((key.to_owned(), items));
        }
        let began = self.began();
        let (outcome, _) = self.change(Method::PUT, "/v1/txn", &[], json!(ops).to_string()).await;
        self.note(began, outcome, Act::Append { item: self.task.number, lists });
    }

    async fn read_lists(&self) {
        let began = self.began();
        let ops: Vec<Value> = LISTS.iter().map(|key| json!({"KV": {"Verb": "get", "Key": key}})).collect();
        let reply = self.ask(Method::PUT, "/v1/txn?consistent", &[], json!(ops).to_string()).await;
        let Reply::Answer(response) = reply else { return };
        let Some(body) = json_of(&response).filter(|_| response.status == 200) else { return };
        LISTS
            .iter()
            .filter(|key| body.to_string().contains(*key))
            .for_each(|key| self.used(began, key, false));
        let results = body["Results"].as_array().cloned().unwrap_or_default();
        let seen = results
            .iter()
            .filter_map(|result| {
                let key = result["KV"]["Key"].as_str()?.to_owned();
                Some((key, items(&BASE64_STANDARD.decode(result["KV"]["Value"].as_str()?).ok()?)))
            })
            .collect();
        self.note(began, Outcome::Done, Act::Lists { seen });
    }
}

/// The keys that an act changed.
fn written(act: &Act) -> Vec<&str> {
    match act {
        Act::Write { key, .. } | Act::Cas { key, .. } => vec![key],
        Act::DeleteTree { prefix, .. } => vec![prefix],
        Act::Append { lists, .. } => lists.iter().map(|(key, _)| key.as_str()).collect(),
        Act::Grant { lock, .. } => vec![lock],
        Act::Count { .. } => vec![COUNTER],
        Act::Read { .. } | Act::Lists { .. } => Vec::new(),
    }
}

/// Does the work of one client, one after the other.
pub(crate) async fn run(world: &World, record: Record, tasks: Vec<Task>, strategy: Strategy) {
    for task in tasks {
        sleep(Duration::from_millis(task.after_ms)).await;
        Client { world, record: record.clone(), task, strategy }.work().await;
    }
}

/// Reads everything until it is read.
pub(crate) async fn read_all(
    world: &World,
    record: &Record,
    end: tokio::time::Instant,
) -> Result<(), String> {
    let mut unread: Vec<Work> = (0..REGISTERS.len()).map(Work::Read).collect();
    unread.push(Work::ReadLists);
    while let Some(work) = unread.pop() {
        if lifecycle::now() > end {
            return Err(format!("{work:?} is not answered after all faults ended"));
        }
        let before = record.calls().len();
        let work_again = work.clone();
        let task = Task {
            client: 999,
            after_ms: 0,
            datacenter: 0,
            agent: 0,
            number: 0,
            token: None,
            work: work_again,
        };
        let client = Client { world, record: record.clone(), task, strategy: Strategy::Told };
        client.work().await;
        let lists_missing = matches!(work, Work::ReadLists);
        if record.calls().len() == before && !lists_missing {
            unread.push(work);
            sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}

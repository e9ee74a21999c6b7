//! Looks at the Consul of both datacenters all the time, and has witnesses judge what is there.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use causeway::{
    lab::plan::{PREFIXES, PRIMARY, SECONDARY},
    lifecycle,
    model::{kv::Pair, name::Datacenter, sync::PrefixId},
    sync::{
        layout::Layout,
        record::{self, Change, Entry, Hash, Head, Value},
    },
};
use serde_json::{Value as Json, json};

use crate::{
    lab_sync::{
        ask::ask_within,
        world::{World, until},
    },
    sync::history::{Side, Violation, Witness},
};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// Consul that does not answer by then is looked at again later.
const ANSWER: Duration = Duration::from_secs(2);

/// Entries that are asked for at once: a transaction of Consul's has 64 operations.
const AT_ONCE: u64 = 60;

type Pairs = BTreeMap<String, Pair>;

/// One prefix, watched in both datacenters.
struct Watched {
    prefix: &'static str,
    home: &'static str,
    layout: Layout,
    witness: Witness,
    /// What the replica was, not judged yet: it can be so far as only the next look at home shows.
    waiting: Vec<Pairs>,
}

/// Both prefixes.
pub(super) struct Watcher<'w> {
    world: &'w World,
    watched: Mutex<Vec<Watched>>,
    is_done: AtomicBool,
}

impl<'w> Watcher<'w> {
    /// The prefixes have no locks yet.
    pub(super) fn new(world: &'w World) -> Self {
        let watched = PREFIXES.iter().map(|(prefix, home)| Watched {
            prefix,
            home,
            layout: Layout::new(&PrefixId::of(prefix)),
            witness: Witness::new(prefix),
            waiting: Vec::new(),
        });
        Self { world, watched: Mutex::new(watched.collect()), is_done: AtomicBool::new(false) }
    }

    /// Waits until every replica was seen where its home is.
    pub(super) fn settle(&self) {
        until("replicas are where their homes are", || {
            self.look();
            let behind = self.behind();
            if behind.is_empty() { Ok(()) } else { Err(behind.join("; ")) }
        });
    }

    /// Looks until it is told that it is done.
    pub(super) fn run(&self) {
        while !self.is_done.load(Ordering::Relaxed) {
            let began = lifecycle::now();
            self.look();
            std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
        }
    }

    pub(super) fn end(&self) {
        self.is_done.store(true, Ordering::Relaxed);
    }

    /// One look at both datacenters. What cannot be read now is left for the next one.
    pub(super) fn look(&self) {
        let mut watched = self.watched.lock().unwrap();
        for datacenter in [SECONDARY, PRIMARY] {
            let Ok(all) = self.sample(datacenter, &watched) else { continue };
            for one in &mut *watched {
                let mut pairs = of_prefix(&all, one);
                if one.home != datacenter {
                    one.waiting.push(pairs);
                } else if self.complete(one, &mut pairs).is_some() && one.witness.look_sampled(&pairs) {
                    let replica = Datacenter::from(one.replica());
                    for before in std::mem::take(&mut one.waiting) {
                        one.witness.look(&replica, Side::Replica, &before);
                    }
                }
            }
        }
    }

    /// Data and progress of both prefixes, of one moment.
    fn sample(&self, datacenter: &str, watched: &[Watched]) -> Result<Pairs, String> {
        let of = |one: &Watched| {
            let progress = if one.home == datacenter { one.layout.head() } else { one.layout.state() };
            [op("get", &progress), op("get-tree", one.prefix)]
        };
        self.txn(datacenter, watched.iter().flat_map(of).collect())
    }

    fn txn(&self, datacenter: &str, ops: Vec<Json>) -> Result<Pairs, String> {
        // Through a client of Consul's, which finds a server that answers.
        let url = format!("{}/v1/txn?consistent", self.world.consul(&format!("{datacenter}-gateway")));
        let reply = ask_within(ANSWER, "PUT", &url, &[], Json::from(ops).to_string().as_bytes());
        let reply = reply.map_err(|error| error.to_string())?;
        if reply.status != 200 {
            return Err(format!("{} {}", reply.status, reply.text()));
        }
        let body: Json = serde_json::from_slice(&reply.body).map_err(|error| error.to_string())?;
        let results = body["Results"].as_array().ok_or("no results")?;
        results.iter().map(|result| pair(&result["KV"]).map(|pair| (pair.key.clone(), pair))).collect()
    }

    /// Adds the entries that are not known yet, and their blobs.
    fn complete(&self, one: &Watched, pairs: &mut Pairs) -> Option<()> {
        let key = one.layout.head();
        let head: Head = record::decode(&key, &pairs.get(&key)?.value).ok()?;
        let (mut seq, mut hash) = (head.position.seq, head.hash);
        while seq > 0 && !one.witness.knows(seq, &hash) {
            if seq < head.first {
                return None;
            }
            let from = seq.saturating_sub(AT_ONCE - 1).max(head.first).max(1);
            let keys = (from..=seq).map(|seq| op("get", &one.layout.entry(seq)));
            let entries = self.txn(one.home, keys.collect()).ok()?;
            let mut blobs = Vec::new();
            while seq >= from && !one.witness.knows(seq, &hash) {
                let key = one.layout.entry(seq);
                let entry: Entry = record::decode(&key, &entries.get(&key)?.value).ok()?;
                blobs.extend(entry.ops.iter().filter_map(|change| blob_of(&one.layout, change)));
                (seq, hash) = (seq - 1, entry.prev_hash);
            }
            pairs.extend(entries);
            for some in blobs.chunks(32) {
                pairs.extend(self.txn(one.home, some.iter().map(|key| op("get", key)).collect()).ok()?);
            }
            if from == 1 {
                break;
            }
        }
        Some(())
    }

    /// What does not hold.
    pub(super) fn found(&self) -> Vec<Violation> {
        self.watched.lock().unwrap().iter().flat_map(|one| one.witness.found().to_vec()).collect()
    }

    /// Whether each replica was seen where its home is.
    pub(super) fn behind(&self) -> Vec<String> {
        let watched = self.watched.lock().unwrap();
        let behind = watched.iter().filter(|one| !one.witness.is_equal(&Datacenter::from(one.replica())));
        behind
            .map(|one| {
                let at = one.witness.position(&Datacenter::from(one.replica()));
                format!("{} in {} is at {at:?} of {:?}", one.prefix, one.replica(), one.witness.end())
            })
            .collect()
    }

    /// Restores a datacenter's Consul while nobody looks; what its replica was is forgotten.
    pub(super) fn restored(&self, datacenter: &str, restore: impl FnOnce()) {
        let mut watched = self.watched.lock().unwrap();
        restore();
        for one in watched.iter_mut() {
            one.waiting.clear();
            let side = if one.home == datacenter { Side::Home } else { Side::Replica };
            one.witness.forget(&Datacenter::from(datacenter), side);
        }
    }

    /// A new round begins, where all is equal.
    pub(super) fn forget_the_past(&self) {
        self.watched.lock().unwrap().iter_mut().for_each(|one| one.witness.forget_the_past());
    }
}

impl Watched {
    fn replica(&self) -> &'static str {
        if self.home == PRIMARY { SECONDARY } else { PRIMARY }
    }
}

fn op(verb: &str, key: &str) -> Json {
    json!({ "KV": { "Verb": verb, "Key": key } })
}

fn of_prefix(all: &Pairs, one: &Watched) -> Pairs {
    let is_its = |key: &String| key.starts_with(one.prefix) || key.starts_with(one.layout.root());
    all.iter().filter(|(key, _)| is_its(key)).map(|(key, pair)| (key.clone(), pair.clone())).collect()
}

fn blob_of(layout: &Layout, change: &Change) -> Option<String> {
    match change {
        Change::Set { value: Value::Blob(Hash(hash)), .. } => Some(layout.blob(hash)),
        _ => None,
    }
}

/// A pair as Consul writes it in JSON.
fn pair(json: &Json) -> Result<Pair, String> {
    let number = |name: &str| json[name].as_u64().ok_or_else(|| format!("no {name} in {json}"));
    let value = BASE64_STANDARD.decode(json["Value"].as_str().unwrap_or_default());
    Ok(Pair {
        key: json["Key"].as_str().ok_or_else(|| format!("no key in {json}"))?.to_owned(),
        value: Bytes::from(value.map_err(|error| error.to_string())?),
        flags: number("Flags")?,
        session: json["Session"].as_str().map(Into::into),
        lock_index: number("LockIndex")?,
        create_index: number("CreateIndex")?,
        modify_index: number("ModifyIndex")?,
    })
}

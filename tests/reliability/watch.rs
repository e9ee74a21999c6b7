//! Looks at the endpoints of every Envoy without pause: a list that was there must lose no address, and no endpoint of it
//! may turn unhealthy that the catalog does not call so. What an Envoy lost and got back between two looks shows in its
//! own count of changed members.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, ensure};
use causeway::{
    envoy::admin::Admin,
    lifecycle::{self, Task},
};
use serde_json::Value;

use crate::lab::rig::{ENVOYS, Rig};

/// Between two looks at all Envoys.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// As Envoy spells it.
const HEALTHY: &str = "HEALTHY";

/// The addresses of each cluster, with the health that EDS gave them.
type Lists = BTreeMap<String, BTreeMap<String, String>>;

/// How often the members of each cluster changed, as its Envoy counts.
type Changes = BTreeMap<String, u64>;

/// Lists of one Envoy that a fault changes by right: those whose name has this in it.
#[derive(Clone, Copy)]
pub(super) struct Spared {
    pub(super) envoy: &'static str,
    pub(super) lists: &'static str,
}

/// An endpoint that was healthy and was shown as something else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turned {
    pub(super) envoy: &'static str,
    pub(super) list: String,
    pub(super) endpoint: String,
}

/// What was seen since a fault began.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Lists that lost an address.
    pub(super) lost: Vec<String>,
    /// Endpoints that turned: whether by right, the catalog tells.
    pub(super) turned: Vec<Turned>,
}

struct Wanted {
    endpoints: BTreeMap<String, String>,
    /// Its Envoy was started anew, and has not shown it whole yet.
    is_awaited: bool,
}

#[derive(Default)]
struct Seen {
    /// Looks that began in an earlier turn are of before, and not heard.
    turn: u64,
    /// What each Envoy had when the fault began.
    wanted: BTreeMap<&'static str, BTreeMap<String, Wanted>>,
    /// Of each Envoy that has run since the fault began.
    changes: BTreeMap<&'static str, Changes>,
    /// How often each Envoy answered.
    looks: BTreeMap<&'static str, usize>,
    lost: BTreeSet<String>,
    turned: BTreeSet<Turned>,
}

pub(super) struct Watch {
    envoys: BTreeMap<&'static str, Admin>,
    seen: Arc<Mutex<Seen>>,
    _task: Task<()>,
}

impl Watch {
    pub(super) fn start(rig: &Rig) -> anyhow::Result<Self> {
        let admins = ENVOYS.into_iter().map(|node| Ok((node, rig.envoy(node)?)));
        let envoys: BTreeMap<_, _> = admins.collect::<anyhow::Result<_>>()?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (looked, into) = (envoys.clone(), seen.clone());
        let _task = lifecycle::spawn("test.watch", async move {
            loop {
                for (&node, admin) in &looked {
                    let turn = into.lock().unwrap().turn;
                    // An Envoy that does not answer has no list to judge.
                    if let Ok(lists) = lists(admin).await {
                        into.lock().unwrap().take(node, &lists, turn);
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Ok(Self { envoys, seen, _task })
    }

    /// From now on the present lists must stay as they are, but those that the fault itself changes.
    pub(super) async fn begin(&self, spared: &[Spared]) -> anyhow::Result<()> {
        let (mut wanted, mut counted) = (BTreeMap::new(), BTreeMap::new());
        for (node, admin) in &self.envoys {
            let changes = changes(admin).await.with_context(|| format!("the counters of {node}"))?;
            let lists = lists(admin).await.with_context(|| format!("the endpoints at {node}"))?;
            ensure!(lists.values().any(|list| !list.is_empty()), "{node} has no endpoints");
            let uncounted: Vec<_> = lists.keys().filter(|list| count(&changes, list).is_none()).collect();
            ensure!(uncounted.is_empty(), "{node} does not count the changes of {uncounted:?}");
            counted.insert(*node, changes);
            let is_spared =
                |list: &String| spared.iter().any(|it| it.envoy == *node && list.contains(it.lists));
            let judged = lists.into_iter().filter(|(list, _)| !is_spared(list));
            let judged = judged.map(|(list, endpoints)| (list, Wanted { endpoints, is_awaited: false }));
            wanted.insert(*node, judged.collect::<BTreeMap<_, _>>());
        }
        for it in spared {
            ensure!(wanted.contains_key(it.envoy), "there is no Envoy of {}", it.envoy);
        }
        let mut seen = self.seen.lock().unwrap();
        *seen = Seen { turn: seen.turn + 1, wanted, changes: counted, ..Seen::default() };
        Ok(())
    }

    /// This Envoy has ended: the next one there is judged by each list from when it is whole again.
    pub(super) fn ended(&self, node: &str) {
        let mut seen = self.seen.lock().unwrap();
        seen.turn += 1;
        seen.changes.remove(node);
        for list in seen.wanted.get_mut(node).into_iter().flat_map(BTreeMap::values_mut) {
            list.is_awaited = true;
        }
    }

    /// Looks once more at every Envoy, and says what was seen.
    ///
    /// Errors: an Envoy does not answer, or was never looked at before, or lacks a list since it was started anew.
    pub(super) async fn judge(&self) -> anyhow::Result<Verdict> {
        for node in self.envoys.keys() {
            let looks = self.seen.lock().unwrap().looks.get(node).copied();
            ensure!(looks.is_some(), "{node}'s Envoy was never looked at");
        }
        let turn = self.seen.lock().unwrap().turn;
        for (&node, admin) in &self.envoys {
            let lists = lists(admin).await.with_context(|| format!("the endpoints at {node}"))?;
            let changes = changes(admin).await.with_context(|| format!("the counters of {node}"))?;
            let mut seen = self.seen.lock().unwrap();
            seen.take(node, &lists, turn);
            seen.compare(node, &lists, &changes);
        }
        let seen = self.seen.lock().unwrap();
        let awaited = |(node, lists): (&&str, &BTreeMap<String, Wanted>)| {
            let awaited = lists.iter().filter(|(_, list)| list.is_awaited);
            awaited.map(|(list, _)| format!("{node}: {list} never came back whole")).collect::<Vec<_>>()
        };
        let lost = seen.lost.iter().cloned().chain(seen.wanted.iter().flat_map(awaited)).collect();
        Ok(Verdict { lost, turned: seen.turned.iter().cloned().collect() })
    }
}

impl Seen {
    fn take(&mut self, node: &'static str, now: &Lists, turn: u64) {
        let Some(wanted) = self.wanted.get_mut(node).filter(|_| turn == self.turn) else { return };
        *self.looks.entry(node).or_default() += 1;
        let none = BTreeMap::new();
        for (name, list) in wanted {
            let have = now.get(name).unwrap_or(&none);
            let missing: Vec<_> = list.endpoints.keys().filter(|it| !have.contains_key(*it)).collect();
            match (missing.is_empty(), list.is_awaited) {
                (true, _) => list.is_awaited = false,
                (false, true) => continue,
                (false, false) => drop(self.lost.insert(format!("{node}: {name} lost {missing:?}"))),
            }
            let was_healthy = list.endpoints.iter().filter(|(_, health)| *health == HEALTHY);
            let turned = was_healthy.filter(|(it, _)| have.get(*it).is_some_and(|health| health != HEALTHY));
            self.turned.extend(turned.map(|(endpoint, _)| Turned {
                envoy: node,
                list: name.clone(),
                endpoint: endpoint.clone(),
            }));
        }
    }

    /// A list that is as it was, and whose members changed meanwhile, was another one in between.
    fn compare(&mut self, node: &'static str, now: &Lists, changes: &Changes) {
        let (Some(before), Some(wanted)) = (self.changes.get(node), self.wanted.get(node)) else { return };
        for (name, list) in wanted {
            let is_same = now.get(name).is_some_and(|now| now.keys().eq(list.endpoints.keys()));
            let (before, now) = (count(before, name), count(changes, name));
            if is_same && now != before {
                let times = now.unwrap_or_default().saturating_sub(before.unwrap_or_default());
                self.lost.insert(format!("{node}: {name} changed {times} times, between two looks"));
            }
        }
    }
}

/// Envoy writes names into those of its counters without colons.
fn count(changes: &Changes, list: &str) -> Option<u64> {
    changes.get(&list.replace(':', "_")).copied()
}

async fn changes(admin: &Admin) -> anyhow::Result<Changes> {
    let stats = admin.stats("^cluster\\..*\\.membership_change$").await?;
    let of =
        |name: String| Some(name.strip_prefix("cluster.")?.strip_suffix(".membership_change")?.to_owned());
    Ok(stats.into_iter().filter_map(|(name, count)| Some((of(name)?, count))).collect())
}

async fn lists(admin: &Admin) -> anyhow::Result<Lists> {
    let all = admin.json("/clusters?format=json").await?;
    let clusters = all["cluster_statuses"].as_array().context("cluster_statuses")?;
    let list = |cluster: &Value| {
        let hosts = cluster["host_statuses"].as_array().into_iter().flatten();
        let endpoints = hosts.map(|host| {
            let at = &host["address"]["socket_address"];
            let health = host["health_status"]["eds_health_status"].as_str().unwrap_or("?");
            (format!("{}:{}", at["address"].as_str().unwrap_or("?"), at["port_value"]), health.to_owned())
        });
        (cluster["name"].as_str().unwrap_or("?").to_owned(), endpoints.collect())
    };
    Ok(clusters.iter().map(list).collect())
}

#[test]
fn a_list_may_neither_shrink_nor_turn() {
    const NODE: &str = "gateway";
    let list = |endpoints: &[(&str, &str)]| -> BTreeMap<String, String> {
        endpoints.iter().map(|(at, health)| ((*at).to_owned(), (*health).to_owned())).collect()
    };
    let lists = |endpoints: &[(&str, &str)]| Lists::from([("api".to_owned(), list(endpoints))]);
    let whole = [("a:1", HEALTHY), ("b:1", "UNHEALTHY")];
    let began = || {
        let wanted = Wanted { endpoints: list(&whole), is_awaited: false };
        let wanted = BTreeMap::from([(NODE, BTreeMap::from([("api".to_owned(), wanted)]))]);
        Seen { turn: 2, wanted, ..Seen::default() }
    };
    let mut seen = began();
    seen.take(NODE, &lists(&whole), 2);
    seen.take(NODE, &lists(&[("a:1", HEALTHY), ("b:1", HEALTHY), ("c:1", HEALTHY)]), 2);
    seen.take(NODE, &lists(&[]), 1);
    assert_eq!((seen.looks[NODE], seen.lost.len(), seen.turned.len()), (2, 0, 0));
    seen.take(NODE, &lists(&[("a:1", "UNHEALTHY"), ("b:1", "UNHEALTHY")]), 2);
    assert_eq!((seen.lost.len(), seen.turned.first().unwrap().endpoint.as_str()), (0, "a:1"));
    seen.take(NODE, &Lists::new(), 2);
    assert_eq!(seen.lost.first().unwrap(), r#"gateway: api lost ["a:1", "b:1"]"#);

    let changed = |count: u64| Changes::from([("api".to_owned(), count)]);
    let mut seen = Seen { changes: BTreeMap::from([(NODE, changed(3))]), ..began() };
    seen.compare(NODE, &lists(&whole), &changed(3));
    seen.compare(NODE, &lists(&[("a:1", HEALTHY)]), &changed(4));
    assert!(seen.lost.is_empty(), "a list that differs is judged by its looks");
    seen.compare(NODE, &lists(&whole), &changed(5));
    assert_eq!(seen.lost.first().unwrap(), "gateway: api changed 2 times, between two looks");

    let mut seen = began();
    seen.wanted.get_mut(NODE).unwrap().get_mut("api").unwrap().is_awaited = true;
    seen.take(NODE, &lists(&[("a:1", "UNHEALTHY")]), 2);
    assert_eq!((seen.lost.len(), seen.turned.len()), (0, 0), "not whole yet");
    seen.take(NODE, &lists(&whole), 2);
    seen.take(NODE, &lists(&[("a:1", HEALTHY)]), 2);
    assert_eq!((seen.lost.len(), seen.turned.len()), (1, 0), "whole once");
}

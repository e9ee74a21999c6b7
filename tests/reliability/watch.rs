//! Looks at the endpoints of every Envoy without pause: a list that was there must not lose an address.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context;
use causeway::{
    envoy::admin::Admin,
    lifecycle::{self, Task},
};
use serde_json::Value;

use crate::lab::rig::{ENVOYS, Rig};

/// Between two looks at all Envoys.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// The addresses of each cluster.
type Lists = BTreeMap<String, BTreeSet<String>>;

#[derive(Default)]
struct Seen {
    /// What each Envoy had when the fault began; nobody is looked at that is not in it.
    wanted: BTreeMap<&'static str, Lists>,
    looks: usize,
    lost: BTreeSet<String>,
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
                for (node, admin) in &looked {
                    // An Envoy that does not answer has no list to judge.
                    if let Ok(lists) = lists(admin).await {
                        into.lock().unwrap().take(node, &lists);
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Ok(Self { envoys, seen, _task })
    }

    /// From now on the present lists must not shrink, but at the Envoys that the fault itself ends or changes.
    pub(super) async fn begin(&self, spared: &[&str]) -> anyhow::Result<()> {
        let mut wanted = BTreeMap::new();
        for (node, admin) in self.envoys.iter().filter(|(node, _)| !spared.contains(node)) {
            let lists = lists(admin).await.with_context(|| format!("the endpoints at {node}"))?;
            anyhow::ensure!(lists.values().any(|list| !list.is_empty()), "{node} has no endpoints");
            wanted.insert(*node, lists);
        }
        *self.seen.lock().unwrap() = Seen { wanted, ..Seen::default() };
        Ok(())
    }

    /// How often an Envoy was looked at, and what it had lost.
    pub(super) fn judge(&self) -> (usize, Vec<String>) {
        let seen = self.seen.lock().unwrap();
        (seen.looks, seen.lost.iter().cloned().collect())
    }
}

impl Seen {
    fn take(&mut self, node: &str, now: &Lists) {
        let Some(wanted) = self.wanted.get(node) else { return };
        self.looks += 1;
        for (cluster, wanted) in wanted {
            let none = BTreeSet::new();
            let missing: Vec<_> = wanted.difference(now.get(cluster).unwrap_or(&none)).collect();
            if !missing.is_empty() {
                self.lost.insert(format!("{node}: {cluster} lost {missing:?}"));
            }
        }
    }
}

async fn lists(admin: &Admin) -> anyhow::Result<Lists> {
    let all = admin.json("/clusters?format=json").await?;
    let clusters = all["cluster_statuses"].as_array().context("cluster_statuses")?;
    let list = |cluster: &Value| {
        let hosts = cluster["host_statuses"].as_array().into_iter().flatten();
        let addresses = hosts.map(|host| {
            let at = &host["address"]["socket_address"];
            format!("{}:{}", at["address"].as_str().unwrap_or("?"), at["port_value"])
        });
        (cluster["name"].as_str().unwrap_or("?").to_owned(), addresses.collect())
    };
    Ok(clusters.iter().map(list).collect())
}

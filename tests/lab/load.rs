//! Requests without pause, each over a connection of its own, and what became of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::ensure;
use causeway::{
    fetch,
    lab::demo::counting::Count,
    lifecycle::{self, Task},
};

use crate::lab::rig::eventually;

/// Enough that some request is always under way, few enough that two cores have time for what is tested.
const WORKERS: usize = 2;
/// So many answers tell who takes the requests.
const MANY: usize = 30;
/// Longer than any of Envoy's own limits here: what takes this long has failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// Requests to one address until it is stopped.
pub(super) struct Load {
    seen: Arc<Mutex<Seen>>,
    _workers: Vec<Task<()>>,
}

#[derive(Default)]
struct Seen {
    /// Answers by instance since the last look.
    recent: BTreeMap<String, usize>,
    answers: u64,
    failures: Vec<String>,
}

impl Load {
    /// Starts asking `url`, which answers as the demo's counter does.
    pub(super) fn start(url: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let worker = |_| {
            let (seen, url) = (seen.clone(), url.to_owned());
            lifecycle::spawn("test.load", async move {
                loop {
                    let answer = fetch::get_json::<Count>(&url, DEADLINE).await;
                    seen.lock().unwrap().take(answer);
                }
            })
        };
        let _workers = (0..WORKERS).map(worker).collect();
        Self { seen, _workers }
    }

    /// Waits until these instances answer, and no other one.
    pub(super) async fn answered_by(&self, wanted: &[&str]) -> anyhow::Result<()> {
        // What was under way before is not looked at.
        self.seen.lock().unwrap().recent.clear();
        eventually(&format!("answers of {wanted:?} alone"), async || {
            let recent = &mut self.seen.lock().unwrap().recent;
            if recent.keys().any(|name| !wanted.contains(&name.as_str())) {
                recent.clear();
            }
            let are_all_there = wanted.iter().all(|name| recent.contains_key(*name));
            Ok((are_all_there && recent.values().sum::<usize>() >= MANY).then_some(()))
        })
        .await
    }

    /// How many of the next hundred answers or a few more an instance gives, in percent.
    pub(super) async fn share_of(&self, instance: &str) -> anyhow::Result<usize> {
        const COUNTED: usize = 100;
        self.seen.lock().unwrap().recent.clear();
        eventually(&format!("{COUNTED} answers"), async || {
            let recent = &self.seen.lock().unwrap().recent;
            let all: usize = recent.values().sum();
            let share = 100 * recent.get(instance).copied().unwrap_or_default() / all.max(1);
            Ok((all >= COUNTED).then_some(share))
        })
        .await
    }

    /// Waits until many requests have failed: more than Envoy needs for a verdict.
    pub(super) async fn fails(&self) -> anyhow::Result<()> {
        let before = self.seen.lock().unwrap().failures.len();
        eventually("requests fail", async || {
            let failures = self.seen.lock().unwrap().failures.len();
            Ok((failures >= before + MANY).then_some(()))
        })
        .await
    }

    /// How many requests there were, and how many of them failed.
    pub(super) fn tally(&self) -> String {
        let seen = self.seen.lock().unwrap();
        format!("{} of {} requests failed", seen.failures.len(), seen.answers)
    }

    /// Ends the load and requires that no request failed. Gives how many were answered.
    pub(super) fn none_failed(self) -> anyhow::Result<u64> {
        let seen = self.seen.lock().unwrap();
        let first: Vec<_> = seen.failures.iter().take(3).collect();
        ensure!(
            seen.failures.is_empty(),
            "{} of {} requests failed: {first:?}",
            seen.failures.len(),
            seen.answers
        );
        ensure!(seen.answers > 0, "nothing was asked");
        Ok(seen.answers)
    }
}

impl Seen {
    fn take(&mut self, answer: Result<Count, String>) {
        self.answers += 1;
        match answer {
            Ok(count) => *self.recent.entry(count.instance).or_default() += 1,
            Err(reason) => self.failures.push(reason),
        }
    }
}

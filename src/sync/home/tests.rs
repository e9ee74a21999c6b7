//! The home over a small Consul in memory, with the clock paused.

mod cases;
pub(crate) mod fake;
mod following;
mod locks;
mod remembered;
mod trouble;

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::{
    model::{kv::TxnReply, sync::Mode},
    sync::{
        home::{history::Logged, journal, tests::fake::Fake},
        layout::Duty,
        record::Doer,
    },
};

#[derive(Clone, Debug, Default)]
struct Nobody {
    known: Vec<Known>,
}

impl Others for Nobody {
    async fn known(&self, _: &str) -> Vec<Known> {
        self.known.clone()
    }

    fn max_txn_ops(&self) -> usize {
        64
    }
}

/// An agent that serves `config/`, with its duty in the test's hands.
struct Agent {
    home: Home<Fake>,
    duty: watch::Sender<Holding>,
    session: SessionId,
    _task: Task<()>,
    _stop: crate::lifecycle::StopSource,
}

const PREFIX: &str = "config/";

fn settings() -> HomeSettings {
    let dcs = vec![Datacenter::from("primary"), Datacenter::from("secondary")];
    let prefix = Prefix { text: PREFIX.into(), home: dcs[0].clone(), mode: Mode::Journaled };
    let mut prefixes = PrefixTable::default();
    prefixes.add(prefix.clone()).unwrap();
    prefixes.add(Prefix { text: "locks/".into(), home: dcs[0].clone(), mode: Mode::Journaled }).unwrap();
    prefixes.add(Prefix { text: "far/".into(), home: dcs[1].clone(), mode: Mode::Journaled }).unwrap();
    HomeSettings::new(dcs, prefix, prefixes)
}

fn layout() -> Layout {
    Layout::new(&PrefixId::of(PREFIX))
}

impl Agent {
    fn start_with(store: &Fake, session: &str, settings: HomeSettings, others: Nobody) -> Self {
        let (duty, held) = watch::channel(Holding::default());
        let (source, stop) = Stop::pair();
        let rng = fastrand::Rng::with_seed(7);
        let (home, task) = Home::start(settings, store.clone(), others, held, rng, stop);
        Self { home, duty, session: session.into(), _task: task, _stop: source }
    }

    /// Starts, takes the duty and waits until it serves.
    async fn serving(store: &Fake, session: &str) -> Self {
        let agent = Self::start_with(store, session, settings(), Nobody::default());
        agent.take_duty(store);
        agent.served().await;
        agent
    }

    fn take_duty(&self, store: &Fake) {
        let key = layout().duty(Duty::Home);
        let held = Op::Lock { key, value: Bytes::new(), flags: 0, session: self.session.clone() };
        assert!(matches!(store.execute(&[held]), TxnReply::Committed(_)), "the duty's lock is free");
        let doer = Doer { node: "a1".into(), address: "127.0.0.1:9".into() };
        self.duty.send_replace(Holding { session: Some(self.session.clone()), doer: Some(doer) });
    }

    async fn served(&self) -> Known {
        let mut tip = self.home.tip();
        tip.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    async fn write_as(&self, id: &str, ops: Vec<Op>) -> Outcome {
        self.home.write(self.request(id, ops)).await
    }

    fn request(&self, id: &str, ops: Vec<Op>) -> Write {
        Write {
            request_id: id.into(),
            origin: "secondary".into(),
            ops,
            guard: None,
            deadline: crate::lifecycle::now() + Duration::from_secs(10),
        }
    }

    async fn write(&self, ops: Vec<Op>) -> Outcome {
        let id = format!("r{}", fastrand::u64(..));
        self.write_as(&id, ops).await
    }
}

fn set(key: &str, value: &str) -> Op {
    Op::Set { key: key.into(), value: Bytes::from(value.to_owned()), flags: 0 }
}

fn cas(key: &str, value: &str, index: u64) -> Op {
    Op::Cas { key: key.into(), value: Bytes::from(value.to_owned()), flags: 0, index }
}

fn is_committed(written: &Written) -> bool {
    matches!(written.reply, TxnReply::Committed(_))
}

/// The whole journal, checked: without a gap, each entry names the hash of the one before, and the head the last one's.
async fn journal_of(store: &Fake) -> Vec<Logged> {
    let head: journal::Recorded<crate::sync::record::Head> =
        journal::expected(store, &layout().head()).await.unwrap();
    let last = head.record.position.seq;
    let entries = journal::entries(store, &layout(), head.record.first, last).await.unwrap();
    for (before, after) in entries.iter().zip(entries.iter().skip(1)) {
        assert_eq!(after.entry.prev_hash, before.hash);
        assert!(after.entry.position > before.entry.position);
    }
    if let Some(last) = entries.last() {
        assert_eq!(last.hash, head.record.hash);
    }
    entries
}

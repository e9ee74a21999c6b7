//! A home that a replica follows.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::{
    lifecycle,
    model::{
        kv::{Op, Pair, TxnReply},
        sync::Position,
    },
    sync::{
        peer::{
            Absent, FollowItem, FollowStart, Forward, Forwarded, Hello, HelloReply, PeerError, Peers,
            SnapshotPair, Target,
        },
        record::{self, Change, Entry, Hash, Value},
        replica::double::{Kv, MOMENT, set},
    },
};

/// An entry, its hash and its index.
pub(in crate::sync::replica) type Logged = (Entry, Hash, u64);

/// What a home holds.
#[derive(Clone, Debug, Default)]
pub(in crate::sync::replica) struct History {
    pub(in crate::sync::replica) kv: Kv,
    pub(in crate::sync::replica) log: Vec<Logged>,
    pub(in crate::sync::replica) epoch: u32,
    /// Keys that are locks.
    pub(in crate::sync::replica) held: std::collections::BTreeSet<String>,
    /// Entries before this number are gone.
    pub(in crate::sync::replica) first: u64,
}

impl History {
    pub(in crate::sync::replica) fn tip(&self) -> (Position, Hash) {
        let start = (Position { epoch: self.epoch, seq: 0 }, Hash::default());
        self.log.last().map_or(start, |(entry, hash, _)| (entry.position, hash.clone()))
    }

    /// Executes verbs and writes the entry.
    pub(in crate::sync::replica) fn write(&mut self, ops: &[Op]) -> bool {
        let TxnReply::Committed(_) = self.kv.txn(ops) else { return false };
        let changes: Vec<Change> = ops.iter().map(change).collect();
        for change in &changes {
            match change {
                Change::Held { k } => drop(self.held.insert(k.clone())),
                Change::Set { k, .. } | Change::Del { k } => drop(self.held.remove(k)),
                Change::DelTree { k } => self.held.retain(|key| !key.starts_with(k.as_str())),
            }
        }
        let (at, prev_hash) = self.tip();
        let position = Position { epoch: self.epoch, seq: at.seq + 1 };
        let entry = Entry { position, prev_hash, ts_ms: 0, requests: Vec::new(), ops: changes };
        let hash = Hash::of(&record::encode(&entry));
        self.log.push((entry, hash, self.kv.index));
        true
    }

    fn listed(&self, prefix: &str, compare: bool) -> Vec<SnapshotPair> {
        let list = self.kv.list(prefix).into_iter();
        list.map(|pair| {
            if self.held.contains(&pair.key) {
                SnapshotPair::Held(pair.key)
            } else if compare {
                let hash = *blake3::hash(&pair.value).as_bytes();
                SnapshotPair::Hashed { pair: Pair { value: Bytes::new(), ..pair }, hash }
            } else {
                SnapshotPair::Data(pair)
            }
        })
        .collect()
    }
}

fn change(op: &Op) -> Change {
    match op {
        Op::Set { key, value, flags } | Op::Unlock { key, value, flags, .. } => {
            Change::Set { k: key.clone(), flags: *flags, value: Value::Val(value.clone()) }
        }
        Op::Lock { key, .. } => Change::Held { k: key.clone() },
        Op::Delete { key } => Change::Del { k: key.clone() },
        Op::DeleteTree { prefix } => Change::DelTree { k: prefix.clone() },
        other => panic!("no test writes {other:?}"),
    }
}

/// What goes wrong at home.
#[derive(Clone, Debug, Default)]
pub(in crate::sync::replica) struct Trouble {
    /// It is not reached.
    pub(in crate::sync::replica) is_cut: bool,
    /// The follower's history is not its own.
    pub(in crate::sync::replica) is_forked: bool,
    /// A list breaks off after so many keys.
    pub(in crate::sync::replica) list_ends_after: Option<usize>,
    /// A list of so many keys claims to be whole.
    pub(in crate::sync::replica) list_lies_after: Option<usize>,
    /// The next entry names another one before it.
    pub(in crate::sync::replica) breaks_chain: bool,
}

/// A home.
#[derive(Clone)]
pub(in crate::sync::replica) struct FakeHome {
    pub(in crate::sync::replica) history: Arc<watch::Sender<History>>,
    pub(in crate::sync::replica) trouble: Arc<watch::Sender<Trouble>>,
    /// How often it was followed, for a whole list or none.
    pub(in crate::sync::replica) follows: Arc<Mutex<Vec<FollowStart>>>,
    tasks: Arc<Mutex<Vec<lifecycle::Task<()>>>>,
}

impl FakeHome {
    pub(in crate::sync::replica) fn new() -> Self {
        let history = History { epoch: 1, ..History::default() };
        Self {
            history: Arc::new(watch::Sender::new(history)),
            trouble: Arc::default(),
            follows: Arc::default(),
            tasks: Arc::default(),
        }
    }

    pub(in crate::sync::replica) fn write(&self, ops: &[Op]) -> Position {
        self.history.send_modify(|history| assert!(history.write(ops), "the home refused {ops:?}"));
        self.history.borrow().tip().0
    }

    pub(in crate::sync::replica) fn set(&self, key: &str, value: &str) -> Position {
        self.write(&[set(key, value)])
    }

    pub(in crate::sync::replica) fn trouble(&self, change: impl FnOnce(&mut Trouble)) {
        self.trouble.send_modify(change);
    }
}

impl Peers for FakeHome {
    async fn hello(&self, _: &Target, _: Hello) -> Result<HelloReply, PeerError> {
        unreachable!("a replica greets nobody")
    }

    async fn forward(&self, _: &Target, _: Forward, _: Duration) -> Result<Forwarded, PeerError> {
        unreachable!("a replica forwards nothing")
    }

    async fn follow(
        &self,
        _: &Target,
        start: FollowStart,
        _: watch::Receiver<Position>,
    ) -> Result<mpsc::Receiver<Result<FollowItem, PeerError>>, PeerError> {
        tokio::time::sleep(MOMENT).await;
        self.follows.lock().unwrap().push(start.clone());
        if self.trouble.borrow().is_cut {
            return Err(PeerError::Unreached("no way to the home".into()));
        }
        let (sender, items) = mpsc::channel(16);
        let home = self.clone();
        let task = lifecycle::spawn("home", async move {
            let mut trouble = home.trouble.subscribe();
            tokio::select! {
                biased;
                _ = async { trouble.wait_for(|trouble| trouble.is_cut).await.is_ok() } => {
                    let _ = sender.send(Err(PeerError::Unknown("cut".into()))).await;
                }
                () = sender.closed() => {}
                _ = home.serve(start, &sender) => {}
            }
        });
        self.tasks.lock().unwrap().push(task);
        Ok(items)
    }

    async fn absent(&self, _: &Target, absent: Absent, _: Duration) -> Result<(), PeerError> {
        tokio::time::sleep(MOMENT).await;
        let history = self.history.borrow();
        let here = history.kv.list(&absent.prefix).into_iter().find(|pair| absent.keys.contains(&pair.key));
        here.map_or(Ok(()), |pair| Err(PeerError::Refused(format!("{} is there", pair.key))))
    }
}

type Gone = mpsc::error::SendError<Result<FollowItem, PeerError>>;

impl FakeHome {
    async fn serve(
        &self,
        start: FollowStart,
        items: &mpsc::Sender<Result<FollowItem, PeerError>>,
    ) -> Result<(), Gone> {
        let mut history = self.history.subscribe();
        let now = history.borrow().clone();
        let (tip, _) = now.tip();
        let is_forked = self.trouble.borrow().is_forked;
        let mut next = match start.at {
            Some(_) if is_forked => {
                let forked = FollowItem::Forked { home: tip, reason: "another hash".into() };
                return items.send(Ok(forked)).await;
            }
            Some((at, _)) if !start.compare && at.seq + 1 >= now.first => {
                items.send(Ok(FollowItem::Continues)).await?;
                at.seq + 1
            }
            _ => {
                items.send(Ok(FollowItem::SnapshotBegin)).await?;
                self.list(&now, &start, items).await?;
                tip.seq + 1
            }
        };
        loop {
            let now = history.borrow_and_update().clone();
            let from = next;
            for (mut entry, hash, modify_index) in
                now.log.iter().filter(|(e, ..)| e.position.seq >= from).cloned()
            {
                next = entry.position.seq + 1;
                if self.trouble.borrow().breaks_chain {
                    entry.prev_hash = Hash::of(b"something else");
                }
                items.send(Ok(FollowItem::Entry { entry, hash, modify_index, blobs: Vec::new() })).await?;
            }
            items.send(Ok(FollowItem::Tip { position: now.tip().0, ts_ms: 0 })).await?;
            let _ = tokio::time::timeout(Duration::from_secs(5), history.changed()).await;
        }
    }

    async fn list(
        &self,
        now: &History,
        start: &FollowStart,
        items: &mpsc::Sender<Result<FollowItem, PeerError>>,
    ) -> Result<(), Gone> {
        let Trouble { list_ends_after, list_lies_after, .. } = self.trouble.borrow().clone();
        let mut list = now.listed(&start.prefix, start.compare);
        let whole = list.len() as u64;
        list.truncate(list_ends_after.or(list_lies_after).unwrap_or(list.len()));
        let pairs = if list_lies_after.is_some() { list.len() as u64 } else { whole };
        for chunk in list.chunks(10) {
            items.send(Ok(FollowItem::SnapshotPairs(chunk.to_vec()))).await?;
        }
        let (position, hash) = now.tip();
        items.send(Ok(FollowItem::SnapshotEnd { position, hash, pairs })).await
    }
}

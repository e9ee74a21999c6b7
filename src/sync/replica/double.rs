//! Doubles for the tests of a replica: Consul's keys by its rules, in memory, and a home that streams a journal of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::{
    lifecycle,
    model::{
        kv::{Op, Pair, TxnError, TxnReply},
        secret::SecretText,
        session::{SessionId, SessionSpec},
        sync::Position,
    },
    sync::{
        peer::{
            FollowItem, FollowStart, Forward, Forwarded, Hello, HelloReply, PeerError, Peers, SnapshotPair,
            Target,
        },
        record::{self, Change, Entry, Hash, Value},
        store::{Answer, Read, Right, Store, StoreError},
    },
};

/// Consul's keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Kv {
    pub(super) index: u64,
    pub(super) pairs: BTreeMap<String, Pair>,
}

impl Kv {
    pub(super) fn txn(&mut self, ops: &[Op]) -> TxnReply {
        let before = self.clone();
        self.index += 1;
        let mut results = Vec::new();
        for (op_index, op) in ops.iter().enumerate() {
            match self.execute(op) {
                Ok(pair) => results.extend(pair.map(|pair| Pair { value: Bytes::new(), ..pair })),
                Err(what) => {
                    *self = before;
                    return TxnReply::RolledBack(vec![TxnError { op_index, what: what.to_owned() }]);
                }
            }
        }
        TxnReply::Committed(results)
    }

    fn execute(&mut self, op: &Op) -> Result<Option<Pair>, &'static str> {
        let present = self.pairs.get(op.key()).cloned();
        let index_is = present.as_ref().map_or(0, |pair| pair.modify_index);
        let holder = present.as_ref().and_then(|pair| pair.session.clone());
        let lock_index = present.as_ref().map_or(0, |pair| pair.lock_index);
        match op {
            Op::Cas { index, .. } if *index != index_is => Err("index is stale"),
            Op::CheckIndex { index, .. } if *index != index_is => Err("current modify index is another"),
            Op::CheckSession { session, .. } if holder.as_ref() != Some(session) => Err("not held by it"),
            Op::Lock { session, .. } if holder.as_ref().is_some_and(|holder| holder != session) => {
                Err("lock is already held")
            }
            Op::Unlock { session, .. } if holder.as_ref() != Some(session) => Err("lock isn't held"),
            Op::CheckIndex { .. } | Op::CheckSession { .. } => Ok(present),
            Op::Set { key, value, flags } | Op::Cas { key, value, flags, .. } => {
                Ok(Some(self.put(key, value, *flags, holder, 0)))
            }
            Op::Lock { key, value, flags, session } => {
                let lock_index = lock_index + u64::from(holder.is_none());
                Ok(Some(self.put(key, value, *flags, Some(session.clone()), lock_index)))
            }
            Op::Unlock { key, value, flags, .. } => Ok(Some(self.put(key, value, *flags, None, lock_index))),
            Op::Delete { key } => {
                self.pairs.remove(key);
                Ok(None)
            }
            Op::DeleteTree { prefix } => {
                self.pairs.retain(|key, _| !key.starts_with(prefix.as_str()));
                Ok(None)
            }
            other => panic!("no replica sends {other:?}"),
        }
    }

    fn put(
        &mut self,
        key: &str,
        value: &Bytes,
        flags: u64,
        session: Option<SessionId>,
        lock_index: u64,
    ) -> Pair {
        let index = self.index;
        let create_index = self.pairs.get(key).map_or(index, |pair| pair.create_index);
        let mut pair = Pair {
            key: key.to_owned(),
            value: value.clone(),
            flags,
            session,
            lock_index,
            create_index,
            modify_index: index,
        };
        if let Some(present) = self.pairs.get(key) {
            let same = Pair { modify_index: present.modify_index, ..pair.clone() };
            if same == *present {
                return same;
            }
        }
        self.pairs.insert(key.to_owned(), pair.clone());
        pair.modify_index = index;
        pair
    }

    pub(super) fn list(&self, prefix: &str) -> Vec<Pair> {
        self.pairs.values().filter(|pair| pair.key.starts_with(prefix)).cloned().collect()
    }

    /// Keys, values and flags below a prefix.
    pub(super) fn data(&self, prefix: &str) -> BTreeMap<String, (Bytes, u64)> {
        self.list(prefix).into_iter().map(|pair| (pair.key, (pair.value, pair.flags))).collect()
    }
}

/// What becomes of the next transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answering {
    #[default]
    Well,
    /// The next one is executed, and nobody hears of it.
    LosesAnswer,
    /// The next one is not executed, and nobody hears of it.
    LosesRequest,
}

/// A Consul. It answers after a moment, as a real one does.
#[derive(Clone, Default)]
pub(super) struct FakeConsul {
    pub(super) kv: Arc<Mutex<Kv>>,
    pub(super) answering: Arc<Mutex<Answering>>,
    /// What lists fail with.
    pub(super) unusable: Arc<Mutex<Option<StoreError>>>,
}

impl FakeConsul {
    pub(super) fn run(&self, ops: &[Op]) -> TxnReply {
        self.kv.lock().unwrap().txn(ops)
    }

    pub(super) fn data(&self, prefix: &str) -> BTreeMap<String, (Bytes, u64)> {
        self.kv.lock().unwrap().data(prefix)
    }

    pub(super) fn pair(&self, key: &str) -> Option<Pair> {
        self.kv.lock().unwrap().pairs.get(key).cloned()
    }
}

const MOMENT: Duration = Duration::from_millis(1);

impl Store for FakeConsul {
    async fn txn(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        tokio::time::sleep(MOMENT).await;
        match std::mem::take(&mut *self.answering.lock().unwrap()) {
            Answering::Well => Ok(self.run(&ops)),
            Answering::LosesAnswer => {
                self.run(&ops);
                Err(StoreError::Unknown("the connection ended".into()))
            }
            Answering::LosesRequest => Err(StoreError::Unknown("the connection ended".into())),
        }
    }

    async fn get(&self, key: &str, _: Read) -> Result<Answer<Option<Pair>>, StoreError> {
        tokio::time::sleep(MOMENT).await;
        Ok(Answer { value: self.pair(key), index: 1 })
    }

    async fn list(&self, prefix: &str, _: Read) -> Result<Answer<Vec<Pair>>, StoreError> {
        tokio::time::sleep(MOMENT).await;
        if let Some(error) = self.unusable.lock().unwrap().clone() {
            return Err(error);
        }
        Ok(Answer { value: self.kv.lock().unwrap().list(prefix), index: 1 })
    }

    async fn create_session(&self, _: &SessionSpec) -> Result<SessionId, StoreError> {
        unreachable!("a replica makes no sessions")
    }

    async fn renew_session(&self, _: &SessionId) -> Result<bool, StoreError> {
        unreachable!("a replica has no sessions")
    }

    async fn destroy_session(&self, _: &SessionId) -> Result<(), StoreError> {
        unreachable!("a replica has no sessions")
    }

    async fn authorize(&self, _: Option<&SecretText>, _: &[Right]) -> Result<Vec<bool>, StoreError> {
        unreachable!("a replica asks for no rights")
    }
}

/// An entry, its hash and its index.
pub(super) type Logged = (Entry, Hash, u64);

/// What a home holds.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) kv: Kv,
    pub(super) log: Vec<Logged>,
    pub(super) epoch: u32,
    /// Keys that are locks.
    pub(super) held: std::collections::BTreeSet<String>,
    /// Entries before this number are gone.
    pub(super) first: u64,
}

impl History {
    pub(super) fn tip(&self) -> (Position, Hash) {
        let start = (Position { epoch: self.epoch, seq: 0 }, Hash::default());
        self.log.last().map_or(start, |(entry, hash, _)| (entry.position, hash.clone()))
    }

    /// Executes verbs and writes the entry.
    pub(super) fn write(&mut self, ops: &[Op]) -> bool {
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
pub(super) struct Trouble {
    /// It is not reached.
    pub(super) is_cut: bool,
    /// The follower's history is not its own.
    pub(super) is_forked: bool,
    /// A list breaks off after so many keys.
    pub(super) list_ends_after: Option<usize>,
    /// A list of so many keys claims to be whole.
    pub(super) list_lies_after: Option<usize>,
    /// The next entry names another one before it.
    pub(super) breaks_chain: bool,
}

/// A home.
#[derive(Clone)]
pub(super) struct FakeHome {
    pub(super) history: Arc<watch::Sender<History>>,
    pub(super) trouble: Arc<watch::Sender<Trouble>>,
    /// How often it was followed, for a whole list or none.
    pub(super) follows: Arc<Mutex<Vec<FollowStart>>>,
    tasks: Arc<Mutex<Vec<lifecycle::Task<()>>>>,
}

impl FakeHome {
    pub(super) fn new() -> Self {
        let history = History { epoch: 1, ..History::default() };
        Self {
            history: Arc::new(watch::Sender::new(history)),
            trouble: Arc::default(),
            follows: Arc::default(),
            tasks: Arc::default(),
        }
    }

    pub(super) fn write(&self, ops: &[Op]) -> Position {
        self.history.send_modify(|history| assert!(history.write(ops), "the home refused {ops:?}"));
        self.history.borrow().tip().0
    }

    pub(super) fn set(&self, key: &str, value: &str) -> Position {
        self.write(&[set(key, value)])
    }

    pub(super) fn trouble(&self, change: impl FnOnce(&mut Trouble)) {
        self.trouble.send_modify(change);
    }
}

pub(super) fn set(key: &str, value: &str) -> Op {
    Op::Set { key: key.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()), flags: 0 }
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

//! What is changed between an engine and others.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use causeway::{
    model::sync::Position,
    sync::peer::{
        Absent, FOLLOW_QUEUE, FollowItem, FollowStart, Forward, Forwarded, Hello, HelloReply, PeerError,
        Peers, SnapshotPair, Target,
    },
};
use tokio::sync::{mpsc, watch};

use super::Mutant;

/// The newest index that came to a datacenter, of each prefix.
pub(crate) type Watermark = Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>;

/// Peers with a fault.
#[derive(Clone)]
pub(crate) struct MutantPeers<P> {
    inner: P,
    mutant: Mutant,
    newest: Watermark,
}

impl<P: Peers> MutantPeers<P> {
    pub(crate) fn new(inner: P, mutant: Mutant, newest: Watermark) -> Self {
        Self { inner, mutant, newest }
    }
}

impl<P: Peers> Peers for MutantPeers<P> {
    async fn hello(&self, to: &Target, hello: Hello) -> Result<HelloReply, PeerError> {
        self.inner.hello(to, hello).await
    }

    async fn forward(
        &self,
        to: &Target,
        request: Forward,
        deadline: Duration,
    ) -> Result<Forwarded, PeerError> {
        self.inner.forward(to, request, deadline).await
    }

    async fn absent(&self, to: &Target, absent: Absent, deadline: Duration) -> Result<(), PeerError> {
        self.inner.absent(to, absent, deadline).await
    }

    #[expect(clippy::disallowed_methods, reason = "it ends with the stream that it reads")]
    async fn follow(
        &self,
        to: &Target,
        start: FollowStart,
        acks: watch::Receiver<Position>,
    ) -> Result<mpsc::Receiver<Result<FollowItem, PeerError>>, PeerError> {
        let newest = self.newest.lock().unwrap().entry(start.prefix.clone()).or_default().clone();
        let mut items = self.inner.follow(to, start, acks).await?;
        if self.mutant != Mutant::Watermark {
            return Ok(items);
        }
        let (changed, ours) = mpsc::channel(FOLLOW_QUEUE);
        tokio::spawn(async move {
            let mut dropped = 0;
            while let Some(item) = items.recv().await {
                let item = item.map(|item| filtered(item, &newest, &mut dropped));
                if changed.send(item).await.is_err() {
                    return;
                }
            }
        });
        Ok(ours)
    }
}

/// Without what is not newer than what came before.
fn filtered(item: FollowItem, newest: &AtomicU64, dropped: &mut u64) -> FollowItem {
    match item {
        FollowItem::SnapshotPairs(mut pairs) => {
            let count = pairs.len();
            let mark = newest.load(Ordering::Relaxed);
            pairs.retain(|pair| index(pair).is_none_or(|index| index > mark));
            *dropped += (count - pairs.len()) as u64;
            FollowItem::SnapshotPairs(pairs)
        }
        FollowItem::SnapshotEnd { position, hash, pairs } => {
            FollowItem::SnapshotEnd { position, hash, pairs: pairs - *dropped }
        }
        FollowItem::Entry { mut entry, hash, modify_index, blobs } => {
            if newest.fetch_max(modify_index, Ordering::Relaxed) >= modify_index {
                entry.ops.clear();
            }
            FollowItem::Entry { entry, hash, modify_index, blobs }
        }
        other => other,
    }
}

fn index(pair: &SnapshotPair) -> Option<u64> {
    match pair {
        SnapshotPair::Data(pair) | SnapshotPair::Hashed { pair, .. } => Some(pair.modify_index),
        SnapshotPair::Held(_) => None,
    }
}

//! What an agent answers, played: by the path of the request.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use causeway::{
    model::{name::Datacenter, sync::Position},
    sync::{
        peer::{
            Absent, FollowItem, FollowStart, Forward, Forwarded, Hello, HelloReply, PeerError, Served,
            VERSION,
        },
        record::Hash,
    },
};
use tokio::sync::{mpsc, watch};

/// How long `/soon` takes.
const SOON: Duration = Duration::from_millis(500);

/// Answers for one agent. Clones count into the same counters.
#[derive(Clone)]
pub(super) struct Double {
    me: Hello,
    pub(super) counts: Arc<Counts>,
}

#[derive(Default)]
pub(super) struct Counts {
    /// Requests that were begun.
    pub(super) begun: AtomicUsize,
    /// Items that a follower's stream took.
    pub(super) items: AtomicUsize,
    /// Followers that are being served.
    pub(super) followers: watch::Sender<usize>,
}

impl Double {
    pub(super) fn new(me: Hello) -> Self {
        Self { me, counts: Arc::default() }
    }

    pub(super) fn begun(&self) -> usize {
        self.counts.begun.load(Ordering::SeqCst)
    }
}

/// Counts a follower for as long as it is served.
struct Following(Arc<Counts>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.followers.send_modify(|count| *count -= 1);
    }
}

impl Served for Double {
    async fn hello(&self, _: &Datacenter, _: Hello) -> Result<HelloReply, PeerError> {
        let me = self.me.clone();
        Ok(HelloReply {
            version: VERSION,
            datacenter: me.datacenter,
            node: me.node,
            prefixes: me.prefixes,
            max_txn_ops: me.max_txn_ops,
            max_value_bytes: me.max_value_bytes,
            known: Vec::new(),
        })
    }

    async fn forward(&self, from: &Datacenter, request: Forward) -> Result<Forwarded, PeerError> {
        self.counts.begun.fetch_add(1, Ordering::SeqCst);
        let why = || "because".to_owned();
        let body = match request.path_and_query.as_str() {
            "/hang" => std::future::pending().await,
            "/soon" => {
                tokio::time::sleep(SOON).await;
                request.body
            }
            "/unreached" => return Err(PeerError::Unreached(why())),
            "/unknown" => return Err(PeerError::Unknown(why())),
            "/refused" => return Err(PeerError::Refused(why())),
            "/misfit" => return Err(PeerError::Misfit(why())),
            "/big" => vec![b'x'; 9_000_000].into(),
            _ => request.body,
        };
        let token = request.token.map(|token| token.expose().to_owned()).unwrap_or_default();
        let headers = BTreeMap::from([
            ("x-from".to_owned(), from.to_string()),
            ("x-node".to_owned(), self.me.node.to_string()),
            ("x-token".to_owned(), token),
        ]);
        Ok(Forwarded { status: 200, headers: headers.into_iter().collect(), body })
    }

    /// `gone/` is empty, and of all else something is there.
    async fn absent(&self, _: &Datacenter, absent: Absent) -> Result<(), PeerError> {
        match absent.prefix.as_str() {
            "gone/" => Ok(()),
            _ => Err(PeerError::Refused("a key is there".into())),
        }
    }

    /// `flood` sends as fast as it is taken; all others get a snapshot, and then each of their acks as a tip.
    async fn follow(
        &self,
        _: &Datacenter,
        start: FollowStart,
        mut acks: watch::Receiver<Position>,
        items: mpsc::Sender<Result<FollowItem, PeerError>>,
    ) {
        self.counts.followers.send_modify(|count| *count += 1);
        let _following = Following(self.counts.clone());
        if start.prefix == "flood" {
            let reason = "x".repeat(100_000);
            let item = FollowItem::Forked { home: Position::default(), reason };
            while items.send(Ok(item.clone())).await.is_ok() {
                self.counts.items.fetch_add(1, Ordering::SeqCst);
            }
            return;
        }
        let end = FollowItem::SnapshotEnd { position: Position::default(), hash: Hash::of(b""), pairs: 0 };
        for item in [FollowItem::SnapshotBegin, end] {
            let _ = items.send(Ok(item)).await;
        }
        while acks.changed().await.is_ok() {
            let position = *acks.borrow_and_update();
            if items.send(Ok(FollowItem::Tip { position, ts_ms: 0 })).await.is_err() {
                return;
            }
        }
    }
}

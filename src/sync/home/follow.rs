//! Serving a follower: its position is compared with our history, then it is sent what it lacks, and from then on what
//! is committed.
//!
//! Entries come from a short memory of those just committed, and from Consul where a follower is too slow for that: what
//! waits for it is never kept.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{broadcast, mpsc, watch};

use crate::{
    model::{name::Datacenter, sync::Position},
    sync::{
        home::{
            Live, Shared, Stage, Tip,
            fence::Sentinel,
            history::{self, Logged, Standing},
            journal::{self, JournalError},
            refusal, snapshot,
        },
        peer::{FollowItem, FollowStart, Known, PeerError},
        record::{Epochs, Hash, Head},
        store::Store,
    },
};

/// How often a follower hears where the journal ends, at least.
const TIP: Duration = Duration::from_secs(5);

type Items = mpsc::Sender<Result<FollowItem, PeerError>>;

/// Why a stream ends.
enum End {
    /// The follower went away, or was told why it cannot be served.
    Over,
    /// We cannot go on.
    Failed(PeerError),
}

impl From<JournalError> for End {
    fn from(error: JournalError) -> Self {
        Self::Failed(PeerError::Unreached(error.to_string()))
    }
}

/// Serves a follower until it goes away or this agent stops serving.
pub(crate) async fn follow<S: Store>(
    shared: &Shared<S>,
    from: &Datacenter,
    start: FollowStart,
    acks: watch::Receiver<Position>,
    items: Items,
) {
    let stream = Stream { shared, from, items, acks, live: shared.live.subscribe() };
    let items = stream.items.clone();
    let mut stage = shared.stage.subscribe();
    let end = tokio::select! { biased;
        () = items.closed() => End::Over,
        end = ended(shared, &mut stage) => end,
        end = stream.run(start) => end,
    };
    if let End::Failed(error) = end {
        // A follower that went away wants no reason.
        let _ = items.send(Err(error)).await;
    }
}

/// Waits until what is served now is served no more.
async fn ended<S>(shared: &Shared<S>, stage: &mut watch::Receiver<Stage>) -> End {
    let prefix = &shared.settings.prefix.text;
    let reason = match &*stage.borrow_and_update() {
        Stage::TakingOver(None) => Some(format!("this agent is just taking {prefix} over")),
        stage => refusal(prefix, stage).map(|refusal| refusal.to_string()),
    };
    if let Some(reason) = reason {
        return End::Failed(PeerError::Unreached(reason));
    }
    // A closed channel means that the home is gone.
    let _ = stage.changed().await;
    End::Failed(PeerError::Unreached(format!("this agent stopped serving {prefix}")))
}

struct Stream<'a, S> {
    shared: &'a Shared<S>,
    from: &'a Datacenter,
    items: Items,
    acks: watch::Receiver<Position>,
    live: broadcast::Receiver<Arc<Live>>,
}

impl<S: Store> Stream<'_, S> {
    async fn run(mut self, start: FollowStart) -> End {
        let epochs = match &*self.shared.stage.borrow() {
            Stage::Serving(epochs) => epochs.clone(),
            _ => return End::Over,
        };
        match self.stream(start, &epochs).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn stream(&mut self, start: FollowStart, epochs: &Epochs) -> Result<std::convert::Infallible, End> {
        let standing = match &start.at {
            Some(at) => self.standing(epochs, at).await?,
            None => Standing::Trimmed,
        };
        let mut next = match (standing, start.at) {
            (Standing::Continues, Some((position, _))) if !start.compare => {
                self.send(FollowItem::Continues).await?;
                position.seq + 1
            }
            (Standing::Forked { reason, contests }, at) => {
                return Err(self.forked(reason, contests, at).await);
            }
            _ => self.snapshot(start.compare).await?,
        };
        let mut heard = tokio::time::interval(TIP);
        loop {
            next = self.catch_up(next).await?;
            tokio::select! { biased;
                live = self.live.recv() => next = self.live(live, next).await?,
                acked = self.acks.changed() => match acked {
                    Ok(()) => self.ack(),
                    Err(_) => return Err(End::Over),
                },
                _ = heard.tick() => self.tip().await?,
            }
        }
    }

    async fn send(&self, item: FollowItem) -> Result<(), End> {
        self.items.send(Ok(item)).await.map_err(|_| End::Over)
    }

    fn now(&self) -> Result<Tip, End> {
        self.shared.tip.borrow().clone().ok_or(End::Over)
    }

    async fn tip(&self) -> Result<(), End> {
        let Tip { position, ts_ms, .. } = self.now()?;
        self.send(FollowItem::Tip { position, ts_ms }).await
    }

    async fn standing(&self, epochs: &Epochs, at: &(Position, Hash)) -> Result<Standing, End> {
        let Tip { position, hash, first, .. } = self.now()?;
        let head = Head { position, hash, first };
        let entry: Option<Logged> = match history::wanted(&head, at.0) {
            Some(seq) => {
                let mut entries =
                    journal::some_entries(&self.shared.store, &self.shared.layout, seq, seq).await?;
                entries.pop()
            }
            None => None,
        };
        Ok(history::standing(epochs, &head, (at.0, &at.1), entry.as_ref()))
    }

    async fn forked(&self, reason: String, contests: bool, at: Option<(Position, Hash)>) -> End {
        let home = match self.now() {
            Ok(tip) => tip.position,
            Err(end) => return end,
        };
        tracing::warn!(dc = %self.from, prefix = self.shared.settings.prefix.text, reason, "a follower has another history");
        let sent = self.send(FollowItem::Forked { home, reason }).await;
        if let (true, Some((position, hash))) = (contests, at) {
            let prefix = self.shared.settings.prefix.text.clone();
            // When the queue is full the home is in doubt already.
            let _ = self.shared.evidence.try_send(Known { prefix, position, hash });
        }
        sent.err().unwrap_or(End::Over)
    }

    /// Sends all data as of one position, and gives the number of the entry behind it.
    async fn snapshot(&mut self, compare: bool) -> Result<u64, End> {
        let shared = self.shared;
        let _turn = shared.snapshots.acquire().await.map_err(|_| End::Over)?;
        self.send(FollowItem::SnapshotBegin).await?;
        let (store, layout) = (&shared.store, &shared.layout);
        let before: Head = journal::expected(store, &layout.head()).await?.record;
        let listed = journal::data(store, layout, &shared.settings.prefix.text).await?;
        // Whoever may not read our records may not have read the data either.
        journal::expected::<S, Sentinel>(store, &layout.sentinel()).await?;
        let after: Head = journal::expected(store, &layout.head()).await?.record;
        let shots = if before.position == after.position && before.hash == after.hash {
            snapshot::as_listed(listed)
        } else {
            let entries =
                journal::entries(store, layout, before.position.seq + 1, after.position.seq).await?;
            let blobs = self.values(&entries).await?;
            let missing = || JournalError::Missing("a value that the journal names".into());
            snapshot::brought_forward(listed, &entries, &blobs).ok_or_else(missing)?
        };
        let pairs = shots.len() as u64;
        for message in snapshot::messages(shots, compare) {
            self.send(FollowItem::SnapshotPairs(message)).await?;
        }
        let Head { position, hash, .. } = after;
        self.reached(position).await?;
        self.send(FollowItem::SnapshotEnd { position, hash, pairs }).await?;
        Ok(position.seq + 1)
    }

    /// Waits until the home itself knows that it has committed this. Consul may show a transaction whose answer was lost:
    /// a follower that had it before the home knows would seem to have another history.
    async fn reached(&self, position: Position) -> Result<(), End> {
        let mut tip = self.shared.tip.subscribe();
        let is_there = |tip: &Option<Tip>| tip.as_ref().is_some_and(|tip| tip.position >= position);
        tip.wait_for(is_there).await.map(drop).map_err(|_| End::Over)
    }

    async fn values(&self, entries: &[Logged]) -> Result<BTreeMap<Hash, bytes::Bytes>, End> {
        let mut values = BTreeMap::new();
        for logged in entries {
            let blobs = journal::blobs(&self.shared.store, &self.shared.layout, &logged.entry).await?;
            values.extend(journal::named(&logged.entry).cloned().zip(blobs));
        }
        Ok(values)
    }

    /// Sends from Consul what was committed before the entries that still come by themselves.
    async fn catch_up(&mut self, mut next: u64) -> Result<u64, End> {
        loop {
            let last = self.now()?.position.seq;
            if next > last || self.live.len() as u64 > last - next {
                return Ok(next);
            }
            let (store, layout) = (&self.shared.store, &self.shared.layout);
            for logged in journal::some_entries(store, layout, next, last).await? {
                next = logged.entry.position.seq + 1;
                self.entry(logged).await?;
            }
        }
    }

    async fn entry(&self, logged: Logged) -> Result<(), End> {
        let Logged { entry, hash, index } = logged;
        let blobs = journal::blobs(&self.shared.store, &self.shared.layout, &entry).await?;
        self.send(FollowItem::Entry { entry, hash, modify_index: index, blobs }).await
    }

    async fn live(
        &mut self,
        live: Result<Arc<Live>, broadcast::error::RecvError>,
        next: u64,
    ) -> Result<u64, End> {
        let live = match live {
            Ok(live) => live,
            // It was too slow: Consul still has what was forgotten here.
            Err(broadcast::error::RecvError::Lagged(_)) => return Ok(next),
            Err(broadcast::error::RecvError::Closed) => return Err(End::Over),
        };
        match &live.entry {
            Some(entry) if live.seq == next => {
                self.entry(Logged { entry: entry.clone(), hash: live.hash.clone(), index: live.index })
                    .await?;
                Ok(next + 1)
            }
            _ => Ok(next),
        }
    }

    /// The follower has said how far it is.
    fn ack(&mut self) {
        let position = *self.acks.borrow_and_update();
        let is_ours = self.shared.tip.borrow().as_ref().is_some_and(|tip| position <= tip.position);
        if is_ours {
            self.shared.acks.send_modify(|acks| {
                acks.insert(self.from.clone(), position);
            });
        }
    }
}

//! The takeover: both lists are compared, and nothing is written.

use crate::{
    model::{kv::Pair, sync::Position},
    sync::{
        peer::{FollowItem, Peers, SnapshotPair},
        record::Hash,
        replica::{
            compare::Compare,
            machine::{Event, Stage},
            snapshot::{Hashed, Listed},
            task::{End, Settling, Worker, connection::unexpected, copy, scan::Scan},
        },
        store::{Read, Store},
    },
};

impl<S: Store, P: Peers> Worker<S, P> {
    pub(super) async fn compare(&mut self, at: (Position, Hash)) -> Result<(), End> {
        self.step(Event::Reached(Stage::Compare));
        let mut connection = self.follow(Some(at), true).await?;
        loop {
            match self.next(&mut connection).await? {
                FollowItem::SnapshotBegin => break,
                FollowItem::Tip { .. } => {}
                other => return Err(unexpected(&other)),
            }
        }
        let prefix = self.settings.prefix.text.clone();
        let mut compare = Compare::new(prefix.clone(), self.marks().await?);
        let mut scan = Scan::begin(&self.store, &prefix, Read::Consistent);
        let mut has_begun = false;
        let told = loop {
            match self.next_within(&mut connection, self.patience(has_begun)).await? {
                FollowItem::SnapshotPairs(pairs) => {
                    has_begun = true;
                    if let Some(last) = pairs.last() {
                        scan.feed(compare.merge(), copy::key(last)).await?;
                    }
                    for pair in pairs {
                        compare.take(hashed(pair)).map_err(|error| End::Failed(error.to_string()))?;
                    }
                }
                FollowItem::SnapshotEnd { pairs, .. } => break pairs,
                FollowItem::Tip { .. } => {}
                other => return Err(unexpected(&other)),
            }
        };
        scan.finish(compare.merge()).await?;
        let (memory, differences) = compare.end(told).map_err(|error| End::Failed(error.to_string()))?;
        *self.shared.memory_mut() = Some(memory);
        self.shared.view().counts.compares += 1;
        if differences.is_full() {
            return Err(End::Anew("too many keys differ from home's"));
        }
        self.settling = if differences.is_empty() { Settling::Done } else { Settling::Unheard };
        self.differences = differences;
        self.publish();
        Ok(())
    }
}

/// A home that sends values all the same spares us nothing and harms nothing.
fn hashed(pair: SnapshotPair) -> Listed<Hashed> {
    match pair {
        SnapshotPair::Held(key) => Listed::Held(key),
        SnapshotPair::Hashed { pair, hash } => Listed::Data(Hashed { pair, hash }),
        SnapshotPair::Data(pair) => {
            let hash = *blake3::hash(&pair.value).as_bytes();
            Listed::Data(Hashed { pair: Pair { value: bytes::Bytes::new(), ..pair }, hash })
        }
    }
}

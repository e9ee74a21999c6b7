//! The stream from home, as it is opened and heard.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    lifecycle,
    model::sync::Position,
    sync::{
        peer::{FollowItem, FollowStart, PeerError, Peers, Target},
        record::Hash,
        replica::{
            machine::Reason,
            task::{End, Worker},
        },
        store::Store,
    },
};

/// A stream from home.
pub(super) struct Connection {
    pub(super) items: mpsc::Receiver<Result<FollowItem, PeerError>>,
    pub(super) acks: watch::Sender<Position>,
}

impl<S: Store, P: Peers> Worker<S, P> {
    /// Asks the home whether it knows this position, and takes nothing.
    pub(super) async fn check(&mut self, at: (Position, Hash)) -> Result<(), End> {
        let mut connection = self.follow(Some(at), true).await?;
        match self.next(&mut connection).await? {
            FollowItem::Continues | FollowItem::SnapshotBegin => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn follow(
        &self,
        at: Option<(Position, Hash)>,
        compare: bool,
    ) -> Result<Connection, End> {
        let home = &self.settings.prefix.home;
        let position = at.as_ref().map(|(position, _)| *position).unwrap_or_default();
        let (acks, acked) = watch::channel(position);
        let start = FollowStart { prefix: self.settings.prefix.text.clone(), at, compare, origin: None };
        let to = Target::Datacenter(home.clone());
        match timeout(self.settings.silence, self.peers.follow(&to, start, acked)).await {
            Ok(Ok(items)) => {
                self.shared.view().is_connected = true;
                Ok(Connection { items, acks })
            }
            Ok(Err(error)) => Err(End::Failed(format!("follow {home}: {error}"))),
            Err(_) => Err(End::Failed(format!("follow {home}: no answer in {:?}", self.settings.silence))),
        }
    }

    /// The next item. A home that does not know our position puts us on hold whenever it says so.
    pub(super) async fn next(&self, connection: &mut Connection) -> Result<FollowItem, End> {
        self.next_within(connection, self.settings.silence).await
    }

    pub(super) async fn next_within(
        &self,
        connection: &mut Connection,
        patience: Duration,
    ) -> Result<FollowItem, End> {
        match timeout(patience, connection.items.recv()).await {
            Ok(item) => self.heard(item),
            Err(_) => Err(self.silent(patience)),
        }
    }

    pub(super) fn heard(&self, item: Option<Result<FollowItem, PeerError>>) -> Result<FollowItem, End> {
        let home = &self.settings.prefix.home;
        match item {
            None => Err(End::Failed(format!("the stream from {home} ended"))),
            Some(Err(error)) => Err(End::Failed(format!("the stream from {home} ended: {error}"))),
            Some(Ok(FollowItem::Forked { home, reason })) => {
                // Its indexes count anew: none of those remembered means anything now.
                if let Some(memory) = self.shared.memory_mut().as_mut() {
                    memory.forget_home();
                }
                Err(End::Held(Reason::Forked { home, reason }))
            }
            Some(Ok(item)) => {
                self.shared.view().heard_at = Some(lifecycle::now());
                Ok(item)
            }
        }
    }

    pub(super) fn silent(&self, patience: Duration) -> End {
        End::Failed(format!("{} has said nothing for {patience:?}", self.settings.prefix.home))
    }
}

/// The home sent what has no place there.
pub(super) fn unexpected(item: &FollowItem) -> End {
    let name = match item {
        FollowItem::Continues => "a second `continues`",
        FollowItem::Forked { .. } => "`forked`",
        FollowItem::SnapshotBegin => "a second snapshot",
        FollowItem::SnapshotPairs(_) => "keys",
        FollowItem::SnapshotEnd { .. } => "the end of a snapshot",
        FollowItem::Entry { .. } => "an entry",
        FollowItem::Tip { .. } => "the journal's end",
    };
    End::Failed(format!(
        "the home sent {name} where it does not belong; both agents should be of one release"
    ))
}

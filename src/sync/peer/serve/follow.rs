//! The home's end of a follower's stream: acks in, items out, and no more than a few of them waiting.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::{
    lifecycle::{self, Task},
    model::{name::Datacenter, sync::Position},
    sync::peer::{
        FOLLOW_QUEUE, FollowItem, PeerError, Served, convert, status,
        wire::{FollowDown, FollowUp},
    },
};

/// A follower says where it begins when it opens its stream.
const START_LIMIT: Duration = Duration::from_secs(5);

/// What a follower is sent. When its stream is gone, what served it ends.
pub(super) struct Downs {
    items: mpsc::Receiver<Result<FollowItem, PeerError>>,
    ready: VecDeque<FollowDown>,
    has_failed: bool,
    _server: Task<()>,
}

/// Begins to serve a follower.
pub(super) async fn begin<S: Served>(
    served: S,
    from: Datacenter,
    mut ups: Streaming<FollowUp>,
) -> Result<Downs, Status> {
    let first = timeout(START_LIMIT, ups.message()).await;
    let first = first.map_err(|_| Status::invalid_argument("the stream does not say where it begins"))??;
    let first = first.ok_or_else(|| Status::invalid_argument("the stream is empty"))?;
    let start = convert::start_in(first).map_err(|error| status::not_understood(&error))?;
    let at = start.at.as_ref().map(|(position, _)| *position).unwrap_or_default();
    let (acked, acks) = watch::channel(at);
    let (sender, items) = mpsc::channel(FOLLOW_QUEUE);
    let server = lifecycle::spawn("sync.peer.follower", async move {
        let failed = sender.clone();
        tokio::select! {
            biased;
            error = take_acks(ups, &acked) => {
                let _ = failed.send(Err(error)).await;
            }
            () = served.follow(&from, start, acks, sender) => {}
        }
    });
    Ok(Downs { items, ready: VecDeque::new(), has_failed: false, _server: server })
}

/// Ends when the follower breaks the rules or is gone.
async fn take_acks(mut ups: Streaming<FollowUp>, acked: &watch::Sender<Position>) -> PeerError {
    loop {
        match ups.message().await {
            Ok(Some(up)) => match convert::ack_in(up) {
                Ok(position) => drop(acked.send_replace(position)),
                Err(error) => return PeerError::Refused(error.to_string()),
            },
            // It has no more to say, and still listens.
            Ok(None) => std::future::pending().await,
            Err(status) => return status::peer_error(&status),
        }
    }
}

impl Stream for Downs {
    type Item = Result<FollowDown, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(down) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(down)));
            }
            if self.has_failed {
                return Poll::Ready(None);
            }
            let failure = match ready!(self.items.poll_recv(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => status::status(error),
                Some(Ok(item)) => match convert::item_out(item) {
                    Ok(downs) => {
                        self.ready.extend(downs);
                        continue;
                    }
                    Err(error) => Status::failed_precondition(error.to_string()),
                },
            };
            self.has_failed = true;
            return Poll::Ready(Some(Err(failure)));
        }
    }
}

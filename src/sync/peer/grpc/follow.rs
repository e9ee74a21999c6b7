//! The follower's end of a stream.

use std::{future::Future, time::Duration};

use futures_util::StreamExt as _;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_stream::wrappers::WatchStream;
use tonic::Streaming;

use crate::{
    model::sync::Position,
    sync::peer::{
        FOLLOW_QUEUE, FollowItem, FollowStart, PeerError, convert, grpc::link::Link, status, wire as pb,
    },
};

/// Until the home begins to answer. It looks at its journal meanwhile.
const BEGIN_LIMIT: Duration = Duration::from_secs(5);

type Items = mpsc::Sender<Result<FollowItem, PeerError>>;

/// Begins to follow over a connection of its own. Gives where items arrive, and what moves them there; that ends when the
/// receiver is dropped.
pub(super) async fn begin(
    link: Link,
    start: FollowStart,
    acks: watch::Receiver<Position>,
) -> Result<(mpsc::Receiver<Result<FollowItem, PeerError>>, impl Future<Output = ()> + Send + use<>), PeerError>
{
    let compare = start.compare;
    // What is sent up must end with what comes down: HTTP/2 gives a stream up only when both ends are let go.
    let (going, gone) = oneshot::channel::<()>();
    // The ack that stands already is what the start says.
    let ups = tokio_stream::once(convert::start_out(start))
        .chain(WatchStream::from_changes(acks).map(convert::ack_out))
        .take_until(gone);
    let mut client = link.client();
    let answer = timeout(BEGIN_LIMIT, client.follow(ups)).await;
    let answer = answer.map_err(|_| PeerError::Unreached(format!("{}: no answer in time", link.way())))?;
    let downs = answer.map_err(|status| status::peer_error(&status))?.into_inner();
    let (items, received) = mpsc::channel(FOLLOW_QUEUE);
    let pump = async move {
        move_all(downs, compare, &items).await;
        drop((going, link));
    };
    Ok((received, pump))
}

async fn move_all(mut downs: Streaming<pb::FollowDown>, compare: bool, items: &Items) {
    loop {
        let message = tokio::select! {
            biased;
            () = items.closed() => return,
            message = downs.message() => message,
        };
        let item = match message {
            Ok(Some(down)) => {
                convert::item_in(down, compare).map_err(|error| PeerError::Misfit(error.to_string()))
            }
            Ok(None) => Err(PeerError::Unknown("the other agent ended the stream".into())),
            Err(status) => Err(status::peer_error(&status)),
        };
        let is_last = item.is_err();
        if items.send(item).await.is_err() || is_last {
            return;
        }
    }
}

//! Followers: items down, acks up, and nobody waits for a slow one.

use std::{sync::atomic::Ordering, time::Duration};

use causeway::{
    model::sync::Position,
    sync::peer::{FOLLOW_QUEUE, FollowItem, FollowStart, PeerError, Peers, Target},
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::rig::{Agent, Ca, PATIENCE, eventually, pair};

pub(super) type Items = mpsc::Receiver<Result<FollowItem, PeerError>>;

pub(super) async fn follow(agent: &Agent, prefix: &str) -> (watch::Sender<Position>, Items) {
    let (acked, acks) = watch::channel(Position::default());
    let start = FollowStart { prefix: prefix.into(), at: None, compare: false, origin: None };
    let to = Target::Datacenter("primary".into());
    (acked, agent.peers.follow(&to, start, acks).await.unwrap())
}

pub(super) async fn next(items: &mut Items) -> Result<FollowItem, PeerError> {
    timeout(PATIENCE, items.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn items_come_down_and_acks_go_up() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let (acked, mut items) = follow(&near, "config/").await;
    assert_eq!(next(&mut items).await, Ok(FollowItem::SnapshotBegin));
    assert!(matches!(next(&mut items).await, Ok(FollowItem::SnapshotEnd { pairs: 0, .. })));
    for seq in 1..4 {
        let position = Position { epoch: 1, seq };
        acked.send_replace(position);
        assert_eq!(next(&mut items).await, Ok(FollowItem::Tip { position, ts_ms: 0 }));
    }
    drop(items);
    eventually("the home has noticed that nobody follows", async || {
        *far.double.counts.followers.borrow() == 0
    })
    .await;
}

#[tokio::test]
async fn a_slow_follower_costs_a_bounded_amount_and_holds_up_nobody() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let (_acked, mut items) = follow(&near, "flood").await;
    let sent = || far.double.counts.items.load(Ordering::SeqCst);
    // Until nothing moves any more.
    let mut last = 0;
    eventually("the home waits for the follower", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        sent() > 0 && std::mem::replace(&mut last, sent()) == sent()
    })
    .await;
    // Both queues, a window of 1 MiB and what the kernel and the buffers of TLS hold of items of 100 kB.
    assert!(last < 2 * FOLLOW_QUEUE + 100, "{last} items are under way to a follower that takes none");
    near.ask("primary", "/echo", PATIENCE).await.unwrap();
    for _ in 0..last {
        next(&mut items).await.unwrap();
    }
    eventually("the home goes on", async || sent() > last).await;
}

#[tokio::test]
async fn a_home_that_stops_ends_the_stream() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let (_acked, mut items) = follow(&near, "config/").await;
    next(&mut items).await.unwrap();
    next(&mut items).await.unwrap();
    drop(far);
    let end = next(&mut items).await.unwrap_err();
    assert!(matches!(end, PeerError::Unknown(_)), "{end:?}");
    assert!(items.recv().await.is_none());
}

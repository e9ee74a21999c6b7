//! Cuts without a word, and certificates that change under way.

use std::{sync::Arc, time::Duration};

use causeway::{
    lifecycle::now,
    sync::peer::{PeerError, intentions::Verdict},
};

use super::{
    following::{follow, next},
    rig::{Agent, Ca, PATIENCE, Relay, eventually, identity, pair},
};

#[tokio::test]
async fn both_sides_notice_a_silent_cut_within_ten_seconds() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let relay = Relay::start(far.address).await;
    near.route("primary", &[relay.address]);
    let (_acked, mut items) = follow(&near, "config/").await;
    next(&mut items).await.unwrap();
    next(&mut items).await.unwrap();
    near.ask("primary", "/echo", PATIENCE).await.unwrap();
    let began = now();
    relay.fall_silent();
    let end = next(&mut items).await.unwrap_err();
    assert!(matches!(end, PeerError::Unknown(_)), "{end:?}");
    eventually("the home has noticed too", async || *far.double.counts.followers.borrow() == 0).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    relay.mend();
    eventually("it is reached again", async || near.ask("primary", "/echo", PATIENCE).await.is_ok()).await;
}

/// Asks on end until it is told to stop. Gives how many were answered.
async fn asking(agent: &Agent, until: impl Future<Output = ()>) -> Result<usize, PeerError> {
    tokio::pin!(until);
    let mut answered = 0;
    loop {
        tokio::select! {
            biased;
            () = until.as_mut() => return Ok(answered),
            answer = agent.ask("primary", "/echo", PATIENCE) => answer?,
        };
        answered += 1;
    }
}

#[tokio::test]
async fn leaves_and_roots_change_without_a_failed_call() {
    let (old, new) = (Ca::new(), Ca::new());
    let (near, far) = pair(&old).await;
    let give = |agent: &Agent, identity: Arc<_>| drop(agent.identity.send_replace(Some(identity)));
    let rotate = async {
        // Each datacenter's Consul lists both roots before a leaf of the new one is in use, at its own time.
        for (leaf, both) in
            [(&old, [&old, &old]), (&old, [&old, &new]), (&new, [&old, &new]), (&new, [&new, &new])]
        {
            for (agent, dc) in [(&near, "secondary"), (&far, "primary")] {
                give(agent, identity(leaf, &both, dc));
                // A follower has a connection of its own: this is a new handshake.
                let (_acked, mut items) = follow(&near, "config/").await;
                next(&mut items).await.unwrap();
            }
        }
    };
    let answered = Box::pin(asking(&near, rotate)).await.unwrap();
    assert!(answered > 8, "{answered}");
    // What was open stays open, though its certificates are of a root that nobody lists any more.
    near.ask("primary", "/echo", PATIENCE).await.unwrap();
    let stranger = Agent::start("secondary", &old).await;
    stranger.route("primary", &[far.address]);
    let refused = stranger.ask("primary", "/echo", PATIENCE).await.unwrap_err();
    assert!(matches!(refused, PeerError::Misfit(_)), "{refused:?}");
}

#[tokio::test]
async fn a_follower_is_cut_when_an_intention_denies_it() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let (_acked, mut items) = follow(&near, "config/").await;
    next(&mut items).await.unwrap();
    next(&mut items).await.unwrap();
    far.judge("primary", Verdict::Denied("another".into()));
    near.ask("primary", "/echo", PATIENCE).await.unwrap();
    assert!(items.try_recv().is_err(), "a verdict on others changes nothing");
    far.judge("secondary", Verdict::Denied("by test".into()));
    assert!(matches!(next(&mut items).await, Err(PeerError::Unknown(_))));
}

//! Sessions that nobody needs any more: a lock that one of them got is released, then it is ended. A session ended while
//! it holds a lock would leave that closed for the lock-delay.

use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::debug;

use crate::{
    lifecycle::Stop,
    model::{name::Datacenter, session::SessionId},
    sync::{
        home::memory::LOCK_FLAGS,
        lock::locks::{CALL, Grants, unlock, write},
        store::{Store, within},
    },
};

/// A session without a client.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) session: SessionId,
    /// What it may hold.
    pub(super) held: Option<Held>,
}

/// A lock that a session may hold.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) key: String,
    pub(super) value: Bytes,
    pub(super) origin: Datacenter,
}

/// Ends orphans until the stop; those that come later end by their TTL.
pub(super) async fn give_back<S: Store, G: Grants>(
    store: S,
    grants: G,
    mut orphans: mpsc::Receiver<Orphan>,
    stop: Stop,
) {
    loop {
        let orphan = tokio::select! {
            biased;
            () = stop.wait() => return,
            orphan = orphans.recv() => orphan,
        };
        let Some(Orphan { session, held }) = orphan else { return };
        if let Some(Held { key, value, origin }) = held {
            let ops = unlock(&key, value, LOCK_FLAGS, &session);
            let done = grants.commit(write(format!("{session}.orphan"), &origin, ops)).await;
            debug!(key, is_done = done.is_ok(), "gave back what nobody took");
        }
        if let Err(error) = within(CALL, store.destroy_session(&session)).await {
            debug!(%error, "end a session");
        }
    }
}

//! A place in the line of a lock. Dropping it leaves the line, and keeps the place for a while.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{
    lifecycle,
    sync::{
        lock::{
            locks::{Shared, lock},
            waiters::{Full, Leave, MAX_WAITERS, Standing, Ticket},
        },
        refusal::Refusal,
    },
};

/// For the last attempt of one whose time is nearly over.
const LAST_ATTEMPT: Duration = Duration::from_secs(10);

/// A place.
pub(super) struct Place<S, G> {
    shared: Arc<Shared<S, G>>,
    name: String,
    ticket: Ticket,
    until: Instant,
    how: Leave,
}

impl<S, G> Place<S, G> {
    /// Comes to the line of lock `name`, as `request_id`.
    pub(super) fn join(
        shared: Arc<Shared<S, G>>,
        name: &str,
        request_id: &str,
        until: Instant,
    ) -> Result<Self, Refusal> {
        let now = lifecycle::now().into_std();
        let there_until = (until + LAST_ATTEMPT).into_std();
        let ticket = lock(&shared.line).join(name, request_id, there_until, now).map_err(|Full| {
            Refusal::Busy(format!("{MAX_WAITERS} wait for the lock {name} already; ask again later"))
        })?;
        shared.moves.send_modify(|moves| *moves += 1);
        Ok(Self { shared, name: name.to_owned(), ticket, until, how: Leave::Away })
    }

    /// Waits for the turn; false when the time is over, or the same client came again.
    pub(super) async fn turn(&mut self) -> bool {
        let mut moves = self.shared.moves.subscribe();
        loop {
            let now = lifecycle::now().into_std();
            match lock(&self.shared.line).standing(&self.name, self.ticket, now) {
                Standing::First => return true,
                Standing::Gone => return false,
                Standing::Behind(_) => {}
            }
            if !matches!(timeout_at(self.until, moves.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
    }

    /// It got what it wanted: nothing is kept.
    pub(super) fn done(&mut self) {
        self.how = Leave::Done;
    }
}

impl<S, G> Drop for Place<S, G> {
    fn drop(&mut self) {
        let now = lifecycle::now().into_std();
        lock(&self.shared.line).leave(&self.name, self.ticket, self.how, now);
        self.shared.moves.send_modify(|moves| *moves += 1);
    }
}

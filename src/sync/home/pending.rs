//! A request that waits for its transaction, and those who wait for its answer.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use crate::sync::{
    home::request::{Outcome, Request},
    record::Digest,
    refusal::Refusal,
};

const WAITS: u8 = 0;
const TAKEN: u8 = 1;
const CANCELLED: u8 = 2;

/// Whether a request is part of a transaction: it can be cancelled until then, and afterwards its outcome is open.
#[derive(Clone, Debug)]
pub(crate) struct Claim(Arc<AtomicU8>);

impl Claim {
    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Withdraws it; false when it is already being executed.
    pub(crate) fn cancel(&self) -> bool {
        self.change(WAITS, CANCELLED)
    }
}

#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Outcome>,
    deadline: Instant,
    claim: Claim,
    /// Its share of what may wait.
    _room: OwnedSemaphorePermit,
}

/// A request, and everybody who sent it.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) request: Request,
    /// What it asks for.
    pub(crate) digest: Digest,
    waiters: Vec<Waiter>,
    /// The entry that its large values were put for.
    pub(crate) blobs_for: Option<u64>,
    /// It goes into no transaction behind others: it must see what they did.
    pub(crate) is_first: bool,
}

impl Pending {
    /// A request whose answer goes to `answer` until `deadline`.
    pub(crate) fn new(
        request: Request,
        answer: oneshot::Sender<Outcome>,
        deadline: Instant,
        room: OwnedSemaphorePermit,
    ) -> (Self, Claim) {
        let claim = Claim(Arc::new(AtomicU8::new(WAITS)));
        let waiter = Waiter { answer, deadline, claim: claim.clone(), _room: room };
        let digest = request.digest();
        (Self { request, digest, waiters: vec![waiter], blobs_for: None, is_first: false }, claim)
    }

    /// Takes in the same request, sent again.
    pub(crate) fn join(&mut self, again: Self) {
        self.waiters.extend(again.waiters);
    }

    /// Takes it for a transaction; false when nobody waits for it any more, and it must not be executed.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let mut waiting = Vec::with_capacity(self.waiters.len());
        for waiter in self.waiters.drain(..) {
            if waiter.answer.is_closed() || waiter.deadline <= now {
                let late = "the home had no time for it; nothing was executed, send it again";
                // The other end may be gone: then nobody wants to know.
                let _ = waiter.answer.send(Err(Refusal::Deadline(late.into())));
            } else if waiter.claim.change(WAITS, TAKEN) {
                waiting.push(waiter);
            }
        }
        self.waiters = waiting;
        !self.waiters.is_empty()
    }

    /// Puts it back: it is in no transaction any more.
    pub(crate) fn put_back(&mut self) {
        for waiter in &self.waiters {
            waiter.claim.change(TAKEN, WAITS);
        }
    }

    /// Tells all who wait.
    pub(crate) fn answer(self, outcome: &Outcome) {
        for waiter in self.waiters {
            // The other end may be gone: then nobody wants to know.
            let _ = waiter.answer.send(outcome.clone());
        }
    }
}

//! The tokens that passed, shared between those who check tokens and the keeper.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;

use crate::{
    lifecycle,
    model::{name::ServiceName, secret::SecretText},
    state::tokens::{BYTES, TokenMark, Tokens},
};

/// The memory of checks. Clones share it.
#[derive(Clone)]
pub struct TokenMemory {
    tokens: watch::Sender<Tokens>,
    max_age: Duration,
}

impl TokenMemory {
    /// A memory of what an earlier run knew, or an empty one. A verdict counts for `max_age` since Consul gave it.
    pub fn new(kept: Option<Tokens>, max_age: Duration) -> Self {
        let tokens = kept.unwrap_or_else(|| Tokens::new(random()));
        Self { tokens: watch::Sender::new(tokens), max_age }
    }

    /// The mark by which a token is remembered.
    pub fn mark(&self, token: &SecretText) -> TokenMark {
        self.tokens.borrow().mark(token)
    }

    /// Consul said that the token has `service:write` on the service.
    pub fn pass(&self, mark: &TokenMark, service: &ServiceName) {
        // Without an age nothing is ever asked of it.
        if !self.max_age.is_zero() {
            let now_s = epoch_s(lifecycle::wall_clock());
            self.tokens.send_if_modified(|tokens| tokens.pass(mark, service, now_s, self.max_age));
        }
    }

    /// Consul said that it has not.
    pub fn strike(&self, mark: &TokenMark, service: &ServiceName) {
        self.tokens.send_if_modified(|tokens| tokens.strike(mark, service));
    }

    /// Consul said that there is no such token.
    pub fn forget(&self, mark: &TokenMark) {
        self.tokens.send_if_modified(|tokens| tokens.forget(mark));
    }

    /// Whether Consul said lately that the token has the right to any service.
    pub fn knows(&self, mark: &TokenMark) -> bool {
        self.tokens.borrow().knows(mark, epoch_s(lifecycle::wall_clock()), self.max_age)
    }

    /// Whether Consul said lately that it has.
    pub fn vouches(&self, mark: &TokenMark, service: &ServiceName) -> bool {
        self.tokens.borrow().vouch(mark, service, epoch_s(lifecycle::wall_clock()), self.max_age)
    }

    /// What is remembered, as it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Tokens> {
        self.tokens.subscribe()
    }

    /// What is remembered and still counts.
    pub(crate) fn recent(&self, now_s: u64) -> Tokens {
        self.tokens.borrow().recent(now_s, self.max_age)
    }
}

fn random() -> [u8; BYTES] {
    let mut key = [0; BYTES];
    SystemRandom::new().fill(&mut key).expect("the kernel has random bytes");
    key
}

/// Seconds since the Unix epoch.
pub(crate) fn epoch_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

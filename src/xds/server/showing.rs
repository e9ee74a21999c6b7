//! What a stream shows of itself: its state machine, stepped by the stream and looked at for the status board.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Instant, UNIX_EPOCH},
};

use crate::{
    lifecycle,
    model::name::ProxyId,
    xds::{server::board::Shown, status::StreamStatus, subscription::Subscription},
};

/// The part of a stream that can be looked at from outside. Only the stream itself changes it; who looks makes it wait
/// for that long.
pub(super) struct Showing {
    stream: u64,
    pub(super) proxy: ProxyId,
    pub(super) envoy_version: Option<String>,
    opened: Opened,
    subscription: Mutex<Subscription>,
}

impl Showing {
    /// A stream that opens now.
    pub(super) fn new(
        stream: u64,
        proxy: ProxyId,
        envoy_version: Option<String>,
        subscription: Subscription,
    ) -> Self {
        Self { stream, proxy, envoy_version, opened: Opened::now(), subscription: Mutex::new(subscription) }
    }

    /// The state machine, for one step or one look.
    pub(super) fn subscription(&self) -> MutexGuard<'_, Subscription> {
        // A step that panicked took its stream with it: nobody acts on what it left.
        self.subscription.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown for Showing {
    fn proxy(&self) -> &str {
        self.proxy.as_str()
    }

    fn status(&self) -> StreamStatus {
        let opened = self.opened;
        StreamStatus {
            stream: self.stream,
            proxy: self.proxy.as_str().to_owned(),
            envoy_version: self.envoy_version.clone(),
            connected_at_ms: opened.ms,
            types: self.subscription().status(|at| opened.ms(at)),
        }
    }
}

/// The moment a stream opened, on both clocks.
#[derive(Clone, Copy)]
struct Opened {
    at: Instant,
    ms: u64,
}

impl Opened {
    fn now() -> Self {
        let since_epoch = lifecycle::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at: lifecycle::now().into_std(),
            ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn ms(self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.at).as_millis();
        self.ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

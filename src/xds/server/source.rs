//! Where snapshots come from, as the server sees it.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

use crate::{
    model::{name::ProxyId, secret::SecretText},
    xds::snapshot::Snapshot,
};

/// Offers each proxy what it should have.
pub trait ProxySource: Send + Sync + 'static {
    /// Takes an interest in a proxy for as long as the returned value lives. Several streams may do so for one
    /// proxy, and any name may be asked for: an unknown one is offered [`Offer::Refused`]. `token` is what the stream
    /// presents as `x-consul-token`, if anything.
    fn attach(&self, proxy: &ProxyId, token: Option<SecretText>) -> Attached;
}

/// One stream's interest in a proxy.
pub struct Attached {
    /// The latest offer. Closing it leaves the stream with the last one.
    pub offers: watch::Receiver<Offer>,
    /// Dropping it releases the interest.
    pub hold: Box<dyn Send + Sync>,
}

/// What a proxy is offered at present.
#[derive(Clone, Debug)]
pub enum Offer {
    /// Not known yet whether there is such a proxy, or nothing about it: the stream waits.
    Pending,
    /// A stream that has had nothing yet is closed with this message; others keep the last snapshot.
    Refused {
        /// There is no such proxy; otherwise there is, and something about it is wrong.
        not_found: bool,
        /// Why, with the remedy.
        message: Arc<str>,
    },
    /// The stream's token does not open this proxy, or does so no more: the stream is closed, whatever it has had.
    Denied {
        /// There is no token or no such token (any more); otherwise it lacks a right.
        unauthenticated: bool,
        /// Why, with the remedy. Names the token by nothing.
        message: Arc<str>,
    },
    /// What it should have.
    Ready(Arc<Snapshot>),
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("offers", &self.offers).finish_non_exhaustive()
    }
}

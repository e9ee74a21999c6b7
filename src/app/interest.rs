//! Which proxies are wanted: the meeting point of the streams that ask and the publisher that builds. Who may have what
//! is built is for `access` to say.

use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{lifecycle, model::name::ProxyId, xds::server::Offer};

/// How long a proxy's topics stay watched after its last stream ended. Longer than Envoy's longest pause between
/// attempts to connect (30 s), so that a reconnect finds everything at hand.
pub(super) const LINGER: Duration = Duration::from_secs(60);

/// The same for one that was refused: any name can be asked for, and each costs a question to Consul.
const LINGER_REFUSED: Duration = Duration::from_secs(5);

/// So many that were never offered anything stay watched at a time, whoever asks for how many names.
const MOST_UNSERVED: usize = 100;

/// The proxies that streams ask for. Clones share one set.
#[derive(Clone, Debug)]
pub(super) struct Interests(watch::Sender<Wanted>);

/// Every wanted proxy.
pub(super) type Wanted = BTreeMap<ProxyId, Interest>;

/// One wanted proxy.
#[derive(Clone, Debug)]
pub(super) struct Interest {
    holds: usize,
    released_at: Option<Instant>,
    /// What its streams are offered; the publisher sends here.
    pub(super) offers: watch::Sender<Offer>,
}

impl Interests {
    /// Nobody is wanted yet.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Wanted::new()))
    }

    /// The set, as it changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<Wanted> {
        self.0.subscribe()
    }

    /// Drops proxies whose last stream ended more than [`LINGER`] before `now`.
    pub(super) fn forget_released(&self, now: Instant) {
        self.0.send_if_modified(|wanted| {
            let before = wanted.len();
            wanted.retain(|_, interest| interest.expires_at().is_none_or(|at| at > now));
            wanted.len() != before
        });
    }

    /// Wants a proxy for as long as the hold lives. Gives the channel on which it is offered what it should have.
    pub(super) fn hold(&self, proxy: &ProxyId) -> (watch::Sender<Offer>, Hold) {
        let mut offers = None;
        self.0.send_modify(|wanted| {
            let interest = wanted.entry(proxy.clone()).or_insert_with(|| Interest {
                holds: 0,
                released_at: None,
                offers: watch::Sender::new(Offer::Pending),
            });
            interest.holds += 1;
            interest.released_at = None;
            offers = Some(interest.offers.clone());
        });
        let hold = Hold { interests: self.clone(), proxy: proxy.clone() };
        (offers.expect("send_modify runs its closure"), hold)
    }

    fn release(&self, proxy: &ProxyId) {
        self.0.send_modify(|wanted| {
            let Some(interest) = wanted.get_mut(proxy) else { return };
            interest.holds -= 1;
            interest.released_at = (interest.holds == 0).then(lifecycle::now);
            if interest.lingers_unserved()
                && wanted.values().filter(|interest| interest.lingers_unserved()).count() > MOST_UNSERVED
            {
                wanted.remove(proxy);
            }
        });
    }
}

impl Interest {
    fn lingers_unserved(&self) -> bool {
        self.released_at.is_some() && !matches!(*self.offers.borrow(), Offer::Ready(_))
    }

    /// When it may be forgotten; none while a stream holds it.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        let is_refused = matches!(*self.offers.borrow(), Offer::Refused { .. });
        self.released_at.map(|at| at + if is_refused { LINGER_REFUSED } else { LINGER })
    }
}

/// A stream's hold on a proxy.
pub(super) struct Hold {
    interests: Interests,
    proxy: ProxyId,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.interests.release(&self.proxy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_names_that_were_never_served_few_are_remembered() {
        let interests = Interests::new();
        for number in 0..5 * MOST_UNSERVED {
            drop(interests.hold(&ProxyId::from(format!("nobody-{number}").as_str())));
        }
        let served = ProxyId::from("web");
        let (offers, hold) = interests.hold(&served);
        offers.send_replace(Offer::Ready(crate::xds::snapshot::Snapshot::empty().into()));
        drop(hold);
        let wanted = interests.subscribe();
        assert_eq!(wanted.borrow().len(), MOST_UNSERVED + 1);
        assert!(wanted.borrow().contains_key(&served));
        interests.forget_released(lifecycle::now() + LINGER);
        assert!(wanted.borrow().is_empty());
    }
}

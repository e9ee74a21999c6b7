//! What has to wait: make before break (rules 43 and 44), and never replace more by less.

use std::{collections::BTreeSet, time::Instant};

use crate::xds::{
    resource::{Key, Kind},
    snapshot::Entry,
    subscription::{
        GATE_LIMIT, Subscription,
        state::{Held, Record, TypeState},
    },
};

/// Whether something at the client still names a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    No,
    /// Until an answer that is under way; waited for up to the limit.
    UntilAnswered,
    /// For as long as the client lives on what it has: its replacement was refused, held back, or has yet to go out.
    Firm,
}

impl Subscription {
    /// Whether the limit of waiting is not reached yet. The first call starts the clock.
    pub(super) fn is_gated(&mut self, key: &Key, now: Instant) -> bool {
        let since = *self.waiting.entry(key.clone()).or_insert(now);
        now < since + GATE_LIMIT
    }

    /// Held back: built from incomplete inputs, while the client has a whole version from an earlier stream. A
    /// cluster waits with its endpoints, since one sent without them would warm for 15 s.
    pub(super) fn is_withheld(&self, entry: &Entry) -> bool {
        let state = self.state(entry.key.kind);
        if !state.records.get(&entry.key.name).is_some_and(Record::is_inherited) {
            return false;
        }
        let lacks_endpoints = |key: &Key| match self.snapshot.get(key) {
            Some(endpoints) => endpoints.partial && self.may_inherit_endpoints(&key.name),
            None => !self.snapshot.is_complete(),
        };
        entry.partial || entry.refers_to.iter().any(|key| key.kind == Kind::Endpoints && lacks_endpoints(key))
    }

    fn may_inherit_endpoints(&self, name: &str) -> bool {
        let state = self.state(Kind::Endpoints);
        !state.known || state.records.get(name).is_some_and(Record::is_inherited)
    }

    /// Whether a listener or route names a cluster that the client does not have yet and is about to get.
    pub(super) fn awaits_clusters(&self, entry: &Entry) -> bool {
        entry.refers_to.iter().any(|key| match key.kind {
            Kind::Cluster => self.awaits_cluster(key),
            Kind::Route => self.snapshot.get(key).is_some_and(|route| self.awaits_clusters(route)),
            Kind::Secret | Kind::Endpoints | Kind::Listener => false,
        })
    }

    fn awaits_cluster(&self, key: &Key) -> bool {
        let state = self.state(Kind::Cluster);
        let Some(cluster) = self.snapshot.get(key) else { return false };
        if !state.known || state.is_held(&key.name) || state.is_rejected(&key.name, &cluster.version) {
            return false;
        }
        // One that lacks its endpoints or secrets is not acknowledged before they come: waiting for it is in vain.
        let whole = cluster.refers_to.iter().all(|part| self.snapshot.get(part).is_some());
        whole && state.is_subscribed(&key.name) && !self.is_withheld(cluster)
    }

    /// Whether a cluster, or the endpoints or secrets of one, that is gone must stay at the client for now.
    pub(super) fn keeps(&mut self, kind: Kind, name: &str, now: Instant, gated: &mut BTreeSet<Key>) -> bool {
        match kind {
            Kind::Cluster => self.keeps_cluster(name, now, gated),
            // The endpoints of a cluster that goes away go after it.
            Kind::Endpoints => {
                let clusters = self.state(Kind::Cluster);
                let leaving = self.snapshot.get(&Key::new(Kind::Cluster, name)).is_none();
                leaving && clusters.may_hold(name) && clusters.is_subscribed(name)
            }
            Kind::Secret | Kind::Listener | Kind::Route => false,
        }
    }

    fn keeps_cluster(&mut self, name: &str, now: Instant, gated: &mut BTreeSet<Key>) -> bool {
        match self.usage(name) {
            Use::No => false,
            Use::Firm => true,
            Use::UntilAnswered => {
                let key = Key::new(Kind::Cluster, name);
                gated.insert(key.clone());
                self.is_gated(&key, now)
            }
        }
    }

    fn usage(&self, cluster: &str) -> Use {
        // A client that comes back asks for clusters first: what its listeners name is not known before they are told.
        let is_inherited = self.state(Kind::Cluster).records.get(cluster).is_some_and(Record::is_inherited);
        if is_inherited && !self.state(Kind::Listener).known {
            return Use::UntilAnswered;
        }
        let cluster = Key::new(Kind::Cluster, cluster);
        [Kind::Listener, Kind::Route]
            .into_iter()
            .map(|kind| self.usage_by(kind, &cluster))
            .max()
            .unwrap_or(Use::No)
    }

    fn usage_by(&self, kind: Kind, cluster: &Key) -> Use {
        let state = self.state(kind);
        let under_way = state.outstanding.values().flat_map(|o| &o.resources);
        let sent = under_way.filter(|e| e.refers_to.contains(cluster)).map(|_| Use::UntilAnswered).max();
        let held =
            state.records.iter().map(|(name, record)| self.usage_of(kind, name, record, cluster)).max();
        sent.max(held).unwrap_or(Use::No)
    }

    fn usage_of(&self, kind: Kind, name: &str, record: &Record, cluster: &Key) -> Use {
        let intended = self.snapshot.get(&Key::new(kind, name));
        let names_it = match &record.held {
            Held::Nothing => false,
            Held::Entry(entry) => entry.refers_to.contains(cluster),
            // The content of another version is not known: it may name anything.
            Held::Inherited(version) => match intended {
                Some(entry) if entry.version == *version => entry.refers_to.contains(cluster),
                _ => true,
            },
        };
        if !names_it {
            return Use::No;
        }
        let state = self.state(kind);
        if state.in_flight().contains(name) || is_current(intended.map(AsRef::as_ref), state, name) {
            Use::UntilAnswered
        } else {
            Use::Firm
        }
    }
}

/// The client has just what is intended: the snapshot itself names a cluster that is not in it.
fn is_current(intended: Option<&Entry>, state: &TypeState, name: &str) -> bool {
    let given = state.records.get(name).and_then(|record| record.given.version());
    intended.is_some_and(|entry| given == Some(&entry.version))
}

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

/// What is known of something that the client holds.
enum Known<'a> {
    Nothing,
    As(&'a Entry),
    /// Its content is not known.
    Anything,
}

/// How deep aggregate clusters may name each other before they are no longer followed: Consul's failover is one deep,
/// and a circle must end.
const AGGREGATES_DEEP: u8 = 4;

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
        if !state.is_inherited(&entry.key.name) {
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
        !state.known || state.is_inherited(name)
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
        self.is_whole(cluster, AGGREGATES_DEEP)
            && state.is_subscribed(&key.name)
            && !self.is_withheld(cluster)
    }

    /// Whether all that a cluster needs in order to warm is known, of the clusters that it is made of as well.
    fn is_whole(&self, cluster: &Entry, deep: u8) -> bool {
        cluster.refers_to.iter().all(|key| {
            let part = self.snapshot.get(key);
            part.is_some_and(|part| key.kind != Kind::Cluster || deep == 0 || self.is_whole(part, deep - 1))
        })
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

    /// Those of these clusters that nothing at the client names or may name. One look at all that it has tells that for
    /// all of them: thousands may go at once.
    pub(super) fn unnamed<'n>(&self, kind: Kind, gone: &'n [String]) -> BTreeSet<&'n str> {
        if kind != Kind::Cluster || gone.is_empty() {
            return BTreeSet::new();
        }
        let (knows_users, clusters) = (self.knows_users(), self.state(Kind::Cluster));
        let names = gone.iter().map(String::as_str);
        let mut left: BTreeSet<&str> =
            names.filter(|name| knows_users || !clusters.is_inherited(name)).collect();
        for kind in [Kind::Cluster, Kind::Listener, Kind::Route] {
            let state = self.state(kind);
            let under_way = state.outstanding.iter().flat_map(|o| &o.resources);
            let held = state.records.iter().map(|(name, record)| self.known(kind, name, record));
            for known in under_way.map(|entry| Known::As(entry)).chain(held) {
                match known {
                    Known::Nothing => {}
                    Known::As(entry) => {
                        for key in entry.refers_to.iter().filter(|key| key.kind == Kind::Cluster) {
                            left.remove(&*key.name);
                        }
                    }
                    Known::Anything => return BTreeSet::new(),
                }
            }
        }
        left
    }

    fn keeps_cluster(&mut self, name: &str, now: Instant, gated: &mut BTreeSet<Key>) -> bool {
        match self.usage(name, AGGREGATES_DEEP) {
            Use::No => false,
            Use::Firm => true,
            Use::UntilAnswered => {
                let key = Key::new(Kind::Cluster, name);
                gated.insert(key.clone());
                self.is_gated(&key, now)
            }
        }
    }

    fn usage(&self, cluster: &str, deep: u8) -> Use {
        // A client that comes back asks for clusters first: what its listeners and routes name is not known before.
        if self.state(Kind::Cluster).is_inherited(cluster) && !self.knows_users() {
            return Use::UntilAnswered;
        }
        let cluster = Key::new(Kind::Cluster, cluster);
        [Kind::Cluster, Kind::Listener, Kind::Route]
            .into_iter()
            .map(|kind| self.usage_by(kind, &cluster, deep))
            .max()
            .unwrap_or(Use::No)
    }

    /// Whether a client has told of all types that can name a cluster.
    fn knows_users(&self) -> bool {
        let listeners = self.state(Kind::Listener);
        let may_use_routes = |record: &Record| match &record.held {
            Held::Nothing => false,
            Held::Entry(entry) => entry.refers_to.iter().any(|key| key.kind == Kind::Route),
            Held::Inherited(_) => true,
        };
        listeners.known && (self.state(Kind::Route).known || !listeners.records.values().any(may_use_routes))
    }

    /// What is used, a cluster or a route, by those resources of a kind that the client has or is about to have.
    fn usage_by(&self, kind: Kind, used: &Key, deep: u8) -> Use {
        let state = self.state(kind);
        let under_way = state.outstanding.iter().flat_map(|o| &o.resources);
        let sent = under_way.filter(|e| e.refers_to.contains(used)).map(|_| Use::UntilAnswered).max();
        let held = state
            .records
            .iter()
            .filter(|(name, record)| self.may_use(kind, name, record, used))
            .map(|(name, _)| self.usage_of(kind, name, deep))
            .max();
        sent.max(held).unwrap_or(Use::No)
    }

    /// Whether what the client holds names something, or may name it.
    fn may_use(&self, kind: Kind, name: &str, record: &Record, used: &Key) -> bool {
        match self.known(kind, name, record) {
            Known::Nothing => false,
            Known::As(entry) => entry.refers_to.contains(used),
            Known::Anything => true,
        }
    }

    /// What the client holds under a name, as far as it can name clusters.
    fn known<'a>(&'a self, kind: Kind, name: &str, record: &'a Record) -> Known<'a> {
        match &record.held {
            Held::Nothing => Known::Nothing,
            Held::Entry(entry) => Known::As(entry),
            // Only aggregates name clusters; they are few, and what they name comes and goes with them.
            Held::Inherited(_) if kind == Kind::Cluster => Known::Nothing,
            // The content of another version is not known: it may name anything.
            Held::Inherited(version) => match self.snapshot.get(&Key::new(kind, name)) {
                Some(entry) if entry.version == *version => Known::As(entry),
                _ => Known::Anything,
            },
        }
    }

    /// How firmly the client holds on to a resource that uses something.
    fn usage_of(&self, kind: Kind, name: &str, deep: u8) -> Use {
        let key = Key::new(kind, name);
        let state = self.state(kind);
        match self.snapshot.get(&key) {
            // What is to go uses nothing for longer than it is used itself.
            None if kind == Kind::Cluster && deep == 0 => Use::No,
            None if kind == Kind::Cluster => self.usage(name, deep - 1),
            None if self.cannot_remove(kind) => self.usage_by(Kind::Listener, &key, deep),
            _ if state.is_in_flight(name) => Use::UntilAnswered,
            Some(entry) if is_current(entry, state) => Use::UntilAnswered,
            _ => Use::Firm,
        }
    }
}

/// The client has just what is intended: the snapshot itself names a cluster that is not in it.
fn is_current(intended: &Entry, state: &TypeState) -> bool {
    let given = state.records.get(&intended.name).and_then(|record| record.given.version());
    given == Some(&intended.version)
}

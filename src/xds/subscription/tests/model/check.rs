//! What must hold for each response at the moment it is sent, and for what the client holds in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use super::{
    catalog::NAMES,
    client::{Client, Type},
};
use crate::xds::{
    resource::{Key, Kind},
    snapshot::{Entry, Snapshot},
    subscription::{GATE_LIMIT, Response, Variant, tests::rig::key},
    version::Version,
};

/// The book kept of one type on one stream.
#[derive(Default)]
pub(super) struct Checked {
    /// What it was sent last, and why it may be sent that again.
    pub(super) last: BTreeMap<String, Version>,
    pub(super) causes: BTreeSet<String>,
    pub(super) may_repeat: bool,
    /// Named, and not answered yet.
    pub(super) awaited: BTreeSet<String>,
    /// To follow what names it.
    owed: BTreeSet<String>,
    /// Told not to exist.
    pub(super) told: BTreeSet<String>,
    /// What was sent on this stream: its absence from a later snapshot is news even while others are unknown.
    sent_here: BTreeSet<String>,
    /// State of the world: what it had before this stream, which nobody told the server.
    brought: BTreeSet<String>,
}

impl Checked {
    /// `whole`: responses of the type carry everything.
    pub(super) fn on_new_stream(of: &Type, is_delta: bool, whole: bool) -> Self {
        let last = if is_delta { of.versions() } else { BTreeMap::new() };
        // Who never took a response whole says no version, and cannot be told from one that has nothing.
        let is_unsaid = is_delta || of.version.is_empty();
        let brought = if is_unsaid { BTreeSet::new() } else { of.cache.keys().cloned().collect() };
        let is_new = |name: &&String| !is_delta || !of.cache.contains_key(*name);
        let awaited = of.names.iter().filter(is_new).cloned().collect();
        let asks_for_all = of.wildcard && !is_delta && !whole;
        let causes = NAMES.iter().filter(|_| asks_for_all).map(|name| (*name).to_owned()).collect();
        Self { last, brought, awaited, causes, may_repeat: true, ..Self::default() }
    }

    pub(super) fn ask(&mut self, name: &str, is_awaited: bool) {
        self.causes.insert(name.to_owned());
        self.told.remove(name);
        if is_awaited {
            self.awaited.insert(name.to_owned());
        }
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.last.remove(name);
        self.causes.remove(name);
        self.awaited.remove(name);
        self.told.remove(name);
        self.brought.remove(name);
    }
}

/// Since when each resource is in the catalog, or is not, on this stream.
#[derive(Default)]
pub(super) struct Clock {
    present: BTreeMap<Key, Instant>,
    absent: BTreeMap<Key, Instant>,
}

impl Clock {
    pub(super) fn reset(&mut self, snapshot: &Snapshot, now: Instant) {
        *self = Self::default();
        self.note_offer(snapshot, now);
    }

    pub(super) fn note_offer(&mut self, snapshot: &Snapshot, now: Instant) {
        for kind in [Kind::Cluster, Kind::Listener, Kind::Route] {
            for name in NAMES {
                let key = key(kind, name);
                if snapshot.get(&key).is_some() {
                    self.absent.remove(&key);
                    self.present.entry(key).or_insert(now);
                } else {
                    self.present.remove(&key);
                    self.absent.entry(key).or_insert(now);
                }
            }
        }
    }
}

pub(super) type Done = Result<(), String>;

pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Done {
    if holds { Ok(()) } else { Err(what()) }
}

/// What has to follow a resource of that type in order to make it warm.
fn child_of(kind: Kind) -> Option<Kind> {
    match kind {
        Kind::Cluster => Some(Kind::Endpoints),
        Kind::Listener => Some(Kind::Route),
        Kind::Secret | Kind::Endpoints | Kind::Route => None,
    }
}

impl Client {
    /// `rest` is what goes out with a response and after it, itself included.
    pub(super) fn check(&mut self, response: &Response, rest: &[Response], is_push: bool) -> Done {
        let kind = response.kind;
        ensure(self.nonces.insert(response.nonce.clone()), || "a nonce is used twice".into())?;
        let names: BTreeSet<&String> = response.resources.iter().map(|e| &e.key.name).collect();
        ensure(names.len() == response.resources.len(), || format!("{kind:?}: a name twice in a response"))?;
        for entry in &response.resources {
            self.check_entry(kind, entry, rest)?;
        }
        if self.is_whole(kind) {
            self.check_whole(response)?;
        }
        self.check_push(response, is_push)?;
        self.check_absences(response)?;
        let whole = self.is_whole(kind);
        self.release_children(response);
        let of = &mut self.of(kind).checked;
        if whole {
            of.last.clear();
        }
        for entry in &response.resources {
            let name = &entry.key.name;
            of.last.insert(name.clone(), entry.version.clone());
            of.sent_here.insert(name.clone());
            for done in [&mut of.causes, &mut of.awaited, &mut of.owed, &mut of.told, &mut of.brought] {
                done.remove(name);
            }
        }
        if whole {
            of.brought.clear();
        }
        of.may_repeat = false;
        Ok(())
    }

    /// While a client has not answered, it is pushed nothing but what has a cause of its own.
    fn check_push(&self, response: &Response, is_push: bool) -> Done {
        let of = &self.types[&response.kind];
        let checked = &of.checked;
        let is_caused = |name: &String| checked.causes.contains(name) || checked.awaited.contains(name);
        let sent = response.resources.iter().map(|e| &e.key.name);
        let mut names = sent.chain(&response.not_found).chain(&response.removed);
        ensure(!is_push || of.arrived.is_empty() || checked.may_repeat || names.any(is_caused), || {
            format!("{:?} pushed to a client that has not answered", response.kind)
        })
    }

    fn check_entry(&mut self, kind: Kind, entry: &Arc<Entry>, rest: &[Response]) -> Done {
        let (name, version) = (&entry.key.name, &entry.version);
        let of = &self.types[&kind];
        ensure(entry.key.kind == kind, || format!("{:?} among {kind:?}", entry.key))?;
        ensure(of.known && of.wants(name), || format!("{:?} was not asked for", entry.key))?;
        ensure(!of.refused.contains(&(name.clone(), version.clone())), || {
            format!("{:?} is offered again although refused", entry.key)
        })?;
        let again = of.checked.last.get(name) == Some(version);
        ensure(self.is_whole(kind) || !again || of.checked.causes.contains(name), || {
            format!("{:?} is sent twice without cause", entry.key)
        })?;
        let is_news = !again || !self.is_whole(kind) || of.checked.causes.contains(name);
        let is_change = self.expected(kind, name).is_none_or(|held| held.version != *version);
        if is_change {
            self.check_references(entry)?;
            self.check_offered(entry)?;
            self.check_children(entry, rest)?;
        }
        for child in entry.refers_to.iter().filter(|child| is_news && Some(child.kind) == child_of(kind)) {
            self.of(child.kind).checked.causes.insert(child.name.clone());
        }
        Ok(())
    }

    /// What the client has under a name once it has taken all that is under way.
    fn expected(&self, kind: Kind, name: &str) -> Option<&Arc<Entry>> {
        let of = &self.types[&kind];
        for response in of.arrived.iter().rev() {
            if let Some(entry) = response.resources.iter().find(|e| e.key.name == name) {
                return Some(entry);
            }
            if self.is_whole(kind) || response.removed.iter().any(|removed| removed == name) {
                return None;
            }
        }
        of.cache.get(name)
    }

    /// A listener or route names no cluster that the client could have and has not, unless the wait is over.
    fn check_references(&self, entry: &Entry) -> Done {
        if !matches!(entry.key.kind, Kind::Listener | Kind::Route) {
            return Ok(());
        }
        let clusters = &self.types[&Kind::Cluster];
        let has_waited =
            self.clock.present.get(&entry.key).is_some_and(|since| self.now >= *since + GATE_LIMIT);
        let could_have = |key: &Key| {
            clusters.known
                && clusters.wants(&key.name)
                && self.is_whole_cluster(key)
                && !self.has_refused_current(key)
        };
        let missing = entry
            .refers_to
            .iter()
            .filter(|key| key.kind == Kind::Cluster)
            .find(|key| could_have(key) && !clusters.cache.contains_key(&key.name));
        match missing {
            Some(cluster) if !has_waited => {
                Err(format!("{:?} is sent before {cluster:?} is taken", entry.key))
            }
            _ => Ok(()),
        }
    }

    fn is_whole_cluster(&self, cluster: &Key) -> bool {
        self.snapshot.get(cluster).is_some_and(|entry| {
            entry.refers_to.iter().all(|key| match key.kind {
                Kind::Cluster => self.is_whole_cluster(key),
                _ => self.snapshot.get(key).is_some_and(|part| !part.partial),
            }) && !entry.partial
        })
    }

    /// What a cluster or listener needs in order to warm follows it, endpoints in the same burst.
    fn check_children(&mut self, entry: &Entry, rest: &[Response]) -> Done {
        let Some(child) = child_of(entry.key.kind) else { return Ok(()) };
        let children: Vec<&Key> = entry.refers_to.iter().filter(|key| key.kind == child).collect();
        for key in children {
            let follows = self.types[&child].known && self.types[&child].wants(&key.name);
            let exists = self.snapshot.get(key).is_some_and(|c| !c.partial) && !self.has_refused_current(key);
            let is_sent = rest.iter().any(|r| r.resources.iter().any(|e| e.key == *key));
            ensure(child != Kind::Endpoints || !follows || !exists || is_sent, || {
                format!("no endpoints behind {:?}", entry.key)
            })?;
            self.of(child).checked.owed.insert(key.name.clone());
        }
        Ok(())
    }

    /// What a client loses need not warm.
    fn release_children(&mut self, response: &Response) {
        let Some(child) = child_of(response.kind) else { return };
        let is_lost = |name: &str| match self.is_whole(response.kind) {
            true => !response.resources.iter().any(|entry| entry.key.name == name),
            false => response.removed.iter().any(|removed| removed == name),
        };
        // Routes may be named by listeners of other names: those stay owed.
        let lost: Vec<&str> =
            NAMES.into_iter().filter(|name| child == Kind::Endpoints && is_lost(name)).collect();
        let owed = &mut self.of(child).checked.owed;
        owed.retain(|name| !lost.contains(&name.as_str()));
    }

    /// What a response that carries everything lacks is deleted.
    fn check_whole(&mut self, response: &Response) -> Done {
        let kind = response.kind;
        let content: BTreeMap<String, Version> =
            response.resources.iter().map(|e| (e.key.name.clone(), e.version.clone())).collect();
        let of = &self.types[&kind];
        let checked = &of.checked;
        let has_cause = checked.may_repeat
            || !response.not_found.is_empty()
            || content.keys().chain(&of.names).any(|name| checked.causes.contains(name));
        ensure(has_cause || content != checked.last, || format!("{kind:?}: the same all over again"))?;
        for name in NAMES.iter().filter(|name| of.wants(name) && !content.contains_key(**name)) {
            let key = key(kind, name);
            let is_brought = checked.brought.contains(*name);
            let current = self.snapshot.get(&key);
            ensure(!is_brought || current.is_some() || self.snapshot.is_complete(), || {
                format!("{key:?} is deleted although unknown")
            })?;
            let refused = self.has_refused_current(&key);
            ensure(!is_brought || current.is_none() || refused, || format!("{key:?} is deleted by a gate"))?;
            let held = self.expected(kind, name);
            let is_good = held.is_some_and(|e| !of.refused.contains(&((*name).into(), e.version.clone())));
            ensure(!refused || is_brought || !is_good || of.tainted, || {
                format!("{key:?} loses its last good version")
            })?;
            // Who refused a cluster that it never took is left without it.
            if is_good && !is_brought && !refused && !checked.awaited.contains(*name) {
                self.check_removal(&key)?;
            }
        }
        Ok(())
    }

    fn check_absences(&mut self, response: &Response) -> Done {
        let (kind, complete) = (response.kind, self.snapshot.is_complete());
        ensure(self.variant == Variant::Delta || response.removed.is_empty(), || "removed in SotW".into())?;
        for name in &response.removed {
            let key = key(kind, name);
            let is_known = complete || self.types[&kind].checked.sent_here.contains(name);
            ensure(is_known && self.snapshot.get(&key).is_none(), || {
                format!("{key:?} is removed although unknown")
            })?;
            ensure(self.types[&kind].wants(name), || format!("{key:?} is removed and was not asked for"))?;
            // Who asks for a name does not have it, or says so.
            if self.expected(kind, name).is_some() && !self.types[&kind].checked.awaited.contains(name) {
                self.check_removal(&key)?;
            }
            let checked = &mut self.of(kind).checked;
            checked.last.remove(name);
            checked.awaited.remove(name);
        }
        for name in &response.not_found {
            let key = key(kind, name);
            let of = self.of(kind);
            ensure(of.names.contains(name), || format!("{key:?} is told absent and was not named"))?;
            let news = of.checked.told.insert(name.clone());
            ensure(news || of.checked.causes.remove(name), || format!("{key:?} is told absent twice"))?;
            of.checked.awaited.remove(name);
            ensure(self.snapshot.get(&key).is_none(), || format!("{key:?} is told absent and exists"))?;
        }
        Ok(())
    }

    /// A cluster stays while a listener or route of the client names it: for as long as its replacement is refused,
    /// otherwise until the wait is over.
    fn check_removal(&self, cluster: &Key) -> Done {
        if cluster.kind != Kind::Cluster {
            return Ok(());
        }
        let has_waited = self.clock.absent.get(cluster).is_some_and(|since| self.now >= *since + GATE_LIMIT);
        for kind in [Kind::Listener, Kind::Route] {
            let of = &self.types[&kind];
            if !of.known || of.tainted {
                continue;
            }
            for (name, entry) in of.cache.iter().filter(|(_, entry)| entry.refers_to.contains(cluster)) {
                let is_unknown = of.foreign.contains(name);
                let is_used = !is_unknown && !self.is_orphan(&entry.key);
                let is_firm = self.has_refused_current(&entry.key) && of.arrived.is_empty();
                ensure(!is_used || (has_waited && !is_firm), || {
                    format!("{cluster:?} is removed while {:?} names it", entry.key)
                })?;
            }
        }
        Ok(())
    }

    /// A route that state of the world cannot remove, and that no listener of the client names.
    fn is_orphan(&self, route: &Key) -> bool {
        let of = &self.types[&Kind::Listener];
        let mut listeners = of.cache.iter().filter(|(name, _)| !of.foreign.contains(*name));
        self.variant == Variant::StateOfTheWorld
            && route.kind == Kind::Route
            && self.snapshot.get(route).is_none()
            && !listeners.any(|(_, listener)| listener.refers_to.contains(route))
    }

    pub(super) fn has_refused_current(&self, key: &Key) -> bool {
        let of = &self.types[&key.kind];
        let current = self.snapshot.get(key).map(|entry| entry.version.clone());
        current.is_some_and(|version| of.refused.contains(&(key.name.clone(), version)))
    }

    pub(super) fn check_settled(&self) -> Done {
        // The cluster of a listener whose replacement was refused stays.
        let refused_any = |kind: &Kind| NAMES.iter().any(|name| self.has_refused_current(&key(*kind, name)));
        let keeps = [Kind::Cluster, Kind::Listener, Kind::Route].iter().any(refused_any);
        for (kind, of) in self.types.iter().filter(|(_, of)| of.known) {
            let never_removed = self.variant == Variant::StateOfTheWorld && !self.is_whole(*kind);
            for name in NAMES {
                let key = key(*kind, name);
                if self.has_refused_current(&key) {
                    continue;
                }
                let intended = self.snapshot.get(&key).filter(|_| of.wants(name)).map(|e| &e.version);
                let held = of.cache.get(name).map(|e| &e.version);
                let kept = keeps && matches!(kind, Kind::Cluster | Kind::Endpoints);
                let may_differ = intended.is_none() && (kept || never_removed);
                ensure(may_differ || held == intended, || format!("{key:?} is {held:?}, not {intended:?}"))?;
                let is_owed = of.checked.owed.contains(name) && intended.is_some();
                ensure(!is_owed, || format!("{key:?} did not follow what names it"))?;
                let is_awaited = of.checked.awaited.contains(name);
                ensure(!is_awaited || !of.wants(name), || format!("{key:?} was asked for and not answered"))?;
            }
        }
        Ok(())
    }
}

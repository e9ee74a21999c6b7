//! Where to look for what is due. A stream has hundreds of resources and a change concerns one of them: going through
//! all at each step would be most of what a server with many streams does.
//!
//! What is due depends on a resource's version, on whether it exists, and on what is recorded of its name. So a name of
//! which nothing was due has nothing due until the snapshot changes it, or a request says more than that a response
//! was taken. Names that stay due (held up, gated, withheld) stay in view.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use crate::xds::{
    resource::{Key, Kind},
    snapshot::{Entry, Snapshot},
    subscription::{Request, Subscription, Variant, state::TypeState},
};

/// The names of one type that may be due.
#[derive(Debug, Default)]
pub(super) enum Look {
    /// Any.
    #[default]
    Everywhere,
    /// These, with what the snapshot has under each; nothing is due of any other.
    At(BTreeMap<Arc<str>, Option<Arc<Entry>>>),
}

impl Look {
    /// Takes one more name into view, with what the snapshot has under it.
    pub(super) fn add(&mut self, key: &Key, entry: Option<&Arc<Entry>>) {
        if let Self::At(names) = self {
            let name = entry.map_or_else(|| key.name.as_str().into(), |entry| entry.name.clone());
            names.insert(name, entry.cloned());
        }
    }

    /// Whether nothing is due.
    pub(super) fn is_nowhere(&self) -> bool {
        matches!(self, Self::At(names) if names.is_empty())
    }
}

impl Subscription {
    /// This is now what the client should have.
    pub(super) fn take_offer(&mut self, snapshot: Arc<Snapshot>) {
        match snapshot.changed_since(&self.snapshot) {
            Some(changed) => {
                for (key, entry) in changed {
                    self.types[key.kind].look.add(key, entry);
                }
            }
            None => self.types.values_mut().for_each(|state| state.look = Look::Everywhere),
        }
        self.snapshot = snapshot;
    }

    /// The entries in view, by name.
    pub(super) fn entries_in_view(&self, kind: Kind) -> impl Iterator<Item = &Arc<Entry>> {
        let (all, some) = match &self.state(kind).look {
            Look::Everywhere => (Some(self.snapshot.of_kind(kind)), None),
            Look::At(names) => (None, Some(names.values().flatten())),
        };
        all.into_iter().flatten().chain(some.into_iter().flatten())
    }

    /// The names in view that are asked for or on record and of which there is no resource, sorted: mostly none.
    pub(super) fn absent_in_view(&self, kind: Kind) -> impl Iterator<Item = &str> {
        let state = self.state(kind);
        let (all, some) = match &state.look {
            Look::Everywhere => (Some(self.absent(kind)), None),
            Look::At(names) => {
                let absent = names.iter().filter(|(_, entry)| entry.is_none());
                (None, Some(absent.map(|(name, _)| &**name)))
            }
        };
        all.into_iter().flatten().chain(some.into_iter().flatten())
    }

    fn absent(&self, kind: Kind) -> impl Iterator<Item = &str> {
        let state = self.state(kind);
        let asked = state.asked.iter().chain(&state.owed).map(String::as_str);
        let known = state.names.iter().chain(state.records.keys()).map(|name| &**name);
        let names: BTreeSet<&str> = asked.chain(known).collect();
        names.into_iter().filter(move |name| self.snapshot.get(&Key::new(kind, *name)).is_none())
    }

    /// Forgets those names of which nothing is due any more, now that what could be sent is sent.
    /// In state of the world everything stays in view: what carries all resources has to look at all.
    pub(super) fn narrow(&mut self, kind: Kind) {
        if self.variant == Variant::StateOfTheWorld || self.state(kind).look.is_nowhere() {
            return;
        }
        match mem::take(&mut self.state_mut(kind).look) {
            Look::At(mut names) => {
                let state = self.state_mut(kind);
                names.retain(|name, entry| state.stays_in_view(name, entry.as_deref()));
                state.look = Look::At(names);
            }
            Look::Everywhere => {
                let due = self.due_anywhere(kind);
                let (snapshot, state) = (&*self.snapshot, &mut self.types[kind]);
                state.look = Look::At(due);
                state.pack(kind, snapshot);
            }
        }
    }

    /// All names of which something is due, if only once something else has happened.
    fn due_anywhere(&self, kind: Kind) -> BTreeMap<Arc<str>, Option<Arc<Entry>>> {
        let state = self.state(kind);
        let present = self.snapshot.of_kind(kind).filter(|entry| state.is_due(entry));
        let present = present.map(|entry| (entry.name.clone(), Some(entry.clone())));
        let absent = self.absent(kind).filter(|name| state.stays_in_view(name, None));
        present.chain(absent.map(|name| (name.into(), None))).collect()
    }

    /// Takes an offer without looking at what it changes: a fault to be found.
    #[cfg(test)]
    pub(super) fn overlook(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// Looks everywhere: what is due and out of view, or in view as it was before, of which there must be nothing.
    #[cfg(test)]
    pub(super) fn overlooked(&self) -> Vec<Key> {
        let mut overlooked = Vec::new();
        for kind in Kind::ALL {
            let Look::At(seen) = &self.state(kind).look else { continue };
            let due = self.due_anywhere(kind);
            let unseen = due.keys().filter(|name| !seen.contains_key(*name));
            let is_past = |name: &Arc<str>, entry: &Option<Arc<Entry>>| {
                let now = self.snapshot.get(&Key::new(kind, &**name));
                now.map(Arc::as_ptr) != entry.as_ref().map(Arc::as_ptr)
            };
            let past = seen.iter().filter(|(name, entry)| is_past(name, entry)).map(|(name, _)| name);
            overlooked.extend(unseen.chain(past).map(|name| Key::new(kind, &**name)));
        }
        overlooked
    }
}

impl TypeState {
    /// Whether something is due of a name under which the snapshot has this, if only once something else has happened.
    fn stays_in_view(&self, name: &str, entry: Option<&Entry>) -> bool {
        match entry {
            Some(entry) => self.is_due(entry),
            None => self.is_subscribed(name) && (self.may_hold(name) || self.awaits_absence(name)),
        }
    }

    /// Maps filled name by name are half empty, and these live as long as the stream: building them anew fills them.
    /// Names and versions that came in requests are exchanged for those of the entries, which all streams share.
    fn pack(&mut self, kind: Kind, snapshot: &Snapshot) {
        let key = |name: &str| Key::new(kind, name);
        let records = std::mem::take(&mut self.records).into_iter();
        let shared = records.map(|(name, mut record)| {
            let entry = snapshot.get(&key(&name));
            let Some(entry) = entry else { return (name, record) };
            record.share(&entry.version);
            (entry.name.clone(), record)
        });
        self.records = shared.collect();
        let names = std::mem::take(&mut self.names).into_iter();
        self.names = names.map(|name| snapshot.name(&key(&name))).collect();
    }

    /// Whether a request says no more than that a response was taken. It is not answered: only what waited for it may go
    /// out (rule 8).
    pub(super) fn is_mere_ack(&self, request: &Request) -> bool {
        self.known
            && request.error.is_none()
            && request.subscribe.is_empty()
            && request.unsubscribe.is_empty()
    }
}

//! Where to look for what is due. A stream has hundreds of resources and a change concerns one of them: going through
//! all at each step would be most of what a server with many streams does.
//!
//! What is due depends on a resource's version, on whether it exists, and on what is recorded of its name. So a name of
//! which nothing was due has nothing due until the snapshot changes it, or a request says more than that a response
//! was taken. Names that stay due (held up, gated, withheld) stay in view.

use std::{collections::BTreeSet, sync::Arc};

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
    /// These; nothing is due of any other.
    At(BTreeSet<String>),
}

impl Look {
    /// Takes one more name into view.
    pub(super) fn add(&mut self, name: &str) {
        if let Self::At(names) = self
            && !names.contains(name)
        {
            names.insert(name.to_owned());
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
                for key in changed {
                    self.state_mut(key.kind).look.add(&key.name);
                }
            }
            None => self.types.values_mut().for_each(|state| state.look = Look::Everywhere),
        }
        self.snapshot = snapshot;
    }

    /// The entries in view, by name.
    pub(super) fn entries_in_view(&self, kind: Kind) -> Vec<&Arc<Entry>> {
        match &self.state(kind).look {
            Look::Everywhere => self.snapshot.of_kind(kind).collect(),
            Look::At(names) => {
                names.iter().filter_map(|name| self.snapshot.get(&Key::new(kind, name.as_str()))).collect()
            }
        }
    }

    /// The names in view that are asked for or on record and of which there is no resource, sorted: mostly none.
    pub(super) fn absent_in_view(&self, kind: Kind) -> Vec<&str> {
        let is_absent = |name: &&str| self.snapshot.get(&Key::new(kind, *name)).is_none();
        let state = self.state(kind);
        match &state.look {
            Look::Everywhere => {
                let asked = state.asked.iter().chain(&state.owed).map(String::as_str);
                let known = state.names.iter().chain(state.records.keys()).map(|name| &**name);
                asked.chain(known).collect::<BTreeSet<&str>>().into_iter().filter(is_absent).collect()
            }
            Look::At(names) => names.iter().map(String::as_str).filter(is_absent).collect(),
        }
    }

    /// Forgets those names of which nothing is due any more, now that what could be sent is sent.
    /// In state of the world everything stays in view: what carries all resources has to look at all.
    pub(super) fn narrow(&mut self, kind: Kind) {
        if self.variant == Variant::StateOfTheWorld || self.state(kind).look.is_nowhere() {
            return;
        }
        let due = Look::At(self.due_in_view(kind));
        let snapshot = self.snapshot.clone();
        let state = self.state_mut(kind);
        if matches!(std::mem::replace(&mut state.look, due), Look::Everywhere) {
            state.pack(kind, &snapshot);
        }
    }

    /// The names in view of which something is due, if only once something else has happened.
    fn due_in_view(&self, kind: Kind) -> BTreeSet<String> {
        let state = self.state(kind);
        let present = self.entries_in_view(kind).into_iter().filter(|entry| state.is_due(entry));
        let present = present.map(|entry| entry.key.name.as_str());
        let absent = self
            .absent_in_view(kind)
            .into_iter()
            .filter(|name| state.is_subscribed(name) && (state.may_hold(name) || state.awaits_absence(name)));
        present.chain(absent).map(str::to_owned).collect()
    }

    /// Takes an offer without looking at what it changes: a fault to be found.
    #[cfg(test)]
    pub(super) fn overlook(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// Looks everywhere: what is due and out of view, of which there must be nothing.
    #[cfg(test)]
    pub(super) fn overlooked(&mut self) -> Vec<Key> {
        let mut overlooked = Vec::new();
        for kind in Kind::ALL {
            let look = std::mem::take(&mut self.state_mut(kind).look);
            let due = self.due_in_view(kind);
            if let Look::At(seen) = &look {
                overlooked.extend(due.difference(seen).map(|name| Key::new(kind, name.as_str())));
            }
            self.state_mut(kind).look = look;
        }
        overlooked
    }
}

impl TypeState {
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

    /// Whether a request says no more than that a response was taken.
    pub(super) fn is_mere_ack(&self, request: &Request) -> bool {
        self.known
            && request.error.is_none()
            && request.subscribe.is_empty()
            && request.unsubscribe.is_empty()
    }
}

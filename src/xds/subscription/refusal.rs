//! Refusals: which resources a client meant, and for how long that is remembered (rules 6 and 7).

use std::{sync::Arc, time::Instant};

use crate::xds::{
    resource::{Key, Kind},
    snapshot::{Entry, Snapshot},
    subscription::state::{Given, Held, Outstanding, Refusal, TypeState},
};

/// How many refused versions of one type are remembered although they are no longer offered: a stream may live for
/// months, and a resource that fails in ever new versions must not make its state grow.
const REFUSALS_REMEMBERED: usize = 256;

impl TypeState {
    /// A refusal: the client may have applied the good part of the response, so its state is uncertain; what it
    /// refused is never offered again (rules 6 and 7). Envoy names the clusters and listeners that it refuses; the
    /// others of that response come once more. Where it names none, the whole response is refused, but for what it
    /// carried along: the client has that already.
    pub(super) fn note_refused(
        &mut self,
        outstanding: Outstanding,
        message: String,
        now: Instant,
    ) -> Vec<String> {
        let mut names = Vec::new();
        let is_meant = |entry: &Arc<Entry>| is_named(&message, &entry.key.name);
        let (resources, carried) = (outstanding.resources, outstanding.carried);
        let names_some = resources.iter().chain(&carried).any(is_meant);
        // What is carried along, and the client has, is refused only by name.
        let is_carried_in_vain =
            |entry: &Arc<Entry>| is_meant(entry) || !(names_some || self.has_taken(entry));
        let carried: Vec<Arc<Entry>> = carried.into_iter().filter(is_carried_in_vain).collect();
        for entry in resources.into_iter().chain(carried) {
            let name = entry.key.name.clone();
            // No longer wanted; or sent again although held, and to leave that out from now on would delete it.
            if !self.is_subscribed(&name) || (outstanding.is_whole && self.has_taken(&entry)) {
                continue;
            }
            if !names_some || is_meant(&entry) {
                self.rejected.entry(name.clone()).or_default().insert(entry.version.clone());
                names.push(name);
                self.doubt(&entry);
            } else {
                if !self.is_under_way(&entry) {
                    self.doubt(&entry);
                }
                // Most likely applied: what goes on naming it must not lose it meanwhile.
                if let Some(record) = self.records.get_mut(&entry.name) {
                    record.held = Held::Entry(entry);
                }
            }
        }
        // A refused removal is not repeated either; what was to go is taken for gone.
        for name in outstanding.removed {
            self.forget_removed(&name);
            names.push(name);
        }
        self.tally.nacks += 1;
        self.tally.last_nack = Some(Refusal { message, resources: names.clone(), at: now });
        names
    }

    /// Another response, not answered yet, has it too: that answer will tell.
    fn is_under_way(&self, entry: &Entry) -> bool {
        let mut others = self.outstanding.iter().flat_map(|o| o.entries_of(&entry.key.name));
        others.any(|other| other.version == entry.version)
    }

    fn doubt(&mut self, entry: &Entry) {
        if let Some(record) = self.records.get_mut(&entry.name)
            && record.given == Given::Sent(entry.version.clone())
        {
            record.given = Given::Uncertain;
        }
    }

    fn has_taken(&self, entry: &Entry) -> bool {
        let held = self.records.get(&entry.name).map(|record| &record.held);
        matches!(held, Some(Held::Entry(held)) if held.version == entry.version)
    }

    /// A response of which nobody tells whether it was taken.
    pub(super) fn note_unsure(&mut self, outstanding: Outstanding) {
        for entry in outstanding.resources {
            if !self.is_under_way(&entry) {
                self.doubt(&entry);
            }
        }
        for name in outstanding.removed {
            self.forget_removed(&name);
        }
    }

    /// Forgets refusals of what is no longer offered, once they are many.
    pub(super) fn prune_refusals(&mut self, kind: Kind, snapshot: &Snapshot) {
        if self.rejected.values().map(|versions| versions.len()).sum::<usize>() <= REFUSALS_REMEMBERED {
            return;
        }
        self.rejected.retain(|name, versions| {
            let offered = snapshot.get(&Key::new(kind, name.as_str()));
            versions.retain(|version| offered.is_some_and(|entry| entry.version == *version));
            !versions.is_empty()
        });
    }
}

/// Whether a message speaks of this name, and not of a longer one that it is part of: `web` is not in `web-admin`, nor
/// in `v2.web`.
fn is_named(message: &str, name: &str) -> bool {
    !name.is_empty()
        && message.match_indices(name).any(|(at, _)| {
            let (before, after) = (&message[..at], &message[at + name.len()..]);
            !before.ends_with(|c: char| is_word(c) || is_joint(c)) && !continues(after)
        })
}

/// A joint (`web:` or `web.`) goes on with the name only if a word follows.
fn continues(after: &str) -> bool {
    after.trim_start_matches(is_joint).starts_with(is_word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_')
}

fn is_joint(c: char) -> bool {
    matches!(c, '.' | ':' | '/' | '~')
}

#[cfg(test)]
mod tests {
    use super::is_named;

    #[test]
    fn a_name_is_found_as_a_whole() {
        let message = "Error adding/updating listener(s) web:127.0.0.1:80: cannot bind, v2.db: no, 'api'.";
        for name in ["web:127.0.0.1:80", "v2.db", "api"] {
            assert!(is_named(message, name), "{name}");
        }
        for name in ["web", "web:127.0.0.1:8", "db", "127.0.0.1:80", "bind, v", ""] {
            assert!(!is_named(message, name), "{name}");
        }
    }
}

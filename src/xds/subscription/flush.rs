//! Sending what is due, in the order that breaks nothing: secrets, clusters, endpoints, listeners, routes, and at the
//! very end the removal of clusters, endpoints and secrets (rule 42).

use std::{collections::BTreeSet, mem, sync::Arc, time::Instant};

use crate::xds::{
    resource::{Key, Kind},
    snapshot::Entry,
    subscription::{
        Action, Response, Subscription, Variant,
        split::Due,
        state::{Outstanding, Record},
        world::{Pass, world_version},
    },
};

impl Subscription {
    pub(super) fn flush(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let mut gated = BTreeSet::new();
        for kind in Kind::ALL {
            if self.has_in_view(kind) {
                self.flush_kind(kind, Pass::Add, now, &mut gated, actions);
            }
        }
        for kind in [Kind::Cluster, Kind::Endpoints, Kind::Secret] {
            if self.has_in_view(kind) && !self.cannot_remove(kind) {
                self.flush_kind(kind, Pass::Remove, now, &mut gated, actions);
            }
        }
        self.waiting.retain(|key, _| gated.contains(key));
        for kind in Kind::ALL {
            self.narrow(kind);
        }
    }

    fn has_in_view(&self, kind: Kind) -> bool {
        let state = self.state(kind);
        state.known && !state.look.is_nowhere()
    }

    fn flush_kind(
        &mut self,
        kind: Kind,
        pass: Pass,
        now: Instant,
        gated: &mut BTreeSet<Key>,
        actions: &mut Vec<Action>,
    ) {
        if self.carries_all(kind) {
            // All in one: what carries everything cannot be split (rule 40).
            if let Some(due) = self.due_world(kind, pass, now, gated) {
                self.send_part(kind, due, now, actions);
            }
            return;
        }
        let due = match pass {
            Pass::Add => self.due(kind, now, gated),
            Pass::Remove => self.due_removals(kind, now, gated),
        };
        let answers = pass == Pass::Add && self.state(kind).owes_first_answer && self.snapshot.is_complete();
        if answers || !due.is_empty() {
            self.send(kind, due, now, actions);
        }
    }

    fn due(&mut self, kind: Kind, now: Instant, gated: &mut BTreeSet<Key>) -> Due {
        let mut due = Due::default();
        let mut any_gated = false;
        for entry in self.due_entries(kind) {
            if matches!(kind, Kind::Listener | Kind::Route) && self.awaits_clusters(&entry) {
                gated.insert(entry.key.clone());
                if self.is_gated(&entry.key, now) {
                    any_gated = true;
                    continue;
                }
            }
            due.resources.push(entry);
        }
        due.removed = self.due_absences(kind);
        if matches!(kind, Kind::Listener | Kind::Route) {
            self.add_removals(kind, any_gated, &mut due);
        }
        self.only_urgent_if_busy(kind, due)
    }

    /// A renamed listener's successor may be gated: its predecessor keeps the address until both can go at once. Any
    /// new listener may be that successor, and would be refused while the address is taken.
    fn add_removals(&self, kind: Kind, any_gated: bool, due: &mut Due) {
        if self.cannot_remove(kind) {
            return;
        }
        let gone: Vec<String> = self.gone(kind).filter(|name| !due.removed.contains(name)).collect();
        if any_gated && !gone.is_empty() {
            let state = self.state(kind);
            // Routes have no address that could be taken.
            due.resources.retain(|entry| kind == Kind::Route || state.may_hold(&entry.key.name));
        } else if !any_gated {
            due.removed.extend(gone);
        }
    }

    /// At most one response to a changed snapshot is under way for each type; requests are answered regardless,
    /// and so is what must follow on what names it (rules 25 and 33).
    fn only_urgent_if_busy(&self, kind: Kind, mut due: Due) -> Due {
        let state = self.state(kind);
        if !state.outstanding.is_empty() {
            due.resources.retain(|entry| state.is_urgent(&entry.key.name));
            due.removed.retain(|name| state.awaits_absence(name) || self.cannot_remove(kind));
        }
        due
    }

    fn due_entries(&self, kind: Kind) -> Vec<Arc<Entry>> {
        let state = self.state(kind);
        let entries = self.entries_in_view(kind);
        let is_due = |entry: &&Arc<Entry>| {
            let record = state.records.get(&entry.name);
            let is_inherited = record.is_some_and(Record::is_inherited);
            state.is_due_beside(record, entry) && !(is_inherited && self.is_withheld(entry))
        };
        entries.filter(is_due).cloned().collect()
    }

    /// Names to be answered with "no such resource": the client holds nothing under them, so nothing can break
    /// (rule 32). While the snapshot is incomplete an unknown name is unknown, and waits.
    pub(super) fn due_absences(&self, kind: Kind) -> Vec<String> {
        if !self.snapshot.is_complete() {
            return Vec::new();
        }
        let state = self.state(kind);
        let is_answerable = |name: &&str| match self.variant {
            Variant::Delta => state.is_subscribed(name),
            // There are no words for the absence of what was not named.
            Variant::StateOfTheWorld => state.names.contains(*name),
        };
        let absent = self.absent_in_view(kind).filter(is_answerable);
        // What a client has and cannot be taken from it can at least be told not to exist, if it brought that or asks.
        let is_brought =
            |name: &str| self.cannot_remove(kind) && (state.is_inherited(name) || state.asked.contains(name));
        let untold =
            absent.filter(|name| is_brought(name) || (state.awaits_absence(name) && !state.may_hold(name)));
        untold.map(str::to_owned).collect()
    }

    /// Names under which the client holds something that is gone. What was sent on this stream and is no longer offered
    /// is gone; of what an earlier stream left only a complete snapshot can tell.
    pub(super) fn gone(&self, kind: Kind) -> impl Iterator<Item = String> {
        let state = self.state(kind);
        let held =
            self.absent_in_view(kind).filter(move |name| state.is_subscribed(name) && state.may_hold(name));
        let is_from_before = move |name: &str| state.records.get(name).is_some_and(Record::is_from_before);
        let gone = held.filter(move |name| self.snapshot.is_complete() || !is_from_before(name));
        gone.map(str::to_owned)
    }

    fn due_removals(&mut self, kind: Kind, now: Instant, gated: &mut BTreeSet<Key>) -> Due {
        let mut due = Due::default();
        let gone: Vec<String> = self.gone(kind).collect();
        let unnamed = self.unnamed(kind, &gone);
        for name in &gone {
            if unnamed.contains(&**name) || !self.keeps(kind, name, now, gated) {
                due.removed.push(name.clone());
            }
        }
        if !self.state(kind).outstanding.is_empty() {
            due.removed.clear();
        }
        due
    }

    fn send(&mut self, kind: Kind, due: Due, now: Instant, actions: &mut Vec<Action>) {
        for part in due.split(self.source_bytes) {
            self.send_part(kind, part, now, actions);
        }
    }

    fn send_part(&mut self, kind: Kind, part: Due, now: Instant, actions: &mut Vec<Action>) {
        self.sent += 1;
        self.owe_children(kind, &part);
        let response = self.response(kind, &part);
        let Due { resources, carried, mut removed } = part;
        // Told not to exist, it stays at the client all the same.
        let told = if self.cannot_remove(kind) { mem::take(&mut removed) } else { Vec::new() };
        let is_whole = self.carries_all(kind);
        let outstanding = Outstanding {
            nonce: response.nonce.clone(),
            sent_at: now,
            is_whole,
            resources,
            carried,
            removed,
        };
        let state = self.state_mut(kind);
        state.note_sent(outstanding);
        told.iter().for_each(|name| state.note_told_absent(name));
        actions.push(Action::Send(response));
    }

    fn response(&self, kind: Kind, due: &Due) -> Response {
        let state = self.state(kind);
        let is_absent = |name: &str| self.snapshot.get(&Key::new(kind, name)).is_none();
        let told = due.removed.iter().filter(|name| state.names.contains(name.as_str()) && is_absent(name));
        let mut resources: Vec<Arc<Entry>> = due.resources.iter().chain(&due.carried).cloned().collect();
        resources.sort_by(|a, b| a.key.cmp(&b.key));
        let system_version = match self.variant {
            // Rule 37: of use to people only, but always there.
            Variant::Delta => self.snapshot.kind_version(kind).clone(),
            Variant::StateOfTheWorld if self.carries_all(kind) => world_version(&resources),
            Variant::StateOfTheWorld => world_version(&self.acceptable_entries(kind)),
        };
        Response {
            kind,
            nonce: format!("{:x}-{}", self.stream, self.sent),
            system_version,
            revision: self.snapshot.revision().clone(),
            resources,
            not_found: told.cloned().collect(),
            removed: if self.variant == Variant::Delta { due.removed.clone() } else { Vec::new() },
        }
    }

    /// A cluster sent warms until its endpoints are sent, and a listener until its routes are, whatever versions the
    /// client has of them; it does not ask. Also when it asks for them only later, with matching versions (rule 33).
    fn owe_children(&mut self, kind: Kind, due: &Due) {
        let child = match kind {
            Kind::Cluster => Kind::Endpoints,
            Kind::Listener => Kind::Route,
            Kind::Secret | Kind::Endpoints | Kind::Route => return,
        };
        let (snapshot, state) = (&*self.snapshot, &mut self.types[child]);
        for entry in &due.resources {
            for key in entry.refers_to.iter().filter(|key| key.kind == child) {
                state.look.add(key, snapshot.get(key));
                state.owed.insert(key.name.clone());
            }
        }
        if kind == Kind::Cluster {
            for name in &due.removed {
                state.owed.remove(name);
            }
        }
    }
}

//! Taking in a delta request: its answer to a response, its subscriptions and its unsubscriptions are three separate
//! things (rule 36), and none of them depends on the nonce being fresh (rule 35).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use crate::xds::{
    resource::Kind,
    snapshot::Snapshot,
    subscription::{
        Action, Request, Subscription,
        look::Look,
        state::{Given, Held, Record, TypeState},
    },
    version::Version,
};

const WILDCARD: &str = "*";

/// How many unknown types are remembered for the log: real clients ask for a handful, hostile ones for no end.
const UNKNOWN_TYPES_REMEMBERED: usize = 16;

impl Subscription {
    pub(super) fn take_request(&mut self, request: Request, now: Instant, actions: &mut Vec<Action>) {
        let Some(kind) = Kind::of_type_url(&request.type_url) else {
            return self.note_unknown_type(request.type_url, actions);
        };
        let (snapshot, state) = (&*self.snapshot, &mut self.types[kind]);
        if !state.is_mere_ack(&request) {
            state.look = Look::Everywhere;
        }
        let Request { subscribe, unsubscribe, initial_versions, nonce, error, .. } = request;
        state.take_answer(kind, nonce, error, now, actions);
        state.prune_refusals(kind, snapshot);
        if state.known {
            state.subscribe_again(kind, subscribe, snapshot);
            return state.unsubscribe(kind, unsubscribe);
        }
        state.known = true;
        state.inherit(initial_versions);
        state.subscribe_first(kind, subscribe, unsubscribe.is_empty());
        state.unsubscribe(kind, unsubscribe);
        // What it has without wanting it is not ours to follow: having a name is not a subscription (rule 34).
        let TypeState { wildcard, names, records, .. } = state;
        records.retain(|name, _| *wildcard || names.contains(name));
    }

    /// An unknown type is left unanswered, and the stream goes on: the other types need it (rule 4). Extensions are such a
    /// type, so that none that is still referred to is told to be gone (rule 41).
    pub(super) fn note_unknown_type(&mut self, type_url: String, actions: &mut Vec<Action>) {
        if self.unknown_types.len() < UNKNOWN_TYPES_REMEMBERED && self.unknown_types.insert(type_url.clone())
        {
            actions.push(Action::UnknownType(type_url));
        }
    }
}

impl TypeState {
    /// A refusal is told by the presence of an error (rule 6). A nonce that is not outstanding answers nothing.
    pub(super) fn take_answer(
        &mut self,
        kind: Kind,
        nonce: String,
        error: Option<String>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(outstanding) = self.take_outstanding(&nonce) else { return };
        let after = now.saturating_duration_since(outstanding.sent_at);
        match error {
            None => {
                self.note_acked(outstanding, now);
                actions.push(Action::Acked { kind, nonce, after });
            }
            Some(error) => {
                let resources = self.note_refused(outstanding, error.clone(), now);
                actions.push(Action::Nacked { kind, nonce, error, resources });
            }
        }
    }

    fn inherit(&mut self, versions: BTreeMap<String, Version>) {
        let records = versions.into_iter().map(|(name, version)| {
            let record = Record { given: Given::Inherited(version.clone()), held: Held::Inherited(version) };
            (name.into(), record)
        });
        self.records.extend(records);
    }

    /// The first request of a type on this stream: what the client said it has is not asked for anew (rule 34).
    fn subscribe_first(&mut self, kind: Kind, subscribe: Vec<String>, nothing_unsubscribed: bool) {
        // Legacy wildcard: asking for nothing means everything, for the two types that have roots (rule 29).
        let legacy = subscribe.is_empty() && nothing_unsubscribed;
        if legacy && matches!(kind, Kind::Cluster | Kind::Listener) {
            self.wildcard = true;
        }
        for name in subscribe {
            if is_wildcard(kind, &name) {
                self.wildcard = true;
            } else {
                if !self.records.contains_key(name.as_str()) {
                    self.asked.insert(name.clone());
                }
                self.names.insert(name.into());
            }
        }
        self.owes_first_answer = self.wildcard && self.records.is_empty();
    }

    /// Later subscriptions are answered even when nothing changed: the client may have forgotten (rule 30). One that comes
    /// late for the first time, as of a cluster on demand, is like any other (rule 39).
    fn subscribe_again(&mut self, kind: Kind, subscribe: Vec<String>, snapshot: &Snapshot) {
        for name in subscribe {
            if is_wildcard(kind, &name) {
                self.wildcard = true;
                self.recall_in_flight();
                self.asked.extend(snapshot.of_kind(kind).map(|entry| entry.key.name.clone()));
            } else {
                self.ask(&name);
                self.names.insert(name.into());
            }
        }
    }

    /// A client that wanted everything, then not, and now again, takes what is still on its way from the first time.
    pub(super) fn recall_in_flight(&mut self) {
        let outstanding = self.outstanding.iter();
        let entries = outstanding.flat_map(|o| o.resources.iter().chain(&o.carried));
        let names: BTreeSet<Arc<str>> = entries.map(|entry| entry.name.clone()).collect();
        names.iter().for_each(|name| self.recall(name));
    }

    /// What is on its way under a name is taken, and may be refused.
    pub(super) fn recall(&mut self, name: &Arc<str>) {
        let unsure = Record { given: Given::Uncertain, held: Held::Nothing };
        self.records.entry(name.clone()).or_insert(unsure);
    }

    pub(super) fn ask(&mut self, name: &str) {
        // A client that asks again may have lost what an earlier stream gave it, or may live on it.
        if let Some(record) = self.records.get_mut(name).filter(|record| record.is_inherited()) {
            record.given = Given::Uncertain;
        }
        self.asked.insert(name.to_owned());
    }

    fn unsubscribe(&mut self, kind: Kind, names: Vec<String>) {
        for name in names {
            if is_wildcard(kind, &name) {
                self.end_wildcard();
            } else if self.names.remove(name.as_str()) {
                // Under a wildcard the client cannot know whether it keeps the resource: it must be told (rule 31).
                if self.wildcard {
                    self.asked.insert(name);
                } else {
                    self.drop_name(&name);
                }
            }
        }
    }

    pub(super) fn end_wildcard(&mut self) {
        self.wildcard = false;
        self.owes_first_answer = false;
        self.records.retain(|name, _| self.names.contains(name));
        self.asked.retain(|name| self.names.contains(name.as_str()));
    }
}

/// Secrets are never handed out by wildcard (rule 50): there the star is a name like any other.
pub(super) fn is_wildcard(kind: Kind, name: &str) -> bool {
    name == WILDCARD && kind != Kind::Secret
}

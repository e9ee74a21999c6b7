//! Taking in a state-of-the-world request. It carries all names each time: they replace the subscription whatever the
//! nonce (rules 23 and 25), and what they add is answered even when nothing changed (rule 24).

use std::{collections::BTreeSet, mem, sync::Arc, time::Instant};

use crate::xds::{
    resource::{Key, Kind},
    snapshot::Snapshot,
    subscription::{
        Action, SotwRequest, Subscription,
        request::is_wildcard,
        state::{Given, Held, Record, TypeState},
    },
    version::Version,
};

impl Subscription {
    pub(super) fn take_sotw(&mut self, request: SotwRequest, now: Instant, actions: &mut Vec<Action>) {
        let Some(kind) = Kind::of_type_url(&request.type_url) else {
            return self.note_unknown_type(request.type_url, actions);
        };
        let snapshot = self.snapshot.clone();
        let lacks_parent = self.lacks_parent(kind);
        let state = self.state_mut(kind);
        let SotwRequest { names, version, nonce, error, .. } = request;
        let is_repeated = state.is_repeated(&nonce, error.as_deref());
        state.take_latest_answer(kind, nonce, error, now, actions);
        state.prune_refusals(kind, &snapshot);
        // Rule 26: whoever comes with a version and without a nonce of this stream starts anew, and is answered fully. A
        // version equal to that of all there is proves nothing: a client may have applied part of a later response that
        // it refused, or may have given names up, and says its older version all the same.
        let is_first = !mem::replace(&mut state.known, true);
        if is_first && !version.is_empty() {
            state.is_returning = true;
            state.has_more = true;
        }
        let has_changed = state.replace_names(kind, names, &snapshot);
        if is_repeated && !has_changed && lacks_parent {
            state.asked.extend(state.names.iter().map(ToString::to_string));
        }
    }

    /// Endpoints and routes of which the client asks for the parents on another stream.
    fn lacks_parent(&self, kind: Kind) -> bool {
        match kind {
            Kind::Endpoints => !self.state(Kind::Cluster).known,
            Kind::Route => !self.state(Kind::Listener).known,
            Kind::Secret | Kind::Cluster | Kind::Listener => false,
        }
    }
}

impl TypeState {
    /// Rule 27: a client whose cluster warms says its last request once more, and waits. Where the cluster went over
    /// this stream its endpoints have followed (rule 33); otherwise the client has to be answered.
    fn is_repeated(&self, nonce: &str, error: Option<&str>) -> bool {
        self.known
            && !nonce.is_empty()
            && nonce == self.answered
            && error.is_none()
            && self.outstanding.is_empty()
    }

    /// A client may answer several responses by answering the last: it has seen those before it (rule 28). If it
    /// refuses the last, what became of the others is not known: they come once more (rule 7).
    fn take_latest_answer(
        &mut self,
        kind: Kind,
        nonce: String,
        error: Option<String>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        if !self.outstanding.iter().any(|outstanding| outstanding.nonce == nonce) {
            return;
        }
        let earlier = self.outstanding.iter().map(|outstanding| outstanding.nonce.clone());
        let earlier: Vec<String> = earlier.take_while(|earlier| *earlier != nonce).collect();
        for nonce in earlier {
            if error.is_none() {
                self.take_answer(kind, nonce, None, now, actions);
            } else if let Some(outstanding) = self.take_outstanding(&nonce) {
                self.note_unsure(outstanding);
            }
        }
        self.answered.clone_from(&nonce);
        self.take_answer(kind, nonce, error, now, actions);
    }

    /// Whether the subscription is another one now.
    fn replace_names(&mut self, kind: Kind, names: Vec<String>, snapshot: &Snapshot) -> bool {
        // Rules 21 and 22: an empty list means everything for clusters and listeners, while nothing was ever named.
        self.ever_named |= !names.is_empty();
        let is_legacy = !self.ever_named && matches!(kind, Kind::Cluster | Kind::Listener);
        let wildcard = is_legacy || names.iter().any(|name| is_wildcard(kind, name));
        let named = names.into_iter().filter(|name| !is_wildcard(kind, name));
        let names: BTreeSet<Arc<str>> = named.map(|name| snapshot.name(&Key::new(kind, name))).collect();
        let before = mem::replace(&mut self.names, names);
        let had_wildcard = mem::replace(&mut self.wildcard, wildcard);
        if had_wildcard && !wildcard {
            self.end_wildcard();
        }
        let lost: Vec<Arc<str>> = before.difference(&self.names).cloned().collect();
        for name in lost {
            self.lose_name(&name);
        }
        let added: Vec<Arc<str>> = self.names.difference(&before).cloned().collect();
        for name in &added {
            self.gain_name(kind, name);
        }
        if wildcard && !had_wildcard {
            self.recall_in_flight();
            self.owes_first_answer = true;
            // Of clusters and listeners the answer carries everything as it is.
            if !matches!(kind, Kind::Cluster | Kind::Listener) {
                self.asked.extend(snapshot.of_kind(kind).map(|entry| entry.key.name.clone()));
            }
        }
        had_wildcard != wildcard || before != self.names
    }

    /// Under a wildcard the client keeps what exists, and what is being removed until it has taken that.
    fn lose_name(&mut self, name: &str) {
        let keeps = self.wildcard && (self.may_hold(name) || self.is_in_flight(name));
        if !keeps {
            self.drop_name(name);
        }
    }

    /// Endpoints, routes and secrets that a returning client names it may have, in a version that it does not tell. Of
    /// clusters and listeners nothing is said before all of them are known.
    fn gain_name(&mut self, kind: Kind, name: &Arc<str>) {
        if self.is_returning && !matches!(kind, Kind::Cluster | Kind::Listener) {
            let unknown = Version::from("");
            let record = Record { given: Given::Inherited(unknown.clone()), held: Held::Inherited(unknown) };
            self.records.entry(name.clone()).or_insert(record);
        } else {
            if self.outstanding.iter().any(|o| o.entries_of(name).next().is_some()) {
                self.recall(name);
            }
            self.ask(name);
        }
    }
}

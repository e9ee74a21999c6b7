//! One stream of a client: what was said on it, and what it checks of what it is sent.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    app::tests::{
        client::{Character, Client, now},
        consul::Consul,
        fault::{Invariant, Planted},
    },
    lifecycle,
    xds::{
        resource::{Key, Kind},
        snapshot::{Entry, Snapshot},
        subscription::{Action, Event, Request, Response, SotwRequest, Subscription, Variant},
        version::Version,
    },
};

/// Types that are asked for as a whole.
const WHOLE: [Kind; 2] = [Kind::Cluster, Kind::Listener];
/// Types that are asked for by name, with those that name them.
const NAMED: [(Kind, &[Kind]); 3] = [
    (Kind::Endpoints, &[Kind::Cluster]),
    (Kind::Secret, &[Kind::Cluster, Kind::Listener]),
    (Kind::Route, &[Kind::Listener]),
];

/// What was said of one type on this stream.
#[derive(Default)]
struct Said {
    is_known: bool,
    /// What the server knows that the client has, or was sent.
    sent: BTreeMap<String, Version>,
    /// Names that may be sent again: asked for, or named by what was sent.
    causes: BTreeSet<String>,
    /// State of the world: what a whole response carried last on this stream.
    whole: Option<BTreeMap<String, Version>>,
    nonce: String,
}

pub(super) struct Stream {
    character: Character,
    client: Client,
    consul: Consul,
    planted: Option<Planted>,
    rng: fastrand::Rng,
    subscription: Subscription,
    said: BTreeMap<Kind, Said>,
    inbox: VecDeque<(Instant, Response)>,
    has_snapshot: bool,
}

impl Stream {
    pub(super) fn new(
        number: u64,
        character: Character,
        client: Client,
        consul: Consul,
        planted: Option<Planted>,
        rng: fastrand::Rng,
    ) -> Self {
        Self {
            subscription: Subscription::new(number, character.variant),
            character,
            client,
            consul,
            planted,
            rng,
            said: Kind::ALL.into_iter().map(|kind| (kind, Said::default())).collect(),
            inbox: VecDeque::new(),
            has_snapshot: false,
        }
    }

    /// Since the beginning of the run.
    pub(super) fn moment(&self) -> Duration {
        self.consul.record(|record| record.moment(lifecycle::now()))
    }

    pub(super) fn has_snapshot(&self) -> bool {
        self.has_snapshot
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.subscription.next_deadline().map(Instant::from_std)
    }

    pub(super) fn next_answer(&self) -> Option<Instant> {
        self.inbox.front().map(|(at, _)| *at)
    }

    pub(super) fn tick(&mut self) {
        self.step(Event::Tick);
    }

    pub(super) fn offer(&mut self, snapshot: &Arc<Snapshot>) {
        self.has_snapshot = true;
        // A certificate that is still unknown is waited for by what names it, and by nothing else.
        let is_wrong = |(_, to): &(Key, Key)| snapshot.is_complete() || to.kind != Kind::Secret;
        let dangling: Vec<(Key, Key)> = snapshot.dangling().into_iter().filter(is_wrong).collect();
        if !dangling.is_empty() {
            let told = format!("{} is offered what names nothing: {dangling:?}", self.character.proxy);
            self.client.state().violated(Invariant::NothingDangles, told);
        }
        self.step(Event::Offer(snapshot.clone()));
    }

    /// Asks for what it wants, with what it has.
    pub(super) fn open(&mut self) {
        for kind in WHOLE {
            self.ask_again(kind);
        }
        for (kind, _) in NAMED {
            if !self.client.state().of(kind).names.is_empty() {
                self.ask_again(kind);
            }
        }
        self.ask_for_named();
    }

    fn is_delta(&self) -> bool {
        self.character.variant == Variant::Delta
    }

    fn of(&mut self, kind: Kind) -> &mut Said {
        self.said.get_mut(&kind).unwrap()
    }

    /// The first request of a type on this stream.
    fn ask_again(&mut self, kind: Kind) {
        let (names, versions, version) = {
            let mut state = self.client.state();
            let held = state.of(kind);
            let versions: BTreeMap<String, Version> =
                held.cache.iter().map(|(name, entry)| (name.clone(), entry.version.clone())).collect();
            (held.names.clone(), versions, held.version.clone())
        };
        let is_whole = WHOLE.contains(&kind);
        let said = self.of(kind);
        said.is_known = true;
        // What it has it names with its version; what it lacks it asks for. What was sent already may be a cause too.
        said.causes.extend(names.iter().filter(|name| !versions.contains_key(*name)).cloned());
        said.sent.clone_from(&versions);
        if self.is_delta() {
            let is_heard = self.planted != Some(Planted::ForgottenVersions);
            let initial_versions = if is_heard { versions } else { BTreeMap::new() };
            let subscribe = if is_whole { vec!["*".to_owned()] } else { names.into_iter().collect() };
            let type_url = kind.type_url().to_owned();
            return self.step(Event::Request(Request {
                type_url,
                subscribe,
                initial_versions,
                ..Request::default()
            }));
        }
        let said = self.of(kind);
        said.sent.clear();
        said.causes.extend(names);
        self.say(kind, version, None);
    }

    /// State of the world: says all names.
    fn say(&mut self, kind: Kind, version: String, error: Option<String>) {
        let names = self.client.state().of(kind).names.iter().cloned().collect();
        let nonce = self.said[&kind].nonce.clone();
        let type_url = kind.type_url().to_owned();
        self.step(Event::Sotw(SotwRequest { type_url, names, version, nonce, error }));
    }

    fn step(&mut self, event: Event) {
        let actions = self.subscription.step(event, now());
        for action in actions {
            let Action::Send(response) = action else { continue };
            self.check(&response);
            let delay = Duration::from_millis(self.rng.u64(0..=self.character.latency_ms));
            let last = self.inbox.back().map_or_else(lifecycle::now, |(at, _)| *at);
            self.inbox.push_back((last.max(lifecycle::now() + delay), response));
        }
    }

    /// Nothing unchanged is sent again without a reason, and nothing that was not asked for.
    fn check(&mut self, response: &Response) {
        let kind = response.kind;
        let is_whole = !self.is_delta() && WHOLE.contains(&kind);
        let content: BTreeMap<String, Version> =
            response.resources.iter().map(|entry| (entry.key.name.clone(), entry.version.clone())).collect();
        let said = self.of(kind);
        let again: Vec<String> = if is_whole {
            let is_same = said.whole.as_ref() == Some(&content);
            if is_same { vec!["all of it".to_owned()] } else { Vec::new() }
        } else {
            let is_again = |(name, version): &(&String, &Version)| {
                said.sent.get(*name) == Some(*version) && !said.causes.contains(*name)
            };
            content.iter().filter(is_again).map(|(name, _)| name.clone()).collect()
        };
        let before = said.sent.clone();
        for name in content.keys() {
            said.causes.remove(name);
        }
        if is_whole {
            said.sent.clear();
        }
        for name in &response.removed {
            said.sent.remove(name);
        }
        said.sent.extend(content.clone());
        said.whole = Some(content);
        // What a new cluster or listener needs in order to warm follows it.
        for entry in response.resources.iter().filter(|e| before.get(&e.key.name) != Some(&e.version)) {
            for key in &entry.refers_to {
                self.of(key.kind).causes.insert(key.name.clone());
            }
        }
        let mut state = self.client.state();
        state.received += response.resources.len();
        let names: Vec<&str> = response.resources.iter().map(|entry| entry.key.name.as_str()).collect();
        let at = self.moment();
        let line =
            format!("{at:?} {} {} {names:?} -{:?}", self.character.proxy, kind.short(), response.removed);
        state.trace.push(line);
        let wanted = &state.of(kind).names;
        let unasked: Vec<&str> = names.iter().copied().filter(|name| !wanted.contains(*name)).collect();
        if !WHOLE.contains(&kind) && !unasked.is_empty() {
            let told = format!("{} is sent {} unasked: {unasked:?}", self.character.proxy, kind.short());
            state.violated(Invariant::NothingTwice, told);
        }
        if !again.is_empty() {
            let told = format!("{} is sent {} again: {again:?}", self.character.proxy, kind.short());
            state.violated(Invariant::NothingTwice, told);
        }
    }

    /// What a client may stumble over: what it has already, in just that version, it does not read again.
    fn first_new(&self, response: &Response) -> Option<String> {
        let mut state = self.client.state();
        let held = &state.of(response.kind).cache;
        let is_new =
            |entry: &&Arc<Entry>| held.get(&entry.key.name).is_none_or(|held| held.version != entry.version);
        response.resources.iter().find(is_new).map(|entry| entry.key.name.clone())
    }

    /// Takes the oldest response, or refuses one resource of it; gives whether it refused.
    pub(super) fn answer(&mut self, refuses: bool) -> bool {
        let Some((_, response)) = self.inbox.pop_front() else { return false };
        let kind = response.kind;
        let is_whole = !self.is_delta() && WHOLE.contains(&kind);
        let before = self.client.state().in_use();
        let bad = self.first_new(&response).filter(|_| refuses);
        self.apply(&response, is_whole, bad.as_deref());
        let error = bad.as_ref().map(|name| format!("bad: {name}"));
        if bad.is_some() {
            let said = self.of(kind);
            // Of a refused response anything may come again.
            said.sent.retain(|name, _| !response.resources.iter().any(|entry| entry.key.name == *name));
            said.whole = None;
        }
        if self.is_delta() {
            let (type_url, nonce) = (kind.type_url().to_owned(), response.nonce.clone());
            self.step(Event::Request(Request { type_url, nonce, error, ..Request::default() }));
        } else {
            self.of(kind).nonce.clone_from(&response.nonce);
            let version = self.client.state().of(kind).version.clone();
            self.say(kind, version, error);
        }
        self.ask_for_named();
        self.check_endpoints(&before);
        bad.is_some()
    }

    /// Takes what it was sent. What it let go while the response was on its way it takes no more.
    fn apply(&mut self, response: &Response, is_whole: bool, bad: Option<&str>) {
        let mut state = self.client.state();
        let held = state.of(response.kind);
        let is_bad = |entry: &Entry| Some(entry.key.name.as_str()) == bad;
        let mut before = if is_whole { mem::take(&mut held.cache) } else { BTreeMap::new() };
        let is_wanted = |name: &String| WHOLE.contains(&response.kind) || held.names.contains(name);
        for entry in response.resources.iter().filter(|entry| is_wanted(&entry.key.name)) {
            let name = &entry.key.name;
            if !is_bad(entry) {
                held.cache.insert(name.clone(), entry.clone());
            } else if let Some(last) = before.remove(name) {
                held.cache.insert(name.clone(), last);
            }
        }
        for name in &response.removed {
            held.cache.remove(name);
        }
        // Who refuses goes on saying the version that it took before.
        if bad.is_none() {
            held.version = response.system_version.to_string();
        }
    }

    /// Asks for what is named now, and lets go what is named no more.
    fn ask_for_named(&mut self) {
        for (kind, by) in NAMED {
            let (new, gone) = {
                let mut state = self.client.state();
                let names = state.named(by, kind);
                let held = state.of(kind);
                let new: Vec<String> = names.difference(&held.names).cloned().collect();
                let gone: Vec<String> = held.names.difference(&names).cloned().collect();
                held.names = names;
                for name in &gone {
                    held.cache.remove(name);
                }
                (new, gone)
            };
            if new.is_empty() && gone.is_empty() {
                continue;
            }
            let said = self.of(kind);
            said.is_known = true;
            said.causes.extend(new.iter().cloned());
            for name in &gone {
                said.sent.remove(name);
            }
            if self.is_delta() {
                let type_url = kind.type_url().to_owned();
                self.step(Event::Request(Request {
                    type_url,
                    subscribe: new,
                    unsubscribe: gone,
                    ..Request::default()
                }));
            } else {
                let version = self.client.state().of(kind).version.clone();
                self.say(kind, version, None);
            }
        }
    }

    /// What took traffic does so still, unless Consul said otherwise.
    fn check_endpoints(&mut self, before: &BTreeMap<String, BTreeSet<String>>) {
        let mut state = self.client.state();
        let after = state.in_use();
        let now = lifecycle::now();
        for (cluster, had) in before {
            let has = after.get(cluster);
            let lost: Vec<&String> =
                had.iter().filter(|address| !has.is_some_and(|has| has.contains(*address))).collect();
            let is_explained = |address: &String| self.consul.record(|record| record.explains(address, now));
            let has_ended = has.is_none() && self.consul.record(|record| record.explains_end(cluster, now));
            if lost.iter().all(|address| is_explained(address)) || has_ended {
                continue;
            }
            let told = format!(
                "{} loses {lost:?} of {cluster}{}",
                self.character.proxy,
                if has.is_none() { ", all of which is gone" } else { "" }
            );
            state.violated(Invariant::NothingShrinks, told);
        }
    }
}

//! The model client: what it wants, what it holds, and how it answers.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    catalog::{Catalog, NAMES},
    check::{Checked, Clock, Done},
    fault::{Fault, Server},
    op::{Answer, Op},
};
use crate::{
    lifecycle,
    xds::{
        resource::Kind,
        snapshot::{Entry, Snapshot},
        subscription::{
            Event, GATE_LIMIT, Request, Response, SotwRequest, Variant,
            tests::rig::{request, responses, strings},
        },
        version::Version,
    },
};

/// One type at the client.
#[derive(Default)]
pub(super) struct Type {
    pub(super) known: bool,
    pub(super) wildcard: bool,
    pub(super) names: BTreeSet<String>,
    ever_named: bool,
    pub(super) cache: BTreeMap<String, Arc<Entry>>,
    pub(super) arrived: VecDeque<Response>,
    pub(super) refused: BTreeSet<(String, Version)>,
    /// State of the world: names and nonce said last, and the version taken last.
    said: (Vec<String>, String),
    pub(super) version: String,
    /// It applied part of a response that it refused, so that it has what no version stands for.
    pub(super) tainted: bool,
    /// State of the world: what it holds from before this stream, of which the server was not told.
    pub(super) foreign: BTreeSet<String>,
    pub(super) checked: Checked,
}

impl Type {
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn forget(&mut self, name: &str) {
        self.cache.remove(name);
        self.checked.forget(name);
    }

    pub(super) fn versions(&self) -> BTreeMap<String, Version> {
        self.cache.iter().map(|(name, entry)| (name.clone(), entry.version.clone())).collect()
    }

    fn list(&self, kind: Kind) -> Vec<String> {
        let needs_star = self.ever_named || !self.names.is_empty() || !has_legacy_wildcard(kind);
        let star = (self.wildcard && needs_star).then(|| "*".to_owned());
        self.names.iter().cloned().chain(star).collect()
    }

    fn apply(&mut self, response: &Response, whole: bool, is_bad: impl Fn(&Entry) -> bool) {
        let before = if whole { mem::take(&mut self.cache) } else { self.cache.clone() };
        let stays = |name: &String| match response.resources.iter().find(|entry| entry.key.name == *name) {
            Some(entry) => is_bad(entry),
            None => !whole,
        };
        self.foreign.retain(stays);
        for entry in &response.resources {
            let name = &entry.key.name;
            let taken = if is_bad(entry) { before.get(name) } else { Some(entry) };
            if let Some(taken) = taken.filter(|_| self.wants(name)) {
                self.cache.insert(name.clone(), taken.clone());
            }
        }
        for name in &response.removed {
            self.cache.remove(name);
        }
    }
}

fn has_legacy_wildcard(kind: Kind) -> bool {
    matches!(kind, Kind::Cluster | Kind::Listener)
}

pub(super) struct Client {
    pub(super) variant: Variant,
    server: Server,
    streams: u64,
    pub(super) steps: u64,
    pub(super) now: Instant,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) types: BTreeMap<Kind, Type>,
    pub(super) nonces: BTreeSet<String>,
    pub(super) clock: Clock,
    half_closed: bool,
}

impl Client {
    pub(super) fn new(variant: Variant, fault: Option<Fault>) -> Self {
        Self {
            variant,
            server: Server::new(0, variant, fault),
            streams: 0,
            steps: 0,
            now: lifecycle::now().into_std(),
            snapshot: Arc::new(Snapshot::empty()),
            types: Kind::ALL.into_iter().map(|kind| (kind, Type::default())).collect(),
            nonces: BTreeSet::new(),
            clock: Clock::default(),
            half_closed: false,
        }
    }

    pub(super) fn play(&mut self, ops: &[Op], catalog: &Catalog) -> Done {
        for op in ops {
            self.act(*op, catalog)?;
        }
        self.settle()?;
        self.check_settled()?;
        self.follow_references()?;
        self.settle()?;
        self.check_settled()?;
        self.check_followed()
    }

    pub(super) fn of(&mut self, kind: Kind) -> &mut Type {
        self.types.get_mut(&kind).unwrap()
    }

    /// Whether responses of a type carry everything.
    pub(super) fn is_whole(&self, kind: Kind) -> bool {
        self.variant == Variant::StateOfTheWorld && has_legacy_wildcard(kind)
    }

    fn step(&mut self, event: Event) -> Done {
        self.steps += 1;
        let is_push = matches!(event, Event::Offer(_) | Event::Tick);
        let burst = responses(self.server.step(event, self.now));
        let overlooked = self.server.overlooked();
        if !overlooked.is_empty() {
            return Err(format!("due and out of view: {overlooked:?}"));
        }
        for (i, response) in burst.iter().enumerate() {
            self.check(response, &burst[i..], is_push)?;
            self.of(response.kind).arrived.push_back(response.clone());
        }
        Ok(())
    }

    fn act(&mut self, op: Op, catalog: &Catalog) -> Done {
        let speaks = !self.half_closed;
        match op {
            Op::Offer(i) => self.offer(&catalog.snapshots[i]),
            Op::Reconnect => self.reconnect(),
            Op::HalfClose => {
                self.half_closed = true;
                Ok(())
            }
            Op::Vanish => {
                self.types = Kind::ALL.into_iter().map(|kind| (kind, Type::default())).collect();
                self.connect()
            }
            Op::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.step(Event::Tick)
            }
            Op::Subscribe(kind, i) if speaks => self.subscribe(kind, NAMES[i], String::new()),
            Op::SubscribeAll(kind) if speaks => self.subscribe_all(kind),
            Op::Unsubscribe(kind, i) if speaks => self.unsubscribe(kind, NAMES[i]),
            Op::UnsubscribeAll(kind) if speaks => self.unsubscribe_all(kind),
            Op::Answer(kind, answer) if speaks => self.answer(kind, answer).map(drop),
            Op::AnswerLast(kind) if speaks => self.answer_last(kind),
            Op::AnswerAndChange(kind, i, j) if speaks => self.answer_and_change(kind, NAMES[i], NAMES[j]),
            Op::StaleAnswer(kind, refuse) if speaks && self.types[&kind].known => {
                self.say(kind, &[], &[], "stale", refuse.then(|| "stale".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn offer(&mut self, snapshot: &Arc<Snapshot>) -> Done {
        self.snapshot = snapshot.clone();
        self.clock.note_offer(snapshot, self.now);
        self.step(Event::Offer(snapshot.clone()))
    }

    /// Says something in the words of the variant; names and wildcard are in the state already.
    fn say(
        &mut self,
        kind: Kind,
        subscribe: &[&str],
        unsubscribe: &[&str],
        nonce: &str,
        error: Option<String>,
    ) -> Done {
        if self.variant == Variant::Delta {
            let (subscribe, unsubscribe) = (strings(subscribe), strings(unsubscribe));
            let nonce = nonce.to_owned();
            return self.step(Event::Request(Request {
                subscribe,
                unsubscribe,
                nonce,
                error,
                ..request(kind)
            }));
        }
        let lacks_parent = match kind {
            Kind::Endpoints => !self.types[&Kind::Cluster].known,
            Kind::Route => !self.types[&Kind::Listener].known,
            _ => false,
        };
        let of = self.of(kind);
        let names = of.list(kind);
        of.ever_named |= !names.is_empty();
        if !nonce.is_empty() && nonce != "stale" {
            nonce.clone_into(&mut of.said.1);
        }
        let said = if nonce == "stale" { nonce.to_owned() } else { of.said.1.clone() };
        // On a stream without its parents, the same once more asks for everything again.
        if of.said.0 == names && lacks_parent {
            of.checked.causes.extend(names.iter().cloned());
        }
        of.said.0.clone_from(&names);
        let version = of.version.clone();
        let type_url = kind.type_url().into();
        self.step(Event::Sotw(SotwRequest { type_url, names, version, nonce: said, error }))
    }

    pub(super) fn subscribe(&mut self, kind: Kind, name: &str, nonce: String) -> Done {
        let is_delta = self.variant == Variant::Delta;
        let of = self.of(kind);
        of.known = true;
        if of.names.insert(name.into()) || is_delta {
            of.checked.ask(name, is_delta || !of.wildcard);
        }
        self.say(kind, &[name], &[], &nonce, None)
    }

    fn subscribe_all(&mut self, kind: Kind) -> Done {
        if kind == Kind::Secret {
            return Ok(());
        }
        let is_delta = self.variant == Variant::Delta;
        let of = self.of(kind);
        if is_delta || !of.wildcard {
            of.checked.causes.extend(NAMES.map(String::from));
            of.checked.may_repeat = true;
        }
        of.wildcard = true;
        let legacy = !of.known && has_legacy_wildcard(kind);
        of.known = true;
        self.say(kind, if legacy { &[] } else { &["*"] }, &[], "", None)
    }

    fn drop_name(&mut self, kind: Kind, name: &str) {
        let is_delta = self.variant == Variant::Delta;
        let of = self.of(kind);
        if of.names.remove(name) {
            if !of.wildcard {
                of.forget(name);
            } else if is_delta {
                of.checked.ask(name, true);
            } else {
                of.checked.awaited.remove(name);
                of.checked.told.remove(name);
            }
        }
    }

    fn unsubscribe(&mut self, kind: Kind, name: &str) -> Done {
        if !self.types[&kind].known {
            return Ok(());
        }
        self.drop_name(kind, name);
        self.say(kind, &[], &[name], "", None)
    }

    fn unsubscribe_all(&mut self, kind: Kind) -> Done {
        let is_delta = self.variant == Variant::Delta;
        let of = self.of(kind);
        // An empty list that never had a name cannot say "nothing".
        let unspeakable = !is_delta && has_legacy_wildcard(kind) && of.names.is_empty() && !of.ever_named;
        if !of.known || !of.wildcard || kind == Kind::Secret || unspeakable {
            return Ok(());
        }
        of.wildcard = false;
        for name in NAMES {
            if !of.names.contains(name) {
                of.forget(name);
            }
        }
        self.say(kind, &[], &["*"], "", None)
    }

    /// Takes or refuses the oldest response that has arrived.
    fn answer(&mut self, kind: Kind, answer: Answer) -> Result<bool, String> {
        let Some((nonce, error)) = self.digest(kind, answer) else { return Ok(false) };
        self.say(kind, &[], &[], &nonce, error)?;
        Ok(true)
    }

    /// Applies the oldest response, and says how to answer it.
    fn digest(&mut self, kind: Kind, answer: Answer) -> Option<(String, Option<String>)> {
        let whole = self.is_whole(kind);
        let of = self.of(kind);
        let response = of.arrived.pop_front()?;
        let has = |entry: &Entry| {
            let held = of.cache.get(&entry.key.name).filter(|held| !of.foreign.contains(&held.key.name));
            held.is_some_and(|held| held.version == entry.version)
        };
        // What a whole response only carries along is not what a client stumbles over.
        let fresh: Vec<&Arc<Entry>> =
            response.resources.iter().filter(|e| of.wants(&e.key.name) && !(whole && has(e))).collect();
        let picked: Vec<&Arc<Entry>> = match answer {
            Answer::Take => Vec::new(),
            Answer::RefuseAll => fresh.clone(),
            Answer::RefuseOne(i) => fresh.get(i % fresh.len().max(1)).copied().into_iter().collect(),
        };
        let refuses_all = answer == Answer::RefuseAll && !picked.is_empty();
        let newly: Vec<(String, Version)> =
            picked.iter().map(|e| (e.key.name.clone(), e.version.clone())).collect();
        of.refused.extend(newly);
        // What was under way when it was refused is refused again.
        let refused = of.refused.clone();
        let is_bad = |entry: &Entry| refused.contains(&(entry.key.name.clone(), entry.version.clone()));
        let bad: Vec<&str> = fresh.iter().filter(|e| is_bad(e)).map(|e| e.key.name.as_str()).collect();
        of.apply(&response, whole, |entry| refuses_all || is_bad(entry));
        if bad.is_empty() {
            of.version = response.system_version.to_string();
            of.tainted = false;
            return Some((response.nonce, None));
        }
        of.tainted = true;
        of.checked.may_repeat = true;
        for entry in &response.resources {
            of.checked.last.remove(&entry.key.name);
        }
        let error = if refuses_all { "no".into() } else { format!("bad: {}", bad.join(", ")) };
        Some((response.nonce, Some(error)))
    }

    fn answer_last(&mut self, kind: Kind) -> Done {
        let of = self.of(kind);
        let is_refused = |e: &Arc<Entry>| of.refused.contains(&(e.key.name.clone(), e.version.clone()));
        let any_refused = of.arrived.iter().any(|r| r.resources.iter().any(is_refused));
        if self.variant == Variant::StateOfTheWorld && !any_refused {
            while self.types[&kind].arrived.len() > 1 {
                self.digest(kind, Answer::Take);
            }
        }
        self.answer(kind, Answer::Take).map(drop)
    }

    fn answer_and_change(&mut self, kind: Kind, drop: &str, take: &str) -> Done {
        let Some((nonce, error)) = self.digest(kind, Answer::Take) else { return Ok(()) };
        if drop == take {
            return self.say(kind, &[], &[], &nonce, error);
        }
        let had = self.types[&kind].names.contains(drop);
        self.drop_name(kind, drop);
        let is_delta = self.variant == Variant::Delta;
        let of = self.of(kind);
        if of.names.insert(take.into()) || is_delta {
            of.checked.ask(take, is_delta || !of.wildcard);
        }
        let dropped = [drop];
        self.say(kind, &[take], if had { &dropped } else { &[] }, &nonce, error)
    }

    /// A new stream, and nothing said on it yet.
    fn connect(&mut self) -> Done {
        self.streams += 1;
        self.half_closed = false;
        self.server.reconnect(self.streams);
        self.clock.reset(&self.snapshot, self.now);
        let snapshot = self.snapshot.clone();
        self.step(Event::Offer(snapshot))
    }

    fn reconnect(&mut self) -> Done {
        for kind in Kind::ALL {
            let (is_delta, whole) = (self.variant == Variant::Delta, self.is_whole(kind));
            let of = self.of(kind);
            of.arrived.clear();
            of.refused.clear();
            of.tainted = false;
            of.said = (Vec::new(), String::new());
            of.checked = Checked::on_new_stream(of, is_delta, whole);
            of.foreign = if is_delta { BTreeSet::new() } else { of.cache.keys().cloned().collect() };
            of.known = false;
            of.ever_named = false;
        }
        self.connect()?;
        for kind in Kind::ALL {
            let is_delta = self.variant == Variant::Delta;
            let of = self.of(kind);
            // A client that wants nothing of a type does not ask for it.
            of.known = of.wildcard || !of.names.is_empty();
            if !of.known {
                of.cache.clear();
                of.version.clear();
            } else if is_delta {
                let star = of.wildcard.then(|| "*".to_owned());
                let subscribe = of.names.iter().cloned().chain(star).collect();
                let initial_versions = of.versions();
                self.step(Event::Request(Request { subscribe, initial_versions, ..request(kind) }))?;
            } else {
                self.say(kind, &[], &[], "", None)?;
            }
        }
        Ok(())
    }

    /// Takes everything until nothing more comes, gates having run out as well.
    fn settle(&mut self) -> Done {
        if self.half_closed {
            self.reconnect()?;
        }
        for _ in 0..100 {
            let mut answered = false;
            for kind in Kind::ALL {
                answered |= self.answer(kind, Answer::Take)?;
            }
            if !answered {
                self.now += GATE_LIMIT;
                self.step(Event::Tick)?;
                if self.types.values().all(|of| of.arrived.is_empty()) {
                    let deadline = self.server.next_deadline();
                    return deadline.map_or(Ok(()), |_| Err("a gate never ends".into()));
                }
            }
        }
        Err("never comes to rest".into())
    }
}

//! A model client that does anything a client may do: after the dust has settled, what it holds is what it should.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*};

use super::rig::{cluster, draft, endpoints, key, listener, request, responses, route, routed, secret};
use crate::{
    lifecycle,
    xds::{
        resource::{Key, Kind, Resource},
        snapshot::{Draft, Snapshot},
        subscription::{Event, GATE_LIMIT, Request, Response, Subscription},
        version::Version,
    },
};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Op {
    Offer(Draft),
    Subscribe(Kind, usize),
    SubscribeAll(Kind),
    Unsubscribe(Kind, usize),
    UnsubscribeAll(Kind),
    Answer { kind: Kind, refuse: bool },
    StaleAnswer(Kind, bool),
    Reconnect,
    Wait(u64),
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

/// Each name has a cluster with endpoints, a listener, a route and a secret, or not; versions 1 to 3.
fn drafts() -> impl Strategy<Value = Draft> {
    let numbers = vec((0_u16..4, 1_u32..4, 0_u16..3, 0_u16..3, 0_usize..3), 3);
    (numbers, any::<bool>(), vec((kinds(), 0_usize..3), 0..4)).prop_map(|(numbers, complete, partial)| {
        let mut resources: Vec<Resource> = Vec::new();
        let exists = |i: usize| numbers[i].0 > 0;
        for (name, (c, e, l, r, target)) in NAMES.into_iter().zip(&numbers) {
            if *c > 0 {
                resources.extend([cluster(name, u64::from(*c)), endpoints(name, *e), secret(name, *e)]);
            }
            if exists(*target) && *r > 0 {
                resources.push(route(name, u64::from(*r), NAMES[*target]));
            }
            if exists(*target) && *l == 1 {
                resources.push(listener(name, *l, NAMES[*target]));
            } else if exists(*target) && *r > 0 && *l == 2 {
                resources.push(routed(name, *l, name));
            }
        }
        let partial =
            partial.into_iter().filter(|_| !complete).map(|(kind, i)| key(kind, NAMES[i])).collect();
        Draft { partial, complete, ..draft(resources) }
    })
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => drafts().prop_map(Op::Offer),
        4 => (kinds(), 0_usize..3).prop_map(|(kind, i)| Op::Subscribe(kind, i)),
        2 => kinds().prop_map(Op::SubscribeAll),
        2 => (kinds(), 0_usize..3).prop_map(|(kind, i)| Op::Unsubscribe(kind, i)),
        1 => kinds().prop_map(Op::UnsubscribeAll),
        12 => (kinds(), prop::bool::weighted(0.15)).prop_map(|(kind, refuse)| Op::Answer { kind, refuse }),
        1 => (kinds(), any::<bool>()).prop_map(|(kind, refuse)| Op::StaleAnswer(kind, refuse)),
        1 => Just(Op::Reconnect),
        2 => (1_u64..3000).prop_map(Op::Wait),
    ]
}

/// One type at the client.
#[derive(Default)]
struct Type {
    known: bool,
    wildcard: bool,
    names: BTreeSet<String>,
    cache: BTreeMap<String, Version>,
    arrived: VecDeque<Response>,
    refused: BTreeSet<(String, Version)>,
    /// What it was last sent, and why it may be sent that again.
    last: BTreeMap<String, Version>,
    /// What was sent on this stream: its absence from a later snapshot is news even while others are unknown.
    sent_here: BTreeSet<String>,
    causes: BTreeSet<String>,
}

impl Type {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }
}

struct Client {
    server: Subscription,
    streams: u64,
    now: Instant,
    snapshot: Arc<Snapshot>,
    types: BTreeMap<Kind, Type>,
    nonces: BTreeSet<String>,
}

impl Client {
    fn new() -> Self {
        Self {
            server: Subscription::new(0),
            streams: 0,
            now: lifecycle::now().into_std(),
            snapshot: Arc::new(Snapshot::empty()),
            types: Kind::ALL.into_iter().map(|kind| (kind, Type::default())).collect(),
            nonces: BTreeSet::new(),
        }
    }

    fn of(&mut self, kind: Kind) -> &mut Type {
        self.types.get_mut(&kind).unwrap()
    }

    fn step(&mut self, event: Event) {
        let burst = responses(self.server.step(event, self.now));
        assert_eq!(self.server.overlooked(), []);
        self.check_children(&burst);
        for response in burst {
            assert!(self.nonces.insert(response.nonce.clone()), "nonce used twice");
            self.check(&response);
            self.of(response.kind).arrived.push_back(response);
        }
    }

    /// A cluster sent has its endpoints behind it in the same burst, if the client follows them.
    fn check_children(&self, burst: &[Response]) {
        let sent = |kind: Kind| burst.iter().filter(move |r| r.kind == kind).flat_map(|r| &r.resources);
        let follows = &self.types[&Kind::Endpoints];
        for name in sent(Kind::Cluster).map(|entry| &entry.key.name) {
            let child = self
                .snapshot
                .get(&key(Kind::Endpoints, name))
                .filter(|_| follows.known && follows.wants(name));
            let Some(child) = child.filter(|child| !child.partial) else { continue };
            let refused = follows.refused.contains(&(name.clone(), child.version.clone()));
            assert!(
                refused || sent(Kind::Endpoints).any(|e| e.key.name == *name),
                "no endpoints behind {name}"
            );
        }
    }

    fn check(&mut self, response: &Response) {
        let complete = self.snapshot.is_complete();
        let children = match response.kind {
            Kind::Cluster => Some(Kind::Endpoints),
            Kind::Listener => Some(Kind::Route),
            _ => None,
        };
        for entry in &response.resources {
            let name = &entry.key.name;
            let of = self.of(response.kind);
            assert!(of.wants(name), "{:?} was not asked for", entry.key);
            assert!(
                !of.refused.contains(&(name.clone(), entry.version.clone())),
                "{:?} was refused",
                entry.key
            );
            of.sent_here.insert(name.clone());
            let again = of.last.insert(name.clone(), entry.version.clone()).as_ref() == Some(&entry.version);
            assert!(of.causes.remove(name) || !again, "{:?} sent twice without cause", entry.key);
            for child in entry.refers_to.iter().filter(|key| Some(key.kind) == children) {
                self.of(child.kind).causes.insert(child.name.clone());
            }
        }
        for name in &response.removed {
            let is_known = complete || self.of(response.kind).sent_here.contains(name);
            assert!(is_known, "{} {name} removed although unknown", response.kind.short());
            self.of(response.kind).last.remove(name);
        }
    }

    fn request(&mut self, request: Request) {
        self.step(Event::Request(request));
    }

    fn subscribe(&mut self, kind: Kind, name: &str) {
        let of = self.of(kind);
        of.known = true;
        of.names.insert(name.into());
        of.causes.insert(name.into());
        self.request(Request { subscribe: vec![name.into()], ..request(kind) });
    }

    fn subscribe_all(&mut self, kind: Kind) {
        if kind == Kind::Secret {
            return;
        }
        let of = self.of(kind);
        of.wildcard = true;
        of.causes.extend(NAMES.map(String::from));
        let legacy = !of.known && matches!(kind, Kind::Cluster | Kind::Listener);
        of.known = true;
        let subscribe = if legacy { Vec::new() } else { vec!["*".into()] };
        self.request(Request { subscribe, ..request(kind) });
    }

    fn unsubscribe(&mut self, kind: Kind, name: &str) {
        let of = self.of(kind);
        if !of.known {
            return;
        }
        if of.names.remove(name) {
            if of.wildcard {
                of.causes.insert(name.into());
            } else {
                of.cache.remove(name);
                of.last.remove(name);
            }
        }
        self.request(Request { unsubscribe: vec![name.into()], ..request(kind) });
    }

    fn unsubscribe_all(&mut self, kind: Kind) {
        let of = self.of(kind);
        if !of.known || kind == Kind::Secret {
            return;
        }
        of.wildcard = false;
        let names = of.names.clone();
        of.cache.retain(|name, _| names.contains(name));
        of.last.retain(|name, _| names.contains(name));
        self.request(Request { unsubscribe: vec!["*".into()], ..request(kind) });
    }

    /// Takes or refuses the oldest response that has arrived.
    fn answer(&mut self, kind: Kind, refuse: bool) -> bool {
        let of = self.of(kind);
        let Some(response) = of.arrived.pop_front() else { return false };
        let refuse = refuse && !response.resources.is_empty();
        for entry in &response.resources {
            let name = entry.key.name.clone();
            if refuse {
                of.refused.insert((name.clone(), entry.version.clone()));
                of.last.remove(&name);
            } else if of.wants(&name) {
                of.cache.insert(name, entry.version.clone());
            }
        }
        for name in &response.removed {
            of.cache.remove(name);
        }
        let error = refuse.then(|| "refused".to_owned());
        self.request(Request { nonce: response.nonce, error, ..request(kind) });
        true
    }

    fn reconnect(&mut self) {
        self.streams += 1;
        self.server = Subscription::new(self.streams);
        let snapshot = self.snapshot.clone();
        self.step(Event::Offer(snapshot));
        for of in self.types.values_mut() {
            of.arrived.clear();
            of.refused.clear();
            of.last = of.cache.clone();
            of.sent_here.clear();
            of.causes.clear();
            of.known = false;
        }
        for kind in Kind::ALL {
            let of = self.of(kind);
            // A client that wants nothing of a type does not ask for it.
            of.known = of.wildcard || !of.names.is_empty();
            if !of.known {
                continue;
            }
            let mut subscribe: Vec<String> = of.names.iter().cloned().collect();
            if of.wildcard {
                subscribe.push("*".into());
            }
            let initial_versions = of.cache.clone();
            self.request(Request { subscribe, initial_versions, ..request(kind) });
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Offer(draft) => {
                self.snapshot = self.snapshot.next(draft);
                self.step(Event::Offer(self.snapshot.clone()));
            }
            Op::Subscribe(kind, i) => self.subscribe(kind, NAMES[i]),
            Op::SubscribeAll(kind) => self.subscribe_all(kind),
            Op::Unsubscribe(kind, i) => self.unsubscribe(kind, NAMES[i]),
            Op::UnsubscribeAll(kind) => self.unsubscribe_all(kind),
            Op::Answer { kind, refuse } => {
                self.answer(kind, refuse);
            }
            Op::StaleAnswer(kind, refuse) => {
                if self.of(kind).known {
                    let error = refuse.then(|| "stale".to_owned());
                    self.request(Request { nonce: "stale".into(), error, ..request(kind) });
                }
            }
            Op::Reconnect => self.reconnect(),
            Op::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.step(Event::Tick);
            }
        }
    }

    /// Takes everything until nothing more comes, gates having run out as well.
    fn settle(&mut self) {
        for _ in 0..100 {
            let answered = Kind::ALL.into_iter().filter(|kind| self.answer(*kind, false)).count();
            if answered == 0 {
                self.now += GATE_LIMIT;
                self.step(Event::Tick);
                if self.types.values().all(|of| of.arrived.is_empty()) {
                    return;
                }
            }
        }
        panic!("never comes to rest");
    }

    fn has_refused_current(&self, key: &Key) -> bool {
        let of = &self.types[&key.kind];
        let current = self.snapshot.get(key).map(|entry| entry.version.clone());
        current.is_some_and(|version| of.refused.contains(&(key.name.clone(), version)))
    }

    fn check_settled(&self) {
        // The cluster of a listener whose replacement was refused stays.
        let keeps = [Kind::Listener, Kind::Route]
            .into_iter()
            .any(|kind| NAMES.iter().any(|name| self.has_refused_current(&key(kind, name))));
        for (kind, of) in self.types.iter().filter(|(_, of)| of.known) {
            for name in NAMES {
                let key = key(*kind, name);
                if self.has_refused_current(&key) {
                    continue;
                }
                let intended = self.snapshot.get(&key).filter(|_| of.wants(name)).map(|e| &e.version);
                let kept = keeps && intended.is_none() && matches!(kind, Kind::Cluster | Kind::Endpoints);
                assert!(
                    kept || of.cache.get(name) == intended,
                    "{key}: {:?} not {intended:?}",
                    of.cache.get(name)
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_client_ends_up_with_what_it_should_have(ops in vec(ops(), 1..60), last in drafts()) {
        let mut client = Client::new();
        for op in ops {
            client.apply(op);
        }
        let last = Draft { complete: true, partial: BTreeSet::new(), ..last };
        client.apply(Op::Offer(last));
        client.settle();
        client.check_settled();
    }
}

//! A simulated Envoy over the agent's own state machine: it subscribes by what it was given, answers when it gets round to
//! it, comes back with what it has, and keeps what it has while it is alone.

mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    app::tests::{
        agent::{Agent, Running},
        client::stream::Stream,
        consul::Consul,
        fault::{Invariant, Planted, Violation},
        plan::LASTS,
    },
    lifecycle,
    model::name::ProxyId,
    xds::{
        resource::{Kind, Resource, endpoints::EndpointHealth},
        server::{Attached, Offer, ProxySource},
        snapshot::Entry,
        subscription::Variant,
    },
};

/// Between attempts to connect.
const RECONNECT: Duration = Duration::from_secs(1);

/// What a client is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Character {
    pub(super) proxy: &'static str,
    pub(super) variant: Variant,
    /// How long it takes to answer at most, in ms.
    pub(super) latency_ms: u64,
    pub(super) seed: u64,
}

/// What a client is told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    pub(super) is_away: bool,
    /// How many resources it shall have refused.
    pub(super) refusals: usize,
}

/// One type of resource at the client.
#[derive(Default)]
struct Held {
    cache: BTreeMap<String, Arc<Entry>>,
    /// State of the world: the version that it took last, if it has just what that stands for.
    version: String,
    names: BTreeSet<String>,
}

#[derive(Default)]
struct State {
    held: BTreeMap<Kind, Held>,
    found: Vec<Violation>,
    received: usize,
    trace: Vec<String>,
}

/// What a client has, for whoever looks. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Client(Arc<Mutex<State>>);

impl Client {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What was found wrong.
    pub(super) fn found(&self) -> Vec<Violation> {
        self.state().found.clone()
    }

    /// How many resources it was sent.
    pub(super) fn received(&self) -> usize {
        self.state().received
    }

    pub(super) fn trace(&self) -> Vec<String> {
        self.state().trace.clone()
    }

    /// What it has of a type, by name and version, of what it wants.
    pub(super) fn has(&self, kind: Kind) -> BTreeMap<String, String> {
        let state = self.state();
        let held = state.held.get(&kind).into_iter().flat_map(|held| &held.cache);
        held.map(|(name, entry)| (name.clone(), entry.version.to_string())).collect()
    }

    /// The names that it asks for of a type.
    pub(super) fn wants(&self, kind: Kind) -> BTreeSet<String> {
        self.state().held.get(&kind).map(|held| held.names.clone()).unwrap_or_default()
    }

    /// Lives until it is dropped.
    pub(super) async fn live(
        self,
        character: Character,
        consul: Consul,
        mut agents: Running,
        mut orders: watch::Receiver<Orders>,
        planted: Option<Planted>,
    ) {
        let mut rng = fastrand::Rng::with_seed(character.seed);
        let mut refused = 0;
        for number in 1.. {
            let agent = loop {
                let agent = agents.borrow_and_update().clone();
                let is_away = orders.borrow_and_update().is_away;
                match agent {
                    Some(agent) if !is_away => break agent,
                    _ => {}
                }
                tokio::select! {
                    biased;
                    changed = agents.changed() => if changed.is_err() { return },
                    changed = orders.changed() => if changed.is_err() { return },
                }
            };
            let attached = agent.access.attach(&ProxyId::from(character.proxy), None);
            let stream = Stream::new(number, character, self.clone(), consul.clone(), planted, rng.fork());
            let mut session = Session { stream, attached, refused, offers: 0, planted };
            drop::<Arc<Agent>>(agent);
            session.run(&mut agents, &mut orders).await;
            refused = session.refused;
            drop(session);
            sleep(RECONNECT.mul_f64(0.5 + rng.f64())).await;
        }
    }
}

/// One stream with the offers that feed it.
struct Session {
    stream: Stream,
    attached: Attached,
    /// How many resources the client has refused.
    refused: usize,
    offers: usize,
    planted: Option<Planted>,
}

impl Session {
    /// Until the agent or the client goes.
    async fn run(&mut self, agents: &mut Running, orders: &mut watch::Receiver<Orders>) {
        if !self.take_offer() {
            return;
        }
        self.stream.open();
        loop {
            let deadline = self.stream.next_deadline();
            let inbox = self.stream.next_answer();
            let offers = &mut self.attached.offers;
            tokio::select! {
                biased;
                _ = agents.changed() => return,
                changed = orders.changed() => if changed.is_err() || orders.borrow_and_update().is_away { return },
                () = until(inbox) => {
                    let wanted = orders.borrow().refusals;
                    self.refused += usize::from(self.stream.answer(self.refused < wanted));
                }
                () = until(deadline) => self.stream.tick(),
                changed = offers.changed() => if changed.is_err() || !self.take_offer() { return },
            }
        }
    }

    fn loses_pushes(&self) -> bool {
        match self.planted {
            Some(Planted::LostPush) => true,
            Some(Planted::LostPushMeanwhile) => self.stream.moment() < LASTS,
            _ => false,
        }
    }

    /// As the server does; gives whether the stream goes on.
    fn take_offer(&mut self) -> bool {
        let offer = self.attached.offers.borrow_and_update().clone();
        match offer {
            Offer::Pending => true,
            Offer::Ready(snapshot) => {
                self.offers += 1;
                if self.offers.is_multiple_of(3) && self.loses_pushes() {
                    return true;
                }
                let snapshot =
                    self.planted.map_or_else(|| snapshot.clone(), |fault| fault.publish(&snapshot));
                self.stream.offer(&snapshot);
                true
            }
            Offer::Refused { .. } | Offer::Denied { .. } => self.stream.has_snapshot(),
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl State {
    fn of(&mut self, kind: Kind) -> &mut Held {
        self.held.entry(kind).or_default()
    }

    fn violated(&mut self, invariant: Invariant, told: String) {
        self.found.push(Violation { invariant, told });
    }

    /// Which endpoints take traffic, by cluster, of the clusters that it has.
    fn in_use(&self) -> BTreeMap<String, BTreeSet<String>> {
        let held = self.held.get(&Kind::Endpoints).into_iter().flat_map(|held| &held.cache);
        held.map(|(name, entry)| (name.clone(), taking_traffic(entry))).collect()
    }

    /// What is asked for because something else names it: by the kind of those that name, and of those that are named.
    fn named(&self, by: &[Kind], kind: Kind) -> BTreeSet<String> {
        let naming = by.iter().filter_map(|by| self.held.get(by)).flat_map(|held| held.cache.values());
        let keys = naming.flat_map(|entry| &entry.refers_to).filter(|key| key.kind == kind);
        keys.map(|key| key.name.clone()).collect()
    }
}

fn taking_traffic(entry: &Entry) -> BTreeSet<String> {
    let Resource::Endpoints(endpoints) = &*entry.resource else { return BTreeSet::new() };
    let taking = endpoints.endpoints.iter().filter(|(_, it)| it.health != EndpointHealth::Unhealthy);
    taking.map(|(address, _)| address.to_string()).collect()
}

/// Now, as the state machine counts.
fn now() -> std::time::Instant {
    lifecycle::now().into_std()
}

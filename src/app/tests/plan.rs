//! What happens in a run, all of it from one seed: what changes, what goes wrong, who goes and comes back, and when.

use std::time::Duration;

use crate::{
    app::tests::{
        client::Character,
        land::{DATACENTERS, GATEWAYS, Health, INSTANCES, Land, PROXIES, SERVICES, UPSTREAMS},
        trouble::{Scope, Trouble},
    },
    xds::subscription::Variant,
};

/// How long things happen.
pub(super) const LASTS: Duration = Duration::from_secs(90);

/// A run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) clients: Vec<Character>,
    /// In order of time.
    pub(super) steps: Vec<Step>,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) at: Duration,
    pub(super) what: What,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Change(Change),
    /// What goes wrong, where, for how many ms.
    Trouble(Trouble, Scope, u64),
    /// A snapshot is taken.
    Save,
    /// It is restored.
    Restore,
    /// The agent is killed and comes back after so many ms, with what it kept or without.
    Restart(u64, bool),
    /// A client goes and comes back after so many ms.
    Leave(usize, u64),
    /// A client refuses something.
    Refuse(usize),
}

/// A change of the truth.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// An instance by datacenter, service and number: how it is from now on, or gone.
    Instance(usize, usize, usize, Option<Health>),
    /// A mesh gateway by datacenter and number.
    Gateway(usize, usize, Health),
    /// Its address changes.
    GatewayMoves(usize, usize),
    Upstream(usize),
    Intention(usize, usize),
    Failover,
    Redirect,
    Protocol,
    Leaves,
    Roots,
}

impl Change {
    /// Makes it so.
    pub(super) fn apply(self, land: &mut Land) {
        match self {
            Self::Instance(at, service, n, Some(health)) => {
                land.instances.insert((at, service, n), health);
            }
            Self::Instance(at, service, n, None) => drop(land.instances.remove(&(at, service, n))),
            Self::Gateway(at, n, health) => {
                land.gateways.entry((at, n)).and_modify(|it| it.0 = health);
            }
            Self::GatewayMoves(at, n) => {
                land.gateways.entry((at, n)).and_modify(|it| it.1 += 1);
            }
            Self::Upstream(number) => {
                if !land.upstreams.remove(&number) {
                    land.upstreams.insert(number);
                }
            }
            Self::Intention(source, destination) => {
                if !land.allowed.remove(&(source, destination)) {
                    land.allowed.insert((source, destination));
                }
            }
            Self::Failover => land.has_failover = !land.has_failover,
            Self::Redirect => land.has_redirect = !land.has_redirect,
            Self::Protocol => land.is_http = !land.is_http,
            Self::Leaves => land.authority.1 += 1,
            Self::Roots => land.authority = (1 - land.authority.0, land.authority.1 + 1),
        }
    }

    /// One of those that leave the kinds of resources as they are, mostly.
    fn random(rng: &mut fastrand::Rng, is_calm: bool) -> Self {
        let at = rng.usize(0..DATACENTERS);
        match rng.u32(0..if is_calm { 12 } else { 20 }) {
            0..=8 => {
                let health = match rng.u32(0..6) {
                    0..=2 => Some(Health::Passing),
                    3 => Some(Health::Warning),
                    4 => Some(Health::Critical),
                    _ => None,
                };
                Self::Instance(at, rng.usize(0..SERVICES.len()), rng.usize(0..INSTANCES), health)
            }
            9 => {
                let health = if rng.bool() { Health::Passing } else { Health::Critical };
                Self::Gateway(at, rng.usize(0..GATEWAYS), health)
            }
            10 => Self::Intention(rng.usize(0..SERVICES.len()), rng.usize(0..SERVICES.len())),
            11 => Self::Leaves,
            12 => Self::GatewayMoves(at, rng.usize(0..GATEWAYS)),
            13 | 14 => Self::Upstream(rng.usize(0..UPSTREAMS.len())),
            15 | 16 => Self::Failover,
            17 => Self::Redirect,
            18 => Self::Protocol,
            _ => Self::Roots,
        }
    }
}

/// What is tried when nothing is wrong any more: each has to reach every client soon.
pub(super) const PROBES: [Change; 6] = [
    Change::Instance(0, 0, 2, Some(Health::Warning)),
    Change::Instance(1, 2, 2, Some(Health::Warning)),
    Change::Intention(1, 3),
    Change::Failover,
    Change::Upstream(3),
    Change::Roots,
];

fn trouble(rng: &mut fastrand::Rng) -> What {
    let trouble = match rng.u32(0..13) {
        0 => Trouble::Refused,
        1 => Trouble::Hung,
        2 => Trouble::Status(429),
        3 | 4 => Trouble::Status(500),
        5 => Trouble::Status(503),
        6 => Trouble::Filtered,
        7 => Trouble::Hidden,
        8 => Trouble::Truncated,
        9 => Trouble::Garbage,
        10 => Trouble::WrongShape,
        11 => Trouble::Unapplied,
        _ if rng.bool() => Trouble::Slow(rng.u64(100..8_000)),
        _ => Trouble::Stale,
    };
    let scope = match rng.u32(0..4) {
        0 => Scope::All,
        1 => Scope::Datacenter(rng.usize(0..DATACENTERS)),
        _ => Scope::Share(rng.u64(0..3), 3),
    };
    What::Trouble(trouble, scope, rng.u64(100..40_000))
}

impl Plan {
    /// What happens under a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut clients: Vec<Character> = PROXIES.map(|proxy| character(proxy, &mut rng)).into();
        if rng.bool() {
            clients.push(character(PROXIES[rng.usize(0..PROXIES.len())], &mut rng));
        }
        // In half of all runs the kinds of resources stay: then nothing excuses a cluster that goes.
        let is_calm = rng.bool();
        let count = rng.usize(8..40);
        let mut steps: Vec<Step> = (0..count)
            .map(|_| {
                let at = Duration::from_millis(rng.u64(0..u64::try_from(LASTS.as_millis()).unwrap()));
                let what = match rng.u32(0..20) {
                    0..=8 => What::Change(Change::random(&mut rng, is_calm)),
                    9..=14 => trouble(&mut rng),
                    15 => What::Save,
                    16 => What::Restore,
                    17 => What::Restart(rng.u64(10..20_000), rng.bool()),
                    18 => What::Leave(rng.usize(0..clients.len()), rng.u64(10..30_000)),
                    _ => What::Refuse(rng.usize(0..clients.len())),
                };
                Step { at, what }
            })
            .collect();
        steps.sort_by_key(|step| step.at);
        Self { seed, clients, steps }
    }

    /// A line for each step.
    pub(super) fn shown(&self) -> String {
        let clients =
            self.clients.iter().map(|it| format!("  {} {:?} {} ms\n", it.proxy, it.variant, it.latency_ms));
        let steps = self.steps.iter().map(|step| format!("  {:>9.3?} {:?}\n", step.at, step.what));
        clients.chain(steps).collect()
    }
}

fn character(proxy: &'static str, rng: &mut fastrand::Rng) -> Character {
    let variant = if rng.bool() { Variant::Delta } else { Variant::StateOfTheWorld };
    let latency_ms = if rng.u32(0..5) == 0 { 3_000 } else { 20 };
    Character { proxy, variant, latency_ms, seed: rng.u64(..) }
}

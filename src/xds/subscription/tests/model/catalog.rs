//! Random catalogs: complete, incomplete and partial snapshots over three names.

use std::{collections::BTreeSet, sync::Arc};

use crate::xds::{
    resource::{Kind, Resource},
    snapshot::{Draft, Snapshot},
    subscription::tests::rig::{
        aggregate, cluster, draft, endpoints, key, listener, route, routed, secret, secured,
    },
};

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];

const SNAPSHOTS: usize = 400;

/// Neighbouring cases share a catalog: encoding and hashing take longer than a step of the machine.
const CASES: u64 = 1_000;

pub(super) struct Catalog {
    number: u64,
    pub(super) snapshots: Vec<Arc<Snapshot>>,
    /// Those of them that a case may end with.
    pub(super) complete: Vec<usize>,
}

impl Catalog {
    /// The catalog of a case, and of its neighbours.
    pub(super) fn of_case(case: u64) -> Self {
        let number = number(case);
        let mut rng = fastrand::Rng::with_seed(number);
        let mut last = Arc::new(Snapshot::empty());
        let mut snapshots = Vec::new();
        for _ in 0..SNAPSHOTS {
            last = last.next(random_draft(&mut rng));
            assert!(
                !last.is_complete() || last.dangling().is_empty(),
                "a catalog that names what it has not"
            );
            snapshots.push(last.clone());
        }
        let complete = (0..SNAPSHOTS).filter(|i| snapshots[*i].is_complete()).collect();
        Self { number, snapshots, complete }
    }

    pub(super) fn is_of(&self, case: u64) -> bool {
        self.number == number(case)
    }
}

fn number(case: u64) -> u64 {
    case / CASES
}

/// Each name has a cluster with endpoints, a listener, a route and a secret, or not, in few versions. `c` may be made of
/// the others. What is named exists, unless the catalog is incomplete: then a secret may be named that is not known yet.
fn random_draft(rng: &mut fastrand::Rng) -> Draft {
    let complete = rng.u8(0..3) > 0;
    let exists = NAMES.map(|_| rng.u8(0..4) > 0);
    let has_secret = NAMES.map(|_| rng.u8(0..4) > 0);
    let nameable: Vec<&str> = (0..3).filter(|i| has_secret[*i] || !complete).map(|i| NAMES[i]).collect();
    let mut resources: Vec<Resource> = Vec::new();
    for (i, name) in NAMES.into_iter().enumerate() {
        if has_secret[i] {
            resources.push(secret(name, rng.u32(1..3)));
        }
        clusters(rng, i, &exists, &nameable, &mut resources);
        let target = rng.usize(0..3);
        if exists[target] {
            listeners(rng, name, NAMES[target], &nameable, &mut resources);
        }
    }
    let mut partial = BTreeSet::new();
    for _ in 0..if complete { 0 } else { rng.u8(0..4) } {
        partial.insert(key(Kind::ALL[rng.usize(0..5)], NAMES[rng.usize(0..3)]));
    }
    Draft { partial, complete, ..draft(resources) }
}

fn clusters(
    rng: &mut fastrand::Rng,
    i: usize,
    exists: &[bool; 3],
    nameable: &[&str],
    resources: &mut Vec<Resource>,
) {
    let (name, n) = (NAMES[i], rng.u64(1..4));
    let others: Vec<&str> = (0..2).filter(|o| exists[*o] && rng.bool()).map(|o| NAMES[o]).collect();
    if exists[i] && i == 2 && !others.is_empty() && rng.bool() {
        resources.push(aggregate(name, n, &others));
    } else if exists[i] {
        resources.extend([tls_or_not(rng, cluster(name, n), nameable), endpoints(name, rng.u32(1..3))]);
    }
}

fn listeners(
    rng: &mut fastrand::Rng,
    name: &str,
    target: &str,
    nameable: &[&str],
    resources: &mut Vec<Resource>,
) {
    let has_route = rng.bool();
    if has_route {
        resources.push(route(name, rng.u64(1..3), target));
    }
    let listener = match rng.u8(0..3) {
        0 if has_route => routed(name, rng.u16(1..3), name),
        1 => listener(name, rng.u16(1..3), target),
        _ => return,
    };
    resources.push(tls_or_not(rng, listener, nameable));
}

/// Every third has TLS, if there are secrets to name.
fn tls_or_not(rng: &mut fastrand::Rng, resource: Resource, nameable: &[&str]) -> Resource {
    if nameable.is_empty() || rng.u8(0..3) > 0 {
        return resource;
    }
    let mut pick = || nameable[rng.usize(0..nameable.len())];
    secured(resource, pick(), pick())
}

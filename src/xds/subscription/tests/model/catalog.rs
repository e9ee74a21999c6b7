//! Random catalogs: complete, incomplete and partial snapshots over three names.

use std::{collections::BTreeSet, sync::Arc};

use crate::xds::{
    resource::{Kind, Resource},
    snapshot::{Draft, Snapshot},
    subscription::tests::rig::{aggregate, cluster, draft, endpoints, key, listener, route, routed, secret},
};

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];

const SNAPSHOTS: usize = 400;

/// Made once: encoding and hashing take longer than a step of the machine.
pub(super) struct Catalog {
    pub(super) snapshots: Vec<Arc<Snapshot>>,
    /// Those of them that a case may end with.
    pub(super) complete: Vec<usize>,
}

impl Catalog {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut last = Arc::new(Snapshot::empty());
        let mut snapshots = Vec::new();
        for _ in 0..SNAPSHOTS {
            last = last.next(random_draft(&mut rng));
            snapshots.push(last.clone());
        }
        let complete = (0..SNAPSHOTS).filter(|i| snapshots[*i].is_complete()).collect();
        Self { snapshots, complete }
    }
}

/// Each name has a cluster with endpoints, a listener, a route and a secret, or not, in few versions. `c` may be made of
/// the others.
fn random_draft(rng: &mut fastrand::Rng) -> Draft {
    let exists = NAMES.map(|_| rng.u8(0..4) > 0);
    let mut resources: Vec<Resource> = Vec::new();
    for (i, name) in NAMES.into_iter().enumerate() {
        let n = rng.u64(1..4);
        let others: Vec<&str> = (0..2).filter(|o| exists[*o] && rng.bool()).map(|o| NAMES[o]).collect();
        if exists[i] && i == 2 && !others.is_empty() && rng.bool() {
            resources.push(aggregate(name, n, &others));
        } else if exists[i] {
            resources.extend([cluster(name, n), endpoints(name, rng.u32(1..3))]);
        }
        if rng.u8(0..4) > 0 {
            resources.push(secret(name, rng.u32(1..3)));
        }
        let target = rng.usize(0..3);
        if !exists[target] {
            continue;
        }
        let has_route = rng.bool();
        if has_route {
            resources.push(route(name, rng.u64(1..3), NAMES[target]));
        }
        match rng.u8(0..3) {
            0 if has_route => resources.push(routed(name, rng.u16(1..3), name)),
            1 => resources.push(listener(name, rng.u16(1..3), NAMES[target])),
            _ => {}
        }
    }
    let complete = rng.u8(0..3) > 0;
    let mut partial = BTreeSet::new();
    for _ in 0..if complete { 0 } else { rng.u8(0..4) } {
        partial.insert(key(Kind::ALL[rng.usize(0..5)], NAMES[rng.usize(0..3)]));
    }
    Draft { partial, complete, ..draft(resources) }
}

use std::collections::{BTreeMap, BTreeSet};

use super::World;
use crate::{
    mesh::{
        built::{Built, Outcome, Parts, Unit},
        cluster,
    },
    model::catalog::Topic,
    xds::resource::{Key, Kind},
};

fn ready(name: &str) -> Outcome {
    Outcome::Ready(Parts { resources: vec![cluster::passthrough(name)], ..Parts::default() })
}

fn held() -> Outcome {
    Outcome::Held(BTreeSet::from([Topic::Roots]))
}

fn upstream(id: &str) -> Unit {
    Unit::Upstream(id.to_owned())
}

fn built(units: impl IntoIterator<Item = (Unit, Outcome)>) -> Built {
    Built { units: BTreeMap::from_iter(units), ..Built::default() }
}

fn cluster_key(name: &str) -> Key {
    Key::new(Kind::Cluster, name)
}

#[test]
fn a_unit_never_known_is_absent_and_the_whole_is_incomplete() {
    let mut world = World::default();
    let whole = world.assemble(built([(upstream("a"), ready("a")), (upstream("b"), held())]));
    assert_eq!(whole.resources.keys().collect::<Vec<_>>(), [&cluster_key("a")]);
    assert!(!whole.complete);
    assert_eq!(whole.waiting_for, BTreeSet::from([Topic::Roots]));
}

#[test]
fn a_unit_held_back_or_refused_keeps_its_last_good_parts() {
    for outcome in [held(), Outcome::Refused] {
        let mut world = World::default();
        world.assemble(built([(upstream("a"), ready("a"))]));
        let whole = world.assemble(built([(upstream("a"), outcome)]));
        assert!(whole.resources.contains_key(&cluster_key("a")));
        assert!(whole.complete);
    }
}

#[test]
fn a_unit_no_longer_asked_for_goes() {
    let mut world = World::default();
    world.assemble(built([(upstream("a"), ready("a")), (upstream("b"), ready("b"))]));
    let whole = world.assemble(built([(upstream("b"), ready("b"))]));
    assert_eq!(whole.resources.keys().collect::<Vec<_>>(), [&cluster_key("b")]);
    let back = world.assemble(built([(upstream("a"), held()), (upstream("b"), ready("b"))]));
    assert!(!back.complete, "what went is forgotten");
}

#[test]
fn one_target_of_two_upstreams_is_one_cluster() {
    let mut world = World::default();
    let whole = world.assemble(built([(upstream("a"), ready("x")), (upstream("b"), ready("x"))]));
    assert_eq!(whole.resources.len(), 1);
    assert!(whole.notes.is_empty());
}

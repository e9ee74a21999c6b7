use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{Assembled, World};
use crate::{
    mesh::{
        built::{Built, Outcome, Parts, Unit},
        cluster,
    },
    model::catalog::Topic,
    xds::resource::{
        Key, Kind, Resource,
        address::Address,
        cluster::Discovery,
        listener::{Direction, Listener},
    },
};

fn ready(name: &str) -> Outcome {
    Outcome::Ready(Parts {
        resources: vec![cluster::passthrough(name, Discovery::Eds, 1, None)],
        ..Parts::default()
    })
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

fn listening_at() -> Address {
    SocketAddr::from(([127, 0, 0, 1], 9001)).into()
}

fn listening(name: &str) -> Outcome {
    let listener = Listener {
        name: name.to_owned(),
        stat_prefix: None,
        address: listening_at(),
        direction: Direction::Outbound,
        tls_inspector: false,
        exact_balance: false,
        chains: vec![],
    };
    Outcome::Ready(Parts { resources: vec![Resource::Listener(listener)], ..Parts::default() })
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
fn what_listens_stays_until_its_successor_is_known() {
    let elsewhere: Address = SocketAddr::from(([127, 0, 0, 1], 9002)).into();
    let claiming = |at: &Address, outcome: Outcome| Built {
        claims: BTreeMap::from([(upstream("new"), at.clone())]),
        ..built([(upstream("new"), outcome)])
    };
    let names = |whole: Assembled| whole.resources.into_keys().map(|key| key.name).collect::<Vec<_>>();
    let mut world = World::default();
    world.assemble(built([(upstream("old"), listening("old"))]));
    for _ in 0..2 {
        assert_eq!(names(world.assemble(claiming(&listening_at(), held()))), ["old"]);
    }
    assert_eq!(names(world.clone().assemble(claiming(&elsewhere, held()))), [""; 0]);
    assert_eq!(names(world.assemble(claiming(&listening_at(), listening("new")))), ["new"]);
}

#[test]
fn all_upstreams_stay_while_it_is_not_known_which_one_is_unread() {
    let names = |whole: Assembled| whole.resources.into_keys().map(|key| key.name).collect::<Vec<_>>();
    let told = || (Unit::Upstreams, Outcome::Ready(Parts::default()));
    let untold = || (Unit::Upstreams, Outcome::Refused(Parts::default()));
    let mut world = World::default();
    world.assemble(built([told(), (upstream("a"), ready("a")), (upstream("b"), ready("b"))]));
    let refused = (upstream("b"), Outcome::Refused(Parts::default()));
    assert_eq!(names(world.assemble(built([told(), refused]))), ["b"]);
    for _ in 0..2 {
        assert_eq!(names(world.assemble(built([untold(), (upstream("c"), ready("c"))]))), ["b", "c"]);
    }
    assert_eq!(names(world.assemble(built([told(), (upstream("c"), ready("c"))]))), ["c"]);
}

#[test]
fn what_lacks_something_unknown_is_partial_for_as_long_as_it_stays() {
    let mut parts = Parts {
        resources: vec![cluster::passthrough("a", Discovery::Eds, 1, None)],
        partial: BTreeSet::from([cluster_key("a")]),
        ..Parts::default()
    };
    let mut world = World::default();
    let topics = BTreeSet::from([Topic::Roots]);
    let outcomes = [Outcome::Partial(parts.clone(), topics), held()];
    for outcome in outcomes {
        let whole = world.assemble(built([(upstream("a"), outcome)]));
        assert_eq!((whole.complete, whole.partial), (false, BTreeSet::from([cluster_key("a")])));
    }
    parts.partial.clear();
    let whole = world.assemble(built([(upstream("a"), Outcome::Ready(parts))]));
    assert!(whole.complete && whole.partial.is_empty());
}

#[test]
fn nothing_of_one_service_fronts_another() {
    let of =
        |service: &str, units: [(Unit, Outcome); 1]| Built { subject: Some(service.into()), ..built(units) };
    let mut world = World::default();
    world.assemble(of("web", [(Unit::Public, listening("public"))]));
    assert_eq!(world.assemble(of("web", [(Unit::Public, held())])).resources.len(), 1);
    let whole = world.assemble(of("db", [(Unit::Public, held())]));
    assert!(whole.resources.is_empty() && !whole.complete);
}

#[test]
fn a_unit_held_back_or_refused_keeps_its_last_good_parts() {
    for outcome in [held(), Outcome::Refused(Parts::default())] {
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

#[test]
fn what_a_list_named_stays_while_the_list_is_unknown() {
    let service = || Unit::LocalService("web".into());
    for unknown in [held(), Outcome::Partial(Parts::default(), BTreeSet::from([Topic::Datacenters]))] {
        let mut world = World::default();
        world.assemble(built([(Unit::LocalServices, ready("list")), (service(), ready("web"))]));
        let whole = world.assemble(built([(Unit::LocalServices, unknown)]));
        assert!(whole.resources.contains_key(&cluster_key("web")));
        let whole = world.assemble(built([(Unit::LocalServices, ready("list"))]));
        assert!(!whole.resources.contains_key(&cluster_key("web")), "the list does not name it");
    }
}

#[test]
fn what_is_partial_counts_and_the_whole_is_incomplete() {
    let mut world = World::default();
    let Outcome::Ready(parts) = ready("a") else { panic!() };
    let partial = Outcome::Partial(parts, BTreeSet::from([Topic::Datacenters]));
    let whole = world.assemble(built([(Unit::RemoteDatacenters, partial)]));
    assert!(whole.resources.contains_key(&cluster_key("a")) && !whole.complete);
}

#[test]
fn a_last_good_listener_gives_way_to_a_newer_one_on_its_address() {
    let mut world = World::default();
    world.assemble(built([(upstream("a"), listening("a"))]));
    let whole = world.assemble(built([
        (upstream("a"), Outcome::Refused(Parts::default())),
        (upstream("b"), listening("b")),
    ]));
    assert_eq!(whole.resources.keys().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(whole.notes.len(), 1);
}

#[test]
fn a_stand_in_serves_until_something_was_good() {
    let Outcome::Ready(stand_in) = ready("stand-in") else { panic!() };
    let refused = || Outcome::Refused(stand_in.clone());
    let mut world = World::default();
    let whole = world.assemble(built([(upstream("a"), refused())]));
    assert!(whole.resources.contains_key(&cluster_key("stand-in")));
    world.assemble(built([(upstream("a"), ready("good"))]));
    let whole = world.assemble(built([(upstream("a"), refused())]));
    assert_eq!(whole.resources.keys().collect::<Vec<_>>(), [&cluster_key("good")]);
}

use std::sync::Arc;

use super::*;
use crate::model::{
    catalog::{Answer, Heard, Stale},
    instance::{Health, HostPort, Weights},
};

fn gateway(address: &str, modify_index: u64) -> Instance {
    Instance {
        node: "n".into(),
        id: "mesh-gateway".into(),
        service: "mesh-gateway".into(),
        kind: ServiceKind::MeshGateway,
        lan: HostPort::new(address, 8443),
        wan: HostPort::new(address, 8443),
        health: Health::Passing,
        weights: Weights::default(),
        meta: BTreeMap::new(),
        entry: Arc::default(),
        modify_index,
    }
}

fn states() -> (Topic, Answer) {
    let states = BTreeMap::from([("dc2".into(), vec![gateway("old", 1)])]);
    (Topic::FederationStates, Answer::FederationStates(states))
}

fn live() -> [(Topic, Answer); 2] {
    let (dc, kind) = (Datacenter::from("dc2"), ServiceKind::MeshGateway);
    let names = BTreeMap::from([("mesh-gateway".into(), kind)]);
    let health = Topic::Health { dc: dc.clone(), service: "mesh-gateway".into() };
    [
        (Topic::Services { dc, kind: Some(kind) }, Answer::Services(names)),
        (health, Answer::Instances(vec![gateway("new", 2)])),
    ]
}

fn kept(answer: Answer) -> Heard {
    Heard { stale: Some(Stale { reason: "no answer".into(), is_from_disk: true }), ..Heard::fresh(answer) }
}

/// The gateways of the other datacenter, and what is waited for.
fn read(catalog: &Catalog) -> (Vec<String>, BTreeSet<Topic>) {
    let mut reader = Reader::new(catalog);
    let found = reader.remote_gateways(&"dc2".into()).unwrap();
    let found = found.iter().map(|gateway| gateway.wan.to_string()).collect();
    let Read { missing, is_unsure, .. } = reader.into_read();
    assert_eq!(is_unsure, !missing.is_empty());
    (found, missing)
}

fn old() -> Vec<String> {
    vec!["old:8443".to_owned()]
}

fn new() -> Vec<String> {
    vec!["new:8443".to_owned()]
}

#[test]
fn a_fresh_source_is_enough() {
    let mut catalog = Catalog::default();
    let (topic, answer) = states();
    catalog.hear(topic, Heard::fresh(answer));
    assert_eq!(read(&catalog), (old(), BTreeSet::new()));
    let mut catalog = Catalog::default();
    for (topic, answer) in live() {
        catalog.hear(topic, Heard::fresh(answer));
    }
    assert_eq!(read(&catalog), (new(), BTreeSet::new()));
}

#[test]
fn a_kept_source_is_in_doubt_until_the_other_one_is_known_which_may_be_newer() {
    let mut catalog = Catalog::default();
    let (topic, answer) = states();
    catalog.hear(topic, kept(answer));
    for (topic, answer) in live() {
        assert_eq!(read(&catalog), (old(), BTreeSet::from([topic.clone()])));
        catalog.hear(topic, kept(answer));
    }
    assert_eq!(read(&catalog), (new(), BTreeSet::new()));
}

#[test]
fn a_kept_source_is_in_no_doubt_once_the_other_one_has_failed() {
    let mut catalog = Catalog::default();
    for (topic, answer) in live() {
        catalog.hear(topic, kept(answer));
    }
    assert_eq!(read(&catalog), (new(), BTreeSet::from([Topic::FederationStates])));
    catalog.lose(&Topic::FederationStates, "No cluster leader".into());
    assert_eq!(read(&catalog), (new(), BTreeSet::new()));
}

#[test]
fn without_any_source_what_is_unknown_is_waited_for() {
    let catalog = Catalog::default();
    let mut reader = Reader::new(&catalog);
    assert!(reader.remote_gateways(&"dc2".into()).is_none());
    let [(services, _), _] = live();
    assert_eq!(reader.into_read().missing, BTreeSet::from([Topic::FederationStates, services]));
}

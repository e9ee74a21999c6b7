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

/// The gateways of the other datacenter, if they are known, and what is waited for.
fn read(catalog: &Catalog) -> (Option<Vec<String>>, BTreeSet<Topic>) {
    let mut reader = Reader::new(catalog);
    let found = reader.remote_gateways(&"dc2".into());
    let found = found.map(|all| all.iter().map(|gateway| gateway.wan.to_string()).collect());
    (found, reader.into_parts().1)
}

#[test]
fn a_fresh_source_is_enough() {
    let mut catalog = Catalog::default();
    let (topic, answer) = states();
    catalog.hear(topic, Heard::fresh(answer));
    assert_eq!(read(&catalog), (Some(vec!["old:8443".to_owned()]), BTreeSet::new()));
    let mut catalog = Catalog::default();
    for (topic, answer) in live() {
        catalog.hear(topic, Heard::fresh(answer));
    }
    assert_eq!(read(&catalog), (Some(vec!["new:8443".to_owned()]), BTreeSet::new()));
}

#[test]
fn a_kept_source_waits_for_the_other_one_which_may_be_newer() {
    let mut catalog = Catalog::default();
    let (topic, answer) = states();
    catalog.hear(topic, kept(answer));
    for (topic, answer) in live() {
        assert_eq!(read(&catalog), (None, BTreeSet::from([topic.clone()])));
        catalog.hear(topic, kept(answer));
    }
    assert_eq!(read(&catalog).0, Some(vec!["new:8443".to_owned()]));
}

#[test]
fn a_kept_source_is_enough_once_the_other_one_has_failed() {
    let mut catalog = Catalog::default();
    for (topic, answer) in live() {
        catalog.hear(topic, kept(answer));
    }
    assert_eq!(read(&catalog), (None, BTreeSet::from([Topic::FederationStates])));
    catalog.lose(&Topic::FederationStates, "No cluster leader".into());
    assert_eq!(read(&catalog).0, Some(vec!["new:8443".to_owned()]));
}

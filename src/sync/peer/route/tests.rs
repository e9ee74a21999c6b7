use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::model::{
    catalog::{Answer, Heard},
    instance::{ServiceKind, Weights},
};

fn instance(id: &str, health: Health) -> Instance {
    Instance {
        node: "n".into(),
        id: id.into(),
        service: "any".into(),
        kind: ServiceKind::Typical,
        lan: HostPort::new(&format!("{id}.lan"), 8443),
        wan: HostPort::new(&format!("{id}.wan"), 8443),
        health,
        weights: Weights::default(),
        meta: BTreeMap::new(),
        entry: Arc::new(Value::Null),
        modify_index: 1,
    }
}

fn all() -> BTreeSet<Datacenter> {
    ["here".into(), "there".into()].into()
}

/// Gateways of a datacenter, as its catalog tells of them.
fn gateways(catalog: &mut Catalog, dc: &str, instances: Vec<Instance>) {
    let names = BTreeMap::from([("mesh-gateway".into(), ServiceKind::MeshGateway)]);
    let kind = Some(ServiceKind::MeshGateway);
    catalog.hear(Topic::Services { dc: dc.into(), kind }, Heard::fresh(Answer::Services(names)));
    let topic = Topic::Health { dc: dc.into(), service: "mesh-gateway".into() };
    catalog.hear(topic, Heard::fresh(Answer::Instances(instances)));
}

fn to(catalog: &Catalog, dc: &str, mode: GatewayMode) -> Result<Vec<String>, String> {
    let (routes, _) = routes(catalog, &"here".into(), &all(), mode);
    routes.to(&dc.into()).map(|way| way.iter().map(ToString::to_string).collect())
}

#[test]
fn gateways_of_the_mode_lead_there_the_healthy_ones_first() {
    let mut catalog = Catalog::default();
    gateways(&mut catalog, "here", vec![instance("a", Health::Critical), instance("b", Health::Warning)]);
    gateways(&mut catalog, "there", vec![instance("c", Health::Passing)]);
    let states = Answer::FederationStates(BTreeMap::new());
    catalog.hear(Topic::FederationStates, Heard::fresh(states));
    assert_eq!(to(&catalog, "there", GatewayMode::Local).unwrap(), ["b.lan:8443", "a.lan:8443"]);
    assert_eq!(to(&catalog, "there", GatewayMode::Remote).unwrap(), ["c.wan:8443"]);
}

#[test]
fn agents_of_the_own_datacenter_and_without_gateways_are_dialled_themselves() {
    let mut catalog = Catalog::default();
    for dc in ["here", "there"] {
        let topic = Topic::Connect { dc: dc.into(), service: SERVICE.into() };
        catalog.hear(topic, Heard::fresh(Answer::Instances(vec![instance(dc, Health::Passing)])));
    }
    assert_eq!(to(&catalog, "here", GatewayMode::Local).unwrap(), ["here.lan:8443"]);
    assert_eq!(to(&catalog, "there", GatewayMode::None).unwrap(), ["there.wan:8443"]);
}

#[test]
fn what_is_unknown_is_asked_for_and_told_apart_from_what_is_missing() {
    let mut catalog = Catalog::default();
    let local = Topic::Services { dc: "here".into(), kind: Some(ServiceKind::MeshGateway) };
    catalog.lose(&local, "no answer".into());
    let (_, needs) = routes(&catalog, &"here".into(), &all(), GatewayMode::Local);
    assert!(needs.contains(&local));
    assert!(needs.contains(&Topic::Connect { dc: "here".into(), service: SERVICE.into() }));
    let told = to(&catalog, "there", GatewayMode::Local).unwrap_err();
    assert!(told.contains("not known yet") && told.contains("no answer"), "{told}");
    gateways(&mut catalog, "here", Vec::new());
    let told = to(&catalog, "there", GatewayMode::Local).unwrap_err();
    assert!(told.contains("no mesh gateway"), "{told}");
    let told = to(&catalog, "elsewhere", GatewayMode::Local).unwrap_err();
    assert!(told.contains("none of those configured"), "{told}");
}

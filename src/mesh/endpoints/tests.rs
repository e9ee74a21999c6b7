use std::collections::BTreeMap;

use super::{
    Members, Side, is_any_healthy, is_any_healthy_strictly, of_gateways, of_instances, of_servers, of_strict,
};
use crate::model::{
    instance::{Health, HostPort, Instance, ServiceKind, Weights},
    note::Note,
};
use crate::xds::resource::{
    address::Address,
    cluster::{Dns, Resolution},
    endpoints::{Endpoint, EndpointHealth},
};

fn instance(id: &str, host: &str, health: Health) -> Instance {
    Instance {
        node: "n".into(),
        id: id.into(),
        service: "web".into(),
        kind: ServiceKind::ConnectProxy,
        lan: HostPort::new(host, 21000),
        wan: HostPort::new("198.51.100.1", 8443),
        health,
        weights: Weights { passing: 10, warning: 3 },
        meta: BTreeMap::new(),
        modify_index: 1,
        entry: Default::default(),
    }
}

fn endpoints(made: Result<Members, Note>) -> Vec<(String, u32, EndpointHealth)> {
    let Ok(Members::Addresses(endpoints)) = made else { panic!("{made:?}") };
    let told = |(address, Endpoint { weight, health }): (&Address, &Endpoint)| {
        (address.to_string(), *weight, *health)
    };
    endpoints.iter().map(told).collect()
}

fn names(all: &[Instance], resolution: Resolution) -> (Vec<String>, usize) {
    let mut notes = Vec::new();
    let made = of_instances(all, Side::Lan, resolution, &mut notes);
    let Ok(Members::Names(Dns { hosts, .. })) = made else { panic!("{made:?}") };
    (hosts.into_iter().map(|host| host.name).collect(), notes.len())
}

#[test]
fn only_passing_makes_a_warning_unhealthy() {
    let all = [instance("good", "10.0.0.1", Health::Passing), instance("warns", "10.0.0.2", Health::Warning)];
    let told = endpoints(of_strict(&all, true, Side::Lan, Resolution::default(), &mut Vec::new()));
    let healths: Vec<_> = told.into_iter().map(|(_, weight, health)| (weight, health)).collect();
    assert_eq!(healths, [(10, EndpointHealth::Healthy), (1, EndpointHealth::Unhealthy)]);
    assert!(is_any_healthy(&all[1..]) && !is_any_healthy_strictly(&all[1..], true));
}

#[test]
fn health_chooses_the_weight() {
    let mut idle = instance("idle", "10.0.0.4", Health::Warning);
    idle.weights.warning = 0;
    let mut heavy = instance("heavy", "10.0.0.5", Health::Passing);
    heavy.weights.passing = 1000;
    let all = [
        instance("good", "10.0.0.1", Health::Passing),
        instance("warns", "10.0.0.2", Health::Warning),
        instance("bad", "10.0.0.3", Health::Critical),
        idle,
        heavy,
    ];
    let told = endpoints(of_instances(&all, Side::Lan, Resolution::default(), &mut Vec::new()));
    assert_eq!(
        told,
        [
            ("10.0.0.1:21000".to_owned(), 10, EndpointHealth::Healthy),
            ("10.0.0.2:21000".to_owned(), 3, EndpointHealth::Healthy),
            ("10.0.0.3:21000".to_owned(), 1, EndpointHealth::Unhealthy),
            ("10.0.0.4:21000".to_owned(), 1, EndpointHealth::Unhealthy),
            ("10.0.0.5:21000".to_owned(), 128, EndpointHealth::Healthy),
        ]
    );
}

#[test]
fn an_address_given_twice_counts_once_and_works_if_either_does() {
    let all = [instance("a", "10.0.0.1", Health::Critical), instance("b", "10.0.0.1", Health::Passing)];
    let told = endpoints(of_instances(&all, Side::Lan, Resolution::default(), &mut Vec::new()));
    assert_eq!(told, [("10.0.0.1:21000".to_owned(), 10, EndpointHealth::Healthy)]);
}

#[test]
fn host_names_win_over_addresses() {
    let all = [
        instance("a", "10.0.0.1", Health::Passing),
        instance("b", "a.example", Health::Critical),
        instance("c", "b.example", Health::Passing),
        instance("d", "c.example", Health::Passing),
    ];
    assert_eq!(names(&all, Resolution::Logical), (vec!["b.example".to_owned()], 1));
    assert_eq!(names(&all[..2], Resolution::Logical), (vec!["a.example".to_owned()], 1));
    assert_eq!(names(&all[1..], Resolution::Strict).0, ["a.example", "b.example", "c.example"]);
}

#[test]
fn gateways_take_the_health_of_what_is_behind_them() {
    let gateway = instance("gw", "10.0.0.1", Health::Passing);
    let sick = [instance("a", "10.1.0.1", Health::Critical)];
    let well = [instance("a", "10.1.0.1", Health::Critical), instance("b", "10.1.0.2", Health::Warning)];
    let health = |backend: &[Instance]| {
        let is_alive = is_any_healthy(backend);
        let made = of_gateways(&[&gateway], is_alive, Side::Wan, Resolution::default(), &mut Vec::new());
        endpoints(made)[0].2
    };
    assert_eq!(health(&sick), EndpointHealth::Unhealthy);
    assert_eq!(health(&[]), EndpointHealth::Unhealthy);
    assert_eq!(health(&well), EndpointHealth::Healthy);
}

#[test]
fn a_critical_gateway_steps_back_only_for_another() {
    let (bad, good) =
        (instance("bad", "10.0.0.1", Health::Critical), instance("good", "10.0.0.2", Health::Warning));
    let healths = |gateways: &[&Instance]| {
        let told = endpoints(of_gateways(gateways, true, Side::Lan, Resolution::default(), &mut Vec::new()));
        told.into_iter().map(|(_, _, health)| health).collect::<Vec<_>>()
    };
    assert_eq!(healths(&[&bad, &good]), [EndpointHealth::Unhealthy, EndpointHealth::Healthy]);
    assert_eq!(healths(&[&bad]), [EndpointHealth::Healthy]);
}

#[test]
fn servers_are_reached_whatever_their_checks_say() {
    let server = instance("consul", "10.0.0.1", Health::Critical);
    let told = endpoints(of_servers([&server].into_iter(), &mut Vec::new()));
    assert_eq!(told, [("10.0.0.1:21000".to_owned(), 1, EndpointHealth::Unknown)]);
}

#[test]
fn none_is_known_to_be_none() {
    assert_eq!(endpoints(of_instances(&[], Side::Lan, Resolution::default(), &mut Vec::new())), []);
}

use std::collections::BTreeMap;

use super::{Side, of_gateways, of_instances, of_servers};
use crate::model::{
    instance::{Health, HostPort, Instance, ServiceKind, Weights},
    note::Note,
};
use crate::xds::resource::{
    Resource,
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
    }
}

fn endpoints(made: Result<Resource, Note>) -> Vec<(String, u32, EndpointHealth)> {
    let Ok(Resource::Endpoints(endpoints)) = made else { panic!("{made:?}") };
    let told = |(address, Endpoint { weight, health }): (&std::net::SocketAddr, &Endpoint)| {
        (address.to_string(), *weight, *health)
    };
    endpoints.endpoints.iter().map(told).collect()
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
    let told = endpoints(of_instances("c", &all, Side::Lan, &mut Vec::new()));
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
    let told = endpoints(of_instances("c", &all, Side::Lan, &mut Vec::new()));
    assert_eq!(told, [("10.0.0.1:21000".to_owned(), 10, EndpointHealth::Healthy)]);
}

#[test]
fn a_host_name_is_noted_and_the_rest_goes_on() {
    let mut notes: Vec<Note> = Vec::new();
    let all = [instance("a", "web.example", Health::Passing), instance("b", "::1", Health::Passing)];
    let told = endpoints(of_instances("c", &all, Side::Lan, &mut notes));
    assert_eq!(told, [("[::1]:21000".to_owned(), 10, EndpointHealth::Healthy)]);
    assert_eq!(notes[0].about, "instance a of service web");
}

#[test]
fn gateways_take_the_health_of_what_is_behind_them() {
    let gateway = instance("gw", "10.0.0.1", Health::Passing);
    let sick = [instance("a", "10.1.0.1", Health::Critical)];
    let well = [instance("a", "10.1.0.1", Health::Critical), instance("b", "10.1.0.2", Health::Warning)];
    let health = |backend: Option<&[Instance]>| {
        endpoints(of_gateways("c", &[&gateway], backend, Side::Wan, &mut Vec::new()))[0].2
    };
    assert_eq!(health(Some(&sick)), EndpointHealth::Unhealthy);
    assert_eq!(health(Some(&[])), EndpointHealth::Unhealthy);
    assert_eq!(health(Some(&well)), EndpointHealth::Healthy);
    assert_eq!(health(None), EndpointHealth::Healthy);
}

#[test]
fn a_critical_gateway_steps_back_only_for_another() {
    let (bad, good) =
        (instance("bad", "10.0.0.1", Health::Critical), instance("good", "10.0.0.2", Health::Warning));
    let healths = |gateways: &[&Instance]| {
        let told = endpoints(of_gateways("c", gateways, None, Side::Lan, &mut Vec::new()));
        told.into_iter().map(|(_, _, health)| health).collect::<Vec<_>>()
    };
    assert_eq!(healths(&[&bad, &good]), [EndpointHealth::Unhealthy, EndpointHealth::Healthy]);
    assert_eq!(healths(&[&bad]), [EndpointHealth::Healthy]);
}

#[test]
fn servers_are_reached_whatever_their_checks_say() {
    let server = instance("consul", "10.0.0.1", Health::Critical);
    let told = endpoints(of_servers("c", [&server].into_iter(), &mut Vec::new()));
    assert_eq!(told, [("10.0.0.1:21000".to_owned(), 1, EndpointHealth::Unknown)]);
}

#[test]
fn host_names_alone_are_no_empty_list() {
    let all = [instance("a", "web.example", Health::Passing)];
    let note = of_instances("c", &all, Side::Lan, &mut Vec::new()).unwrap_err();
    assert_eq!(note.about, "instance a of service web");
    assert!(of_instances("c", &[], Side::Lan, &mut Vec::new()).is_ok(), "none is known to be none");
}

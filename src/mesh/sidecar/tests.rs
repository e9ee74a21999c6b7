use super::*;
use crate::{
    mesh::{Proxy, world::World},
    model::{
        catalog::{Answer, Heard, Topic},
        chain::Protocol,
        instance::{HostPort, ServiceKind},
        registration::{ExposedId, ExposedPath, LocalAddress, Unread, UpstreamId, UpstreamKind},
    },
};

fn upstream_id(name: &str) -> UpstreamId {
    UpstreamId { destination: UpstreamKind::Service(name.into()), datacenter: None }
}

fn upstream(name: &str, port: u16) -> Upstream {
    Upstream {
        id: upstream_id(name),
        bind: LocalAddress::Port(HostPort::new("127.0.0.1", port)),
        gateway_mode: None,
        settings: Settings::default(),
    }
}

fn note() -> Note {
    Note::new("it", "cannot be read", "correct it")
}

/// The units of a sidecar of which just this is known.
fn built(
    upstreams: Vec<Result<Upstream, Unread<UpstreamId>>>,
    exposed: Vec<Result<ExposedPath, Unread<ExposedId>>>,
) -> Built {
    let agent = AgentFacts::sample("n");
    let registration = Registration {
        id: "web-proxy".into(),
        service: "web-proxy".into(),
        kind: ServiceKind::ConnectProxy,
        address: String::new(),
        port: 20_000,
        tagged: BTreeMap::new(),
        meta: BTreeMap::new(),
        destination: Some(Destination { service: "web".into(), id: None, local: None }),
        gateway_mode: None,
        settings: Settings::default(),
        upstreams,
        exposed,
    };
    let mut catalog = Catalog::default();
    catalog.hear(Topic::Agent, Heard::fresh(Answer::Agent(agent)));
    let topic = Topic::Registration("web-proxy".into());
    catalog.hear(topic, Heard::fresh(Answer::Registration(Some(registration))));
    for topic in [Topic::ProxyDefaults, Topic::ServiceDefaults("web".into())] {
        catalog.hear(topic, Heard::fresh(Answer::Defaults(Default::default())));
    }
    match crate::mesh::build(&catalog, &"web-proxy".into(), Options::default()) {
        Proxy::Built(built) => built,
        other => panic!("{other:?}"),
    }
}

fn outcome<'a>(built: &'a Built, unit: &Unit) -> &'a Outcome {
    &built.units[unit]
}

#[test]
fn an_upstream_that_cannot_be_read_is_refused_and_not_forgotten() {
    let unread = || Err(Unread { id: Some(upstream_id("api")), note: note() });
    let built = built(vec![unread(), Ok(upstream("api", 5000)), Ok(upstream("db", 5001))], vec![]);
    let unit = |id: &str| Unit::Upstream(id.to_owned());
    assert_eq!(outcome(&built, &unit("api")), &Outcome::Refused(Parts::default()));
    // Each keeps the place that it had when all of them could be read.
    assert!(matches!(outcome(&built, &unit("api#2")), Outcome::Held(_)));
    assert!(matches!(outcome(&built, &unit("db")), Outcome::Held(_)));
    assert!(matches!(outcome(&built, &Unit::Upstreams), Outcome::Ready(_)));
    assert!(built.notes.contains(&note()));
}

#[test]
fn where_something_is_not_even_known_by_name_the_list_is_refused() {
    let built = built(
        vec![Err(Unread { id: None, note: note() }), Ok(upstream("db", 5001))],
        vec![Err(Unread { id: None, note: note() })],
    );
    for list in [Unit::Upstreams, Unit::ExposedPaths] {
        assert_eq!(outcome(&built, &list), &Outcome::Refused(Parts::default()));
    }
    assert!(built.notes.contains(&note()));
}

#[test]
fn an_exposed_path_that_becomes_unreadable_keeps_what_it_was() {
    let id = |path: &str| ExposedId { path: path.into(), listener_port: 9000 };
    let good = ExposedPath { id: id("/health"), local_port: 8080, protocol: Protocol::Http };
    let mut world = World::default();
    let listeners = |whole: crate::mesh::world::Assembled| -> Vec<String> {
        let names = whole.resources.into_keys().map(|key| key.name);
        names.filter(|name| name.starts_with("exposed_path")).collect()
    };
    let first = listeners(world.assemble(built(vec![], vec![Ok(good)])));
    assert_eq!(first.len(), 1);
    let unread = |id| vec![Err(Unread { id, note: note() })];
    assert_eq!(listeners(world.assemble(built(vec![], unread(Some(id("/health")))))), first);
    assert_eq!(listeners(world.assemble(built(vec![], unread(None)))), first);
    assert_eq!(listeners(world.assemble(built(vec![], unread(Some(id("/other")))))), [""; 0]);
}

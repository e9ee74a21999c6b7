//! Registrations of sidecars and gateways.

use super::*;

#[test]
fn a_sidecar_tells_its_upstreams() {
    let (proxy, notes) = registration::registration(&recorded("agent-service-dashboard.json")).unwrap();
    assert_eq!(notes, []);
    assert_eq!((proxy.kind, proxy.address.as_str(), proxy.port), (ServiceKind::ConnectProxy, "", 20000));
    assert_eq!(proxy.gateway_mode, Some(GatewayMode::Remote));
    assert_eq!(proxy.settings.number("local_connect_timeout_ms"), Some(1234));
    let destination = proxy.destination.unwrap();
    assert_eq!(destination.service.as_str(), "dashboard");
    assert_eq!(destination.local, Some(LocalAddress::Port(HostPort::new("127.0.0.1", 9002))));
    let [Ok(counting), Ok(query)] = &proxy.upstreams[..] else { panic!("two upstreams") };
    assert_eq!(counting.id.destination, UpstreamKind::Service("counting".into()));
    assert_eq!(counting.id.datacenter, Some("secondary".into()));
    assert_eq!(counting.bind, LocalAddress::Port(HostPort::new("127.0.0.1", 9001)));
    assert_eq!(counting.gateway_mode, Some(GatewayMode::Local));
    assert_eq!(query.id.destination, UpstreamKind::PreparedQuery("geo-counting".into()));
    assert_eq!(query.bind, LocalAddress::Port(HostPort::new("127.0.0.9", 9005)));
}

#[test]
fn null_settings_and_upstreams_are_empty() {
    let (proxy, notes) = registration::registration(&recorded("agent-service-counting.json")).unwrap();
    assert_eq!(notes, []);
    assert!(proxy.upstreams.is_empty() && proxy.settings.0.is_empty());
    assert_eq!(proxy.gateway_mode, None);
    assert_eq!(proxy.tagged["wan"], HostPort::new("203.0.113.7", 20001));
    let (gateway, _) = registration::registration(&recorded("agent-service-gateway.json")).unwrap();
    assert_eq!((gateway.kind, gateway.destination), (ServiceKind::MeshGateway, None));
    assert_eq!(gateway.meta["consul-wan-federation"], "1");
}

#[test]
fn a_bad_upstream_hides_no_other() {
    let body = br#"{"Kind":"connect-proxy","ID":"w","Service":"w","Port":1,"Proxy":{"DestinationServiceName":"web","Config":null,
        "Upstreams":[{"DestinationName":"a","LocalBindPort":70000},{"DestinationName":"b/c","LocalBindPort":1},
        {"DestinationName":"sock","LocalBindSocketPath":"x","Datacenter":"dc2"},{"DestinationName":7},
        {"DestinationName":"q","DestinationType":"prepared_query","LocalBindPort":"1"},
        {"DestinationName":"ok","LocalBindPort":2,"MeshGateway":{"Mode":"sideways"}}],
        "Expose":{"Paths":[{"Path":"/a","ListenerPort":1,"LocalPathPort":0},{"Path":"/b","ListenerPort":"x"},
        {"Path":"/c","ListenerPort":3,"LocalPathPort":4}]}}}"#;
    let (proxy, notes) = registration::registration(body).unwrap();
    assert!(notes.len() == 1 && notes[0].problem.contains("sideways"), "{notes:?}");
    let unread: Vec<_> = proxy.upstreams.iter().filter_map(|upstream| upstream.as_ref().err()).collect();
    let problems = ["70000", "b/c", "socket path", "another shape", "another shape"];
    assert_eq!(unread.len(), problems.len());
    for (unread, problem) in unread.iter().zip(problems) {
        assert!(unread.note.problem.contains(problem), "{unread:?}");
    }
    // Which one it is can be told of those with a name.
    let named = |id: &UpstreamId| (id.destination.clone(), id.datacenter.clone());
    let ids: Vec<_> = unread.iter().map(|unread| unread.id.as_ref().map(named)).collect();
    let service = |name: &str| UpstreamKind::Service(name.into());
    assert_eq!(ids[0], Some((service("a"), None)));
    assert_eq!(ids[2], Some((service("sock"), Some("dc2".into()))));
    assert_eq!(ids[4], Some((UpstreamKind::PreparedQuery("q".into()), None)));
    assert_eq!([&ids[1], &ids[3]], [&None, &None]);
    let paths: Vec<_> = proxy.exposed.iter().map(|path| path.as_ref().map_err(|unread| &unread.id)).collect();
    let [Err(Some(a)), Err(None), Ok(c)] = paths[..] else { panic!("{paths:?}") };
    assert_eq!((a.path.as_str(), a.listener_port, c.local_port), ("/a", 1, 4));
}

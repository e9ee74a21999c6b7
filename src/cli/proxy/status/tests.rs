use super::*;
use crate::{
    api::wire::{Readiness, TopicStatus},
    xds::status::{Nack, ResourceStatus},
};

const NOW: u64 = 1_700_000_000_000;

fn resource(name: &str, state: ResourceState) -> ResourceStatus {
    let intended = (state != ResourceState::Absent).then(|| "v2".to_owned());
    ResourceStatus { name: name.into(), sent: intended.clone(), intended, state }
}

fn kind(kind: &str, resources: Vec<ResourceStatus>) -> TypeStatus {
    TypeStatus {
        kind: kind.into(),
        resources,
        sent_at_ms: Some(NOW - 3_000),
        acked_at_ms: Some(NOW - 2_999),
        acks: 5,
        nacks: 0,
        last_nack: None,
    }
}

fn proxy(types: Vec<TypeStatus>) -> ProxyStatus {
    ProxyStatus {
        proxy: "web-sidecar-proxy".into(),
        complete: true,
        waiting_for: vec![],
        notes: vec![],
        streams: vec![StreamStatus {
            stream: 7,
            proxy: "web-sidecar-proxy".into(),
            envoy_version: Some("1.40.0".into()),
            connected_at_ms: NOW - 200_000,
            types,
        }],
    }
}

fn status(proxies: Vec<ProxyStatus>) -> Status {
    Status {
        version: "0.1.0".into(),
        datacenter: Some("dc1".into()),
        node: Some("web-1".into()),
        started_at_ms: NOW - 7_500_000,
        now_ms: NOW,
        readiness: Readiness { ready: true, waiting_for: vec![] },
        proxies,
        topics: vec![],
    }
}

#[test]
fn an_envoy_that_has_everything() {
    let status = status(vec![proxy(vec![
        kind("CDS", vec![resource("a", ResourceState::Synced), resource("b", ResourceState::Synced)]),
        kind("EDS", vec![resource("a", ResourceState::Synced)]),
    ])]);
    assert!(is_synced(&status, false));
    insta::assert_snapshot!(table(&status), @r"
    causeway 0.1.0, up 2h 5m, datacenter dc1, node web-1

    web-sidecar-proxy
      Envoy 1.40.0, connected 3m 20s ago (stream 7)
        TYPE  RESOURCES  SYNCED  IN FLIGHT  WAITING  REJECTED  ABSENT  LAST SENT  LAST ACK  ACKS  NACKS
        CDS           2       2          0        0         0       0     3s ago    2s ago     5      0
        EDS           1       1          0        0         0       0     3s ago    2s ago     5      0
    ");
}

#[test]
fn a_refusal_shows_envoys_words_and_the_names() {
    let mut listeners = kind(
        "LDS",
        vec![resource("public", ResourceState::Rejected), resource("counting", ResourceState::Waiting)],
    );
    listeners.acked_at_ms = None;
    listeners.nacks = 1;
    listeners.last_nack = Some(Nack {
        message: "Error adding listener:\n\u{1b}[31mbad port".into(),
        resources: vec!["public".into()],
        at_ms: NOW - 90_000_000,
    });
    let mut proxy = proxy(vec![listeners, kind("RDS", vec![resource("gone", ResourceState::Absent)])]);
    proxy.complete = false;
    proxy.waiting_for = vec!["connect/counting@dc2: no answer within 10s".into()];
    proxy.notes = vec!["upstream api: routers are not built yet; use the default chain".into()];
    let mut status = status(vec![proxy]);
    status.topics = vec![
        TopicStatus {
            topic: "connect/counting@dc2".into(),
            known: false,
            from_disk: false,
            trouble: Some("timed out".into()),
        },
        TopicStatus { topic: "roots".into(), known: true, from_disk: false, trouble: None },
    ];
    status.readiness = Readiness { ready: false, waiting_for: vec!["the trust domain".into()] };
    assert!(!is_synced(&status, false));
    insta::assert_snapshot!(table(&status), @r"
    causeway 0.1.0, up 2h 5m, datacenter dc1, node web-1
    not ready; waits for the trust domain

    web-sidecar-proxy
      Envoy 1.40.0, connected 3m 20s ago (stream 7)
        TYPE  RESOURCES  SYNCED  IN FLIGHT  WAITING  REJECTED  ABSENT  LAST SENT  LAST ACK  ACKS  NACKS
        LDS           2       0          0        1         1       0     3s ago         -     5      1
        RDS           1       0          0        0         0       1     3s ago    2s ago     5      0
        LDS waiting to be sent: counting
        LDS rejected: public
        LDS refusal 1d 1h ago of public; Envoy says: Error adding listener:  [31mbad port
        RDS asked for, not in the catalog: gone
      waits for: connect/counting@dc2: no answer within 10s
      note: upstream api: routers are not built yet; use the default chain

    Silent sources:
      connect/counting@dc2 (never answered): timed out
    ");
}

#[test]
fn a_stopped_envoy_is_a_fault_only_when_it_was_named() {
    let mut gone = proxy(vec![]);
    gone.streams.clear();
    gone.complete = false;
    let status = status(vec![gone]);
    assert!(is_synced(&status, false));
    assert!(!is_synced(&status, true));
    assert!(table(&status).contains("\nweb-sidecar-proxy\n  no Envoy connected\n"));
}

#[test]
fn anything_in_flight_is_not_synced() {
    for state in [ResourceState::Sent, ResourceState::Waiting, ResourceState::Rejected] {
        assert!(!is_synced(&status(vec![proxy(vec![kind("CDS", vec![resource("a", state)])])]), false));
    }
    assert!(is_synced(
        &status(vec![proxy(vec![kind("RDS", vec![resource("a", ResourceState::Absent)])])]),
        false
    ));
}

#[test]
fn no_proxy_at_all_says_how_to_start_one() {
    assert!(table(&status(vec![])).contains("causeway envoy --sidecar-for ID"));
}

#[test]
fn long_lists_are_cut() {
    let names: Vec<_> = (0..10).map(|n| resource(&format!("r{n}"), ResourceState::Sent)).collect();
    let text = table(&status(vec![proxy(vec![kind("CDS", names)])]));
    assert!(
        text.contains("CDS sent, not yet acknowledged: r0, r1, r2, r3, r4, r5, r6, r7 and 2 more\n"),
        "{text}"
    );
}

#[test]
fn durations_have_at_most_two_units() {
    let shown: Vec<_> =
        [0, 59_999, 60_000, 200_000, 7_500_000, 90_000_000, 86_400_000].map(duration).into_iter().collect();
    assert_eq!(shown, ["0s", "59s", "1m", "3m 20s", "2h 5m", "1d 1h", "1d"]);
}

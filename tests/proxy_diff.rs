//! Intended against actual, judged at real Envoys: what is as intended shows no difference over any transport, and
//! every other state shows as what it is.

use std::{net::TcpListener, sync::Arc, time::Duration};

use causeway::{
    envoy::report::{Actual, Difference, Intended, Report, State, Wanted, compare},
    lifecycle,
    xds::{
        resource::{
            Kind, Resource,
            custom::CustomCluster,
            endpoints::{EndpointHealth, Endpoints},
            secret::{Secret, SecretContent},
        },
        snapshot::Snapshot,
        status::StreamStatus,
    },
};
use serde_json::json;

use crate::{
    xds_envoy::{Rig, Transport},
    xds_rig::{endpoints, snapshot, world},
};

/// Envoy acknowledges a moment before its admin interface shows all of it, and a busy machine has long moments.
const PATIENCE: Duration = Duration::from_secs(30);

/// Compares a snapshot with what Envoy has.
async fn compared(rig: &Rig, intended: &Snapshot) -> Report {
    let wanted = intended.iter().map(|entry| Wanted {
        key: entry.key.clone(),
        version: entry.version.to_string(),
        message: entry.any.to_vec(),
    });
    let streams: Vec<StreamStatus> = rig.server().board.streams().iter().map(|s| (**s).clone()).collect();
    let intended = Intended::new("web", wanted, &streams, Vec::new()).unwrap();
    let admin = rig.admin();
    let dump = admin.json("/config_dump?include_eds").await.unwrap();
    let clusters = admin.json("/clusters?format=json").await.unwrap();
    compare(&intended, &Actual::read(&dump, &clusters).unwrap())
}

/// Compares until it looks like that.
async fn until(rig: &Rig, intended: &Snapshot, wanted: impl Fn(&Report) -> bool) -> Report {
    let until = lifecycle::now() + PATIENCE;
    loop {
        let report = compared(rig, intended).await;
        if wanted(&report) {
            return report;
        }
        assert!(lifecycle::now() < until, "{report:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn nothing_differs_over(transport: Transport) {
    let rig = Rig::over(transport, world()).await;
    let report = until(&rig, rig.snapshot(), |report| report.equal).await;
    assert_eq!((report.compared, report.differences), (13, vec![]));
}

#[tokio::test]
async fn nothing_differs_over_delta_ads() {
    nothing_differs_over(Transport::DeltaAds).await;
}

#[tokio::test]
async fn nothing_differs_over_state_of_the_world_ads() {
    nothing_differs_over(Transport::SotwAds).await;
}

#[tokio::test]
async fn nothing_differs_over_delta_without_ads() {
    nothing_differs_over(Transport::Delta).await;
}

#[tokio::test]
async fn nothing_differs_over_state_of_the_world_without_ads() {
    nothing_differs_over(Transport::Sotw).await;
}

/// The world with some of its resources changed, removed (none) or added.
fn edited(edit: impl Fn(Resource) -> Option<Resource>, added: Vec<Resource>) -> Arc<Snapshot> {
    snapshot(world().into_iter().filter_map(edit).chain(added))
}

fn told(report: &Report) -> Vec<(&str, &str, State)> {
    report.differences.iter().map(|it| (it.kind.short(), it.name.as_str(), it.state)).collect()
}

fn fields(difference: &Difference) -> Vec<(&str, String, String)> {
    let text =
        |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string).unwrap_or_default();
    let fields = difference.fields.iter();
    fields.map(|field| (field.path.as_str(), text(&field.intended), text(&field.actual))).collect()
}

#[tokio::test]
async fn what_is_intended_otherwise_is_told_by_field() {
    let rig = Rig::start(world()).await;
    let secrets: Vec<_> =
        rig.snapshot().of_kind(Kind::Secret).map(|entry| (*entry.resource).clone()).collect();
    until(&rig, rig.snapshot(), |report| report.equal).await;
    let edit = |resource| match resource {
        Resource::Cluster(mut cluster) if cluster.name == "db" => {
            cluster.connect_timeout_ms = 7_000;
            Some(Resource::Cluster(cluster))
        }
        Resource::Listener(mut listener) if listener.name == "gateway" => {
            listener.chains.remove(0);
            Some(Resource::Listener(listener))
        }
        Resource::Endpoints(Endpoints { cluster, mut endpoints, .. }) if cluster == "db" => {
            endpoints.first_entry().unwrap().get_mut().health = EndpointHealth::Unhealthy;
            endpoints.last_entry().unwrap().get_mut().weight = 7;
            Some(Resource::Endpoints(Endpoints { cluster, endpoints, in_aggregate: true }))
        }
        Resource::Secret(_) => None,
        other => Some(other),
    };
    let report = compared(&rig, &edited(edit, secrets)).await;
    let different = |kind, name| (kind, name, State::Different);
    assert_eq!(told(&report), [different("CDS", "db"), different("EDS", "db"), different("LDS", "gateway")]);
    assert_eq!(fields(&report.differences[0]), [("connect_timeout", r#""7s""#.into(), r#""5s""#.into())]);
    let expected = [
        (r#"endpoints["127.51.0.9:1"].health"#, r#""UNHEALTHY""#.to_owned(), r#""HEALTHY""#.to_owned()),
        (r#"endpoints["127.51.0.9:2"].weight"#, "7".into(), "1".into()),
        ("overprovisioning_factor", "100000".into(), "140".into()),
    ];
    assert_eq!(fields(&report.differences[1]), expected);
    let [(path, intended, actual)] = &fields(&report.differences[2])[..] else { panic!("{report:#?}") };
    assert_eq!((*path, intended.as_str()), ("filter_chains[name=dc2]", ""));
    assert!(actual.contains("*.dc2.internal.td.consul"), "{actual}");
    assert_ne!(report.differences[0].intended_version, report.differences[0].actual_version);
}

#[tokio::test]
async fn another_certificate_is_told_by_its_fingerprint_and_no_key_is_shown() {
    let rig = Rig::start(world()).await;
    // A world of its own has certificates of its own.
    let report = compared(&rig, &snapshot(world())).await;
    let different = |name| ("SDS", name, State::Different);
    assert_eq!(told(&report), [different("leaf"), different("roots")]);
    for difference in &report.differences {
        assert!(
            difference
                .fields
                .iter()
                .all(|field| field.path.ends_with("sha256") || field.path.ends_with("serial"))
        );
        assert!(difference.fields.iter().any(|field| field.path.ends_with("sha256")), "{difference:#?}");
    }
    let document = serde_json::to_string(&report).unwrap();
    assert!(!document.contains("PRIVATE KEY") && !document.contains("BEGIN"), "{document}");
}

#[tokio::test]
async fn what_envoy_lacks_and_what_only_it_has_are_told() {
    let rig = Rig::start(world()).await;
    until(&rig, rig.snapshot(), |report| report.equal).await;
    let mut resources: Vec<_> = rig.snapshot().iter().map(|entry| (*entry.resource).clone()).collect();
    resources.retain(|resource| !matches!(resource, Resource::Route(_)));
    resources.retain(|resource| !matches!(resource, Resource::Listener(it) if it.name == "api"));
    let mut more = |from: &str, to: &str| {
        let renamed = resources.iter().find_map(|resource| match resource {
            Resource::Cluster(cluster) if cluster.name == from => {
                let mut cluster = cluster.clone();
                cluster.name = to.into();
                Some(Resource::Cluster(cluster))
            }
            _ => None,
        });
        resources.extend(renamed);
    };
    more("db", "db2");
    resources.push(endpoints("db2", &["127.51.0.9:3"]));
    let report = compared(&rig, &snapshot(resources)).await;
    let expected = [
        ("CDS", "db2", State::Missing),
        ("EDS", "db2", State::Missing),
        ("LDS", "api", State::Unknown),
        ("RDS", "api", State::Unknown),
    ];
    assert_eq!(told(&report), expected);
    assert_eq!(report.differences[1].reason.as_deref(), Some("nothing that Envoy has names it"));
}

#[tokio::test]
async fn what_envoy_refuses_is_told_in_its_own_words() {
    let mut rig = Rig::start(world()).await;
    let mut resources: Vec<_> = rig.snapshot().iter().map(|entry| (*entry.resource).clone()).collect();
    for resource in &mut resources {
        match resource {
            Resource::Listener(listener) if listener.name == "db" => listener.chains.clear(),
            // Envoy refuses a least-request choice of one.
            Resource::Cluster(cluster) if cluster.name == "api" => {
                cluster.balance = Some(causeway::model::chain::Balance::LeastRequest { choices: Some(1) });
            }
            Resource::Secret(Secret { name, content }) if name == "roots" => {
                *content = SecretContent::Roots {
                    pem: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
                };
            }
            _ => {}
        }
    }
    rig.offer(resources);
    let refused =
        |report: &Report| report.differences.iter().filter(|it| it.state == State::Refused).count() == 3;
    let report = until(&rig, rig.snapshot(), refused).await;
    let expected =
        [("SDS", "roots", State::Refused), ("CDS", "api", State::Refused), ("LDS", "db", State::Refused)];
    assert_eq!(told(&report), expected);
    let words: Vec<_> =
        report.differences.iter().map(|it| it.reason.as_deref().unwrap_or_default()).collect();
    assert!(words[0].contains("trusted CA"), "{words:#?}");
    assert!(words[1].contains("ChoiceCount"), "{words:#?}");
    assert!(words[2].contains("no filter chains"), "{words:#?}");
    let lost = fields(&report.differences[2]);
    assert!(
        lost.iter().any(|(path, intended, _)| path.starts_with("filter_chains") && intended.is_empty()),
        "{lost:?}"
    );
}

#[tokio::test]
async fn what_only_warms_is_told() {
    let mut rig = Rig::start(world()).await;
    // It takes connections and never answers, so the cluster waits for the outcome of its health check.
    let silent = TcpListener::bind("127.51.0.9:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let address = json!({"socket_address": {"address": "127.51.0.9", "port_value": port}});
    let slow = json!({"name": "slow", "type": "STATIC", "connect_timeout": "5s",
        "health_checks": [{"timeout": "600s", "interval": "600s", "unhealthy_threshold": 1, "healthy_threshold": 1,
            "http_health_check": {"path": "/"}}],
        "load_assignment": {"cluster_name": "slow", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}});
    let slow = CustomCluster::parse(&slow.to_string(), None).unwrap();
    let mut resources: Vec<_> = rig.snapshot().iter().map(|entry| (*entry.resource).clone()).collect();
    resources.push(Resource::CustomCluster(Box::new(slow)));
    rig.offer(resources);
    let report =
        until(&rig, rig.snapshot(), |report| told(report).iter().any(|it| it.2 == State::Warming)).await;
    assert_eq!(told(&report), [("CDS", "slow", State::Warming)]);
    assert!(report.differences[0].fields.is_empty(), "{report:#?}");
}

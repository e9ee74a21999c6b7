use std::{collections::BTreeSet, sync::Arc};

use super::{Draft, MOST_EARLIER, MOST_EARLIER_KEYS, Snapshot};
use crate::xds::{
    encode::{Protocol, Source},
    resource::{
        Key, Kind, Resource, XDS_CLUSTER,
        cluster::{Cluster, Discovery, HttpVersion, Limits},
        route::RouteConfig,
        secret::{Secret, SecretContent},
    },
    version::version_of,
};

fn route(name: &str, cluster: &str) -> Resource {
    Resource::Route(RouteConfig {
        name: name.into(),
        path: None,
        cluster: cluster.into(),
        timeout_ms: None,
        idle_timeout_ms: None,
    })
}

fn draft(resources: impl IntoIterator<Item = Resource>) -> Draft {
    Draft { resources: resources.into_iter().map(|r| (r.key(), r.into())).collect(), ..Draft::default() }
}

#[test]
fn equal_resources_are_shared_and_others_are_not() {
    let first = Snapshot::empty().next(draft([route("a", "x"), route("b", "x")]));
    let second = first.next(draft([route("a", "x"), route("b", "y")]));
    let of = |s: &Snapshot, name: &str| s.get(&Key::new(Kind::Route, name)).unwrap().clone();
    assert!(Arc::ptr_eq(&of(&first, "a"), &of(&second, "a")));
    assert_ne!(of(&first, "b").version, of(&second, "b").version);
    assert_ne!(first.kind_version(Kind::Route), second.kind_version(Kind::Route));
    assert_eq!(first.kind_version(Kind::Cluster), second.kind_version(Kind::Cluster));
}

#[test]
fn a_part_that_became_whole_keeps_its_bytes() {
    let key = Key::new(Kind::Route, "a");
    let part = Draft { partial: [key.clone()].into(), ..draft([route("a", "x")]) };
    let first = Snapshot::empty().next(part);
    let second = first.next(draft([route("a", "x")]));
    let (before, after) = (first.get(&key).unwrap(), second.get(&key).unwrap());
    assert!(before.partial && !after.partial);
    assert_eq!(before.version, after.version);
    assert_eq!(before.any.as_ptr(), after.any.as_ptr());
}

#[test]
fn what_a_client_without_ads_is_sent_is_encoded_once() {
    let cluster = Resource::Cluster(Cluster {
        name: "db".into(),
        stat_name: None,
        connect_timeout_ms: 1,
        discovery: Discovery::Eds,
        tls: None,
        http: HttpVersion::One,
        outlier: None,
        limits: Limits::default(),
        balance: None,
        keepalive: None,
    });
    let snapshot = Snapshot::empty().next(draft([cluster, route("a", "db")]));
    let services =
        |protocol, cluster: &str| Source::Services { protocol, cluster: cluster.into(), token: None };
    let delta = services(Protocol::Delta, XDS_CLUSTER);
    let sotw = services(Protocol::StateOfTheWorld, XDS_CLUSTER);
    let db = snapshot.get(&Key::new(Kind::Cluster, "db")).unwrap();
    assert_eq!(db.bytes(&delta).as_ptr(), db.bytes(&delta).as_ptr());
    assert_eq!(db.bytes(&Source::Ads), db.any);
    let forms =
        [db.any.clone(), db.bytes(&delta), db.bytes(&sotw), db.bytes(&services(Protocol::Delta, "x"))];
    for (n, form) in forms.iter().enumerate() {
        assert!(!forms[..n].contains(form), "{n}");
    }
    let presented = Source::Services {
        protocol: Protocol::Delta,
        cluster: XDS_CLUSTER.into(),
        token: Some("of-one-client".into()),
    };
    let holds_it = |bytes: &[u8]| bytes.windows(13).any(|part| part == b"of-one-client");
    assert!(holds_it(&db.bytes(&presented)), "for the client that presented it");
    assert!(!holds_it(&db.bytes(&delta)) && !holds_it(&db.any), "and for no other");
    // A route names no source.
    let route = snapshot.get(&Key::new(Kind::Route, "a")).unwrap();
    assert_eq!(route.bytes(&sotw).as_ptr(), route.any.as_ptr());
}

#[test]
fn emptiness_is_not_completeness() {
    assert!(!Snapshot::empty().is_complete());
    assert!(Snapshot::empty().next(Draft { complete: true, ..Draft::default() }).is_complete());
}

#[test]
fn dangling_references_are_named() {
    let snapshot = Snapshot::empty().next(draft([route("a", "x")]));
    assert_eq!(snapshot.dangling(), [(Key::new(Kind::Route, "a"), Key::new(Kind::Cluster, "x"))]);
}

#[test]
fn differences_are_told_line_by_line() {
    let first = Snapshot::empty().next(draft([route("a", "x"), route("b", "x")]));
    let second = first.next(draft([route("b", "y"), route("c", "x")]));
    let text = second.diff_text(&first);
    let shapes: Vec<String> = text.lines().map(|line| line.chars().take(7).collect()).collect();
    assert_eq!(shapes, ["- RDS a", "~ RDS b", "+ RDS c"]);
    assert_eq!(second.diff_text(&second), "");
}

#[test]
fn versions_are_the_same_in_every_process() {
    // Worked out by another process, long ago.
    assert_eq!(version_of(&route("a", "x")).as_str(), "a3119f2edb26550c");
    let snapshot = |names: &[&str]| Snapshot::empty().next(draft(names.iter().map(|name| route(name, "x"))));
    let one_way = snapshot(&["a", "b", "c"]);
    assert_eq!(one_way.revision().as_str().len(), 16);
    // Nor does it matter in which order things became known, or what was there before.
    let other_way = snapshot(&["b"]).next(draft([route("c", "x"), route("b", "x"), route("a", "x")]));
    assert_eq!(other_way.revision(), one_way.revision());
    let bytes = |snapshot: &Snapshot| snapshot.iter().map(|entry| entry.any.clone()).collect::<Vec<_>>();
    assert_eq!(bytes(&other_way), bytes(&one_way));
}

#[test]
fn a_private_key_takes_no_part_in_the_version() {
    let leaf = |key: &str| {
        let content = SecretContent::Leaf { chain_pem: "chain".into(), key_pem: key.into() };
        Resource::Secret(Secret { name: "leaf".into(), content })
    };
    assert_eq!(version_of(&leaf("one")), version_of(&leaf("two")));
}

#[test]
fn a_private_key_is_never_shown() {
    let content = SecretContent::Leaf { chain_pem: "chain".into(), key_pem: "sesame".into() };
    let snapshot = Snapshot::empty().next(draft([Resource::Secret(Secret { name: "leaf".into(), content })]));
    assert!(!format!("{snapshot:?}").contains("sesame"));
    assert!(snapshot.iter().any(|entry| String::from_utf8_lossy(&entry.any).contains("sesame")));
}

#[test]
fn a_snapshot_tells_what_changed_since_those_it_was_made_from() {
    let names = |later: &Snapshot, older: &Snapshot| -> BTreeSet<String> {
        let changed = later.changed_since(older).unwrap();
        changed
            .map(|(key, now)| {
                assert_eq!(now.map(Arc::as_ptr), later.get(key).map(Arc::as_ptr), "{key}");
                key.name.clone()
            })
            .collect()
    };
    let set = |names: &str| names.chars().map(String::from).collect::<BTreeSet<_>>();
    let first = Snapshot::empty().next(draft([route("a", "x"), route("b", "x"), route("d", "x")]));
    let second = first.next(draft([route("b", "y"), route("c", "x"), route("d", "x")]));
    assert_eq!(names(&second, &first), set("abc"), "gone, other and new");
    let third = second.next(draft([route("b", "y"), route("c", "x"), route("d", "x")]));
    assert_eq!(names(&third, &second), set(""));
    assert_eq!(names(&third, &first), set("abc"));
    let fourth = third.next(draft([route("b", "x"), route("c", "x"), route("d", "x"), route("e", "x")]));
    assert_eq!(names(&fourth, &second), set("be"));
    assert_eq!(names(&fourth, &first), set("abce"), "b is what it was, and looked at in vain");
    assert!(first.changed_since(&fourth).is_none(), "that is no change that was made");
    let whole = third.next(Draft { complete: true, ..draft([route("b", "y")]) });
    assert!(whole.changed_since(&third).is_none(), "what is absent means something else");
}

#[test]
fn a_snapshot_remembers_the_changes_of_only_so_many() {
    let many = |count: usize, cluster: &str| draft((0..count).map(|n| route(&n.to_string(), cluster)));
    let series = |count: usize, length: usize| {
        let mut series = vec![Snapshot::empty().next(many(count, "first"))];
        for n in 0..length {
            series.push(series[n].next(many(count, &n.to_string())));
        }
        series
    };
    let small = series(1, MOST_EARLIER + 2);
    let last = small.last().unwrap();
    assert!(last.changed_since(&small[0]).is_none(), "too far behind");
    assert_eq!(last.changed_since(&small[1]).unwrap().count(), MOST_EARLIER + 1);
    let large = series(MOST_EARLIER_KEYS / 2 + 1, 3);
    assert!(large[3].changed_since(&large[2]).is_some());
    assert!(large[3].changed_since(&large[1]).is_some());
    assert!(large[3].changed_since(&large[0]).is_none(), "too much");
}

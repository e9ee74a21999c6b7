use bytes::Bytes;
use http::Method;

use super::*;
use crate::{
    model::sync::Mode,
    sync::endpoint::{ask, message::Request},
};

const HOME: &str = "config/";
const REPLICA: &str = "locks/";

/// We are `a`: home of `config/`, and a replica of `locks/`, whose home is `b`.
struct World {
    standing: Standing,
    misfit: Option<String>,
    origin: Option<Origin>,
}

impl World {
    fn new(standing: Standing) -> Self {
        Self { standing, misfit: None, origin: None }
    }

    fn passed_on(standing: Standing, from: &str, hops: u32) -> Self {
        let origin = Origin { datacenter: from.into(), request_id: "r".into(), hops };
        Self { origin: Some(origin), ..Self::new(standing) }
    }

    fn route(&self, method: Method, target: &str, body: &str) -> Route {
        let mut prefixes = PrefixTable::default();
        for (text, home) in [(HOME, "a"), (REPLICA, "b"), ("other/", "b"), ("third/", "c")] {
            prefixes.add(Prefix { text: text.into(), home: home.into(), mode: Mode::Journaled }).unwrap();
        }
        let request = Request::new(method, target, Vec::new(), Bytes::from(body.to_owned()));
        let asked = ask::ask(&request).unwrap();
        let datacenters = ["a", "b", "c"].map(Datacenter::from);
        Scene {
            own: &datacenters[0],
            datacenters: &datacenters,
            prefixes: &prefixes,
            standing: &|_| self.standing.clone(),
            misfit: &|_| self.misfit.clone(),
            dc: request.param("dc"),
            is_consistent: request.has("consistent"),
            origin: self.origin.as_ref(),
        }
        .route(&asked)
    }

    fn get(&self, target: &str) -> Route {
        self.route(Method::GET, target, "")
    }

    fn put(&self, target: &str) -> Route {
        self.route(Method::PUT, target, "v")
    }

    /// A transaction of `verb key` items.
    fn txn(&self, items: &[&str]) -> Route {
        let one = |item: &&str| {
            let (verb, key) = item.split_once(' ').unwrap();
            if verb == "node" {
                return r#"{"Node":{"Verb":"get"}}"#.to_owned();
            }
            format!(r#"{{"KV":{{"Verb":"{verb}","Key":"{key}"}}}}"#)
        };
        let body = format!("[{}]", items.iter().map(one).collect::<Vec<_>>().join(","));
        self.route(Method::PUT, "/v1/txn", &body)
    }
}

fn doer() -> Doer {
    Doer { node: "n2".into(), address: "10.0.0.2:1".into() }
}

fn active() -> World {
    World::new(Standing::Active)
}

fn elsewhere() -> World {
    World::new(Standing::Elsewhere(doer()))
}

fn nobody() -> World {
    World::new(Standing::Nobody)
}

fn to(datacenter: &str) -> Route {
    Route::Forward(Target::Datacenter(datacenter.into()))
}

fn to_doer() -> Route {
    Route::Forward(Target::Doer(doer()))
}

fn refused(route: Route) -> Refusal {
    match route {
        Route::Refuse(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn is_here(route: &Route, text: &str) -> bool {
    matches!(route, Route::Execute(Some(prefix)) | Route::Local(prefix) if prefix.text == text)
}

#[test]
fn what_is_not_replicated_is_consuls() {
    for target in [
        "/v1/kv/x",
        "/v1/kv/config",
        "/v1/kv/x?dc=b",
        "/v1/agent/self",
        "/v1/kv/_sync/v1/x",
        "/v1/kv/x?recurse",
    ] {
        assert_eq!(active().get(target), Route::Pass, "{target}");
    }
    assert_eq!(active().put("/v1/kv/x?dc=zz"), Route::Pass);
    assert_eq!(active().txn(&["set x", "delete-tree y", "node x"]), Route::Pass);
}

#[test]
fn writes_go_to_the_active_agent_of_the_home() {
    for target in ["/v1/kv/config/x", "/v1/kv/config/x?dc=a", "/v1/kv/config/x?dc="] {
        assert!(is_here(&active().put(target), HOME), "{target}");
        assert_eq!(elsewhere().put(target), to_doer());
        assert!(matches!(refused(nobody().put(target)), Refusal::NotServing(_)));
    }
    // Through the applier here, which waits until it has the write.
    assert_eq!(elsewhere().put("/v1/kv/locks/x"), to_doer());
    assert_eq!(active().put("/v1/kv/locks/x?dc=b"), to("b"));
    assert_eq!(nobody().put("/v1/kv/locks/x"), to("b"));
    assert_eq!(active().route(Method::DELETE, "/v1/kv/locks/x/?recurse", ""), to("b"));
    for (target, home) in
        [("/v1/kv/config/x?dc=b", "a"), ("/v1/kv/locks/x?dc=a", "b"), ("/v1/kv/locks/x?dc=zz", "b")]
    {
        assert!(
            matches!(refused(active().put(target)), Refusal::NotItsHome { home: h, .. } if h.as_str() == home)
        );
    }
}

#[test]
fn reserved_and_overlapping_keys_are_not_written() {
    assert!(matches!(refused(active().put("/v1/kv/_sync/x")), Refusal::Reserved(_)));
    assert!(matches!(refused(active().route(Method::DELETE, "/v1/kv/?recurse", "")), Refusal::Reserved(_)));
    assert!(matches!(refused(active().txn(&["set x", "delete _sync/x"])), Refusal::Reserved(_)));
    for tree in ["con", "config", "l"] {
        let refusal = refused(active().route(Method::DELETE, &format!("/v1/kv/{tree}?recurse"), ""));
        assert!(matches!(&refusal, Refusal::Bad(text) if text.contains("takes in")), "{refusal}");
    }
    assert!(matches!(refused(active().txn(&["delete-tree con"])), Refusal::Bad(_)));
    assert_eq!(active().route(Method::DELETE, "/v1/kv/x?recurse", ""), Route::Pass);
}

#[test]
fn reads_are_local_where_the_applier_is() {
    assert_eq!(active().get("/v1/kv/config/x?consistent"), Route::Pass);
    assert!(is_here(&active().get("/v1/kv/locks/x?stale"), REPLICA));
    assert!(is_here(&active().get("/v1/kv/locks/?recurse&dc=a"), REPLICA));
    assert_eq!(elsewhere().get("/v1/kv/locks/x"), to_doer());
    assert!(matches!(nobody().get("/v1/kv/locks/x"), Route::Home(prefix) if prefix.home.as_str() == "b"));
    assert_eq!(active().get("/v1/kv/locks/x?consistent"), to("b"));
    assert_eq!(elsewhere().get("/v1/kv/locks/x?consistent"), to("b"));
    assert_eq!(active().get("/v1/kv/locks/x?dc=c"), to("c"));
    assert_eq!(active().get("/v1/kv/config/x?dc=b"), to("b"));
    assert_eq!(active().get("/v1/kv/locks/x?dc=zz"), Route::Pass);
}

#[test]
fn trees_above_ask_for_each_prefix_from_elsewhere() {
    let above = |target: &str| match active().get(target) {
        Route::Above(prefixes) => prefixes.into_iter().map(|prefix| prefix.text).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(above("/v1/kv/?recurse"), ["locks/", "other/", "third/"]);
    assert_eq!(above("/v1/kv/loc?keys"), ["locks/"]);
    assert_eq!(active().get("/v1/kv/conf?recurse"), Route::Pass);
    assert_eq!(active().get("/v1/kv/loc"), Route::Pass);
    assert_eq!(active().get("/v1/kv/loc?recurse&dc=b"), Route::Pass);
}

#[test]
fn a_transaction_has_one_home() {
    assert!(is_here(&active().txn(&["set config/x", "delete-tree config/y/", "get config/z"]), HOME));
    assert_eq!(active().txn(&["set locks/x"]), to("b"));
    assert_eq!(active().txn(&["get config/x", "check-index config/y"]), Route::Pass);
    assert_eq!(active().txn(&["get config/x", "get x", "node x", "get-tree "]), Route::Pass);
    assert!(is_here(&active().txn(&["get locks/x", "get-tree locks/"]), REPLICA));
    // What is compared is the home's.
    assert_eq!(active().txn(&["get locks/x", "check-index locks/x"]), to("b"));
    for items in
        [["set config/x", "set locks/x"], ["set locks/x", "get config/x"], ["get locks/x", "get third/x"]]
    {
        let refusal = refused(active().txn(&items));
        assert!(matches!(refusal, Refusal::TwoHomes { .. }), "{items:?} {refusal}");
        assert_eq!(refusal.status(), 400);
    }
    for items in [
        ["set config/x", "set x"],
        ["set x", "set config/x"],
        ["set locks/x", "set other/x"],
        ["set config/x", "node x"],
        ["get locks/x", "get x"],
        ["get locks/x", "get-tree "],
    ] {
        assert!(matches!(refused(active().txn(&items)), Refusal::Bad(_)), "{items:?}");
    }
}

#[test]
fn what_another_agent_passes_on_is_not_passed_around() {
    let from_b = |standing| World::passed_on(standing, "b", 1);
    assert!(is_here(&from_b(Standing::Active).put("/v1/kv/config/x"), HOME));
    assert_eq!(from_b(Standing::Elsewhere(doer())).put("/v1/kv/config/x"), to_doer());
    // They take us for the home of what has its home elsewhere.
    let mistaken = refused(from_b(Standing::Active).put("/v1/kv/locks/x"));
    assert!(
        matches!(&mistaken, Refusal::Misfit(text) if text.contains("not the home of `locks/`")),
        "{mistaken}"
    );
    let from_us = World::passed_on(Standing::Active, "a", 1);
    assert_eq!(from_us.put("/v1/kv/locks/x"), to("b"));
    let weary = World::passed_on(Standing::Elsewhere(doer()), "a", MAX_HOPS);
    assert!(matches!(refused(weary.put("/v1/kv/config/x")), Refusal::NotServing(_)));
    assert!(matches!(refused(weary.get("/v1/kv/locks/x")), Refusal::NotServing(_)));
}

#[test]
fn a_prefix_that_datacenters_disagree_on_is_refused_and_no_other_thing() {
    let world = World { misfit: Some("two homes".into()), ..active() };
    for target in ["/v1/kv/config/x", "/v1/kv/locks/x"] {
        assert_eq!(refused(world.put(target)), Refusal::Misfit("two homes".into()));
    }
    assert_eq!(refused(world.get("/v1/kv/locks/x")), Refusal::Misfit("two homes".into()));
    assert_eq!(world.put("/v1/kv/x"), Route::Pass);
}

#[test]
fn locks_and_orders() {
    assert!(is_here(&active().route(Method::POST, "/v1/lock/config/l", ""), HOME));
    assert_eq!(active().route(Method::POST, "/v1/lock/locks/l", ""), to("b"));
    assert_eq!(active().get("/v1/lock/locks/l"), to("b"));
    assert!(
        matches!(refused(active().get("/v1/lock/x")), Refusal::Bad(text) if text.contains("config/, locks/"))
    );
    assert!(matches!(refused(active().get("/v1/lock/_sync/x")), Refusal::Reserved(_)));
    let order = |world: &World, target: &str| world.route(Method::POST, target, "");
    assert_eq!(active().get("/v1/sync/status"), Route::Execute(None));
    assert!(is_here(&order(&active(), "/v1/sync/approve?prefix=locks/"), REPLICA));
    assert_eq!(order(&elsewhere(), "/v1/sync/resync?prefix=locks/"), to_doer());
    assert_eq!(order(&active(), "/v1/sync/approve?prefix=config/&dc=b"), to("b"));
    for (world, target) in [
        (active(), "/v1/sync/approve?prefix=config/"),
        (active(), "/v1/sync/approve?prefix=locks/x"),
        (active(), "/v1/sync/approve?prefix=zz"),
    ] {
        assert!(matches!(refused(order(&world, target)), Refusal::Bad(_)), "{target}");
    }
    assert!(matches!(refused(order(&nobody(), "/v1/sync/approve?prefix=locks/")), Refusal::NotServing(_)));
}

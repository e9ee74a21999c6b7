//! A token that loses its rights while lists are followed with it.

use std::collections::BTreeSet;

use causeway::{
    consul::{metrics::ConsulMetrics, watch},
    lifecycle::Stop,
    model::catalog::{Catalog, Topic},
};

use super::*;

const WEB: &str = "web";

fn health() -> Topic {
    Topic::Health { dc: "dc1".into(), service: WEB.into() }
}

fn count(catalog: &Catalog) -> Option<usize> {
    catalog.health(&"dc1".into(), &WEB.into()).known().map(Vec::len)
}

fn trouble(catalog: &Catalog) -> Option<String> {
    catalog.heard(&health())?.stale.as_ref().map(ToString::to_string)
}

/// Gives the token these policies in place of what it had.
async fn allow(root: &Client, token: &Token, policies: Value) {
    let body = json!({ "AccessorID": token.accessor, "Policies": policies });
    let path = path(&["v1", "acl", "token", &token.accessor]);
    root.put(&path, &[], Some(body), PATIENCE).await.unwrap().ok().unwrap();
}

/// Wakes whoever waits for a change of the service.
async fn touch(root: &Client, tag: &str) {
    let service = json!({ "Name": WEB, "ID": WEB, "Port": 8080, "Tags": [tag] });
    root.register_service(service).await.unwrap();
}

/// Consul 1.8 answers with an empty list then, and says nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_lost_its_rights_empties_no_list() {
    let tokens = json!({ "master": ROOT, "agent": ROOT });
    let acl = json!({ "acl": { "enabled": true, "default_policy": "deny", "tokens": tokens } });
    let consul = Consul::start(HOST, acl);
    let root = client(&consul, ROOT);
    touch(&root, "a").await;
    let rules = policy("causeway-agent.hcl", "");
    let token = make(&root, "causeway", &rules).await;
    let all = json!([{ "Name": "causeway" }]);
    // The service alone is hidden: the token goes on to see that there are others.
    let narrow = rules + "\nservice \"web\" { policy = \"deny\" }";
    make(&root, "narrow", &narrow).await;
    let (_source, stop) = Stop::pair();
    let (watches, _task) = watch::start(client(&consul, &token.secret), ConsulMetrics::default(), stop);
    watches.want("test", BTreeSet::from([Topic::Agent, health()])).await;
    let mut catalog = watches.catalog();
    let mut until = async |what: &str, seen: &dyn Fn(&Catalog) -> bool| {
        let found = tokio::time::timeout(PATIENCE, catalog.wait_for(|catalog| seen(catalog))).await;
        let found = found.unwrap_or_else(|_| panic!("never: {what}")).unwrap().clone();
        (count(&found), trouble(&found))
    };
    until("the list is known", &|it| count(it) == Some(1)).await;
    for (tag, less, reason) in [
        ("b", json!([]), "no node of dc1"),
        ("c", json!([{ "Name": "narrow" }]), "may not read what was in it"),
    ] {
        allow(&root, &token, less).await;
        touch(&root, tag).await;
        let (count, trouble) = until(reason, &|it| trouble(it).is_some()).await;
        assert_eq!(count, Some(1), "what was known stays in use");
        assert!(trouble.as_ref().is_some_and(|it| it.contains(reason)), "{trouble:?}");
        allow(&root, &token, all.clone()).await;
        let (count, _) = until("the list is heard again", &|it| trouble_is_over(it)).await;
        assert_eq!(count, Some(1));
    }
    let gone = path(&["v1", "agent", "service", "deregister", WEB]);
    root.put(&gone, &[], None, PATIENCE).await.unwrap().ok().unwrap();
    until("what is gone is believed to be", &|it| count(it) == Some(0)).await;
}

fn trouble_is_over(catalog: &Catalog) -> bool {
    catalog.heard(&health()).is_some() && trouble(catalog).is_none()
}

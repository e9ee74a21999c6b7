//! A token that loses its rights while lists are followed with it.

use causeway::{
    consul::{metrics::ConsulMetrics, watch},
    lifecycle::Stop,
    model::{
        catalog::{Answer, Catalog, Topic},
        name::{Datacenter, ServiceName},
    },
};

use super::*;

const WEB: &str = "web";

/// What gateways ask about a service, and what sidecars do.
fn topics() -> [Topic; 2] {
    let (dc, service) = (Datacenter::from("dc1"), ServiceName::from(WEB));
    [Topic::Health { dc: dc.clone(), service: service.clone() }, Topic::Connect { dc, service }]
}

/// How long both lists are, where they are equally long.
fn count(catalog: &Catalog) -> Option<usize> {
    let lengths = topics().map(|topic| match &*catalog.heard(&topic)?.answer {
        Answer::Instances(instances) => Some(instances.len()),
        other => panic!("{other:?}"),
    });
    lengths[0].filter(|_| lengths[0] == lengths[1])
}

/// What keeps both lists from being heard.
fn troubles(catalog: &Catalog) -> Option<String> {
    let all = topics().map(|topic| catalog.heard(&topic)?.stale.as_ref().map(ToString::to_string));
    all.into_iter().collect::<Option<Vec<_>>>().map(|all| all.join("\n"))
}

fn is_heard(catalog: &Catalog) -> bool {
    topics().iter().all(|topic| catalog.heard(topic).is_some_and(|heard| heard.stale.is_none()))
}

/// Gives the token these policies in place of what it had.
async fn allow(root: &Client, token: &Token, policies: Value) {
    let body = json!({ "AccessorID": token.accessor, "Policies": policies });
    let path = path(&["v1", "acl", "token", &token.accessor]);
    root.put(&path, &[], Some(body), PATIENCE).await.unwrap().ok().unwrap();
}

/// Wakes whoever waits for a change of the service.
async fn touch(root: &Client, tag: &str) {
    let sidecar = json!({ "Port": 21000, "Checks": [], "Tags": [tag] });
    let service = json!({ "Name": WEB, "ID": WEB, "Port": 8080, "Tags": [tag], "Connect": { "SidecarService": sidecar } });
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
    watches.want("test", topics().into_iter().chain([Topic::Agent]).collect()).await;
    let mut catalog = watches.catalog();
    let mut until = async |what: &str, seen: &dyn Fn(&Catalog) -> bool| {
        let found = tokio::time::timeout(PATIENCE, catalog.wait_for(|catalog| seen(catalog))).await;
        let found = found.unwrap_or_else(|_| panic!("never: {what}")).unwrap().clone();
        (count(&found), troubles(&found).unwrap_or_default())
    };
    until("the lists are known", &|it| count(it) == Some(1)).await;
    for (tag, less, reason) in
        [("b", json!([]), "no node of dc1"), ("c", json!([{ "Name": "narrow" }]), "may not read it")]
    {
        allow(&root, &token, less).await;
        touch(&root, tag).await;
        let (count, troubles) = until(reason, &|it| troubles(it).is_some()).await;
        assert_eq!(count, Some(1), "what was known stays in use");
        assert!(troubles.lines().all(|it| it.contains(reason)), "{troubles}");
        allow(&root, &token, all.clone()).await;
        let (count, _) = until("the lists are heard again", &is_heard).await;
        assert_eq!(count, Some(1));
    }
    root.deregister_service(WEB).await.unwrap();
    until("what is gone is believed to be", &|it| count(it) == Some(0)).await;
}

mod foreign;

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use super::*;
use crate::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::acl::leaf::Credential,
    consul::fake::{Fake, handler, reply},
    lifecycle::StopSource,
    model::{
        catalog::{Stale, View},
        name::{Datacenter, ServiceName},
    },
};

/// A key-value store of one answer that can be blocked on.
#[derive(Default)]
struct Store {
    index: AtomicU64,
    body: Mutex<String>,
    changed: Notify,
    asked: AtomicUsize,
    /// Shows nothing to the token.
    is_hidden: AtomicBool,
}

impl Store {
    fn set(&self, index: u64, body: &str) {
        *self.body.lock().unwrap() = body.to_owned();
        self.index.store(index, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    fn hides(&self) -> bool {
        self.is_hidden.load(Ordering::SeqCst)
    }

    async fn answer(
        &self,
        index: Option<&str>,
        status: u16,
    ) -> http::Response<http_body_util::Full<bytes::Bytes>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let beyond: u64 = index.map_or(0, |index| index.parse().unwrap());
        loop {
            let changed = self.changed.notified();
            let now = self.index.load(Ordering::SeqCst);
            // A real Consul whose index went back would hold the request; one that was restored answers.
            if now != beyond || beyond == 0 {
                return reply(status, now, self.body.lock().unwrap().clone());
            }
            changed.await;
        }
    }
}

async fn fake(store: &Arc<Store>) -> Fake {
    let store = store.clone();
    Fake::tcp(
        200,
        handler(move |asked| {
            let store = store.clone();
            async move {
                match asked.path.as_str() {
                    "/v1/catalog/nodes" => {
                        reply(200, 0, if store.hides() { "[]" } else { r#"[{"Node":"n"}]"# })
                    }
                    "/v1/catalog/services" => reply(200, 0, r#"{"consul":[]}"#),
                    "/v1/internal/acl/authorize" => reply(401, 0, "ACL support disabled"),
                    _ => store.answer(asked.param("index"), 200).await,
                }
            }
        }),
    )
    .await
}

fn watch(settings: ConsulSettings) -> (Watches, Task<()>, StopSource) {
    let (source, stop) = Stop::pair();
    let (watches, task) = start(Client::new(settings).unwrap(), ConsulMetrics::default(), stop);
    (watches, task, source)
}

fn health(service: &str) -> Topic {
    Topic::Health { dc: "dc1".into(), service: service.into() }
}

fn body(ids: &[&str]) -> String {
    let entry = |id: &&str| {
        format!(
            r#"{{"Node":{{"Node":"n","Address":"10.0.0.1"}},"Service":{{"ID":"{id}","Service":"web","Port":80}},"Checks":[]}}"#
        )
    };
    format!("[{}]", ids.iter().map(entry).collect::<Vec<_>>().join(","))
}

fn count(catalog: &Catalog, service: &str) -> Option<usize> {
    catalog.health(&Datacenter::from("dc1"), &ServiceName::from(service)).known().map(Vec::len)
}

fn stale(catalog: &Catalog, service: &str) -> Option<String> {
    catalog.heard(&health(service))?.stale.as_ref().map(ToString::to_string)
}

async fn until(watches: &Watches, seen: impl Fn(&Catalog) -> bool) -> Arc<Catalog> {
    let mut catalog = watches.catalog();
    let found =
        tokio::time::timeout(Duration::from_secs(60), catalog.wait_for(|catalog| seen(catalog))).await;
    found.expect("the catalog never said so").unwrap().clone()
}

#[tokio::test]
async fn a_change_is_published_and_owners_share_a_poller() {
    let store = Arc::new(Store::default());
    store.set(5, &body(&["a"]));
    let fake = fake(&store).await;
    let (watches, mut task, stop) = watch(fake.settings.clone());
    watches.want("one", BTreeSet::from([health("web")])).await;
    watches.want("two", BTreeSet::from([health("web")])).await;
    until(&watches, |catalog| count(catalog, "web") == Some(1)).await;
    store.set(6, &body(&["a", "b"]));
    until(&watches, |catalog| count(catalog, "web") == Some(2)).await;
    // The index goes back: a restored snapshot.
    store.set(2, &body(&[]));
    until(&watches, |catalog| count(catalog, "web") == Some(0)).await;
    store.set(3, &body(&["c"]));
    until(&watches, |catalog| count(catalog, "web") == Some(1)).await;
    assert!(store.asked.load(Ordering::SeqCst) < 12);
    stop.stop();
    task.join().await.unwrap();
}

#[tokio::test]
async fn an_empty_list_is_not_believed_of_a_consul_that_shows_nothing() {
    let store = Arc::new(Store::default());
    store.set(5, &body(&["a"]));
    let fake = fake(&store).await;
    let (watches, _task, _stop) = watch(fake.settings.clone());
    watches.want("one", BTreeSet::from([health("web")])).await;
    until(&watches, |catalog| count(catalog, "web") == Some(1)).await;
    store.is_hidden.store(true, Ordering::SeqCst);
    store.set(6, "[]");
    let catalog = until(&watches, |catalog| stale(catalog, "web").is_some()).await;
    assert_eq!(count(&catalog, "web"), Some(1));
    assert!(stale(&catalog, "web").unwrap().contains("no node of dc1"), "{:?}", stale(&catalog, "web"));
    store.is_hidden.store(false, Ordering::SeqCst);
    until(&watches, |catalog| count(catalog, "web") == Some(0)).await;
}

/// A leader that was just elected answers before it has applied its log, but to who asks it to be sure.
#[tokio::test]
async fn the_empty_answer_of_a_leader_without_its_log_is_not_believed() {
    let asked: Arc<Mutex<Vec<bool>>> = Arc::default();
    let (seen, has_lost) = (asked.clone(), Arc::new(Notify::new()));
    let lost = has_lost.clone();
    let fake = Fake::tcp(
        200,
        handler(move |question| {
            let (seen, lost) = (seen.clone(), lost.clone());
            async move {
                let is_sure = question.param("consistent").is_some();
                let is_first = question.param("index").is_none();
                seen.lock().unwrap().push(is_sure);
                match question.param("index") {
                    Some("9") => std::future::pending().await,
                    Some(_) => lost.notified().await,
                    None => {}
                }
                match (is_sure, is_first) {
                    (true, true) if seen.lock().unwrap().len() == 1 => reply(200, 8, body(&["a"])),
                    (true, _) => reply(200, 9, body(&["a", "b"])),
                    (false, _) => reply(200, 1, "[]"),
                }
            }
        }),
    )
    .await;
    let (watches, _task, _stop) = watch(fake.settings.clone());
    watches.want("one", BTreeSet::from([health("web")])).await;
    let mut catalog = watches.catalog();
    until(&watches, |catalog| count(catalog, "web") == Some(1)).await;
    catalog.mark_unchanged();
    has_lost.notify_one();
    catalog.changed().await.unwrap();
    assert_eq!(count(&catalog.borrow(), "web"), Some(2), "the next that is heard is the truth");
    assert_eq!(asked.lock().unwrap()[..3], [true, false, true], "first, after the loss, to be sure");
}

#[tokio::test]
async fn a_silent_consul_leaves_the_last_answer_and_is_seen_again() {
    let store = Arc::new(Store::default());
    store.set(5, &body(&["a"]));
    let first = fake(&store).await;
    let address = first.authority();
    let (watches, _task, _stop) = watch(first.settings.clone());
    watches.want("one", BTreeSet::from([health("web"), Topic::Roots])).await;
    // The body is no roots answer: that topic is in trouble, the other is not.
    let catalog = until(&watches, |c| count(c, "web").is_some() && c.trouble(&Topic::Roots).is_some()).await;
    assert_eq!(catalog.roots(), View::Unknown);
    drop(first);
    let catalog = until(&watches, |catalog| stale(catalog, "web").is_some()).await;
    assert_eq!(count(&catalog, "web"), Some(1));
    store.set(9, &body(&["a", "b"]));
    let again = store.clone();
    let _second = Fake::tcp_at(
        address,
        200,
        handler(move |asked| {
            let store = again.clone();
            async move { store.answer(asked.param("index"), 200).await }
        }),
    )
    .await;
    let catalog = until(&watches, |catalog| count(catalog, "web") == Some(2)).await;
    assert_eq!(stale(&catalog, "web"), None);
}

#[tokio::test]
async fn refusals_keep_topics_unknown_with_their_reason() {
    for (status, text) in
        [(429, "limits.rpc_rate"), (503, "no leader"), (500, "asked again"), (403, "give the token")]
    {
        let fake = Fake::tcp(200, handler(move |_| async move { reply(status, 0, "no") })).await;
        let (watches, _task, _stop) = watch(fake.settings.clone());
        watches.want("one", BTreeSet::from([health("web")])).await;
        let catalog = until(&watches, |catalog| catalog.trouble(&health("web")).is_some()).await;
        assert!(catalog.trouble(&health("web")).unwrap().contains(text), "{status}");
        assert_eq!(count(&catalog, "web"), None);
    }
}

#[tokio::test]
async fn known_absences_are_answers() {
    let fake = Fake::tcp(
        200,
        handler(|asked| async move {
            match asked.path.as_str() {
                "/v1/config/service-intentions" => {
                    reply(500, 0, "invalid config entry kind: service-intentions")
                }
                _ if asked.param("index").is_some() => std::future::pending().await,
                _ => reply(404, 3, "unknown service ID"),
            }
        }),
    )
    .await;
    let (watches, _task, _stop) = watch(fake.settings.clone());
    let topics = [
        Topic::IntentionEntries,
        Topic::Registration("web-proxy".into()),
        Topic::ServiceDefaults("web".into()),
        Topic::ProxyDefaults,
    ];
    watches.want("one", BTreeSet::from(topics)).await;
    let catalog = until(&watches, |catalog| catalog.topics().count() == 4).await;
    assert_eq!(catalog.intention_entries(), View::Known(&vec![]));
    assert_eq!(catalog.registration(&"web-proxy".into()), View::Known(&None));
    assert!(catalog.service_defaults(&"web".into()).known().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_unwanted_topic_lingers_and_is_forgotten() {
    // No socket: under a paused clock only the owner's own timers pass.
    let (watches, _task, _stop) = watch(ConsulSettings {
        address: ConsulAddress::Unix { path: "/nonexistent".into() },
        ..Default::default()
    });
    watches.want("one", BTreeSet::from([health("web")])).await;
    until(&watches, |catalog| catalog.trouble(&health("web")).is_some()).await;
    let since = lifecycle::now();
    watches.want("one", BTreeSet::new()).await;
    until(&watches, |catalog| catalog.trouble(&health("web")).is_none()).await;
    let after = since.elapsed();
    assert!(after >= LINGER && after < LINGER + Duration::from_secs(2), "{after:?}");
}

#[tokio::test]
async fn a_registration_lingers_if_it_is_there() {
    const WEB: &str = r#"{"Kind":"connect-proxy","ID":"web-proxy","Service":"web-proxy","Port":20000,
        "Proxy":{"DestinationServiceName":"web"}}"#;
    let fake = Fake::tcp(
        200,
        handler(|asked| async move {
            match asked.path.as_str() {
                _ if asked.param("index").is_some() => std::future::pending().await,
                "/v1/agent/service/web-proxy" => reply(200, 3, WEB),
                _ => reply(404, 3, "unknown service ID"),
            }
        }),
    )
    .await;
    let (watches, _task, _stop) = watch(fake.settings.clone());
    let [web, nobody] = ["web-proxy", "nobody"].map(|id| Topic::Registration(id.into()));
    watches.want("one", BTreeSet::from([web.clone(), nobody.clone()])).await;
    let catalog = until(&watches, |catalog| catalog.topics().count() == 2).await;
    assert!(catalog.registration(&"web-proxy".into()).known().is_some_and(Option::is_some));
    let since = lifecycle::now();
    watches.want("one", BTreeSet::new()).await;
    let catalog = until(&watches, |catalog| catalog.heard(&nobody).is_none()).await;
    assert!(since.elapsed() < LINGER, "{:?}", since.elapsed());
    assert!(catalog.heard(&web).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_registration_of_nobody_is_forgotten_at_once() {
    let (watches, _task, _stop) = watch(ConsulSettings {
        address: ConsulAddress::Unix { path: "/nonexistent".into() },
        ..Default::default()
    });
    let nobody = Topic::Registration("nobody".into());
    watches.want("one", BTreeSet::from([nobody.clone(), health("web")])).await;
    until(&watches, |catalog| [&nobody, &health("web")].iter().all(|t| catalog.trouble(t).is_some())).await;
    let since = lifecycle::now();
    watches.want("one", BTreeSet::new()).await;
    let catalog = until(&watches, |catalog| catalog.trouble(&nobody).is_none()).await;
    assert_eq!(since.elapsed(), Duration::ZERO);
    assert!(catalog.trouble(&health("web")).is_some());
}

#[tokio::test]
async fn more_topics_than_connections_take_turns() {
    const TOPICS: usize = 24;
    let store = Arc::new(Store::default());
    store.set(5, &body(&["a"]));
    let shared = store.clone();
    // A fifth connection would be closed, and its topic lost.
    let fake = Fake::tcp(
        4,
        handler(move |asked| {
            let store = shared.clone();
            async move {
                let wait = asked.param("wait").and_then(|wait| wait.strip_suffix("ms")?.parse().ok());
                let held = Duration::from_millis(wait.unwrap_or(0).min(20));
                match tokio::time::timeout(held, store.answer(asked.param("index"), 200)).await {
                    Ok(reply) => reply,
                    Err(_) => store.answer(None, 200).await,
                }
            }
        }),
    )
    .await;
    let (watches, _task, _stop) = watch(ConsulSettings { max_connections: 4, ..fake.settings.clone() });
    let topics: BTreeSet<Topic> = (0..TOPICS).map(|n| health(&format!("s{n}"))).collect();
    watches.want("one", topics.clone()).await;
    let all = |catalog: &Catalog, n| (0..TOPICS).all(|s| count(catalog, &format!("s{s}")) == Some(n));
    until(&watches, |catalog| all(catalog, 1)).await;
    store.set(6, &body(&["a", "b"]));
    let catalog = until(&watches, |catalog| all(catalog, 2)).await;
    assert!(topics.iter().all(|topic| catalog.heard(topic).unwrap().stale.is_none()));
    assert!(matches!(&*catalog.heard(&health("s0")).unwrap().answer, Answer::Instances(_)));
}

#[tokio::test]
async fn an_agent_that_may_not_be_read_is_known_by_its_services() {
    let fake = Fake::tcp(
        200,
        handler(|asked| async move {
            match asked.path.as_str() {
                "/v1/agent/self" => reply(403, 0, "Permission denied"),
                "/v1/agent/services" => reply(200, 0, r#"{"web-1":{"ID":"web-1","Service":"web"}}"#),
                "/v1/discovery-chain/web" => reply(
                    200,
                    4,
                    r#"{"Chain":{"ServiceName":"web","Datacenter":"dc1","StartNode":"resolver:web"}}"#,
                ),
                "/v1/health/service/web" => reply(
                    200,
                    4,
                    r#"[{"Node":{"Node":"vm1","Address":"10.0.0.1"},"Service":{"ID":"web-1","Service":"web","Port":80}}]"#,
                ),
                _ => reply(404, 0, ""),
            }
        }),
    )
    .await;
    let (watches, _task, _stop) = watch(fake.settings.clone());
    watches.want("one", BTreeSet::from([Topic::Agent])).await;
    let catalog = until(&watches, |catalog| catalog.agent().known().is_some()).await;
    let facts = catalog.agent().known().unwrap();
    assert_eq!((facts.datacenter.as_str(), facts.node.as_str()), ("dc1", "vm1"));
    assert_eq!(facts.default_policy, crate::model::agent::DefaultPolicy::Unreadable);
    assert!(catalog.heard(&Topic::Agent).unwrap().notes[0].remedy.contains("agent:read"));
}

#[tokio::test]
async fn a_leaf_is_asked_for_with_the_token_of_a_proxy() {
    let (seen, mut tokens) = tokio::sync::mpsc::channel(8);
    let fake = Fake::tcp(
        200,
        handler(move |asked| {
            let seen = seen.clone();
            async move {
                seen.send(asked.header("x-consul-token").to_owned()).await.unwrap();
                reply(403, 0, "Permission denied")
            }
        }),
    )
    .await;
    let settings = ConsulSettings { token: Some("own".into()), ..fake.settings.clone() };
    let (leaf_tokens, web) = (LeafTokens::of_proxies(), ServiceName::from("web"));
    let (_source, stop) = Stop::pair();
    let client = Client::new(settings).unwrap();
    let (watches, _task) =
        start_with(client, leaf_tokens.clone(), Topics::new(), ConsulMetrics::default(), stop);
    watches.want("one", BTreeSet::from([Topic::Leaf(web.clone()), Topic::Roots])).await;
    assert_eq!(tokens.recv().await.unwrap(), "own", "the roots are everyone's");
    leaf_tokens.tell(true);
    leaf_tokens.pass(&web, 1, Credential::Proxy("a".into()));
    let mut next = async || loop {
        match tokens.recv().await.unwrap() {
            token if token == "own" => {}
            token => break token,
        }
    };
    assert_eq!(next().await, "a");
    // Another token does not wait until the first may be tried again.
    leaf_tokens.pass(&web, 2, Credential::Proxy("b".into()));
    leaf_tokens.withdraw(&web, 1);
    while next().await != "b" {}
    // Nor does one that passed, when the one before is refused.
    leaf_tokens.pass(&web, 3, Credential::Proxy("c".into()));
    while next().await != "c" {}
    let reason = until(&watches, |catalog| catalog.trouble(&Topic::Leaf(web.clone())).is_some()).await;
    assert!(reason.trouble(&Topic::Leaf(web)).unwrap().contains("403"));
}

/// Instances of a service as an earlier run kept them.
fn kept(count: usize) -> Heard {
    let (instances, _) =
        crate::consul::wire::instance::instances(body(&vec!["old"; count]).as_bytes()).unwrap();
    let stale = Some(Stale { reason: "kept".into(), is_from_disk: true });
    Heard { stale, ..Heard::fresh(Answer::Instances(instances)) }
}

#[tokio::test]
async fn what_was_kept_stands_in_only_for_what_consul_does_not_say() {
    let released = Arc::new(Notify::new());
    let release = released.clone();
    let fake = Fake::tcp(
        200,
        handler(move |asked| {
            let released = released.clone();
            async move {
                if asked.param("index").is_some() {
                    std::future::pending::<()>().await;
                }
                if asked.path.ends_with("/db") {
                    released.notified().await;
                }
                reply(200, 5, body(&["new"]))
            }
        }),
    )
    .await;
    let topics = Topics::from([(health("web"), kept(2)), (health("db"), kept(3)), (health("away"), kept(1))]);
    let (_source, stop) = Stop::pair();
    let (client, metrics) = (Client::new(fake.settings.clone()).unwrap(), ConsulMetrics::default());
    let (watches, _task) = start_with(client, LeafTokens::own(), topics, metrics.clone(), stop);
    watches.want("one", BTreeSet::from([health("web"), health("db")])).await;
    let mut published = watches.catalog();
    let catalog = loop {
        published.changed().await.unwrap();
        let catalog = published.borrow_and_update().clone();
        assert_ne!(
            count(&catalog, "web"),
            Some(2),
            "Consul answers at once: what was kept of it is never used"
        );
        if count(&catalog, "db").is_some() {
            break catalog;
        }
    };
    assert_eq!((count(&catalog, "web"), count(&catalog, "db")), (Some(1), Some(3)));
    assert!(catalog.heard(&health("db")).unwrap().is_from_disk());
    assert_eq!(metrics.topics_from_disk.get(), 1);
    release.notify_one();
    let catalog = until(&watches, |catalog| count(catalog, "db") == Some(1)).await;
    assert_eq!(stale(&catalog, "db"), None);
    assert_eq!(metrics.topics_from_disk.get(), 0);
    let mut shelf = watches.shelf();
    let left = tokio::time::timeout(Duration::from_secs(60), shelf.wait_for(|shelf| shelf.len() == 1)).await;
    assert!(left.unwrap().unwrap().contains_key(&health("away")), "nobody asked for it");
}

/// An owner without its loop, and without pollers that could say anything.
fn owner(kept: Topics) -> Owner {
    let settings =
        ConsulSettings { address: ConsulAddress::Unix { path: "/nonexistent".into() }, ..Default::default() };
    let desk = Desk {
        client: Client::new(settings).unwrap(),
        metrics: ConsulMetrics::default(),
        reports: mpsc::channel(1).0,
        turns: Turns::new(4),
        leaf_tokens: LeafTokens::of_proxies(),
        guides: Guides::new(),
        sights: Sights::default(),
        local: Arc::default(),
    };
    Owner::new(desk, kept)
}

impl Owner {
    fn want(&mut self, topics: &[Topic]) {
        self.wish(Wish { owner: "one".into(), topics: topics.iter().cloned().collect() });
        self.follow_wanted();
    }

    fn hear(&mut self, topic: &Topic, heard: Heard) -> bool {
        self.take(Report { topic: topic.clone(), news: News::Heard(heard) })
    }

    fn lose(&mut self, topic: &Topic) -> bool {
        self.lose_in(Silence::Away, topic)
    }

    fn lose_in(&mut self, silence: Silence, topic: &Topic) -> bool {
        self.take(Report { topic: topic.clone(), news: News::Lost(silence, "no answer".into()) })
    }

    fn shelved(&self) -> Vec<String> {
        self.shelved.borrow().keys().map(ToString::to_string).collect()
    }
}

fn fresh(count: usize) -> Heard {
    Heard { stale: None, ..kept(count) }
}

fn agent(node: &str) -> Heard {
    Heard::fresh(Answer::Agent(crate::model::agent::AgentFacts::sample(node)))
}

#[tokio::test(start_paused = true)]
async fn what_was_let_go_in_silence_is_on_disk_all_the_while_and_comes_back() {
    let mut owner = owner(Topics::new());
    owner.want(&[health("web")]);
    assert!(owner.hear(&health("web"), fresh(2)));
    assert!(owner.lose(&health("web")));
    owner.publish(true);
    owner.want(&[]);
    owner.forget_unwanted(lifecycle::now() + LINGER);
    assert_eq!(count(&owner.published.borrow(), "web"), None);
    assert_eq!(owner.shelved(), ["health/web@dc1"], "shown before it leaves the catalog");

    owner.want(&[health("web")]);
    assert!(owner.lose(&health("web")), "that it is known again is news, although the reason is the same");
    assert_eq!(count(&owner.catalog, "web"), Some(2));
}

#[tokio::test(start_paused = true)]
async fn another_agents_values_are_counted_no_more() {
    let from_disk = |heard: Heard| {
        let stale = Some(Stale { reason: "kept".into(), is_from_disk: true });
        Heard { stale, ..heard }
    };
    let mut owner = owner([(Topic::Agent, from_disk(agent("vm"))), (health("web"), kept(2))].into());
    owner.want(&[Topic::Agent, health("web")]);
    owner.lose(&health("web"));
    assert_eq!(owner.desk.metrics.topics_from_disk.get(), 1);
    assert!(owner.hear(&Topic::Agent, agent("another")));
    assert_eq!(count(&owner.catalog, "web"), None);
    assert_eq!(owner.desk.metrics.topics_from_disk.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_shelf_stays_full_as_long_as_anything_known_is_missed() {
    let mut owner = owner([(health("away"), kept(1))].into());
    let leaf = Topic::Leaf("web".into());
    owner.want(&[Topic::Agent, health("web"), leaf.clone()]);
    owner.hear(&health("web"), fresh(2));
    owner.hear(&leaf, Heard::fresh(Answer::Datacenters(BTreeSet::new())));
    owner.lose(&health("web"));
    owner.hear(&Topic::Agent, agent("vm"));
    assert_eq!(owner.shelf.due(), None, "the local agent answers, and the servers do not");
    owner.lose_in(Silence::Told, &leaf);
    owner.hear(&health("web"), fresh(2));
    assert!(owner.shelf.due().is_some(), "a leaf that nobody may ask for is no matter");
    owner.want(&[]);
    owner.forget_unwanted(lifecycle::now() + LINGER);
    tokio::time::sleep(Duration::from_secs(2)).await;
    owner.tend_shelf(lifecycle::now());
    assert_eq!(owner.shelved(), ["health/away@dc1"], "nor is it put there");
}

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::{
    config::consul::ConsulSettings,
    consul::{
        client::Client,
        fake::{Answering, Asked, Fake, reply},
        metrics::ConsulMetrics,
        watch::{self, Watches},
    },
    lifecycle::{Stop, StopSource, Task},
    model::{catalog::Catalog, instance::Health},
};

const SERVICES: usize = 24;
const CONNECTIONS: usize = 8;

fn health(service: &str) -> Topic {
    Topic::Health { dc: "dc1".into(), service: service.into() }
}

fn name(number: usize) -> String {
    format!("s{number}")
}

/// A datacenter of services with one instance each, of which some are critical.
#[derive(Default)]
struct Store {
    critical: Mutex<BTreeSet<String>>,
    index: AtomicU64,
    changed: Notify,
    /// Questions about the whole datacenter are refused.
    is_refusing: AtomicBool,
    censuses: AtomicUsize,
    reads: AtomicUsize,
    held: AtomicUsize,
}

impl Store {
    fn turn(&self, service: &str) {
        self.critical.lock().unwrap().insert(service.to_owned());
        self.index.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    fn checks(&self, service: &str) -> Value {
        let is_critical = self.critical.lock().unwrap().contains(service);
        json!([{"ServiceID": service, "Status": if is_critical { "critical" } else { "passing" }}])
    }

    fn body(&self, path: &str) -> Value {
        let service = |service: &str| json!({"ID": service, "Service": service, "Port": 80});
        match path.strip_prefix("/v1/health/service/") {
            Some(name) => json!([{
                "Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": service(name), "Checks": self.checks(name),
            }]),
            None => (0..SERVICES)
                .map(|number| {
                    let name = name(number);
                    json!({"Node": "n", "Address": "10.0.0.1", "Services": [service(&name)], "Checks": self.checks(&name)})
                })
                .collect(),
        }
    }

    async fn answer(&self, asked: Asked) -> http::Response<http_body_util::Full<bytes::Bytes>> {
        let is_census = asked.path == "/v1/internal/ui/nodes";
        let count = if is_census { &self.censuses } else { &self.reads };
        count.fetch_add(1, Ordering::SeqCst);
        let beyond: u64 = asked.param("index").map_or(0, |index| index.parse().unwrap());
        self.held.fetch_add(usize::from(beyond > 0 && !is_census), Ordering::SeqCst);
        let wait = asked.param("wait").and_then(|wait| wait.strip_suffix("ms")?.parse().ok());
        let end = lifecycle::now() + Duration::from_millis(wait.unwrap_or(0));
        loop {
            if is_census && self.is_refusing.load(Ordering::SeqCst) {
                return reply(500, 0, "No cluster leader");
            }
            let changed = self.changed.notified();
            let now = self.index.load(Ordering::SeqCst);
            let is_over = !is_census && lifecycle::now() >= end;
            if now != beyond || is_over {
                return reply(200, now, self.body(&asked.path).to_string());
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(end), if !is_census => {}
            }
        }
    }
}

async fn start(store: &Arc<Store>) -> (Fake, Watches, (Task<()>, StopSource)) {
    let shared = store.clone();
    let handler = move |asked| -> Answering {
        let store = shared.clone();
        Box::pin(async move { store.answer(asked).await })
    };
    let fake = Fake::tcp(CONNECTIONS, Arc::new(handler)).await;
    let settings = ConsulSettings { max_connections: CONNECTIONS, ..fake.settings.clone() };
    let (source, stop) = Stop::pair();
    let (watches, task) = watch::start(Client::new(settings).unwrap(), ConsulMetrics::default(), stop);
    watches.want("one", (0..SERVICES).map(|number| health(&name(number))).collect()).await;
    (fake, watches, (task, source))
}

async fn until(watches: &Watches, seen: impl Fn(&Catalog) -> bool) {
    let mut catalog = watches.catalog();
    let found =
        tokio::time::timeout(Duration::from_secs(30), catalog.wait_for(|catalog| seen(catalog))).await;
    drop(found.expect("the catalog never said so").unwrap());
}

fn is(catalog: &Catalog, service: &str, wanted: Health) -> bool {
    let found = catalog.health(&"dc1".into(), &service.into()).known();
    found.is_some_and(|instances| instances[0].health == wanted)
}

#[tokio::test]
async fn one_watch_tells_which_of_many_services_to_ask_for() {
    let store = Arc::new(Store::default());
    store.index.store(5, Ordering::SeqCst);
    let (_fake, watches, _running) = start(&store).await;
    until(&watches, |catalog| (0..SERVICES).all(|n| is(catalog, &name(n), Health::Passing))).await;
    for changed in ["s7", "s3"] {
        store.turn(changed);
        until(&watches, |catalog| is(catalog, changed, Health::Critical)).await;
    }
    // Each service once, each changed one once more, and each answer a second time; none waits at Consul by itself.
    let reads = store.reads.load(Ordering::SeqCst);
    assert!((SERVICES + 2..=2 * (SERVICES + 2)).contains(&reads), "{reads}");
    assert_eq!(store.held.load(Ordering::SeqCst), 0);
    assert!(store.censuses.load(Ordering::SeqCst) <= 4);

    // Without a census every service is waited on, in turns.
    store.is_refusing.store(true, Ordering::SeqCst);
    store.turn("s1");
    until(&watches, |catalog| is(catalog, "s1", Health::Critical)).await;
    assert!(store.held.load(Ordering::SeqCst) > 0);
    // Nor do they keep anybody waiting whom no census tells anything.
    watches.want("two", [health("new")].into()).await;
    until(&watches, |catalog| is(catalog, "new", Health::Passing)).await;
    store.is_refusing.store(false, Ordering::SeqCst);
    store.turn("s2");
    until(&watches, |catalog| is(catalog, "s2", Health::Critical)).await;
}

#[test]
fn a_census_is_taken_where_topics_are_many_and_until_they_are_few() {
    let topics = |many: usize| -> Vec<Topic> {
        let others = [Topic::Agent, Topic::Health { dc: "dc2".into(), service: "web".into() }];
        (0..many).map(|number| health(&name(number))).chain(others).collect()
    };
    let chosen = |many, is_guided| chosen(topics(many).iter(), |_| is_guided, 128);
    let dc1 = [Datacenter::from("dc1")];
    assert_eq!(chosen(32, false), []);
    assert_eq!(chosen(33, false), dc1);
    assert_eq!(chosen(17, true), dc1);
    assert_eq!(chosen(16, true), []);
}

/// A census that says another thing for each port.
fn census(port: u16) -> Guide {
    let nodes = json!([{"Node": "n", "Services": [{"ID": "s1", "Service": "s1", "Port": port}]}]);
    Guide::Known(Arc::new(Census::read(nodes.to_string().as_bytes()).unwrap()))
}

#[tokio::test(start_paused = true)]
async fn a_census_that_has_ended_is_not_heard() {
    let (guides, topic, dc) = (Guides::new(), health("s1"), Datacenter::from("dc1"));
    let first = guides.begin(&dc);
    guides.end(&dc);
    guides.tell(&dc, first, census(80));
    let mut follower = Follower::new(&guides, &topic);
    let ask = Poll::new(Follow::Index).first(Duration::from_secs(60));
    assert_eq!(follower.due(&ask).await, None);

    let second = guides.begin(&dc);
    guides.tell(&dc, first, census(80));
    assert!(tokio::time::timeout(Duration::from_secs(600), follower.due(&ask)).await.is_err());
    guides.tell(&dc, second, census(80));
    assert!(follower.due(&ask).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_asked_for_again_soon_after_its_mark_changed_and_later_at_rest() {
    let (guides, topic) = (Guides::new(), health("s1"));
    let dc = Datacenter::from("dc1");
    let mut follower = Follower::new(&guides, &topic);
    let mut poll = Poll::new(Follow::Index);
    let ask = poll.first(Duration::from_secs(60));
    let mut answered = |changed| {
        let event = Event::Reply { index: Some(7), hash: None, changed };
        let ask = poll.next(&event, Duration::ZERO, 0.5, Duration::from_secs(60));
        (event, ask)
    };
    assert_eq!(follower.due(&ask).await, None);

    let turn = guides.begin(&dc);
    guides.tell(&dc, turn, census(80));
    let first = follower.due(&ask).await;
    assert!(first.is_some());
    let (event, mut ask) = answered(true);
    follower.asked(first, &event, 0.5);
    for (port, changed) in [(81, false), (82, true)] {
        // Whatever it was, the answer may be that of a server that lags behind, and is asked for once more.
        for patience in [LAG, QUIET.mul_f64(0.75), QUIET.mul_f64(0.75)] {
            let since = lifecycle::now();
            let mark = follower.due(&ask).await;
            assert!(mark.is_some());
            assert_eq!(since.elapsed(), patience);
            let event;
            (event, ask) = answered(false);
            follower.asked(mark, &event, 0.5);
        }
        guides.tell(&dc, turn, census(port));
        let since = lifecycle::now();
        let mark = follower.due(&ask).await;
        assert_eq!(since.elapsed(), Duration::ZERO);
        let event;
        (event, ask) = answered(changed);
        follower.asked(mark, &event, 0.5);
    }

    guides.end(&dc);
    assert_eq!(follower.due(&ask).await, None);
}

#[test]
fn what_came_in_vain_is_paid_for() {
    let act = || "GET /v1/internal/ui/nodes".to_owned();
    let failed = |error| Err((error, Duration::ZERO));
    assert_eq!(
        received(&failed(ClientError::TooLong { act: act(), limit: MAX_BODY_BYTES }), 7),
        MAX_BODY_BYTES
    );
    assert_eq!(received(&failed(ClientError::Cut { act: act(), reason: String::new() }), 7), 7);
    assert_eq!(received(&failed(ClientError::Deadline { act: act(), deadline: LAG }), 7), 7);
    let refusal = Reply::recorded(act(), http::StatusCode::FORBIDDEN, &http::HeaderMap::new(), "no".into());
    assert_eq!(received(&Ok(refusal), 7), 2);
}

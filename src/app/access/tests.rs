//! Streams at the gate, with a Consul of a few lines and a paused clock.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    model::{
        agent::{AgentFacts, DefaultPolicy},
        catalog::{Answer, Heard, Topic},
        instance::ServiceKind,
        registration::{Destination, Registration},
    },
    state::tokens::Tokens as Kept,
    xds::{server::Offer, snapshot::Snapshot},
};

const DAY: Duration = Duration::from_secs(86_400);
const RECHECK: Duration = Duration::from_secs(300);
/// Of a token that Consul never says anything about.
const HUNG: &str = "hung";

/// Tokens and what they may do; counts the questions.
#[derive(Clone)]
struct Tokens {
    rights: Arc<Mutex<BTreeMap<String, Result<Right, String>>>>,
    count: Arc<AtomicUsize>,
}

impl Tokens {
    fn set(&self, token: &str, right: Result<Right, &str>) {
        self.rights.lock().unwrap().insert(token.into(), right.map_err(str::to_owned));
    }
}

impl Examiner for Tokens {
    fn examine<'a>(
        &'a self,
        token: &'a SecretText,
        service: &'a ServiceName,
    ) -> BoxFuture<'a, Result<Right, String>> {
        assert_eq!(service.as_str(), "web");
        self.count.fetch_add(1, Ordering::SeqCst);
        let known = self.rights.lock().unwrap().get(token.expose()).cloned();
        Box::pin(async {
            match known {
                Some(Err(error)) if error == HUNG => std::future::pending().await,
                known => known.unwrap_or(Ok(Right::NoSuchToken)),
            }
        })
    }
}

struct Bench {
    access: Access,
    tokens: Tokens,
    leaf_tokens: LeafTokens,
    memory: TokenMemory,
    interests: Interests,
    recheck: watch::Sender<Duration>,
    _catalog: watch::Sender<Arc<Catalog>>,
    _hold: Box<dyn Send + Sync>,
}

fn catalog(acls_enabled: bool) -> Catalog {
    let facts = AgentFacts { acls_enabled, default_policy: DefaultPolicy::Deny, ..AgentFacts::sample("vm") };
    let sidecar = Registration {
        id: "p".into(),
        service: "web-sidecar-proxy".into(),
        kind: ServiceKind::ConnectProxy,
        address: String::new(),
        port: 21000,
        tagged: BTreeMap::new(),
        meta: BTreeMap::new(),
        destination: Some(Destination { service: "web".into(), id: None, local: None }),
        gateway_mode: None,
        settings: Default::default(),
        upstreams: Vec::new(),
        exposed: Vec::new(),
    };
    let mut catalog = Catalog::default();
    catalog.hear(Topic::Agent, Heard::fresh(Answer::Agent(facts)));
    catalog.hear(Topic::Registration("p".into()), Heard::fresh(Answer::Registration(Some(sidecar))));
    catalog
}

fn bench(acls_enabled: bool) -> Bench {
    bench_with(acls_enabled, TokenMemory::new(None, DAY))
}

fn bench_with(acls_enabled: bool, memory: TokenMemory) -> Bench {
    let tokens = Tokens { rights: Arc::default(), count: Arc::default() };
    let (interests, leaf_tokens) = (Interests::new(), LeafTokens::of_proxies());
    leaf_tokens.tell(acls_enabled);
    let (_catalog, receiver) = watch::channel(Arc::new(catalog(acls_enabled)));
    let (recheck, paces) = watch::channel(RECHECK);
    let access =
        Access::new(interests.clone(), tokens.clone(), leaf_tokens.clone(), memory.clone(), paces, receiver);
    let (offers, hold) = interests.hold(&"p".into());
    offers.send_replace(Offer::Ready(Arc::new(Snapshot::empty())));
    Bench { access, tokens, leaf_tokens, memory, interests, recheck, _catalog, _hold: Box::new(hold) }
}

impl Bench {
    fn attach(&self, token: Option<&str>) -> Attached {
        self.access.attach(&"p".into(), token.map(Into::into))
    }
}

async fn next(attached: &mut Attached) -> Offer {
    attached.offers.changed().await.unwrap();
    attached.offers.borrow_and_update().clone()
}

#[tokio::test(start_paused = true)]
async fn a_token_with_the_right_passes_and_is_lent_for_the_leaf() {
    let bench = bench(true);
    bench.tokens.set("good", Ok(Right::Write));
    let mut stream = bench.attach(Some("good"));
    assert!(matches!(*stream.offers.borrow_and_update(), Offer::Pending));
    assert!(matches!(next(&mut stream).await, Offer::Ready(_)));
    let key = bench.leaf_tokens.key(&Topic::Leaf("web".into()));
    assert!(key.held().is_some());
    let mut second = bench.attach(Some("good"));
    assert!(matches!(*second.offers.borrow_and_update(), Offer::Ready(_)), "the verdict is shared");
    assert_eq!(bench.tokens.count.load(Ordering::SeqCst), 1);
    drop((stream, second));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(bench.leaf_tokens.key(&Topic::Leaf("web".into())).held().is_none(), "taken back with the gate");
}

#[tokio::test(start_paused = true)]
async fn others_are_refused_and_get_nothing() {
    let bench = bench(true);
    bench.tokens.set("poor", Ok(Right::Lacking));
    bench.tokens.set(rights::ANONYMOUS, Ok(Right::Lacking));
    for (token, is_unknown) in [(Some("gone"), true), (Some("poor"), false), (None, true), (Some(""), true)] {
        let mut stream = bench.attach(token);
        let offer = stream.offers.wait_for(|offer| !matches!(offer, Offer::Pending)).await.unwrap().clone();
        assert!(
            matches!(&offer, Offer::Denied { unauthenticated, .. } if *unauthenticated == is_unknown),
            "{offer:?}"
        );
    }
    assert!(bench.leaf_tokens.key(&Topic::Leaf("web".into())).held().is_none());
    // A refusal is remembered for a moment, and a token that was mended then passes.
    let asked = bench.tokens.count.load(Ordering::SeqCst);
    assert!(matches!(*bench.attach(Some("poor")).offers.borrow(), Offer::Denied { .. }));
    assert_eq!(bench.tokens.count.load(Ordering::SeqCst), asked);
    bench.tokens.set("poor", Ok(Right::Write));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(matches!(next(&mut bench.attach(Some("poor"))).await, Offer::Ready(_)));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_deleted_closes_its_stream_at_the_next_check() {
    let bench = bench(true);
    bench.tokens.set("good", Ok(Right::Write));
    let mut stream = bench.attach(Some("good"));
    assert!(matches!(next(&mut stream).await, Offer::Ready(_)));
    let passed_at = lifecycle::now();
    // An outage of Consul changes nothing.
    bench.tokens.set("good", Err("no leader"));
    tokio::time::sleep(2 * RECHECK).await;
    assert!(matches!(*stream.offers.borrow_and_update(), Offer::Ready(_)));
    bench.tokens.set("good", Ok(Right::NoSuchToken));
    assert!(matches!(next(&mut stream).await, Offer::Denied { unauthenticated: true, .. }));
    assert!(passed_at.elapsed() <= 3 * RECHECK);
    assert!(bench.leaf_tokens.key(&Topic::Leaf("web".into())).held().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_shorter_pace_holds_for_tokens_that_passed_before() {
    let bench = bench(true);
    bench.tokens.set("good", Ok(Right::Write));
    let mut stream = bench.attach(Some("good"));
    assert!(matches!(next(&mut stream).await, Offer::Ready(_)));
    bench.tokens.set("good", Ok(Right::NoSuchToken));
    let changed_at = lifecycle::now();
    bench.recheck.send_replace(RECHECK / 10);
    assert!(matches!(next(&mut stream).await, Offer::Denied { .. }));
    // A second later, since it is believed only when it comes again.
    assert!(changed_at.elapsed() <= RECHECK / 10 + Duration::from_millis(1_100));
}

#[tokio::test(start_paused = true)]
async fn a_stream_waits_while_consul_cannot_tell() {
    let bench = bench(true);
    bench.tokens.set("good", Err("no leader"));
    let mut stream = bench.attach(Some("good"));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(matches!(*stream.offers.borrow_and_update(), Offer::Pending));
    bench.tokens.set("good", Ok(Right::Write));
    assert!(matches!(next(&mut stream).await, Offer::Ready(_)));
}

#[tokio::test(start_paused = true)]
async fn without_acls_nobody_is_asked() {
    let bench = bench(false);
    let mut stream = bench.attach(None);
    assert!(matches!(next(&mut stream).await, Offer::Ready(_)));
    assert_eq!(bench.tokens.count.load(Ordering::SeqCst), 0);
    assert!(bench.interests.subscribe().borrow().contains_key("p"));
}

/// What is remembered of one run, in the next one.
fn next_run(memory: &TokenMemory) -> TokenMemory {
    let kept: Kept = memory.subscribe().borrow().clone();
    TokenMemory::new(Some(kept), DAY)
}

#[tokio::test(start_paused = true)]
async fn a_token_that_passed_passes_after_a_restart_while_consul_cannot_tell() {
    let first = bench(true);
    first.tokens.set("good", Ok(Right::Write));
    first.tokens.set("poor", Ok(Right::Lacking));
    assert!(matches!(next(&mut first.attach(Some("good"))).await, Offer::Ready(_)));
    assert!(matches!(next(&mut first.attach(Some("poor"))).await, Offer::Denied { .. }));

    let second = bench_with(true, next_run(&first.memory));
    for token in ["good", "poor", "new"] {
        second.tokens.set(token, Err("connection refused"));
    }
    let mut good = second.attach(Some("good"));
    assert!(matches!(next(&mut good).await, Offer::Ready(_)));
    assert!(second.leaf_tokens.key(&Topic::Leaf("web".into())).held().is_some());
    for token in ["poor", "new"] {
        let mut stream = second.attach(Some(token));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(matches!(*stream.offers.borrow_and_update(), Offer::Pending), "{token}");
    }
    // Consul is back and knows no such token: the stream is closed, and nothing vouches for it any more.
    second.tokens.set("good", Ok(Right::NoSuchToken));
    assert!(matches!(next(&mut good).await, Offer::Denied { unauthenticated: true, .. }));
    let third = bench_with(true, next_run(&second.memory));
    third.tokens.set("good", Err("connection refused"));
    let mut stream = third.attach(Some("good"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(matches!(*stream.offers.borrow_and_update(), Offer::Pending));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_passed_is_not_kept_waiting_by_a_consul_that_says_nothing() {
    let first = bench(true);
    first.tokens.set("good", Ok(Right::Write));
    assert!(matches!(next(&mut first.attach(Some("good"))).await, Offer::Ready(_)));

    let second = bench_with(true, next_run(&first.memory));
    for token in ["good", "new"] {
        second.tokens.set(token, Err(HUNG));
    }
    let (began, mut new) = (lifecycle::now(), second.attach(Some("new")));
    assert!(matches!(next(&mut second.attach(Some("good"))).await, Offer::Ready(_)));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(matches!(*new.offers.borrow_and_update(), Offer::Pending));
    assert_eq!(second.tokens.count.load(Ordering::SeqCst), 2, "the checks go on");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_cut_off_by_a_server_that_has_just_started() {
    let bench = bench(true);
    bench.tokens.set("good", Ok(Right::Write));
    let mut stream = bench.attach(Some("good"));
    assert!(matches!(next(&mut stream).await, Offer::Ready(_)));
    bench.tokens.set("good", Ok(Right::NoSuchToken));
    let asked = || bench.tokens.count.load(Ordering::SeqCst);
    while asked() < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bench.tokens.set("good", Ok(Right::Write));
    while asked() < 3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(matches!(*stream.offers.borrow_and_update(), Offer::Ready(_)));
    assert!(bench.memory.vouches(&bench.memory.mark(&"good".into()), &"web".into()));
}

//! What tells an empty list from one that is not shown.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    consul::{
        fake::{Fake, handler, reply},
        wire,
    },
    model::intention::{Action, Intention},
};

/// What a Consul says to each question.
#[derive(Clone, Copy)]
struct Says {
    servers: (u16, &'static str),
    nodes: (u16, &'static str),
    services: (u16, &'static str),
    rights: (u16, &'static str),
}

const OPEN: Says = Says {
    servers: (200, r#"[{"Node":"server"}]"#),
    nodes: (200, r#"[{"Node":"server"}]"#),
    services: (200, r#"{"consul":[]}"#),
    rights: (401, "ACL support disabled"),
};
/// To the node, the service and the sidecar.
const ALL: &str = r#"[{"Allow":true},{"Allow":true},{"Allow":true}]"#;
/// To one end of an intention.
const ONE: &str = r#"[{"Allow":true},{"Allow":false}]"#;
const NONE: &str = r#"[{"Allow":false},{"Allow":false}]"#;

async fn consul(says: Says, asked: Arc<AtomicUsize>) -> (Fake, Client) {
    let fake = Fake::tcp(
        200,
        handler(move |question| {
            asked.fetch_add(1, Ordering::SeqCst);
            let (status, body) = match question.path.as_str() {
                "/v1/health/service/consul" => says.servers,
                "/v1/catalog/nodes" => says.nodes,
                "/v1/catalog/services" => says.services,
                "/v1/catalog/datacenters" => (200, r#"["dc1","dc2"]"#),
                AUTHORIZE => says.rights,
                path => panic!("{path}"),
            };
            async move { reply(status, 0, body) }
        }),
    )
    .await;
    let client = Client::new(fake.settings.clone()).unwrap();
    (fake, client)
}

/// Asks about a list of `web` and, where there were any before, of intentions.
async fn confirmed(says: Says, before: Option<&Answer>) -> Result<(), Doubt> {
    let (_fake, client) = consul(says, Arc::default()).await;
    let topic = match before {
        Some(Answer::Intentions(_)) => Topic::Intentions,
        _ => web(),
    };
    let (turns, local) = (Turns::new(4), Datacenter::from("dc1"));
    let about = About { client: &client, turns: &turns, topic: &topic, before, local: Some(&local) };
    Sights::default().confirm(&about, lifecycle::now()).await
}

fn web() -> Topic {
    Topic::Connect { dc: "dc1".into(), service: "web".into() }
}

fn instances() -> Answer {
    let body = br#"[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"a","Service":"web-sidecar-proxy","Port":80},"Checks":[]}]"#;
    Answer::Instances(wire::instance::instances(body).unwrap().0)
}

fn intentions() -> Answer {
    let (source, destination) = (Party::Service("a".into()), Party::AnyService);
    Answer::Intentions(vec![Intention { source, destination, action: Action::Deny }])
}

#[tokio::test]
async fn what_is_shown_and_may_be_read_is_the_truth() {
    let before = instances();
    let few = Says { servers: (200, "[]"), ..OPEN };
    for says in [OPEN, few, Says { rights: (200, ALL), ..OPEN }] {
        assert_eq!(confirmed(says, Some(&before)).await, Ok(()));
    }
    assert_eq!(confirmed(OPEN, None).await, Ok(()));
    assert_eq!(confirmed(Says { rights: (200, ONE), ..OPEN }, Some(&intentions())).await, Ok(()));
}

#[tokio::test]
async fn what_is_not_shown_or_may_not_be_read_is_no_truth() {
    let (before, intentions) = (instances(), intentions());
    let denied = async |says, before| match confirmed(says, before).await {
        Err((Fault::Denied, reason)) => reason.to_string(),
        other => panic!("{other:?}"),
    };
    let few = Says { servers: (200, "[]"), ..OPEN };
    assert!(denied(Says { nodes: (200, "[]"), ..few }, None).await.contains("no node of dc1"));
    assert!(denied(Says { services: (200, "{}"), ..few }, None).await.contains("no service of dc1"));
    assert!(denied(Says { rights: (200, ONE), ..OPEN }, Some(&before)).await.contains("may not read"));
    let told = denied(Says { rights: (200, NONE), ..OPEN }, Some(&intentions)).await;
    assert!(told.contains("may not read") && told.contains("intention:read"), "{told}");
    assert!(denied(Says { rights: (200, "[]"), ..OPEN }, Some(&before)).await.contains("may not read"));
}

#[test]
fn the_rights_asked_for_are_those_to_what_is_and_was_listed() {
    let (node, service) = (read("node", "n"), |name| read("service", name));
    let sidecar = Some(instances());
    assert_eq!(rights_of(&web(), None), Some(Rights::All(vec![service("web")])));
    let all = Rights::All(vec![node, service("web"), service("web-sidecar-proxy")]);
    assert_eq!(rights_of(&web(), sidecar.as_ref()), Some(all));
    assert_eq!(rights_of(&Topic::Intentions, None), None);
    let ends = Rights::Any(vec![read("intention", "a"), read("intention", "*")]);
    assert_eq!(rights_of(&Topic::Intentions, Some(&intentions())), Some(ends));
}

#[tokio::test]
async fn what_nobody_answers_stays_open() {
    for says in [
        Says { servers: (500, "No cluster leader"), ..OPEN },
        Says { servers: (200, "[]"), services: (200, "<html>"), ..OPEN },
        Says { rights: (403, "ACL not found"), ..OPEN },
    ] {
        let doubt = confirmed(says, Some(&instances())).await;
        assert!(matches!(doubt, Err((Fault::Busy, _))), "{doubt:?}");
    }
}

#[tokio::test]
async fn lists_that_become_empty_together_share_a_look() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (_fake, client) = consul(OPEN, asked.clone()).await;
    let (sights, since) = (Sights::default(), lifecycle::now());
    let (turns, local) = (Turns::new(4), Datacenter::from("dc1"));
    let about = |topic, before| About { client: &client, turns: &turns, topic, before, local: Some(&local) };
    let intentions = about(&Topic::Intentions, None);
    let all = (0..50).map(|_| sights.confirm(&intentions, since));
    assert!(futures_util::future::join_all(all).await.iter().all(Result::is_ok));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "one look takes one question");
    sights.confirm(&intentions, lifecycle::now()).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2, "what is asked later is looked at anew");
    let query = Topic::PreparedQuery { dc: "dc1".into(), query: "q".into() };
    let found = instances();
    sights.confirm(&about(&query, Some(&found)), since).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 5, "which datacenters, a look at the other one, the rights");
}

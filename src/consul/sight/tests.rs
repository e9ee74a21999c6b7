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
    nodes: (u16, &'static str),
    services: (u16, &'static str),
    rights: (u16, &'static str),
}

const OPEN: Says = Says {
    nodes: (200, r#"[{"Node":"server"}]"#),
    services: (200, r#"{"consul":[]}"#),
    rights: (401, "ACL support disabled"),
};
const BOTH: &str = r#"[{"Allow":true},{"Allow":true}]"#;
const ONE: &str = r#"[{"Allow":true},{"Allow":false}]"#;
const NONE: &str = r#"[{"Allow":false},{"Allow":false}]"#;

async fn consul(says: Says, asked: Arc<AtomicUsize>) -> (Fake, Client) {
    let fake = Fake::tcp(
        200,
        handler(move |question| {
            asked.fetch_add(1, Ordering::SeqCst);
            let (status, body) = match question.path.as_str() {
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

async fn confirmed(says: Says, before: Option<&Answer>) -> Result<(), Doubt> {
    let (_fake, client) = consul(says, Arc::default()).await;
    Sights::default().confirm(&client, &"dc1".into(), before, lifecycle::now()).await
}

fn instances() -> Answer {
    let body = br#"[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"a","Service":"web","Port":80},"Checks":[]}]"#;
    Answer::Instances(wire::instance::instances(body).unwrap().0)
}

fn intentions() -> Answer {
    let (source, destination) = (Party::Service("a".into()), Party::AnyService);
    Answer::Intentions(vec![Intention { source, destination, action: Action::Deny }])
}

#[tokio::test]
async fn what_is_shown_and_may_be_read_is_the_truth() {
    let before = instances();
    assert_eq!(confirmed(OPEN, None).await, Ok(()));
    assert_eq!(confirmed(OPEN, Some(&before)).await, Ok(()));
    assert_eq!(confirmed(Says { rights: (200, BOTH), ..OPEN }, Some(&before)).await, Ok(()));
    assert_eq!(confirmed(Says { rights: (200, ONE), ..OPEN }, Some(&intentions())).await, Ok(()));
}

#[tokio::test]
async fn what_is_not_shown_or_may_not_be_read_is_no_truth() {
    let (before, intentions) = (instances(), intentions());
    let denied = async |says, before| match confirmed(says, before).await {
        Err((Fault::Denied, reason)) => reason.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(denied(Says { nodes: (200, "[]"), ..OPEN }, None).await.contains("no node of dc1"));
    assert!(denied(Says { services: (200, "{}"), ..OPEN }, None).await.contains("no service of dc1"));
    assert!(denied(Says { rights: (200, ONE), ..OPEN }, Some(&before)).await.contains("may not read"));
    assert!(denied(Says { rights: (200, NONE), ..OPEN }, Some(&intentions)).await.contains("may not read"));
    assert!(denied(Says { rights: (200, "[]"), ..OPEN }, Some(&before)).await.contains("may not read"));
}

#[tokio::test]
async fn what_nobody_answers_stays_open() {
    for says in [
        Says { nodes: (500, "No cluster leader"), ..OPEN },
        Says { services: (200, "<html>"), ..OPEN },
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
    let (sights, dc, since) = (Sights::default(), Datacenter::from("dc1"), lifecycle::now());
    let all = (0..50).map(|_| sights.confirm(&client, &dc, None, since));
    assert!(futures_util::future::join_all(all).await.iter().all(Result::is_ok));
    assert_eq!(asked.load(Ordering::SeqCst), 2, "one look takes two questions");
    sights.confirm(&client, &dc, None, lifecycle::now()).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 4, "what is asked later is looked at anew");
    sights.confirm_everywhere(&client, since).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 7, "of the other datacenter");
}

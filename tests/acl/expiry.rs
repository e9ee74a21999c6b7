//! A stream whose token expires while it is open.

use std::time::Duration;

use causeway::lifecycle;
use serde_json::json;
use tonic::Code;

use super::{Bench, PROXY, make, make_with, policy};
use crate::rig::parts::{PATIENCE, until};

/// The least that Consul takes, and nothing in its configuration makes it less.
const LIFE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_its_token_expires() {
    let (bench, _own) = Bench::start().await;
    let lasting = make(&bench.root, "lasting", &policy("sidecar.hcl", "web")).await;
    let mut other = bench.stream(PROXY, Some(&lasting.secret)).await.unwrap();
    other.until(&["local_app"]).await.unwrap();

    let made_at = lifecycle::now();
    let life = json!({ "ExpirationTTL": format!("{}s", LIFE.as_secs()) });
    let short = make_with(&bench.root, "short", &policy("sidecar.hcl", "web"), life).await;
    let mut stream = bench.stream(PROXY, Some(&short.secret)).await.unwrap();
    stream.until(&["local_app"]).await.unwrap();

    let end = stream.end(LIFE + PATIENCE).await;
    let lived = made_at.elapsed();
    println!("from the making of a token that lives {LIFE:?} to the end of its stream: {lived:?}");
    assert!(lived >= LIFE, "it ended after {lived:?}: {end}");
    let again = bench.refusal(Some(&short.secret)).await;
    for refusal in [&end, &again] {
        assert_eq!(refusal.code(), Code::Unauthenticated, "{refusal}");
        let text = refusal.message();
        assert!(text.contains("no such ACL token") && text.contains("expired"), "{text}");
        assert!(!text.contains(&short.secret), "{text}");
    }
    bench.agent.log().line(&["stream refused", "expired"]);
    assert!(!bench.agent.log().text().contains(&short.secret), "the token is logged");
    until("only the stream with the other token goes on", || {
        let streams: usize = bench.status().proxies.iter().map(|proxy| proxy.streams.len()).sum();
        (streams == 1).then_some(())
    });
}

use axum::{Json, Router, http::StatusCode, routing::get};

use super::*;
use crate::{
    api::wire::Readiness,
    lifecycle::{Task, spawn},
};

fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        datacenter: None,
        node: None,
        started_at_ms: 1,
        now_ms: 2,
        readiness: Readiness { ready: false, waiting_for: vec!["Consul".into()] },
        proxies: vec![],
        topics: vec![],
    }
}

/// An agent that knows its status and one proxy with an odd name.
async fn agent() -> (AgentFlags, Task<()>) {
    let config = ProxyConfig { proxy: "web/1".into(), resources: vec![] };
    let missing = (StatusCode::NOT_FOUND, "no proxy `x`\u{1b}[31m\n");
    let router = Router::new()
        .route("/status", get(|| std::future::ready(Json(status()))))
        .route("/status/proxies/web%2F1/config", get(|| std::future::ready(Json(config))))
        .fallback(move || std::future::ready(missing));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http_addr = listener.local_addr().unwrap().to_string();
    let task = spawn("test.agent", async move { axum::serve(listener, router).await.unwrap() });
    (AgentFlags { http_addr }, task)
}

#[tokio::test]
async fn documents_are_read_from_an_address_with_and_without_scheme() {
    let (mut flags, _task) = agent().await;
    assert_eq!(ask::<Status>(&flags, "/status").await.unwrap(), status());
    flags.http_addr = format!("http://{}/", flags.http_addr);
    assert_eq!(ask::<Status>(&flags, "/status").await.unwrap(), status());
}

#[tokio::test]
async fn an_odd_name_is_one_segment_of_the_path() {
    let (flags, _task) = agent().await;
    let path = format!("/status/proxies/{}/config", path_segment("web/1"));
    assert_eq!(ask::<ProxyConfig>(&flags, &path).await.unwrap().proxy, "web/1");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_agents_words() {
    let (flags, _task) = agent().await;
    let error = ask::<Status>(&flags, "/nothing").await.unwrap_err().to_string();
    assert!(error.ends_with("with 404 Not Found: no proxy `x` [31m"), "{error:?}");
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_told_with_its_remedy() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = ask::<Status>(&AgentFlags { http_addr: closed.to_string() }, "/status").await.unwrap_err();
    assert!(error.to_string().contains("is `causeway agent` running?"), "{error}");
}

#[tokio::test]
async fn a_proxy_that_the_agent_does_not_know_is_an_error() {
    let (agent, _task) = agent().await;
    let error = show_status(StatusArgs { id: Some("x".into()), json: false, agent }).await.unwrap_err();
    assert_eq!(error.to_string(), "the agent knows no proxy `x`; proxies it knows: none");
}

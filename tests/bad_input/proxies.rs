//! Envoys that come for a proxy that is not there.

use serde_json::json;
use tonic::Code;

use super::{assert_says, host, web};
use crate::rig::{
    parts::{Agent, Consul, PATIENCE},
    stream::Stream,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_proxy_is_refused_until_it_is_registered() {
    let consul = Consul::start(host(20), json!({}));
    let agent = Agent::start(host(20), &consul);
    agent.until_ready();
    let socket = agent.home.socket();
    let refused = Stream::over_unix(&socket, "web-sidecar-proxy").await.unwrap().names().await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let remedy = "register it there, or correct node.id in Envoy's bootstrap";
    assert_says(
        refused.message(),
        &["web-sidecar-proxy", "not registered with the local Consul agent", remedy],
    );
    agent.log().line(&["WARN", "proxy=web-sidecar-proxy", remedy]);
    let status = agent.proxy_status(&[]);
    assert_says(&status.out, &["web-sidecar-proxy", "no Envoy connected", remedy]);
    assert_eq!(agent.proxy_status(&["web-sidecar-proxy"]).code, Some(3));
    let other = agent.proxy_status(&["ghost"]);
    assert_eq!(other.code, Some(1));
    assert_says(&other.err, &["no proxy `ghost`", "web-sidecar-proxy"]);

    consul.register(&web());
    let served = async {
        loop {
            match Stream::over_unix(&socket, "web-sidecar-proxy").await.unwrap().names().await {
                Ok(names) => return names,
                Err(status) => assert_eq!(status.code(), Code::NotFound),
            }
        }
    };
    let names = tokio::time::timeout(PATIENCE, served).await.unwrap();
    assert!(names.iter().any(|name| name == "local_app"), "{names:?}");

    // A node that does not say who it is, and a service that is no proxy.
    let anonymous = Stream::over_unix(&socket, "").await.unwrap().names().await.unwrap_err();
    assert_eq!(anonymous.code(), Code::InvalidArgument);
    assert_says(anonymous.message(), &["set node.id in the bootstrap"]);
    let plain = Stream::over_unix(&socket, "web").await.unwrap().names().await.unwrap_err();
    assert_eq!(plain.code(), Code::FailedPrecondition);
    assert_says(plain.message(), &["web", "; "]);
}

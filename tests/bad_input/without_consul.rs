//! A Consul that is away, or is not the one that is trusted.

use serde_json::{Value, json};

use super::{assert_says, host, web};
use crate::rig::{
    parts::{Agent, Consul, Home, until},
    stream::Stream,
};

#[test]
fn an_agent_waits_for_its_consul() {
    let mut consul = Consul::prepare(host(60), json!({}));
    let agent = Agent::start(host(60), &consul);
    assert_eq!(agent.get("/healthz").status, 200);
    let waiting = until("the reason is known", || {
        Some(agent.get("/readyz")).filter(|reply| reply.body.contains("connect to Consul"))
    });
    assert_eq!(waiting.status, 503);
    let address = consul.address();
    let remedy = "check that the agent runs and listens there";
    assert_says(&waiting.body, &["waiting for the local Consul agent", &address, remedy]);
    agent.log().line(&["WARN", &address, remedy]);
    let status = agent.proxy_status(&[]);
    assert_says(&status.out, &["not ready; waits for the local Consul agent", remedy]);
    consul.run();
    agent.until_ready();
    assert_eq!(agent.get("/readyz").body, "ready\n");
}

/// Topics that have trouble, of those that are known.
fn stale(agent: &Agent) -> Vec<String> {
    let status: Value = agent.get("/status").json();
    let topics = status["topics"].as_array().unwrap().iter();
    topics
        .filter(|topic| topic["known"] == true && topic["trouble"].is_string())
        .map(|topic| topic["topic"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consul_that_goes_away_leaves_the_last_values() {
    let mut consul = Consul::start(host(61), json!({}));
    consul.register(&web());
    let mut agent = Agent::start(host(61), &consul);
    let socket = agent.home.socket();
    let both = ["api.default.dc1", "local_app"];
    let served = Stream::over_unix(&socket, "web-sidecar-proxy").await.unwrap().until(&both).await.unwrap();
    assert_eq!(stale(&agent), Vec::<String>::new());

    consul.kill();
    until("topics are stale", || stale(&agent).iter().any(|t| t.contains("web-sidecar-proxy")).then_some(()));
    assert_eq!(agent.get("/healthz").status, 200);
    let after = Stream::over_unix(&socket, "web-sidecar-proxy").await.unwrap().until(&both).await.unwrap();
    assert_eq!(after, served, "a proxy that connects during the outage has the last values");
    let is_told = |table: &String| table.contains("connect to Consul");
    let table = until("the reason is told", || Some(agent.proxy_status(&[]).out).filter(is_told));
    assert_says(&table, &["Silent sources:", "last value kept"]);
    assert!(agent.process.is_running());

    consul.run();
    until("no topic is stale", || stale(&agent).is_empty().then_some(()));
    assert_eq!(agent.get("/readyz").status, 200);
}

struct Authority {
    cert_pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

fn authority() -> Authority {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let cert_pem = params.self_signed(&key).unwrap().pem();
    Authority { cert_pem, issuer: rcgen::Issuer::new(params, key) }
}

#[test]
fn a_wrong_ca_is_named_and_the_right_one_needs_no_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (authority(), authority());
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["server.dc1.consul".to_owned()]).unwrap();
    let cert = params.signed_by(&key, &right.issuer).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let files = json!({
        "ca_file": write("ca.pem", &right.cert_pem),
        "cert_file": write("cert.pem", &cert.pem()),
        "key_file": write("key.pem", &key.serialize_pem()),
    });
    let consul = Consul::start(host(62), files);
    let trusted = write("trusted.pem", &wrong.cert_pem);
    let more =
        format!("consul.ca_file = \"{}\"\nconsul.tls_server_name = \"server.dc1.consul\"", trusted.display());
    let https = format!("https://{}", consul.https);
    let mut agent = Agent::with(Home::new(host(62)), &https, &more, &[]);
    let waiting = until("the reason is known", || {
        Some(agent.get("/readyz")).filter(|reply| reply.body.contains(&https))
    });
    assert_eq!(waiting.status, 503);
    assert_says(&waiting.body, &["invalid peer certificate", "ca_file", "CONSUL_CACERT"]);
    agent.log().line(&["WARN", &https, "invalid peer certificate", "ca_file"]);
    assert_eq!(agent.get("/healthz").status, 200);
    assert!(agent.process.is_running());

    std::fs::write(&trusted, &right.cert_pem).unwrap();
    agent.until_ready();
}

#[test]
fn a_name_that_the_certificate_does_not_have_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["server.dc1.consul".into()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let consul = Consul::start(host(63), json!({"ca_file": cert, "cert_file": cert, "key_file": key}));
    let https = format!("https://{}", consul.https);
    let agent =
        Agent::with(Home::new(host(63)), &https, &format!("consul.ca_file = \"{}\"", cert.display()), &[]);
    let waiting = until("the reason is known", || {
        Some(agent.get("/readyz")).filter(|reply| reply.body.contains(&https))
    });
    assert_eq!(waiting.status, 503);
    assert_says(&waiting.body, &["not valid for name", "tls_server_name"]);
}

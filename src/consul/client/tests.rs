use std::{
    fs,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    consul::fake::{Fake, handler, reply},
    model::secret::SecretText,
};

const DEADLINE: Duration = Duration::from_secs(5);

/// Answers with what it was asked.
fn echo(limit: usize) -> impl Future<Output = Fake> {
    Fake::tcp(
        limit,
        handler(|asked| async move {
            let text = format!(
                "{} {}?{} token={} auth={} h2={} body={}",
                asked.method,
                asked.path,
                asked.query,
                asked.header("x-consul-token"),
                asked.header("authorization"),
                asked.is_h2,
                String::from_utf8_lossy(&asked.body)
            );
            reply(200, 7, serde_json::json!(text).to_string())
        }),
    )
}

async fn text(client: &Client) -> String {
    client.get("/v1/x", &[], DEADLINE).await.unwrap().json().unwrap()
}

#[tokio::test]
async fn paths_and_queries_are_encoded() {
    let fake = echo(9).await;
    let client = Client::new(fake.settings.clone()).unwrap();
    let path = path(&["v1", "agent", "service", "a/b ü"]);
    assert_eq!(path, "/v1/agent/service/a%2Fb%20%C3%BC");
    let reply =
        client.put(&path, &[("filter", "a == \"b&c\"")], Some(serde_json::json!({"k": 1})), DEADLINE).await;
    let reply = reply.unwrap().ok().unwrap();
    assert_eq!(reply.index, Some(7));
    let text: String = reply.json().unwrap();
    assert!(
        text.starts_with("PUT /v1/agent/service/a%2Fb%20%C3%BC?filter=a%20%3D%3D%20%22b%26c%22 "),
        "{text}"
    );
    assert!(text.ends_with("body={\"k\":1}"), "{text}");
    assert!(matches!(client.get("/a b", &[], DEADLINE).await, Err(ClientError::Path { .. })));
}

#[tokio::test]
async fn a_token_file_is_read_again_when_it_changes() {
    let fake = echo(9).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let settings = ConsulSettings {
        token_file: Some(file.clone()),
        http_auth: Some(SecretText::from("ann:pw")),
        ..fake.settings.clone()
    };
    let error = Client::new(settings.clone()).unwrap_err().to_string();
    assert!(error.contains("token") && error.contains("may read it"), "{error}");
    fs::write(&file, "first\n").unwrap();
    let client = Client::new(settings).unwrap();
    let first = text(&client).await;
    assert!(first.contains("token=first auth=Basic YW5uOnB3"), "{first}");
    fs::write(&file, "second one's longer? no: tokens have no blanks".replace(' ', "-")).unwrap();
    assert!(text(&client).await.contains("token=second-one"));
    // Truncated while it is written: the last token stays.
    fs::write(&file, "").unwrap();
    assert!(text(&client).await.contains("token=second-one"));
}

#[tokio::test]
async fn a_hung_server_meets_the_deadline() {
    let fake = Fake::tcp(9, handler(|_| std::future::pending())).await;
    let client = Client::new(fake.settings.clone()).unwrap();
    let error = client.get("/v1/x", &[], Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }));
    assert_eq!(
        error.to_string(),
        "GET /v1/x: no answer within 20 ms; Consul or the way to its datacenter hangs"
    );
}

#[tokio::test]
async fn refusals_carry_a_remedy_and_never_the_token() {
    let fake = Fake::tcp(
        9,
        handler(|asked| async move {
            let status = asked.path.trim_start_matches('/').parse().unwrap();
            reply(status, 0, format!("no\u{7}, {} may not", asked.header("x-consul-token")))
        }),
    )
    .await;
    let token = Some(SecretText::from("hush-hush"));
    let client = Client::new(ConsulSettings { token, ..fake.settings.clone() }).unwrap();
    for status in [403, 404, 429, 500, 503] {
        let refused = client.get(&format!("/{status}"), &[], DEADLINE).await.unwrap();
        assert_eq!(refused.status.as_u16(), status);
        let shown = refused.ok().unwrap_err().to_string();
        assert!(shown.contains(&format!("status {status}: no , [redacted] may not; ")), "{shown}");
        assert!(!shown.contains("hush"), "{shown}");
    }
    assert!(!format!("{client:?}").contains("hush"));
}

#[tokio::test]
async fn no_server_and_garbage_are_named() {
    let gone = echo(9).await.settings.clone();
    let error = Client::new(gone).unwrap().get("/v1/x", &[], DEADLINE).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("check that the agent runs"));

    let fake = Fake::tcp(9, handler(|_| async { reply(200, 0, "<html>") })).await;
    let client = Client::new(fake.settings.clone()).unwrap();
    let error = client.agent_self().await.unwrap_err().to_string();
    assert!(error.contains("is this Consul's HTTP API?"), "{error}");
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let fake = Fake::tcp(9, handler(|_| async { reply(200, 0, vec![b' '; MAX_BODY_BYTES + 1]) })).await;
    let client = Client::new(fake.settings.clone()).unwrap();
    let error = client.get("/v1/x", &[], Duration::from_secs(60)).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLong { .. }), "{error}");
}

#[tokio::test]
async fn a_unix_socket_serves() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::unix(
        &folder.path().join("consul.sock"),
        handler(|asked| async move { reply(200, 0, format!("\"{}\"", asked.path)) }),
    );
    let client = Client::new(fake.settings.clone()).unwrap();
    assert_eq!(text(&client).await, "/v1/x");
}

/// A CA file and an acceptor whose certificate it signed, for `server.test`.
fn tls(folder: &std::path::Path, name: &str) -> (std::path::PathBuf, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(vec!["server.test".into()]).unwrap();
    let ca = folder.join(name);
    fs::write(&ca, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![made.cert.der().clone()];
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    (ca, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn tls_brings_http2_and_one_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, acceptor) = tls(folder.path(), "ca.pem");
    let fake =
        Fake::tls(acceptor, handler(|asked| async move { reply(200, 0, format!("\"h2={}\"", asked.is_h2)) }))
            .await;
    let mut settings = fake.settings.clone();
    settings.tls.ca_file = Some(ca.clone());
    // The address's host is 127.0.0.1, which the certificate does not bear.
    let error = Client::new(settings.clone()).unwrap().get("/v1/x", &[], DEADLINE).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");

    settings.tls.server_name = Some("server.test".into());
    let client = Client::new(settings.clone()).unwrap();
    assert_eq!(text(&client).await, "h2=true");
    let (a, b, c) = tokio::join!(text(&client), text(&client), text(&client));
    assert!([a, b, c].iter().all(|text| text == "h2=true"));
    assert!(fake.connections.load(Ordering::SeqCst) <= 2);

    // Another CA in the same file is seen at the next request.
    let (_, _) = tls(folder.path(), "ca.pem");
    assert!(client.get("/v1/x", &[], DEADLINE).await.is_err());

    settings.tls.verify = false;
    assert_eq!(text(&Client::new(settings).unwrap()).await, "h2=true");
}

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

fn raw(method: Method, target: &str, bearer: Bearer) -> RawRequest {
    let mut headers = http::HeaderMap::new();
    for (name, value) in [
        ("x-consul-token", "smuggled"),
        ("authorization", "bEaReR smuggled"),
        ("connection", "close, X-Hop"),
        ("x-hop", "1"),
        ("host", "elsewhere"),
        ("content-length", "99"),
        ("x-kept", "1"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    RawRequest { method, target: target.into(), headers, body: Bytes::from_static(b"abc"), bearer }
}

#[tokio::test]
async fn a_request_of_others_bears_their_token_and_never_ours() {
    let fake = Fake::tcp(
        9,
        handler(|asked| async move {
            let mut seen: Vec<_> =
                asked.headers.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            seen.sort();
            let text = format!(
                "{} {}?{} {} {:?}",
                asked.method,
                asked.path,
                asked.query,
                seen.join(" "),
                asked.body
            );
            let mut answer = reply(418, 7, text);
            answer.headers_mut().insert("x-more", "1".parse().unwrap());
            answer
        }),
    )
    .await;
    let settings = ConsulSettings {
        token: Some(SecretText::from("ours")),
        http_auth: Some(SecretText::from("ann:pw")),
        ..fake.settings.clone()
    };
    let client = Client::new(settings).unwrap();
    let host = fake.authority();
    let told = async |bearer| {
        let open = client.open(raw(Method::PATCH, "/v1/kv/a%2Fb?x=%20&y", bearer), DEADLINE).await.unwrap();
        assert_eq!((open.status.as_u16(), open.headers["x-more"].as_bytes()), (418, b"1".as_ref()));
        let body = open.reply(MAX_BODY_BYTES, DEADLINE).await.unwrap().body;
        String::from_utf8(body.to_vec()).unwrap().replace(&host.to_string(), "HOST")
    };
    let rest = "content-length=\"3\" host=\"HOST\" x-consul-token=\"theirs\" x-kept=\"1\" b\"abc\"";
    assert_eq!(told(Bearer::Token("theirs".into())).await, format!("PATCH /v1/kv/a%2Fb?x=%20&y {rest}"));
    let nobody = told(Bearer::Nobody).await;
    assert!(!nobody.contains("token") && !nobody.contains("authorization"), "{nobody}");
    let own = told(Bearer::Own).await;
    assert!(own.contains("x-consul-token=Sensitive") || own.contains("x-consul-token=\"ours\""), "{own}");
    assert!(own.contains("authorization=\"Basic"), "{own}");
    // No error shows the query, where a caller may have put a token.
    let error =
        client.open(raw(Method::GET, "/v1/a b?token=hush", Bearer::Nobody), DEADLINE).await.err().unwrap();
    assert!(matches!(error, ClientError::Path { .. }) && !error.to_string().contains("hush"), "{error}");
}

/// A server that promises more than it sends, or hangs in the middle.
async fn broken(text: &'static str, is_open: bool) -> (ConsulSettings, crate::lifecycle::Task<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ConsulAddress::Http { authority: listener.local_addr().unwrap().to_string() };
    let task = crate::lifecycle::spawn("broken.consul", async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1024];
        let _ = stream.read(&mut asked).await;
        stream.write_all(text.as_bytes()).await.unwrap();
        if is_open {
            std::future::pending::<()>().await;
        }
    });
    (ConsulSettings { address, ..ConsulSettings::default() }, task)
}

#[tokio::test]
async fn a_body_that_ends_early_or_never_is_an_error() {
    const START: &str = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[";
    let short = Duration::from_millis(50);
    for (text, is_open) in [(START, false), (START, true), ("HTTP/1.1 200 OK\r\n", false), ("", true)] {
        let (settings, _task) = broken(text, is_open).await;
        let client = Client::new(settings).unwrap();
        let told = match client.open(raw(Method::GET, "/v1/x", Bearer::Nobody), short).await {
            Ok(mut open) => open.whole(MAX_BODY_BYTES, short).await.map(drop),
            Err(error) => Err(error),
        };
        let fits = match is_open {
            true => matches!(told, Err(ClientError::Deadline { .. })),
            false => matches!(told, Err(ClientError::Cut { .. })),
        };
        assert!(fits, "{text:?} {is_open}: {told:?}");
    }
}

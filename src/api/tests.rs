use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::ServiceExt;

use super::{
    routes::{self, Peer},
    wire::{ProxyStatus, TopicStatus},
    *,
};
use crate::{
    lifecycle::{Stop, StopSource, Task, spawn},
    xds::status::{Nack, ResourceState, ResourceStatus, StreamStatus, TypeStatus},
};

struct Fake {
    waiting_for: Vec<String>,
    level: Mutex<String>,
}

impl Fake {
    fn new(waiting_for: &[&str]) -> Arc<Self> {
        let waiting_for = waiting_for.iter().map(|what| (*what).to_owned()).collect();
        Arc::new(Self { waiting_for, level: Mutex::new("info".into()) })
    }
}

impl Sources for Fake {
    fn readiness(&self) -> Readiness {
        Readiness { ready: self.waiting_for.is_empty(), waiting_for: self.waiting_for.clone() }
    }

    fn status(&self) -> Status {
        let resource = |name: &str, state| ResourceStatus {
            name: name.into(),
            intended: Some("v1".into()),
            sent: None,
            state,
        };
        let clusters = TypeStatus {
            kind: "CDS".into(),
            resources: vec![resource("a", ResourceState::Synced), resource("b", ResourceState::Rejected)],
            sent_at_ms: Some(5_000),
            acked_at_ms: Some(5_001),
            acks: 3,
            nacks: 1,
            last_nack: Some(Nack { message: "no <b>".into(), resources: vec!["b".into()], at_ms: 9_000 }),
        };
        let stream = StreamStatus {
            stream: 7,
            proxy: "web-1-sidecar-proxy".into(),
            envoy_version: Some("1.40.0".into()),
            connected_at_ms: 1_000,
            types: vec![clusters],
        };
        Status {
            version: "0.1.0".into(),
            datacenter: Some("dc1".into()),
            node: Some("<script>".into()),
            started_at_ms: 0,
            now_ms: 10_000,
            readiness: self.readiness(),
            proxies: vec![ProxyStatus {
                proxy: "web-1-sidecar-proxy".into(),
                complete: true,
                waiting_for: vec![],
                notes: vec!["upstream x: a & b; mend it".into()],
                streams: vec![stream],
            }],
            topics: vec![TopicStatus { topic: "roots".into(), known: true, from_disk: false, trouble: None }],
        }
    }

    fn proxy_config(&self, proxy: &str) -> Option<ProxyConfig> {
        (proxy == "web/1").then(|| ProxyConfig { proxy: proxy.into(), resources: vec![] })
    }

    fn metrics(&self) -> String {
        "# EOF\n".into()
    }

    fn log_level(&self) -> String {
        self.level.lock().expect("one user").clone()
    }

    fn set_log_level(&self, filter: &str) -> Result<(), String> {
        if filter == "loud" {
            return Err("`loud` is not a level; write info".into());
        }
        *self.level.lock().expect("one user") = filter.into();
        Ok(())
    }
}

async fn ask(sources: Arc<Fake>, peer: &str, request: Request<Body>) -> (StatusCode, String, String) {
    let mut request = request;
    request.extensions_mut().insert(Peer(peer.parse().expect("a peer")));
    let response = routes::router(sources, None).oneshot(request).await.expect("infallible");
    let code = response.status();
    let kind =
        response.headers().get("content-type").map_or("", |value| value.to_str().expect("text")).to_owned();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (code, kind, String::from_utf8(body.to_vec()).expect("text"))
}

async fn get(path: &str, accept: &str, sources: Arc<Fake>) -> (StatusCode, String, String) {
    let request = Request::get(path).header("accept", accept).body(Body::empty()).expect("a request");
    ask(sources, "127.0.0.1:9", request).await
}

async fn put_level(peer: &str, host: &str, body: impl Into<Body>) -> (StatusCode, String, String) {
    let request = Request::put("/log-level").header("host", host).body(body.into()).expect("a request");
    ask(Fake::new(&[]), peer, request).await
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let (code, _, body) = get("/healthz", "*/*", Fake::new(&["Consul"])).await;
    assert_eq!((code, body.as_str()), (StatusCode::OK, "ok\n"));
    let (code, _, body) = get("/readyz", "*/*", Fake::new(&[])).await;
    assert_eq!((code, body.as_str()), (StatusCode::OK, "ready\n"));
    let (code, _, body) = get("/readyz", "*/*", Fake::new(&["an answer of Consul"])).await;
    assert_eq!((code, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "waiting for an answer of Consul\n"));
    let (code, kind, body) = get("/readyz", "application/json", Fake::new(&["x"])).await;
    assert_eq!((code, kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "application/json"));
    assert_eq!(body, r#"{"ready":false,"waiting_for":["x"]}"#);
    let (_, kind, body) = get("/metrics", "*/*", Fake::new(&[])).await;
    assert_eq!((kind.as_str(), body.as_str()), (crate::telemetry::metrics::CONTENT_TYPE, "# EOF\n"));
}

#[tokio::test]
async fn status_is_json_for_programs_and_a_page_for_browsers() {
    let (_, kind, body) = get("/status", "*/*", Fake::new(&[])).await;
    assert_eq!(kind, "application/json");
    let status: Status = serde_json::from_str(&body).expect("the document");
    assert_eq!(status, Fake::new(&[]).status());
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let (_, kind, page) = get("/status", browser, Fake::new(&["roots"])).await;
    assert_eq!(kind, "text/html; charset=utf-8");
    for part in [
        "Causeway on &lt;script&gt;",
        "not ready",
        "<li>waiting for roots",
        "upstream x: a &amp; b; mend it",
        "1 of 2",
        "refused 1 s ago: no &lt;b&gt; (b)",
        "<code>roots</code>",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(!page.contains("<script>"));
    let (_, kind, _) = get("/status", "text/html;q=0.5, application/json", Fake::new(&[])).await;
    assert_eq!(kind, "application/json");
}

#[tokio::test]
async fn a_proxy_is_found_by_its_id_and_an_unknown_one_is_answered_with_the_known() {
    let (code, _, body) = get("/status/proxies/web%2F1/config", "*/*", Fake::new(&[])).await;
    assert_eq!((code, body.as_str()), (StatusCode::OK, r#"{"proxy":"web/1","resources":[]}"#));
    let (code, _, body) = get("/status/proxies/nobody/config", "*/*", Fake::new(&[])).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert_eq!(body, r#"{"error":"there is no proxy `nobody`; known are web-1-sidecar-proxy"}"#);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_json_errors() {
    let (code, _, body) = get("/nothing", "text/html", Fake::new(&[])).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert!(body.starts_with(r#"{"error":"there is nothing at /nothing; there are /healthz"#), "{body}");
    let request = Request::delete("/status").body(Body::empty()).expect("a request");
    let (code, _, body) = ask(Fake::new(&[]), "127.0.0.1:9", request).await;
    assert_eq!(
        (code, body.as_str()),
        (StatusCode::METHOD_NOT_ALLOWED, r#"{"error":"/status does not take DELETE"}"#)
    );
}

#[tokio::test]
async fn the_log_level_is_changed_locally_and_by_number_only() {
    let (_, _, body) = get("/log-level", "*/*", Fake::new(&[])).await;
    assert_eq!(body, "info\n");
    for host in ["127.0.0.1:18500", "localhost", "[::1]:18500"] {
        let (code, _, body) = put_level("127.0.0.1:9", host, "debug\n").await;
        assert_eq!((code, body.as_str()), (StatusCode::OK, "debug\n"), "{host}");
    }
    assert_eq!(put_level("[::ffff:127.0.0.1]:9", "localhost", "debug").await.0, StatusCode::OK);
    assert_eq!(put_level("10.0.0.7:9", "10.0.0.1", "debug").await.0, StatusCode::FORBIDDEN);
    assert_eq!(put_level("127.0.0.1:9", "evil.example:18500", "debug").await.0, StatusCode::FORBIDDEN);
    let (code, _, body) = put_level("127.0.0.1:9", "localhost", "loud").await;
    assert_eq!(
        (code, body.as_str()),
        (StatusCode::BAD_REQUEST, r#"{"error":"`loud` is not a level; write info"}"#)
    );
    assert_eq!(put_level("127.0.0.1:9", "localhost", vec![0xff]).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        put_level("127.0.0.1:9", "localhost", vec![b'x'; 5000]).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

fn started() -> (SocketAddr, StopSource, Task<()>) {
    let listener = bind("127.53.0.1:0".parse().expect("an address")).expect("bound");
    let address = listener.local_addr().expect("an address");
    let (source, stop) = Stop::pair();
    (address, source, spawn("api", serve(listener, Fake::new(&[]), None, stop)))
}

async fn say(address: SocketAddr, words: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(words).await.expect("said");
    let mut heard = Vec::new();
    // A connection that is cut while bytes are unread ends in a reset: that is an end as well.
    let _ = stream.read_to_end(&mut heard).await;
    String::from_utf8_lossy(&heard).into_owned()
}

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn garbage_only_closes_its_own_connection() {
    let (address, _source, _task) = started();
    let mut huge = b"GET / HTTP/1.1\r\nx: ".to_vec();
    huge.resize(100_000, b'a');
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &huge] {
        let heard = say(address, garbage).await;
        assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 4"), "{heard}");
        assert!(say(address, HEALTH).await.ends_with("\r\n\r\nok\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn slow_heads_and_bodies_are_cut() {
    let (address, _source, _task) = started();
    assert_eq!(say(address, b"GET /healthz HTTP/1.1\r\nhost:").await, "");
    let heard =
        say(address, b"PUT /log-level HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\ninf").await;
    assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
}

#[tokio::test]
async fn the_stop_ends_idle_connections_and_the_listener() {
    let (address, source, mut task) = started();
    let mut idle = TcpStream::connect(address).await.expect("connected");
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("said");
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.expect("an answer");
    source.stop();
    tokio::time::timeout(Duration::from_secs(1), task.join()).await.expect("in time").expect("ends");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_busy_port_names_the_address_and_the_remedy() {
    let held = bind("127.53.0.1:0".parse().expect("an address")).expect("bound");
    let address = held.local_addr().expect("an address");
    let error = bind(address).expect_err("it is taken").to_string();
    assert!(error.starts_with(&format!("listen for HTTP on {address}: Address")), "{error}");
    assert!(error.contains(&format!("`ss -ltnp sport = :{}` names who holds it", address.port())), "{error}");
    let error = bind("192.0.2.1:1".parse().expect("an address")).expect_err("not ours").to_string();
    assert!(error.ends_with("no interface has this address; correct [http] listen"), "{error}");
}

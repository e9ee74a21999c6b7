use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::FutureExt;
use tower::ServiceExt;

use super::*;

#[derive(Default)]
struct Fake(Mutex<Vec<String>>);

impl Kv for Fake {
    fn may_write(&self, client: IpAddr) -> bool {
        client == IpAddr::from([10, 0, 0, 7])
    }

    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'static, http::Response<Body>> {
        let asked = format!("{} {} {}", request.method(), request.uri(), request.body().len());
        self.0.lock().unwrap().push(asked);
        async { http::Response::new(Body::from("true")) }.boxed()
    }
}

async fn ask(peer: &str, request: http::request::Builder, body: Vec<u8>) -> (u16, String) {
    let kv = Arc::new(Fake::default());
    let mut request = request.body(Body::from(body)).unwrap();
    request.extensions_mut().insert(Peer(peer.parse::<SocketAddr>().unwrap()));
    let response = router(kv.clone()).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let asked = kv.0.lock().unwrap().join(" ");
    (status, if status == 200 { asked } else { String::from_utf8_lossy(&body).into_owned() })
}

fn put(path: &str) -> http::request::Builder {
    Request::put(path).header("host", "127.0.0.1:18500")
}

#[tokio::test]
async fn paths_arrive_as_they_were_written() {
    let (status, asked) = ask("127.0.0.1:9", put("/v1/kv/a%2Fb//c?cas=1"), vec![0; 600_000]).await;
    assert_eq!((status, asked.as_str()), (200, "PUT /v1/kv/a%2Fb//c?cas=1 600000"));
    let (status, text) = ask("127.0.0.1:9", put("/v1/kv/a"), vec![0; (1 << 20) + 1]).await;
    assert!(status == 413 && text.contains("1 MiB"), "{text}");
}

#[tokio::test]
async fn web_pages_are_kept_out() {
    let from =
        |origin: &str, host: &str| Request::get("/v1/kv/a").header("origin", origin).header("host", host);
    assert_eq!(ask("127.0.0.1:9", from("http://127.0.0.1:1", "127.0.0.1:1"), vec![]).await.0, 200);
    for (origin, host) in [
        ("http://evil.example", "127.0.0.1:1"),
        ("null", "127.0.0.1:1"),
        ("http://evil.example:1", "evil.example:1"),
        ("http://127.0.0.1:2", "127.0.0.1:1"),
    ] {
        assert_eq!(ask("127.0.0.1:9", from(origin, host), vec![]).await.0, 403, "{origin} {host}");
    }
    assert_eq!(ask("127.0.0.1:9", Request::get("/v1/kv/a"), vec![]).await.0, 403);
}

#[tokio::test]
async fn off_loopback_only_those_named_write() {
    assert_eq!(ask("10.0.0.7:9", put("/v1/kv/a"), vec![]).await.0, 200);
    assert_eq!(ask("[::ffff:10.0.0.7]:9", put("/v1/kv/a"), vec![]).await.0, 200);
    let (status, text) = ask("10.0.0.8:9", put("/v1/kv/a"), vec![]).await;
    assert!(status == 403 && text.contains("allow_write_http_from"), "{text}");
    for method in ["DELETE", "POST", "PATCH"] {
        assert_eq!(ask("10.0.0.8:9", put("/v1/kv/a").method(method), vec![]).await.0, 403, "{method}");
    }
    assert_eq!(ask("10.0.0.8:9", put("/v1/kv/a").method("GET"), vec![]).await.0, 200);
}

//! Bytes that are no protocol, and connections that say nothing.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::json;

use super::{host, web};
use crate::rig::{
    parts::{Agent, Consul, Home, PATIENCE, free_ports},
    stream::Stream,
};

/// What a scanner, a lost client or a broken peer sends.
fn garbage() -> Vec<Vec<u8>> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = |length: usize| {
        let byte = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        };
        (0..length).map(byte).collect::<Vec<u8>>()
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    vec![
        vec![],
        vec![0],
        noise(64),
        noise(256 * 1024),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET /status HTTP/9.9\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_vec(),
        [preface.clone(), vec![0xff; 4096]].concat(),
        // A frame of settings whose length is not a multiple of six, and one for a stream that was never opened.
        [preface.clone(), vec![0, 0, 5, 4, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]].concat(),
        [preface, vec![0, 0, 1, 0, 1, 0, 0, 0, 7, 9]].concat(),
    ]
}

/// Sends it all and waits until the other side closes. A peer that closes early is what is wanted.
fn throw<S: std::io::Read + std::io::Write>(mut stream: S, bytes: &[u8], close: impl Fn(&S)) {
    let _ = stream.write_all(bytes);
    close(&stream);
    let _ = stream.read_to_end(&mut Vec::new());
}

fn throw_tcp(to: SocketAddr, bytes: &[u8]) {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    throw(stream, bytes, |s| drop(s.shutdown(Shutdown::Write)));
}

fn throw_unix(to: &std::path::Path, bytes: &[u8]) {
    let stream = UnixStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    throw(stream, bytes, |s| drop(s.shutdown(Shutdown::Write)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_every_port_costs_only_its_own_connection() {
    let consul = Consul::start(host(40), json!({}));
    consul.register(&web());
    let home = Home::new(host(40));
    let [port] = free_ports(host(40));
    let tcp = SocketAddr::from((host(40), port));
    let mut agent = Agent::with(home, &consul.address(), &format!("xds.tcp = \"{tcp}\""), &[]);
    agent.until_ready();
    let (socket, http) = (agent.home.socket(), agent.home.http);
    // One stream that was there before sees nothing of it.
    let mut before = Stream::over_unix(&socket, "web-sidecar-proxy").await.unwrap();
    assert!(!before.names().await.unwrap().is_empty());

    // Left open and silent until the end: half of them never say anything, half stop in the middle.
    let silent: Vec<TcpStream> = (0..40)
        .map(|n| {
            let mut stream = TcpStream::connect(if n % 2 == 0 { tcp } else { http }).unwrap();
            if n % 4 < 2 {
                stream.write_all(b"GET /st").unwrap();
            }
            stream
        })
        .collect();
    let thrown = tokio::task::spawn_blocking({
        let socket = socket.clone();
        move || {
            for bytes in garbage() {
                throw_tcp(tcp, &bytes);
                throw_tcp(http, &bytes);
                throw_unix(&socket, &bytes);
            }
        }
    });
    thrown.await.unwrap();

    let names = Stream::over_tcp(tcp, "web-sidecar-proxy").await.unwrap().names().await.unwrap();
    assert!(names.iter().any(|name| name == "local_app"), "{names:?}");
    let names = Stream::over_unix(&socket, "web-sidecar-proxy").await.unwrap().names().await.unwrap();
    assert!(names.iter().any(|name| name == "local_app"), "{names:?}");
    assert_eq!(agent.get("/readyz").status, 200);
    assert!(agent.process.is_running());
    let log = agent.log().text();
    assert!(!log.contains("panicked"), "{log}");
    let is_first = |line: &str| line.contains("stream=1 ") && line.contains("disconnected");
    assert!(!log.lines().any(is_first), "{log}");
    drop(before);
    drop(silent);
}

#[test]
fn what_is_too_large_is_refused() {
    let agent = Agent::with(Home::new(host(41)), "http://127.58.0.41:9", "", &[]);
    let mut stream = TcpStream::connect(agent.home.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = write!(stream, "GET /status HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "a".repeat(1 << 20));
    let mut start = [0; 12];
    // What was not read of the request may reset the connection before its answer is seen.
    if stream.read_exact(&mut start).is_ok() {
        assert_eq!(&start, b"HTTP/1.1 431");
    }
    let many = (0..2_000).map(|n| format!("X-{n}: v\r\n")).collect::<String>();
    throw_tcp(agent.home.http, format!("GET /status HTTP/1.1\r\n{many}\r\n").as_bytes());
    assert_eq!(agent.get("/healthz").status, 200);
    let long = agent.get(&format!("/{}", "a".repeat(4_000)));
    assert_eq!(long.status, 404);
    let body = "x".repeat(1 << 16);
    let put = crate::rig::parts::http(agent.home.http, "PUT", "/log-level", &body);
    assert!(put.is_err() || put.unwrap().status == 413);
    assert_eq!(agent.get("/healthz").status, 200);
}

#[test]
fn a_client_that_says_nothing_is_cut() {
    let agent = Agent::with(Home::new(host(42)), "http://127.58.0.42:9", "", &[]);
    let mut stream = TcpStream::connect(agent.home.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"GET /heal").unwrap();
    stream.read_to_end(&mut Vec::new()).expect("closed within its deadline");
}

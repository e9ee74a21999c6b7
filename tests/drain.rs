//! The ends of an Envoy's service as its unit calls them: beside a real Consul, with a stand-in for Envoy's admin
//! interface that can be given work.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use serde_json::json;

use crate::rig::parts::{Consul, Ended, run, run_with, until};

const HOST: Ipv4Addr = Ipv4Addr::new(127, 59, 0, 1);

const WEB: &str = "web-sidecar-proxy";

/// What Envoy would show, and what it was asked to do.
#[derive(Default)]
struct Shown {
    /// `node.id` of its bootstrap.
    id: &'static str,
    requests: u64,
    listeners: u64,
    posts: Vec<String>,
}

#[derive(Clone)]
struct Envoy {
    address: SocketAddr,
    shown: Arc<Mutex<Shown>>,
}

impl Envoy {
    fn start(shown: Shown) -> Self {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        let envoy = Self { address: listener.local_addr().unwrap(), shown: Arc::new(Mutex::new(shown)) };
        let shown = envoy.shown.clone();
        // It ends with the process: nothing tells it to end sooner.
        std::thread::spawn(move || listener.incoming().for_each(|stream| answer(&stream.unwrap(), &shown)));
        envoy
    }

    fn admin(&self) -> String {
        self.address.to_string()
    }

    fn posts(&self) -> Vec<String> {
        self.shown.lock().unwrap().posts.clone()
    }
}

fn answer(mut stream: &TcpStream, shown: &Mutex<Shown>) {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let Some(request) = lines.next() else { return };
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let mut shown = shown.lock().unwrap();
    let [method, path, ..] = request.split(' ').collect::<Vec<_>>()[..] else { panic!("{request}") };
    if method == "POST" {
        shown.posts.push(path.to_owned());
    }
    let body = json!({"node": {"id": shown.id}, "stats": [
        {"name": "http.public.downstream_rq_active", "value": shown.requests},
        {"name": "listener_manager.total_listeners_active", "value": shown.listeners},
        {"name": "listener_manager.total_listeners_warming", "value": 0},
    ]});
    let body = body.to_string();
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").unwrap();
}

/// Why `web-sidecar-proxy` is in maintenance, if it is.
fn maintenance(consul: &Consul) -> Option<String> {
    let checks = consul.get("/v1/agent/checks");
    checks["_service_maintenance:web-sidecar-proxy"]["Notes"].as_str().map(str::to_owned)
}

fn with_consul(consul: &Consul, args: &[&str]) -> Ended {
    run_with(&[("CONSUL_HTTP_ADDR", &consul.address())], args)
}

#[test]
fn others_are_sent_elsewhere_until_envoy_serves_again() {
    let consul = Consul::start(HOST, json!({}));
    consul.register(
        &json!({"Name": "web", "ID": "web", "Port": 8080, "Connect": {"SidecarService": {"Checks": []}}}),
    );
    let envoy = Envoy::start(Shown { id: WEB, requests: 1, ..Shown::default() });
    let worker = {
        let envoy = envoy.clone();
        std::thread::spawn(move || {
            until("the drain waits", || {
                envoy.posts().contains(&"/healthcheck/fail".to_owned()).then_some(())
            });
            envoy.shown.lock().unwrap().requests = 0;
        })
    };
    let admin = envoy.admin();
    let drain =
        ["proxy", "drain", "--instance", r"web\x2dsidecar-proxy", "--admin", &admin, "--settle", "10ms"];
    let drained = with_consul(&consul, &drain);
    worker.join().unwrap();
    assert_eq!(drained.code, Some(0), "{drained:?}");
    assert_eq!(envoy.posts(), ["/healthcheck/fail", "/drain_listeners"]);
    let reason = maintenance(&consul).unwrap();
    assert!(reason.contains("causeway proxy ready"), "{reason}");
    assert!(reason.contains("consul maint -disable -service=web-sidecar-proxy"), "{reason}");

    let ready = ["proxy", "ready", "web-sidecar-proxy", "--admin", &admin, "--wait", "300ms"];
    let not_yet = with_consul(&consul, &ready);
    assert_eq!(not_yet.code, Some(1), "{not_yet:?}");
    assert!(not_yet.err.contains("Envoy has no listener yet"), "{not_yet:?}");
    assert!(maintenance(&consul).is_some());
    envoy.shown.lock().unwrap().listeners = 1;
    let serves = with_consul(&consul, &ready);
    assert_eq!(serves.code, Some(0), "{serves:?}");
    assert_eq!(maintenance(&consul), None);

    consul.put("/v1/agent/service/maintenance/web-sidecar-proxy?enable=true&reason=night", &json!(null));
    let left = with_consul(&consul, &ready);
    assert!(left.err.contains("somebody else"), "{left:?}");
    assert_eq!(maintenance(&consul).as_deref(), Some("night"), "it is not ours to end");
}

#[test]
fn nobody_waits_for_an_envoy_that_has_ended() {
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let ended = run(&["proxy", "ready", "--admin", "127.59.0.1:9", "--pid", &gone.id().to_string()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("Envoy does not serve"), "{ended:?}");
}

#[test]
fn what_is_left_after_the_wait_is_told_and_consul_is_not_needed() {
    let envoy = Envoy::start(Shown { id: WEB, requests: 2, ..Shown::default() });
    let admin = envoy.admin();
    let nobody = [("CONSUL_HTTP_ADDR", "127.59.0.1:9")];
    let drain = ["proxy", "drain", "web-sidecar-proxy", "--admin", &admin, "--wait", "0s"];
    let ended = run_with(&nobody, &drain);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.err.contains("others are not sent elsewhere"), "{ended:?}");
    assert!(ended.err.contains("requests=2"), "{ended:?}");
    assert_eq!(envoy.posts(), ["/healthcheck/fail", "/drain_listeners"]);
}

#[test]
fn another_proxys_envoy_is_neither_drained_nor_taken_for_the_one_that_was_named() {
    let envoy = Envoy::start(Shown { id: "other-sidecar-proxy", listeners: 1, ..Shown::default() });
    let admin = envoy.admin();
    let drained = run(&["proxy", "drain", "--instance", WEB, "--admin", &admin]);
    assert_eq!(drained.code, Some(1), "{drained:?}");
    assert!(
        drained.err.contains("is that of `other-sidecar-proxy`, not of `web-sidecar-proxy`"),
        "{drained:?}"
    );
    assert_eq!(envoy.posts(), [""; 0]);
    let ready = run(&["proxy", "ready", WEB, "--admin", &admin, "--wait", "300ms"]);
    assert_eq!(ready.code, Some(1), "{ready:?}");
    assert!(ready.err.contains("is that of `other-sidecar-proxy`, not of `web-sidecar-proxy`"), "{ready:?}");
    assert!(ready.err.contains("ENVOY_ADMIN"), "{ready:?}");

    let unnamed = run(&["proxy", "drain", "--admin", &admin, "--wait", "0s"]);
    assert_eq!(unnamed.code, Some(0), "who names none takes whoever is there: {unnamed:?}");
}

#[test]
fn an_envoy_that_is_not_there_cannot_be_drained() {
    let ended = run(&["proxy", "drain", "--admin", "127.59.0.1:9"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("is Envoy running"), "{ended:?}");
    let no_socket = run(&["proxy", "drain", "--admin", "unix:/nowhere/admin.sock"]);
    assert_eq!(no_socket.code, Some(1), "{no_socket:?}");
    assert!(no_socket.err.contains("/server_info at unix:/nowhere/admin.sock"), "{no_socket:?}");
    for address in ["nowhere", "unix:admin.sock"] {
        let wrong = run(&["proxy", "drain", "--admin", address]);
        assert_eq!(wrong.code, Some(2), "{wrong:?}");
    }
}

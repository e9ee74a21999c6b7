//! An agent that takes no part in replication: what it passes on to those of its datacenter that do, to which of them, and
//! what it answers where there is none.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::{
    lab_sync::ask::{Reply, ask},
    rig::parts::{Agent, Consul, Home, free_ports, http, until},
};

const HOST: Ipv4Addr = Ipv4Addr::new(127, 77, 4, 1);

/// Stands in for the HTTP interface of a sync agent. Its thread ends with the process.
struct Double {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Double {
    /// Gives each request this answer and closes the connection; an empty one is none.
    fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = asked.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let request = request(&mut stream);
                seen.lock().unwrap().push(request);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, asked }
    }

    /// The requests since the last look.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// The only one since the last look.
    fn asked_once(&self) -> String {
        let mut asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }
}

/// A request with all of its body, names of headers in lower case.
fn request(stream: &mut TcpStream) -> String {
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut piece).unwrap_or_default();
        text.push_str(&String::from_utf8_lossy(&piece[..count]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if count == 0 {
                return text;
            }
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        if count == 0 || body.len() >= length.unwrap_or(0) {
            return text;
        }
    }
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Consul-Index: 42\r\nX-Sync-Seq: 1.7\r\n\
                      Content-Length: 4\r\nConnection: close\r\n\r\ntrue";

struct Bench {
    consul: Consul,
    agent: Agent,
}

impl Bench {
    fn start() -> Self {
        let consul = Consul::registered(HOST);
        let agent = Agent::with(Home::new(HOST), &consul.address(), "", &[]);
        agent.until_ready();
        Self { consul, agent }
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let url = format!("http://{}{path}", self.agent.home.http);
        ask(method, &url, headers, body.as_bytes()).unwrap()
    }

    /// Registers an agent that takes part, as it registers itself.
    fn register(&self, id: &str, http_address: SocketAddr, health: &str) {
        let service = json!({
            "ID": id, "Name": "causeway-sync", "Address": HOST.to_string(), "Port": http_address.port(),
            "Meta": { "http_address": format!("http://{http_address}") }, "Connect": { "Native": true },
            "Check": { "CheckID": format!("{id}-alive"), "TTL": "1h", "Status": health },
        });
        self.consul.register(&service);
    }

    fn deregister(&self, id: &str) {
        self.consul.put(&format!("/v1/agent/service/deregister/{id}"), &Value::Null);
    }

    /// Asks until this one was asked, and gives what it heard and what came of it.
    fn until_asked(&self, double: &Double, method: &str, path: &str) -> (String, Reply) {
        until("the agent knows whom to ask", || {
            let reply = self.ask(method, path, &[], "v");
            double.asked().pop().map(|request| (request, reply))
        })
    }
}

#[test]
fn where_nobody_takes_part_there_is_no_door() {
    let bench = Bench::start();
    let told = until("Consul told who takes part", || {
        let reply = bench.ask("GET", "/v1/agent/self", &[], "");
        (reply.status == 404).then_some(reply)
    });
    assert!(told.text().contains("turn [sync] enabled on in two of them"), "{}", told.text());
    for (method, path) in [
        ("GET", "/v1/kv/a"),
        ("PUT", "/v1/kv/a"),
        ("DELETE", "/v1/kv/?recurse"),
        ("PUT", "/v1/txn"),
        ("PUT", "/v1/session/create"),
        ("POST", "/v1/lock/locks/deploy"),
        ("GET", "/v1/sync/status"),
    ] {
        let refused = bench.ask(method, path, &[], "[]");
        // A 404 would say that there is no such key.
        assert_eq!((refused.status, refused.text()), (503, told.text()), "{method} {path}");
    }
    assert_eq!(bench.ask("GET", "/v1/catalog/nodes", &[], "").status, 404);
    let keys = http(bench.consul.http, "GET", "/v1/kv/?keys", "").unwrap();
    assert!(keys.status == 404 || keys.body.trim() == "[]", "something was written: {}", keys.body);
}

#[test]
fn requests_go_to_one_that_takes_part_as_they_came() {
    let bench = Bench::start();
    let (well, ill) = (Double::start(ANSWER), Double::start(ANSWER));
    bench.register("ill", ill.address, "critical");
    bench.register("well", well.address, "passing");
    bench.until_asked(&well, "PUT", "/v1/kv/first");
    ill.asked();

    let headers = [("X-Sync-Request-Id", "id-1"), ("X-Lock", "locks/a"), ("X-Lock-Token", "1.1")];
    let reply = bench.ask("PUT", "/v1/kv/a%20b?flags=7&token=of-the-client", &headers, "a value");
    assert_eq!((reply.status, reply.text().as_str()), (200, "true"));
    assert_eq!(reply.header("x-consul-index"), Some("42"));
    assert_eq!(reply.header("x-sync-seq"), Some("1.7"));
    let asked = well.asked_once();
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    let (line, names) = head.split_once("\r\n").unwrap();
    assert_eq!((line, body), ("PUT /v1/kv/a%20b?flags=7 HTTP/1.1", "a value"));
    let names = names.to_ascii_lowercase();
    for header in
        ["x-consul-token: of-the-client", "x-sync-passed: 1", "x-sync-request-id: id-1", "x-lock: locks/a"]
    {
        assert!(names.contains(header), "{header} is not in {names}");
    }
    // Whoever has no token stays without one, whatever token the other agent's Consul has for such.
    bench.ask("GET", "/v1/session/list", &[], "");
    let asked = well.asked_once();
    assert!(asked.to_ascii_lowercase().contains("x-consul-token: anonymous"), "{asked}");

    // Everything else is this machine's own Consul's.
    let own = bench.ask("GET", "/v1/agent/self", &[], "");
    let own: Value = serde_json::from_slice(&own.body).unwrap();
    assert_eq!(own["Config"]["NodeName"], "s1");
    // Two without a part in replication do not pass a request back and forth.
    let passed = bench.ask("GET", "/v1/kv/a", &[("X-Sync-Passed", "1")], "");
    assert_eq!(passed.status, 503);
    assert!(passed.text().contains("takes no part in replication any more"), "{}", passed.text());
    let ambiguous = bench.ask("DELETE", "/v1/kv/a?x;recurse", &[], "");
    assert_eq!(ambiguous.status, 400, "{}", ambiguous.text());
    assert_eq!((well.asked(), ill.asked()), (vec![], vec![]));
}

#[test]
fn only_what_nobody_took_is_given_to_another() {
    let bench = Bench::start();
    let (ill, mute) = (Double::start(ANSWER), Double::start(""));
    // Nobody listens there.
    let [gone] = free_ports::<1>(HOST);
    bench.register("gone", (HOST, gone).into(), "passing");
    bench.register("ill", ill.address, "critical");
    let (_, reply) = bench.until_asked(&ill, "PUT", "/v1/kv/a");
    assert_eq!((reply.status, reply.text().as_str()), (200, "true"), "the one that can be reached was asked");

    bench.register("mute", mute.address, "passing");
    bench.deregister("gone");
    let (_, reply) = bench.until_asked(&mute, "PUT", "/v1/kv/a");
    assert_eq!(reply.status, 504, "{}", reply.text());
    assert!(reply.text().contains("outcome=unknown"), "{}", reply.text());
    ill.asked();
    let reply = bench.ask("PUT", "/v1/kv/a", &[], "v");
    assert_eq!(reply.status, 504, "{}", reply.text());
    mute.asked_once();
    assert_eq!(ill.asked(), Vec::<String>::new(), "what somebody may have executed is not sent to another");

    bench.deregister("mute");
    bench.deregister("ill");
    until("nobody takes part any more", || {
        let reply = bench.ask("PUT", "/v1/kv/a", &[], "v");
        (reply.status == 503 && reply.text().contains("turn [sync] enabled on")).then_some(())
    });
}

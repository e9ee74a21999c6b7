//! Streams and their tokens, on a real Consul whose ACLs deny by default and with the policies that are shipped.

mod expiry;
mod outage;
mod rights;

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use causeway::{
    api::wire::Status as AgentStatus,
    config::consul::{ConsulAddress, ConsulSettings},
    consul::client::{Client, path},
    lifecycle,
    model::secret::SecretText,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::rig::{
    parts::{Agent, Consul, Home, PATIENCE, until},
    stream::Stream,
};

const HOST: Ipv4Addr = Ipv4Addr::new(127, 77, 1, 11);
const ROOT: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8a002";
const PROXY: &str = "web-sidecar-proxy";
const NOBODYS: &str = "5b6ad8a2-0a8c-4b8e-9a55-6d2cbbd8affe";

/// A token as Consul made it.
struct Token {
    accessor: String,
    secret: String,
}

struct Bench {
    agent: Agent,
    root: Client,
    consul: Consul,
    settings: String,
}

/// A policy file with its places filled in.
fn policy(file: &str, service: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies").join(file);
    std::fs::read_to_string(file).unwrap().replace("{{node}}", "s1").replace("{{service}}", service)
}

fn client(consul: &Consul, token: &str) -> Client {
    let address = ConsulAddress::parse(&consul.address()).unwrap();
    let token = Some(SecretText::from(token));
    Client::new(ConsulSettings { address, token, ..ConsulSettings::default() }).unwrap()
}

async fn make(root: &Client, name: &str, rules: &str) -> Token {
    make_with(root, name, rules, json!({})).await
}

/// The same, with more fields of the token.
async fn make_with(root: &Client, name: &str, rules: &str, mut token: Value) -> Token {
    let ask = async |kind: &str, body| {
        let reply = root.put(&path(&["v1", "acl", kind]), &[], Some(body), PATIENCE).await.unwrap();
        reply.ok().unwrap().json::<Value>().unwrap()
    };
    ask("policy", json!({ "Name": name, "Rules": rules })).await;
    token["Policies"] = json!([{ "Name": name }]);
    let made = ask("token", token).await;
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    Token { accessor: text("AccessorID"), secret: text("SecretID") }
}

async fn delete(root: &Client, token: &Token) {
    let path = path(&["v1", "acl", "token", &token.accessor]);
    root.delete(&path, &[], PATIENCE).await.unwrap().ok().unwrap();
}

/// The settings beside the agent's token.
fn settings_of(home: &Home, more: &str) -> String {
    let (token, state) = (home.path("token"), home.path("state"));
    format!("consul.token_file = {token:?}\nstate.dir = {state:?}\n{more}")
}

impl Bench {
    /// Consul with `web` and its sidecar, and an agent with the token that its policy file describes.
    async fn start() -> (Self, Token) {
        Self::start_with("xds.token_recheck_ms = 1000").await
    }

    /// The same with these settings.
    async fn start_with(settings: &str) -> (Self, Token) {
        let tokens = json!({ "master": ROOT, "agent": ROOT });
        let acl = json!({ "acl": { "enabled": true, "default_policy": "deny", "tokens": tokens } });
        let consul = Consul::start(HOST, acl);
        let root = client(&consul, ROOT);
        register(&root, "web").await;
        let token = make(&root, "causeway", &policy("causeway-agent.hcl", "")).await;
        let home = Home::new(HOST);
        std::fs::write(home.path("token"), &token.secret).unwrap();
        let settings = settings_of(&home, settings);
        let agent = Agent::with(home, &consul.address(), &settings, &[]);
        agent.until_ready();
        (Self { agent, root, consul, settings }, token)
    }

    async fn stream(&self, proxy: &str, token: Option<&str>) -> Result<Stream, Status> {
        Stream::over_unix_as(&self.agent.home.socket(), proxy, token).await
    }

    /// The end of a stream that is given nothing before it.
    async fn refusal(&self, token: Option<&str>) -> Status {
        match self.stream("web-sidecar-proxy", token).await {
            Err(status) => status,
            Ok(mut stream) => stream.names().await.expect_err("nothing but a refusal"),
        }
    }

    fn status(&self) -> AgentStatus {
        serde_json::from_value(self.agent.get("/status").json()).unwrap()
    }

    /// Waits until every topic is known and current.
    fn until_complete(&self) {
        until("the agent reads all it needs", || {
            let status = self.status();
            let is_whole = !status.proxies.is_empty() && status.proxies.iter().all(|proxy| proxy.complete);
            (is_whole && status.topics.iter().all(|it| it.known && it.trouble.is_none())).then_some(())
        });
    }
}

async fn register(root: &Client, name: &str) {
    let service = json!({
        "Name": name, "ID": name, "Port": 8080,
        "Connect": { "SidecarService": { "Port": if name == "web" { 21000 } else { 21001 }, "Checks": [] } },
    });
    root.register_service(service).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_given_what_its_token_allows() {
    let (bench, own) = Bench::start().await;
    let poor = make(&bench.root, "poor", r#"service_prefix "" { policy = "read" }"#).await;
    let other = make(&bench.root, "other", &policy("sidecar.hcl", "db")).await;
    let good = make(&bench.root, "good", &policy("sidecar.hcl", "web")).await;

    let refusals = [
        ("none", None, Code::Unauthenticated, "--token-file"),
        ("an unknown one", Some(NOBODYS), Code::Unauthenticated, "no such ACL token"),
        (
            "one that reads",
            Some(&*poor.secret),
            Code::PermissionDenied,
            r#"service "web" { policy = "write" }"#,
        ),
        ("another's", Some(&*other.secret), Code::PermissionDenied, "service:write on web"),
        ("the agent's own", Some(&*own.secret), Code::PermissionDenied, "service:write on web"),
    ];
    for (what, token, code, text) in refusals {
        let refusal = bench.refusal(token).await;
        assert_eq!(refusal.code(), code, "{what}: {refusal}");
        assert!(refusal.message().contains(text), "{what}: {refusal}");
    }
    let leaf = "/v1/agent/connect/ca/leaf/web";
    let asked = client(&bench.consul, &own.secret).get(leaf, &[], PATIENCE).await.unwrap();
    assert_eq!(asked.status.as_u16(), 403, "the agent's own token has no right to the leaf");
    let known: BTreeMap<_, _> = bench.status().topics.into_iter().map(|it| (it.topic, it.known)).collect();
    assert_eq!(known.get("leaf/web"), Some(&false), "nobody could ask for the leaf: {known:?}");

    let mut stream = bench.stream("web-sidecar-proxy", Some(&good.secret)).await.unwrap();
    stream.until(&["local_app"]).await.unwrap();
    bench.until_complete();
    let notes: Vec<_> = bench.status().proxies.into_iter().flat_map(|proxy| proxy.notes).collect();
    assert_eq!(notes, Vec::<String>::new(), "nothing is left out of what the agent may read");

    delete(&bench.root, &good).await;
    let deleted_at = lifecycle::now();
    let end = loop {
        match stream.names().await {
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    println!("from the deletion of a token to the end of its stream: {:?}", deleted_at.elapsed());
    assert_eq!(end.code(), Code::Unauthenticated, "{end}");
    assert_eq!(bench.refusal(Some(&good.secret)).await.code(), Code::Unauthenticated);

    let log = bench.agent.log().text();
    for token in [&poor, &other, &good, &own] {
        assert!(!log.contains(&token.secret), "a token is logged:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_token_is_changed_while_it_runs() {
    let (bench, old) = Bench::start().await;
    let web = make(&bench.root, "web", &policy("sidecar.hcl", "web")).await;
    let db = make(&bench.root, "db", &policy("sidecar.hcl", "db")).await;
    let mut stream = bench.stream("web-sidecar-proxy", Some(&web.secret)).await.unwrap();
    stream.until(&["local_app"]).await.unwrap();
    bench.until_complete();

    let new = make(&bench.root, "causeway-2", &policy("causeway-agent.hcl", "")).await;
    std::fs::write(bench.agent.home.path("token"), &new.secret).unwrap();
    delete(&bench.root, &old).await;
    register(&bench.root, "db").await;
    let mut second = bench.stream("db-sidecar-proxy", Some(&db.secret)).await.unwrap();
    second.until(&["local_app"]).await.unwrap();
    bench.until_complete();
    bench.agent.log().line(&["token file changed"]);
    // The first stream never noticed.
    register(&bench.root, "web").await;
    assert_eq!(bench.status().proxies.iter().map(|proxy| proxy.streams.len()).sum::<usize>(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_how_often_tokens_are_checked() {
    let (bench, _own) = Bench::start_with("xds.token_recheck_ms = 3600000").await;
    let web = make(&bench.root, "web", &policy("sidecar.hcl", "web")).await;
    let mut stream = bench.stream("web-sidecar-proxy", Some(&web.secret)).await.unwrap();
    stream.until(&["local_app"]).await.unwrap();
    delete(&bench.root, &web).await;
    let more = settings_of(&bench.agent.home, "xds.token_recheck_ms = 1000");
    bench.agent.home.write(&bench.consul.address(), &more);
    bench.agent.process.signal(Signal::SIGHUP);
    bench.agent.log().line(&["configuration reloaded", "xds.token_recheck_ms"]);
    let end = loop {
        if let Err(end) = stream.names().await {
            break end;
        }
    };
    assert_eq!(end.code(), Code::Unauthenticated, "{end}");
}

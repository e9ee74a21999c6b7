//! The lab with its sync agents, and what the scenarios ask of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use causeway::{
    lab::{
        Lab, LabOptions,
        plan::{PRIMARY, SECONDARY},
    },
    lifecycle,
    model::sync::PrefixId,
    sync::layout::{Duty, Layout},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::lab_sync::ask::{Reply, ask, without_token};

/// A limit that only a fault reaches: an agent that was killed is replaced after twice its session's 10 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what cannot be awaited.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Both datacenters, each with the two nodes that have a sync agent.
pub(crate) const AGENTS: [(&str, [&str; 2]); 2] = [
    (PRIMARY, ["primary-gateway", "primary-services"]),
    (SECONDARY, ["secondary-gateway", "secondary-services"]),
];

/// What a team's programs may do: keys and sessions, and what `consul lock` and `consul watch` look at. `_sync/` is read by
/// the test alone, to find out who is active.
const RULES: &str = r#"
key_prefix "config/" { policy = "write" }
key_prefix "locks/" { policy = "write" }
key_prefix "plain/" { policy = "write" }
key_prefix "_sync/" { policy = "read" }
session_prefix "" { policy = "write" }
agent_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
"#;

pub(crate) struct World {
    runtime: Runtime,
    lab: Lab,
    dir: TempDir,
    /// What everybody asks with; none without ACLs.
    token: Option<String>,
}

/// A process that is killed with its group when it is dropped.
pub(crate) struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Background {
    pub(crate) fn wait(mut self) -> std::process::ExitStatus {
        self.0.wait().unwrap()
    }
}

impl World {
    pub(crate) fn start() -> Self {
        Self::start_as(|_| {})
    }

    /// The same with ACLs in default deny, where agents have no more rights than the shipped policies give them.
    pub(super) fn start_with_acls() -> Self {
        let mut world = Self::start_as(|options| options.has_acls = true);
        let token = world.make_token("tester", RULES);
        world.token = Some(token);
        for (_, nodes) in AGENTS {
            nodes.iter().for_each(|node| world.until_serving(node));
        }
        world
    }

    /// With other options than the usual ones.
    pub(crate) fn start_as(adjust: impl FnOnce(&mut LabOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (own, lookup) = (env!("CARGO_BIN_EXE_causeway").into(), |name: &str| std::env::var_os(name));
        let mut options = LabOptions::new(&dir.path().join("lab"), own, root, &lookup)
            .unwrap_or_else(|error| panic!("{error}; `make tools` brings the real parts"));
        adjust(&mut options);
        let lab = runtime.block_on(Lab::start(options, |line| println!("{line}")));
        let lab = lab.unwrap_or_else(|error| panic!("{error}"));
        let mut world = Self { lab, runtime, dir, token: None };
        let management = world.lab.management_token();
        world.token = management.map(|file| fs::read_to_string(file).unwrap().trim().to_owned());
        for (_, nodes) in AGENTS {
            for node in nodes {
                world.until_serving(node);
            }
        }
        world
    }

    /// Ends the lab; its logs stay when something failed.
    pub(crate) fn stop(self, keep: bool) {
        self.runtime.block_on(self.lab.stop()).unwrap();
        if keep {
            println!("the lab's logs stay in {}", self.dir.keep().display());
        }
    }

    /// The HTTP address of a node's agent, with the token to ask it with.
    pub(crate) fn agent(&self, node: &str) -> String {
        let address = self.lab.node(node).unwrap().causeway_http.clone().expect("the node has an agent");
        with_token(&address, self.token.as_deref())
    }

    /// The HTTP address of a node's Consul, with the token to ask it with.
    pub(crate) fn consul(&self, node: &str) -> String {
        with_token(&self.lab.node(node).unwrap().consul_http, self.token.as_deref())
    }

    /// Makes a token with these rules, and waits until both datacenters know it. Only who may do everything can.
    pub(super) fn make_token(&self, name: &str, rules: &str) -> String {
        let management = self.lab.management_token().expect("the lab has ACLs");
        let management = fs::read_to_string(management).unwrap();
        let primary = &self.lab.node("primary-server").unwrap().consul_http;
        let primary = with_token(primary, Some(management.trim()));
        let policy = json!({ "Name": name, "Rules": rules }).to_string();
        let made = self.ask("PUT", &format!("{primary}/v1/acl/policy"), policy.as_bytes());
        assert_eq!(made.status, 200, "{}", made.text());
        let token = json!({ "Policies": [{ "Name": name }] }).to_string();
        let made = self.ask("PUT", &format!("{primary}/v1/acl/token"), token.as_bytes());
        let made: Value = serde_json::from_slice(&made.body).unwrap_or_else(|_| panic!("{}", made.text()));
        let secret = made["SecretID"].as_str().unwrap().to_owned();
        for datacenter in [PRIMARY, SECONDARY] {
            let server = &self.lab.node(&format!("{datacenter}-server")).unwrap().consul_http;
            let address = with_token(server, Some(&secret));
            until(&format!("{datacenter} knows the token {name}"), || {
                let own = ask("GET", &format!("{address}/v1/acl/token/self"), &[], b"")?;
                if own.status == 200 { Ok(()) } else { Err(own.text()) }
            });
        }
        secret
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Waits for what the lab does.
    pub(crate) fn wait<T>(&self, act: impl Future<Output = T>) -> T {
        self.runtime.block_on(act)
    }

    /// The real `consul`, told of one address and nothing else.
    pub(crate) fn tool(&self, address: &str, args: &[&str]) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let consul = causeway::lab::tools::CONSUL.find(root, &|name| std::env::var_os(name));
        let mut command = Command::new(consul.unwrap_or_else(|error| panic!("{error}")));
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"CONSUL_") {
                command.env_remove(name);
            }
        }
        let (address, token) = without_token(address);
        command.env("CONSUL_HTTP_ADDR", address).args(args).stdin(Stdio::null());
        command.envs(token.map(|token| ("CONSUL_HTTP_TOKEN", token)));
        command
    }

    pub(crate) fn run(&self, address: &str, args: &[&str]) -> Output {
        self.tool(address, args).output().unwrap()
    }

    /// Starts it and leaves it running.
    pub(crate) fn background(&self, mut command: Command) -> Background {
        Background(command.spawn().unwrap())
    }

    /// Waits until an agent answers a consistent read of every prefix: it found its way home.
    pub(crate) fn until_serving(&self, node: &str) {
        let address = self.agent(node);
        for key in ["config/any", "locks/any"] {
            until(&format!("{node} serves {key}"), || {
                let reply = ask("GET", &format!("{address}/v1/kv/{key}?consistent"), &[], b"")?;
                match reply.status {
                    404 if reply.header("x-consul-index").is_some() => Ok(()),
                    status => Err(format!("{status} {}", reply.text())),
                }
            });
        }
    }

    /// The node that does a duty, by the lock that proves it.
    pub(crate) fn doer(&self, datacenter: &str, prefix: &str, duty: Duty) -> String {
        let key = Layout::new(&PrefixId::of(prefix)).duty(duty);
        let consul = self.consul(&format!("{datacenter}-server"));
        until(&format!("somebody in {datacenter} has the duty {duty:?} of {prefix}"), || {
            let reply = ask("GET", &format!("{consul}/v1/kv/{key}?consistent"), &[], b"")?;
            let pairs: Value = serde_json::from_slice(&reply.body).map_err(|error| error.to_string())?;
            let pair = &pairs[0];
            if !pair["Session"].is_string() {
                return Err("nobody holds it".to_owned());
            }
            let raw = ask("GET", &format!("{consul}/v1/kv/{key}?raw"), &[], b"")?;
            let doer: Value = serde_json::from_slice(&raw.body).map_err(|error| error.to_string())?;
            doer["node"].as_str().map(str::to_owned).ok_or_else(|| doer.to_string())
        })
    }

    /// The value of a key, by a consistent read.
    pub(crate) fn value(&self, address: &str, key: &str) -> Option<String> {
        let reply = self.ask("GET", &format!("{address}/v1/kv/{key}?raw&consistent"), b"");
        (reply.status == 200).then(|| reply.text())
    }

    pub(crate) fn ask(&self, method: &str, url: &str, body: &[u8]) -> Reply {
        ask(method, url, &[], body).unwrap_or_else(|error| panic!("{method} {url}: {error}"))
    }

    /// A file of this folder, as the scenarios hand it to programs.
    pub(crate) fn source(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab_sync").join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// The address with a token in it, in place of one that is there.
pub(super) fn with_token(address: &str, token: Option<&str>) -> String {
    let (bare, _) = without_token(address);
    match token {
        Some(token) => bare.replacen("http://", &format!("http://{token}@"), 1),
        None => bare,
    }
}

/// Looks again and again; what the last look ran into is told when patience ends.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = lifecycle::now() + PATIENCE;
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(trouble) if lifecycle::now() >= end => panic!("not in time: {what}: {trouble}"),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

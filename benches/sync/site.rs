//! The lab, and HTTP to its agents and Consuls over connections that stay open.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use causeway::{
    config::consul::{ConsulAddress, ConsulSettings},
    consul::client::{Bearer, Client, RawRequest},
    lab::{Lab, LabOptions},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

/// Far beyond what anything here takes.
const ANSWER: Duration = Duration::from_secs(120);

/// Consul resets connections beyond 200 from one address; what is sent here may be sent twice.
const RETRIES: usize = 3;

/// The agents that take part, one in each datacenter: a second one would only take from the two cores.
pub(crate) const HOME: &str = "primary-gateway";
pub(crate) const AWAY: &str = "secondary-gateway";

pub(crate) struct Site {
    pub(crate) lab: Lab,
    _dir: tempfile::TempDir,
}

/// Whom one asks. Clones share connections.
#[derive(Clone)]
pub(crate) struct Door(Client);

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let own = env!("CARGO_BIN_EXE_causeway").into();
        let options = LabOptions::new(&dir.path().join("lab"), own, root, &|name| std::env::var_os(name))
            .unwrap_or_else(|error| panic!("{error}; `make tools` brings the real parts"));
        let options = LabOptions { start_services: false, ..options };
        let lab =
            Lab::start(options, |line| println!("{line}")).await.unwrap_or_else(|error| panic!("{error}"));
        let site = Self { lab, _dir: dir };
        site.until_serving().await;
        site
    }

    pub(crate) async fn until_serving(&self) {
        for node in [HOME, AWAY] {
            for key in ["config/any", "locks/any"] {
                until(&format!("{node} serves {key}"), async || {
                    let reply = self.agent(node).get(&format!("/v1/kv/{key}?consistent")).await?;
                    Ok((reply.status == 404 && reply.headers.contains_key("x-consul-index")).then_some(()))
                })
                .await;
            }
        }
    }

    pub(crate) async fn stop(self) {
        self.lab.stop().await.unwrap();
    }

    /// The agent of a node.
    pub(crate) fn agent(&self, node: &str) -> Door {
        Door::new(self.lab.node(node).unwrap().causeway_http.as_deref().unwrap())
    }

    /// The Consul agent of a node.
    pub(crate) fn consul(&self, node: &str) -> Door {
        Door::new(&self.lab.node(node).unwrap().consul_http)
    }

    /// The most memory that a node's agent ever had, in MiB.
    pub(crate) fn peak_mib(&self, node: &str) -> u64 {
        let pid = self.lab.pid(node, "causeway").unwrap();
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
    }
}

impl Reply {
    /// Where in the journal a write stands: epoch and number.
    pub(crate) fn position(&self) -> Option<(u64, u64)> {
        let (epoch, seq) = self.headers.get("x-sync-seq")?.to_str().ok()?.split_once('.')?;
        Some((epoch.parse().ok()?, seq.parse().ok()?))
    }
}

impl Door {
    fn new(address: &str) -> Self {
        let address = ConsulAddress::parse(address).unwrap();
        Self(Client::new(ConsulSettings { address, ..ConsulSettings::default() }).unwrap())
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        target: &str,
        headers: &[(&'static str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Reply> {
        let headers = headers
            .iter()
            .map(|(name, value)| Ok((HeaderName::from_static(name), HeaderValue::from_str(value)?)))
            .collect::<anyhow::Result<HeaderMap>>()?;
        let (target, body) = (target.to_owned(), body.into());
        let request = RawRequest { method, target, headers, body, bearer: Bearer::Nobody };
        let mut open = self.0.open(request, ANSWER).await?;
        let body = open.whole(1 << 30, ANSWER).await?;
        Ok(Reply { status: open.status.as_u16(), headers: open.headers.clone(), body })
    }

    pub(crate) async fn get(&self, target: &str) -> anyhow::Result<Reply> {
        self.ask(Method::GET, target, &[], Bytes::new()).await
    }

    /// A write that must succeed.
    pub(crate) async fn put(&self, target: &str, body: impl Into<Bytes>) -> Reply {
        let body = body.into();
        let mut reply = self.ask(Method::PUT, target, &[], body.clone()).await;
        for _ in 0..RETRIES {
            if reply.is_ok() {
                break;
            }
            reply = self.ask(Method::PUT, target, &[], body.clone()).await;
        }
        let reply = reply.unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(reply.status, 200, "PUT {target}: {}", String::from_utf8_lossy(&reply.body));
        reply
    }

    /// Sets all these keys in one transaction.
    pub(crate) async fn set_all(&self, keys: impl Iterator<Item = String>, value: &[u8]) -> Reply {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let value = BASE64_STANDARD.encode(value);
        let ops: Vec<Value> =
            keys.map(|key| json!({ "KV": { "Verb": "set", "Key": key, "Value": value } })).collect();
        self.put("/v1/txn", serde_json::to_vec(&ops).unwrap()).await
    }

    /// How many keys begin so.
    pub(crate) async fn count(&self, prefix: &str) -> anyhow::Result<usize> {
        let reply = self.get(&format!("/v1/kv/{prefix}?keys")).await?;
        if reply.status == 404 {
            return Ok(0);
        }
        Ok(serde_json::from_slice::<Vec<String>>(&reply.body)?.len())
    }
}

/// Looks until there is something to see.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> T {
    let until = causeway::lifecycle::now() + Duration::from_secs(600);
    loop {
        match look().await {
            Ok(Some(seen)) => return seen,
            outcome if causeway::lifecycle::now() > until => {
                panic!("not in time: {what}: {:?}", outcome.err())
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

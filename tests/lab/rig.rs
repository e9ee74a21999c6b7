//! The shared lab and what the scenarios ask of it.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, anyhow};
use causeway::{
    api::wire::Status,
    config::consul::{ConsulAddress, ConsulSettings},
    consul::client::Client,
    envoy::admin::Admin,
    fetch,
    lab::{Lab, LabOptions},
    lifecycle,
};
use serde_json::Value;

use crate::lab::warming::Seen;

/// A limit that only a fault reaches; nothing is asserted about speed.
const PATIENCE: Duration = Duration::from_secs(45);
/// Between two looks at another process.
const LOOK_EVERY: Duration = Duration::from_millis(15);
/// A plain question to a process on this machine.
const ANSWER: Duration = Duration::from_secs(10);

/// The nodes with an Envoy.
pub(crate) const ENVOYS: [&str; 4] =
    ["primary-gateway", "primary-services", "secondary-gateway", "secondary-services"];

pub(crate) struct Rig {
    pub(crate) lab: Lab,
    /// The process of each Envoy when the lab came up.
    pub(crate) first_envoys: Vec<u32>,
    dir: Option<tempfile::TempDir>,
    times: Vec<(String, i64)>,
    /// By node, when warming was last looked at.
    pub(crate) seen: BTreeMap<String, Seen>,
}

/// The lab of these tests: our own binary, the tools under this tree, a folder of its own.
pub(crate) fn options(dir: &Path) -> LabOptions {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    LabOptions::new(dir, env!("CARGO_BIN_EXE_causeway").into(), root, &|name| std::env::var_os(name))
        .unwrap_or_else(|error| panic!("{error}; `make tools` brings the real parts"))
}

impl Rig {
    pub(crate) async fn start(has_acls: bool) -> Self {
        Self::with(|options| LabOptions { has_acls, ..options }).await
    }

    /// A lab that differs from the usual one.
    pub(crate) async fn with(change: impl FnOnce(LabOptions) -> LabOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = change(options(dir.path()));
        let lab = Lab::start(options, |line| println!("{line}")).await;
        let lab = lab.unwrap_or_else(|error| panic!("{error}"));
        let mut rig =
            Self { lab, first_envoys: Vec::new(), dir: Some(dir), times: Vec::new(), seen: BTreeMap::new() };
        rig.first_envoys = rig.envoys().unwrap();
        rig
    }

    /// The process of each Envoy now.
    pub(crate) fn envoys(&self) -> anyhow::Result<Vec<u32>> {
        ENVOYS.iter().map(|node| Ok(self.lab.pid(node, "envoy")?)).collect()
    }

    pub(crate) async fn stop(self) {
        self.lab.stop().await.unwrap();
    }

    /// Leaves the logs where they are, for whoever looks into a failure.
    pub(crate) fn keep_logs(&mut self) {
        if let Some(dir) = self.dir.take() {
            println!("the lab's logs stay in {}", dir.keep().display());
        }
    }

    pub(crate) fn consul(&self, node: &str) -> anyhow::Result<Client> {
        let address =
            ConsulAddress::parse(&self.lab.node(node)?.consul_http).map_err(|error| anyhow!(error))?;
        let token_file = self.lab.management_token();
        Ok(Client::new(ConsulSettings { address, token_file, ..ConsulSettings::default() })?)
    }

    pub(crate) fn has_acls(&self) -> bool {
        self.lab.plan().has_acls
    }

    /// Every token of the lab by name; none without ACLs.
    pub(crate) fn tokens(&self) -> anyhow::Result<Vec<(String, String)>> {
        let folder = std::fs::read_dir(self.lab.plan().dir.join("tokens"))?;
        folder
            .map(|entry| {
                let entry = entry?;
                let mode = std::os::unix::fs::MetadataExt::mode(&entry.metadata()?);
                anyhow::ensure!(mode & 0o077 == 0, "{:?} can be read by others", entry.path());
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok((name, std::fs::read_to_string(entry.path())?))
            })
            .collect()
    }

    pub(crate) fn envoy(&self, node: &str) -> anyhow::Result<Admin> {
        let url = self.lab.node(node)?.envoy_admin.clone();
        Ok(Admin::new(url.context("the node has no Envoy")?))
    }

    pub(crate) async fn put(&self, node: &str, path: &str, body: Option<Value>) -> anyhow::Result<()> {
        self.consul(node)?.put(path, &[], body, ANSWER).await?.ok()?;
        Ok(())
    }

    pub(crate) async fn delete(&self, node: &str, path: &str) -> anyhow::Result<()> {
        self.consul(node)?.delete(path, &[], ANSWER).await?.ok()?;
        Ok(())
    }

    pub(crate) async fn status(&self, node: &str) -> anyhow::Result<Status> {
        Ok(serde_json::from_slice(&self.causeway(node, "/status").await?)?)
    }

    /// A page of the node's Causeway agent.
    pub(crate) async fn causeway(&self, node: &str, path: &str) -> anyhow::Result<Vec<u8>> {
        let url = self.lab.node(node)?.causeway_http.clone().context("the node has no agent")?;
        let answer = fetch::get(&format!("{url}{path}"), ANSWER).await.map_err(|error| anyhow!(error))?;
        anyhow::ensure!(answer.status.is_success(), "{url}{path}: {}", answer.status);
        Ok(answer.body.to_vec())
    }

    pub(crate) async fn dashboard(&self) -> anyhow::Result<Value> {
        let url = self.lab.dashboard().context("no dashboard")?;
        let answer = fetch::get(&format!("{url}/api/state"), ANSWER).await.map_err(|error| anyhow!(error))?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Waits until the dashboard's link is up and a count newer than now arrived, or until it is down.
    pub(crate) async fn link(&self, up: bool) -> anyhow::Result<()> {
        let first = self.dashboard().await?["count"].clone();
        eventually(if up { "the link is up and counts" } else { "the link is down" }, async || {
            let state = self.dashboard().await?;
            let is_up = state["link"]["up"] == true;
            Ok((is_up == up && (!up || state["count"] != first)).then_some(()))
        })
        .await
    }

    /// Does `write`, waits until it is `seen` at Envoy itself, and notes the time from the write's return to the last ACK
    /// of that type on that node's stream: no less than the ACK of this change, more if another one followed it.
    pub(crate) async fn live(
        &mut self,
        what: &str,
        node: &str,
        kind: &str,
        write: impl AsyncFnOnce(&Self) -> anyhow::Result<()>,
        seen: impl AsyncFn(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        write(self).await.with_context(|| format!("{what}: write"))?;
        let returned = now_ms();
        eventually(what, async || Ok(seen(self).await?.then_some(()))).await?;
        let acked = eventually(&format!("{what}: ACK"), async || {
            let status = self.status(node).await?;
            let types = status.proxies.iter().flat_map(|p| &p.streams).flat_map(|s| &s.types);
            let of_kind: Vec<_> = types.filter(|t| t.kind == kind).collect();
            let is_settled = of_kind.iter().all(|t| t.acked_at_ms >= t.sent_at_ms);
            Ok(of_kind.iter().filter_map(|t| t.acked_at_ms).max().filter(|_| is_settled))
        })
        .await?;
        self.times.push((what.to_owned(), i64::try_from(acked)? - i64::try_from(returned)?));
        Ok(())
    }

    /// The measured times.
    pub(crate) fn table(&self) -> String {
        let rows = self.times.iter().map(|(what, ms)| format!("{ms:>8}  {what}\n"));
        let head = "ms from the return of the Consul write to Envoy's ACK (negative: the ACK was first)\n";
        std::iter::once(head.to_owned()).chain(rows).collect()
    }
}

pub(crate) fn endpoint(host: &Value) -> String {
    let at = &host["address"]["socket_address"];
    let health = &host["health_status"]["eds_health_status"];
    format!(
        "{}:{} {}",
        at["address"].as_str().unwrap_or("?"),
        at["port_value"],
        health.as_str().unwrap_or("?")
    )
}

/// Looks again and again until `look` finds something. What a look runs into is told when patience ends.
pub(crate) async fn eventually<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let until = lifecycle::now() + PATIENCE;
    loop {
        let trouble = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if lifecycle::now() > until {
            let never = anyhow!("never seen within {PATIENCE:?}: {what}");
            return Err(trouble.map_or(never, |error| error.context(format!("waiting for: {what}"))));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = lifecycle::wall_clock().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

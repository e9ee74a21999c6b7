//! What `causeway envoy` asks of the local Consul agent and tells it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    cli::envoy::choose::LocalService, config::consul::ConsulSettings, consul::client::Client,
    model::settings::Settings,
};

/// The questions are answered from the local agent's memory, or by one read of or write to its servers.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the local agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalAgent {
    pub(super) datacenter: String,
    pub(super) node_name: String,
    /// The address it tells the other agents.
    pub(super) address: String,
}

/// The local Consul agent; tests have one in memory.
pub(super) trait ConsulAgent {
    /// What it says of itself.
    async fn facts(&self) -> anyhow::Result<LocalAgent>;
    /// The services registered with it.
    async fn services(&self) -> anyhow::Result<Vec<LocalService>>;
    /// The settings of all proxies (`proxy-defaults/global`); empty without such an entry.
    async fn proxy_defaults(&self) -> anyhow::Result<Settings>;
    /// Registers a service, replacing the one with its id.
    async fn register(&self, body: Value) -> anyhow::Result<()>;
}

/// The real one, over HTTP.
pub(super) struct HttpAgent(Client);

impl HttpAgent {
    pub(super) fn new(settings: ConsulSettings) -> anyhow::Result<Self> {
        Ok(Self(Client::new(settings).context("set up the connection to the Consul agent")?))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireSelf {
    config: WireConfig,
    member: WireMember,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireConfig {
    datacenter: String,
    node_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireMember {
    #[serde(default)]
    addr: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireDefaults {
    config: Option<BTreeMap<String, Value>>,
}

impl ConsulAgent for HttpAgent {
    async fn facts(&self) -> anyhow::Result<LocalAgent> {
        const WHAT: &str = "ask the Consul agent for its datacenter and node name (needs agent:read)";
        let reply = self.0.get("/v1/agent/self", &[], DEADLINE).await.context(WHAT)?;
        let wire: WireSelf = reply.ok().context(WHAT)?.json().context(WHAT)?;
        Ok(LocalAgent {
            datacenter: wire.config.datacenter,
            node_name: wire.config.node_name,
            address: wire.member.addr,
        })
    }

    async fn services(&self) -> anyhow::Result<Vec<LocalService>> {
        const WHAT: &str = "list the services of the Consul agent (needs service:read)";
        let reply = self.0.get("/v1/agent/services", &[], DEADLINE).await.context(WHAT)?;
        let wire: BTreeMap<String, LocalService> = reply.ok().context(WHAT)?.json().context(WHAT)?;
        Ok(wire.into_values().collect())
    }

    async fn proxy_defaults(&self) -> anyhow::Result<Settings> {
        const WHAT: &str = "read the defaults of all proxies from the Consul agent";
        let reply = self.0.get("/v1/config/proxy-defaults/global", &[], DEADLINE).await.context(WHAT)?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(Settings::default());
        }
        let wire: WireDefaults = reply.ok().context(WHAT)?.json().context(WHAT)?;
        Ok(Settings(wire.config.unwrap_or_default()))
    }

    async fn register(&self, body: Value) -> anyhow::Result<()> {
        const WHAT: &str = "register the gateway with the Consul agent (needs service:write)";
        self.0
            .put("/v1/agent/service/register", &[], Some(body), DEADLINE)
            .await
            .context(WHAT)?
            .ok()
            .context(WHAT)?;
        Ok(())
    }
}

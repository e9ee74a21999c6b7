//! Consul's maintenance mode for one proxy: while its Envoy is drained, others are sent elsewhere.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use serde::Deserialize;

use crate::{
    config::consul::ConsulSettings,
    consul::client::{Client, path},
};

/// The questions are answered from the local agent's memory, or by one write to its servers.
const DEADLINE: Duration = Duration::from_secs(5);

/// How the reason begins why a proxy is in maintenance, in Consul's own record; what bears another one was begun by
/// somebody else.
const MARK: &str = "causeway drains its Envoy";

/// The way to the local Consul agent, for one proxy.
pub(super) struct Maintenance {
    client: Client,
    id: String,
}

/// Who put a proxy into maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    Us,
    SomebodyElse,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireCheck {
    #[serde(default)]
    notes: String,
}

impl Maintenance {
    pub(super) fn of(id: &str, settings: ConsulSettings) -> anyhow::Result<Self> {
        let client = Client::new(settings).context("set up the connection to the Consul agent")?;
        Ok(Self { client, id: id.to_owned() })
    }

    /// Begins it, unless it has begun already.
    pub(super) async fn begin(&self) -> anyhow::Result<()> {
        match self.holder().await? {
            Holder::Nobody => self.set(true).await,
            Holder::Us | Holder::SomebodyElse => Ok(()),
        }
    }

    /// Ends it if `begin` began it. Tells who held it.
    pub(super) async fn end(&self) -> anyhow::Result<Holder> {
        let holder = self.holder().await?;
        if holder == Holder::Us {
            self.set(false).await?;
        }
        Ok(holder)
    }

    /// The command that ends it by hand.
    pub(super) fn remedy(&self) -> String {
        format!("consul maint -disable -service={}", self.id)
    }

    /// Whoever finds the proxy in maintenance after a stop for good learns from it what to do.
    fn reason(&self) -> String {
        format!("{MARK}; `causeway proxy ready` ends this, or, if it does not come back, `{}`", self.remedy())
    }

    async fn holder(&self) -> anyhow::Result<Holder> {
        const WHAT: &str = "list the checks of the Consul agent (needs service:read)";
        let reply = self.client.get("/v1/agent/checks", &[], DEADLINE).await.context(WHAT)?;
        let checks: BTreeMap<String, WireCheck> = reply.ok().context(WHAT)?.json().context(WHAT)?;
        Ok(holder(checks.get(&format!("_service_maintenance:{}", self.id)).map(|check| check.notes.as_str())))
    }

    async fn set(&self, begins: bool) -> anyhow::Result<()> {
        let act = if begins { "begin" } else { "end" };
        let what =
            || format!("{act} Consul's maintenance of `{}` (needs service:write on its service)", self.id);
        let path = path(&["v1", "agent", "service", "maintenance", &self.id]);
        let reason = self.reason();
        let query = [("enable", if begins { "true" } else { "false" }), ("reason", reason.as_str())];
        let reply = self.client.put(&path, &query, None, DEADLINE).await.with_context(what)?;
        reply.ok().with_context(what)?;
        Ok(())
    }
}

fn holder(notes: Option<&str>) -> Holder {
    match notes {
        None => Holder::Nobody,
        Some(notes) if notes.starts_with(MARK) => Holder::Us,
        Some(_) => Holder::SomebodyElse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_begun_here_is_ours() {
        assert_eq!(holder(None), Holder::Nobody);
        let maintenance = Maintenance::of("web-sidecar-proxy", ConsulSettings::default()).unwrap();
        assert_eq!(holder(Some(&maintenance.reason())), Holder::Us);
        assert_eq!(holder(Some("Maintenance mode is enabled for this service")), Holder::SomebodyElse);
    }
}

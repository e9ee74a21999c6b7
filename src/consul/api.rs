//! Plain calls to the local agent, for those who need an answer once and no watch.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::consul::client::{Client, ClientError, path};

/// The local agent answers these from memory; a longer wait means that it hangs.
const DEADLINE: Duration = Duration::from_secs(10);

impl Client {
    /// `/v1/agent/self` as it is.
    pub async fn agent_self(&self) -> Result<Value, ClientError> {
        self.get("/v1/agent/self", &[], DEADLINE).await?.ok()?.json()
    }

    /// All services of the local agent by service id, each as it is.
    pub async fn agent_services(&self) -> Result<BTreeMap<String, Value>, ClientError> {
        self.get("/v1/agent/services", &[], DEADLINE).await?.ok()?.json()
    }

    /// One service of the local agent as it is; `None` if it has no such id.
    pub async fn agent_service(&self, id: &str) -> Result<Option<Value>, ClientError> {
        let reply = self.get(&path(&["v1", "agent", "service", id]), &[], DEADLINE).await?;
        if reply.status == http::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        reply.ok()?.json().map(Some)
    }

    /// Registers a service with the local agent, or replaces it; `definition` as Consul documents it.
    pub async fn register_service(&self, definition: Value) -> Result<(), ClientError> {
        self.put("/v1/agent/service/register", &[], Some(definition), DEADLINE).await?.ok()?;
        Ok(())
    }

    /// Has the local agent read its configuration and its certificates again. Needs `agent:write`.
    pub async fn reload_agent(&self) -> Result<(), ClientError> {
        self.put("/v1/agent/reload", &[], None, DEADLINE).await?.ok()?;
        Ok(())
    }

    /// Removes a service from the local agent. An unknown id is Consul's refusal.
    pub async fn deregister_service(&self, id: &str) -> Result<(), ClientError> {
        self.put(&path(&["v1", "agent", "service", "deregister", id]), &[], None, DEADLINE).await?.ok()?;
        Ok(())
    }
}

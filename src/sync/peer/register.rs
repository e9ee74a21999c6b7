//! The registration of this agent's peer service with the local Consul: Connect-native, one instance for each node.
//!
//! Its health is a TTL that this task renews: an agent that hangs lets it run out, and gateways send nobody to it any
//! more, where a check of the port would still find the kernel listening.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tracing::{info, warn};

use crate::{
    consul::client::{Client, ClientError, path},
    lifecycle::Stop,
    model::name::NodeName,
    sync::peer::{SERVICE, VERSION},
};

/// After so long without a sign of life the instance is critical.
const TTL: Duration = Duration::from_secs(10);
/// Two signs of life may get lost.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// An instance that nobody has renewed for so long is gone for good: as long as with Consul's own gateways.
const FORGET_AFTER: &str = "6h";
/// The local agent answers from memory.
const ASK: Duration = Duration::from_secs(5);
/// At the stop nobody waits for a Consul that hangs.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the names of metadata begin with that tell a prefix.
pub const PREFIX_META: &str = "prefix-";
/// Consul takes 64 pairs of metadata, and values of 512 bytes. What does not fit is not told.
const MAX_PREFIXES: usize = 56;
const MAX_META_BYTES: usize = 512;

/// What is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The Consul node, part of the instance's id.
    pub node: NodeName,
    /// Where the peer service listens, for others of the datacenter and its gateways.
    pub address: SocketAddr,
    /// The agent's HTTP interface, for people; none where it does not leave the machine.
    pub http_address: Option<String>,
    /// The agent's prefixes as the others of its datacenter read them, a text for each.
    pub prefixes: Vec<String>,
}

impl Registered {
    /// The instance's id.
    pub fn id(&self) -> String {
        format!("{SERVICE}-{}", self.node)
    }

    fn check_id(&self) -> String {
        format!("{}-alive", self.id())
    }

    /// As Consul's API takes it.
    pub fn definition(&self) -> Value {
        let mut meta =
            json!({ "protocol_version": VERSION.to_string(), "version": env!("CARGO_PKG_VERSION") });
        if let Some(http_address) = &self.http_address {
            meta["http_address"] = http_address.as_str().into();
        }
        let fits = |text: &&String| text.len() <= MAX_META_BYTES;
        for (n, text) in self.prefixes.iter().filter(fits).take(MAX_PREFIXES).enumerate() {
            meta[format!("{PREFIX_META}{n}")] = text.as_str().into();
        }
        json!({
            "ID": self.id(),
            "Name": SERVICE,
            "Address": self.address.ip().to_string(),
            "Port": self.address.port(),
            "Meta": meta,
            "Connect": { "Native": true },
            "Check": {
                "CheckID": self.check_id(),
                "Name": "sync agent is alive",
                "TTL": format!("{}s", TTL.as_secs()),
                "Status": "passing",
                "DeregisterCriticalServiceAfter": FORGET_AFTER,
            },
        })
    }
}

/// What Consul knows of the registration.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It was not told yet.
    New,
    /// It was told.
    Registered,
    /// It did not take the last registration or sign of life.
    Lost,
}

/// Keeps the service registered until `stop`, then removes it. A Consul that is away or has forgotten it is told again.
pub async fn run(registered: Registered, client: Client, stop: Stop) {
    let mut standing = Standing::New;
    loop {
        standing = keep(&registered, &client, standing).await;
        tokio::select! {
            biased;
            () = stop.wait() => break,
            () = tokio::time::sleep(RENEW_EVERY) => {}
        }
    }
    let id = registered.id();
    let farewell = tokio::time::timeout(FAREWELL, client.deregister_service(&id)).await;
    match farewell
        .map_or_else(|_| Err("no answer in time".to_owned()), |done| done.map_err(|e| e.to_string()))
    {
        Ok(()) => info!(id, "peer service deregistered"),
        Err(error) => warn!(id, error, "peer service not deregistered; its check turns critical"),
    }
}

/// One registration or sign of life. Each turn of events is told once.
async fn keep(registered: &Registered, client: &Client, before: Standing) -> Standing {
    let outcome = match before {
        Standing::Registered => renew(registered, client).await,
        Standing::New | Standing::Lost => client.register_service(registered.definition()).await,
    };
    match outcome {
        Ok(()) => {
            if before != Standing::Registered {
                info!(id = registered.id(), address = %registered.address, "peer service registered");
            }
            Standing::Registered
        }
        Err(error) => {
            if before != Standing::Lost {
                warn!(%error, "peer service not registered with Consul; it is told again");
            }
            Standing::Lost
        }
    }
}

async fn renew(registered: &Registered, client: &Client) -> Result<(), ClientError> {
    let pass = path(&["v1", "agent", "check", "pass", &registered.check_id()]);
    client.put(&pass, &[], None, ASK).await?.ok()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_connect_native_and_has_a_ttl() {
        let registered = Registered {
            node: "vm1".into(),
            address: "[::1]:18443".parse().unwrap(),
            http_address: Some("http://[::1]:18500".into()),
            prefixes: vec!["dc1 config/".into(), format!("dc1 {}", "x".repeat(600))],
        };
        let definition = registered.definition();
        assert_eq!(definition["Connect"]["Native"], true);
        assert_eq!((&definition["Address"], &definition["Port"]), (&json!("::1"), &json!(18443)));
        assert_eq!(definition["ID"], "causeway-sync-vm1");
        assert_eq!(definition["Check"]["TTL"], "10s");
        assert_eq!(definition["Meta"]["http_address"], "http://[::1]:18500");
        assert_eq!(definition["Meta"]["prefix-0"], "dc1 config/");
        assert_eq!(definition["Meta"].get("prefix-1"), None);
        let quiet = Registered { http_address: None, ..registered }.definition();
        assert_eq!(quiet["Meta"].get("http_address"), None);
    }
}

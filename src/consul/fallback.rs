//! What can be known of the local agent with a token that lacks `agent:read`: its datacenter from a discovery chain
//! and its node from a health answer, both of a service that the token may read.

use std::time::Duration;

use crate::{
    consul::{
        client::{Client, path},
        wire,
    },
    model::{
        agent::{AgentFacts, DefaultPolicy},
        name::{Datacenter, NodeName},
        note::Note,
    },
};

const DEADLINE: Duration = Duration::from_secs(10);
/// A token that may read none of so many services of its own agent is of no use anyway.
const TRIES: usize = 5;
/// Stands for the node where it cannot be read.
pub(crate) const UNKNOWN: &str = "unknown";

/// The agent's facts, with a note on what is assumed; `None` if the token may read no service of this agent.
pub(crate) async fn agent_facts(client: &Client) -> Option<(AgentFacts, Vec<Note>)> {
    let services = client.agent_services().await.ok()?;
    let named = services.iter().filter_map(|(id, service)| Some((id.as_str(), service["Service"].as_str()?)));
    for (id, name) in named.take(TRIES) {
        let Some((datacenter, default_policy)) = datacenter(client, name).await else { continue };
        let facts = AgentFacts {
            datacenter,
            primary_datacenter: None,
            node: node(client, id, name).await.unwrap_or_else(|| NodeName::from(UNKNOWN)),
            domain: "consul".into(),
            version: String::new(),
            acls_enabled: true,
            default_policy,
            translates_wan_addresses: false,
        };
        let note = Note::new(
            "Consul agent",
            "the token may not read it, so its DNS domain is taken as consul, and a default policy that Consul does not tell as deny",
            "give the token agent:read",
        );
        return Some((facts, vec![note]));
    }
    None
}

async fn datacenter(client: &Client, service: &str) -> Option<(Datacenter, DefaultPolicy)> {
    let reply =
        client.get(&path(&["v1", "discovery-chain", service]), &[], DEADLINE).await.ok()?.ok().ok()?;
    let policy = match reply.default_acl_policy.as_deref() {
        Some("allow") => DefaultPolicy::Allow,
        Some("deny") => DefaultPolicy::Deny,
        _ => DefaultPolicy::Unreadable,
    };
    Some((wire::chain::chain(&reply.body).ok()?.0.datacenter, policy))
}

async fn node(client: &Client, id: &str, service: &str) -> Option<NodeName> {
    let reply =
        client.get(&path(&["v1", "health", "service", service]), &[], DEADLINE).await.ok()?.ok().ok()?;
    let (instances, _) = wire::instance::instances(&reply.body).ok()?;
    let mut nodes = instances.into_iter().filter(|i| i.id.as_str() == id).map(|i| i.node);
    // The same id may be registered on several agents; then the answer does not tell which is ours.
    nodes.next().filter(|_| nodes.next().is_none())
}

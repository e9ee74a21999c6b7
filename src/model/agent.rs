//! What the local Consul agent says of itself.

use serde::{Deserialize, Serialize};

use crate::model::name::{Datacenter, NodeName};

/// Facts of the local agent (`/v1/agent/self`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentFacts {
    /// The datacenter this agent is in.
    pub datacenter: Datacenter,
    /// The primary datacenter of the federation, when Consul names one.
    pub primary_datacenter: Option<Datacenter>,
    /// The agent's node name.
    pub node: NodeName,
    /// The DNS domain without its trailing dot, `consul` by default. Server names use it; SPIFFE ids do not.
    pub domain: String,
    /// Consul's version, for example `1.8.7`.
    pub version: String,
    /// Whether ACLs are on.
    pub acls_enabled: bool,
    /// What happens to a connection that no intention matches.
    pub default_policy: DefaultPolicy,
    /// `translate_wan_addrs` is on: remote answers carry rewritten addresses (hashicorp/consul#5225).
    pub translates_wan_addresses: bool,
}

#[cfg(test)]
impl AgentFacts {
    /// An agent of `dc1` without ACLs, for tests.
    pub(crate) fn sample(node: &str) -> Self {
        Self {
            datacenter: "dc1".into(),
            primary_datacenter: None,
            node: node.into(),
            domain: "consul".into(),
            version: "1.8.7".into(),
            acls_enabled: false,
            default_policy: DefaultPolicy::Allow,
            translates_wan_addresses: false,
        }
    }
}

/// What happens to a connection that no intention matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultPolicy {
    /// It is allowed: ACLs are off, or their default policy is `allow`.
    Allow,
    /// It is denied.
    Deny,
    /// Consul did not tell (the token lacks `agent:read`). Counts as deny, with a note.
    Unreadable,
}

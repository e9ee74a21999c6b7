//! `/v1/agent/self`.

use std::net::IpAddr;

use serde::Deserialize;

use crate::{
    consul::wire::{
        Read, WireError,
        read::{is_name, nullable, shown, whole},
        refused,
    },
    model::{
        agent::{AgentFacts, DefaultPolicy},
        name::{Datacenter, NodeName},
        note::Note,
    },
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireSelf {
    config: WireConfig,
    #[serde(default, deserialize_with = "nullable")]
    debug_config: WireDebugConfig,
}

/// As much as [`address`] reads of it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireOwn {
    member: WireMember,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireMember {
    addr: IpAddr,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireConfig {
    datacenter: String,
    node_name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    primary_datacenter: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    partition: String,
}

/// Fields of a dump that Consul does not promise: each may be missing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WireDebugConfig {
    #[serde(rename = "ACLsEnabled")]
    acls_enabled: Option<bool>,
    #[serde(rename = "ACLDefaultPolicy")]
    acl_default_policy: Option<String>,
    #[serde(rename = "ACLResolverSettings")]
    acl_resolver: Option<WireResolver>,
    #[serde(rename = "DefaultIntentionPolicy")]
    default_intention_policy: Option<String>,
    #[serde(rename = "DNSDomain")]
    dns_domain: Option<String>,
    #[serde(rename = "PrimaryDatacenter")]
    primary_datacenter: Option<String>,
    #[serde(rename = "TranslateWANAddrs")]
    translate_wan_addrs: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireResolver {
    #[serde(rename = "ACLsEnabled")]
    acls_enabled: Option<bool>,
    #[serde(rename = "ACLDefaultPolicy")]
    acl_default_policy: Option<String>,
}

/// The address of the agent's node, as its datacenter knows it.
///
/// # Errors
/// The answer does not tell it.
pub fn address(body: &[u8]) -> Result<IpAddr, WireError> {
    let WireOwn { member } = whole(body)?;
    Ok(member.addr)
}

/// The agent's facts. `header` is `X-Consul-Default-ACL-Policy` of the same answer (Consul 1.9+); where it and the
/// configuration dump are silent the policy is unreadable: what that means is for whoever applies it to say.
pub fn agent(body: &[u8], header: Option<&str>) -> Result<Read<AgentFacts>, WireError> {
    let WireSelf { config, debug_config: debug } = whole(body)?;
    if !is_name(&config.datacenter) || !is_name(&config.node_name) {
        return Err(WireError::Shape("Config.Datacenter or Config.NodeName is no name".into()));
    }
    let mut notes = Vec::new();
    if let Some((_, name)) = refused::foreign("", &config.partition) {
        let problem = format!("it is in the partition `{}`, which is not supported", shown(name));
        notes.push(Note::new(
            "Consul agent",
            problem,
            "run the agent beside a Consul of the partition default",
        ));
    }
    let resolver = debug.acl_resolver.unwrap_or_default();
    let acls_enabled = debug.acls_enabled.or(resolver.acls_enabled);
    let configured = debug.acl_default_policy.or(resolver.acl_default_policy);
    let intention_policy = debug.default_intention_policy.filter(|policy| !policy.is_empty());
    let default_policy = match (intention_policy, acls_enabled) {
        (Some(policy), _) => policy_named(Some(&policy)),
        (None, Some(false)) => DefaultPolicy::Allow,
        (None, _) => policy_named(header.or(configured.as_deref())),
    };
    let primary = config.primary_datacenter.or(debug.primary_datacenter).filter(|dc| is_name(dc));
    let domain = debug.dns_domain.unwrap_or_default();
    let domain = domain.trim_end_matches('.');
    let facts = AgentFacts {
        datacenter: Datacenter::from(&config.datacenter),
        primary_datacenter: primary.map(Datacenter::from),
        node: NodeName::from(&config.node_name),
        domain: if domain.is_empty() { "consul".into() } else { domain.to_owned() },
        version: config.version,
        // Taken as on where nothing says: whoever asks for a right is then told by Consul itself.
        acls_enabled: acls_enabled.unwrap_or(true),
        default_policy,
        translates_wan_addresses: debug.translate_wan_addrs.unwrap_or(false),
    };
    Ok((facts, notes))
}

fn policy_named(policy: Option<&str>) -> DefaultPolicy {
    match policy {
        Some("allow") => DefaultPolicy::Allow,
        Some("deny") => DefaultPolicy::Deny,
        _ => DefaultPolicy::Unreadable,
    }
}

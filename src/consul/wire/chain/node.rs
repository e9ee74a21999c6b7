//! The nodes of a discovery chain: routers, splitters, resolvers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::{
        read::{duration_ms, is_set, nullable, shown},
        refused::{self, OF_RESOLVERS},
    },
    model::{
        chain::{Balance, ChainNode, Resolver, Target},
        note::Note,
    },
};

/// What Consul takes where a resolver says nothing.
const CONNECT_TIMEOUT_MS: u64 = 5_000;

/// The largest ring that Envoy takes.
const RING_MAX: u64 = 8_388_608;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WireNode {
    r#type: String,
    #[serde(default)]
    resolver: Option<WireResolver>,
    #[serde(default, deserialize_with = "nullable")]
    load_balancer: WireBalancer,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireResolver {
    #[serde(default)]
    default: bool,
    #[serde(default, deserialize_with = "nullable")]
    connect_timeout: String,
    #[serde(default)]
    request_timeout: Value,
    target: String,
    #[serde(default, deserialize_with = "nullable")]
    failover: WireFailover,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireFailover {
    #[serde(deserialize_with = "nullable")]
    targets: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    policy: WirePolicy,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WirePolicy {
    mode: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireBalancer {
    policy: String,
    #[serde(deserialize_with = "nullable")]
    ring_hash_config: WireRing,
    #[serde(deserialize_with = "nullable")]
    least_request_config: WireChoices,
    hash_policies: Value,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireRing {
    minimum_ring_size: u64,
    maximum_ring_size: u64,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireChoices {
    choice_count: u32,
}

pub(super) fn convert(
    wire: WireNode,
    targets: &BTreeMap<String, Target>,
    about: &str,
    notes: &mut Vec<Note>,
) -> Result<ChainNode, Note> {
    let resolver = match (wire.r#type.as_str(), wire.resolver) {
        ("router", _) => return Ok(ChainNode::Router),
        ("splitter", _) => return Ok(ChainNode::Splitter),
        ("resolver", Some(resolver)) => resolver,
        (other, _) => {
            let problem = format!("the node type `{}` is unknown", shown(other));
            return Err(Note::new(about, problem, "remove what this version cannot express from the chain"));
        }
    };
    if !targets.contains_key(&resolver.target) {
        let problem = format!("its target {} cannot be used", shown(&resolver.target));
        return Err(Note::new(about, problem, "correct the service-resolver in Consul"));
    }
    refused::note(&resolver.rest, &OF_RESOLVERS, about, notes);
    Ok(ChainNode::Resolver(Resolver {
        target: resolver.target,
        connect_timeout_ms: connect_timeout(&resolver.connect_timeout, about, notes),
        is_default: resolver.default,
        request_timeout_ms: request_timeout(&resolver.request_timeout, about, notes),
        balance: balance(&wire.load_balancer, about, notes),
        failover: failover(resolver.failover, targets, about, notes),
    }))
}

fn connect_timeout(text: &str, about: &str, notes: &mut Vec<Note>) -> u64 {
    if text.is_empty() {
        return CONNECT_TIMEOUT_MS;
    }
    duration_ms(text).filter(|ms| *ms > 0).unwrap_or_else(|| {
        let problem = format!("the connect timeout `{}` is no duration, so 5 s are taken", shown(text));
        notes.push(Note::new(about, problem, "write it as 5s or 500ms in the service-resolver"));
        CONNECT_TIMEOUT_MS
    })
}

/// Consul 1.16 and later write nanoseconds here, unlike in all other durations of a chain.
fn request_timeout(wire: &Value, about: &str, notes: &mut Vec<Note>) -> Option<u64> {
    let read = match wire {
        Value::Number(nanoseconds) => nanoseconds.as_u64().map(|ns| ns.div_ceil(1_000_000)),
        Value::String(text) if !text.is_empty() => duration_ms(text),
        _ => None,
    };
    if read.is_none() && is_set(wire) {
        let problem =
            format!("the request timeout `{}` is no duration, and does not count", shown(&wire.to_string()));
        notes.push(Note::new(about, problem, "write RequestTimeout as 30s in the service-resolver"));
    }
    read.filter(|ms| *ms > 0)
}

/// What a cluster can say of load balancing. Envoy refuses a ring or a number of choices out of its bounds, so those
/// become notes and its own values hold.
fn balance(wire: &WireBalancer, about: &str, notes: &mut Vec<Note>) -> Option<Balance> {
    let mut note = |problem: String, remedy: &str| notes.push(Note::new(about, problem, remedy));
    if is_set(&wire.hash_policies) {
        note(
            "its HashPolicies are not built yet and do not count: requests are spread without them".into(),
            "leave HashPolicies out of the service-resolver's LoadBalancer",
        );
    }
    match wire.policy.as_str() {
        "" => None,
        "round_robin" => Some(Balance::RoundRobin),
        "random" => Some(Balance::Random),
        "maglev" => Some(Balance::Maglev),
        "least_request" => {
            let choices = wire.least_request_config.choice_count;
            if choices == 1 {
                note("its ChoiceCount of 1 does not count".into(), "set ChoiceCount to 2 or more");
            }
            Some(Balance::LeastRequest { choices: Some(choices).filter(|count| *count > 1) })
        }
        "ring_hash" => {
            let size = |size: u64| Some(size).filter(|size| *size > 0);
            let WireRing { minimum_ring_size: low, maximum_ring_size: high } = wire.ring_hash_config;
            let (minimum, maximum) = (size(low), size(high));
            // Envoy's own minimum, which a maximum alone has to respect as well.
            let is_order = minimum.unwrap_or(1024) <= maximum.unwrap_or(RING_MAX);
            if is_order && low <= RING_MAX && high <= RING_MAX {
                return Some(Balance::RingHash { minimum, maximum });
            }
            note(
                format!(
                    "its ring sizes from {low} to {high} do not count: they are out of order or of Envoy's bounds"
                ),
                "set MinimumRingSize to at most MaximumRingSize, and both to at most 8388608",
            );
            Some(Balance::RingHash { minimum: None, maximum: None })
        }
        other => {
            let problem =
                format!("the load-balancing policy `{}` is unknown and does not count", shown(other));
            note(problem, "use round_robin, random, least_request, ring_hash or maglev");
            None
        }
    }
}

fn failover(
    wire: WireFailover,
    targets: &BTreeMap<String, Target>,
    about: &str,
    notes: &mut Vec<Note>,
) -> Vec<String> {
    if !matches!(wire.policy.mode.as_str(), "" | "sequential") {
        let problem = format!(
            "the failover policy `{}` does not count: targets follow in order",
            shown(&wire.policy.mode)
        );
        notes.push(Note::new(about, problem, "leave Policy out of the service-resolver's Failover"));
    }
    let (failover, lost): (Vec<_>, Vec<_>) =
        wire.targets.into_iter().partition(|id| targets.contains_key(id));
    for id in lost {
        let problem = format!("its failover target {} cannot be used", shown(&id));
        notes.push(Note::new(about, problem, "correct the service-resolver in Consul"));
    }
    failover
}

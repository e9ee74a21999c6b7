//! Intentions to RBAC, by Consul's precedence.
//!
//! The default policy sets the action: under deny the filter lists who is allowed, under allow who is denied. Each
//! listed source excludes what an intention of higher precedence says otherwise about.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    mesh::name,
    model::{
        agent::DefaultPolicy,
        intention::{Action, Intention, Party},
        name::{ServiceName, TrustDomain},
        note::Note,
    },
    xds::resource::filter::{Principal, Rbac, RbacAction},
};

/// Consul's names, so that Envoy's statistics read alike.
const STAT_PREFIX: &str = "connect_authz";
const POLICY: &str = "consul-intentions-layer4";

/// The intentions that decide about `service`, most specific first. An entry of `service-intentions` replaces what
/// the legacy API says of the same pair; a source named twice counts at its highest precedence only.
fn deciding<'a>(
    legacy: &'a [Intention],
    entries: &'a [Intention],
    service: &ServiceName,
) -> Vec<&'a Intention> {
    let mut pairs: BTreeMap<_, &Intention> = BTreeMap::new();
    for intention in legacy.iter().chain(entries).filter(|i| i.destination.covers(service)) {
        pairs.insert((&intention.destination, &intention.source), intention);
    }
    let mut sorted: Vec<_> = pairs.into_values().collect();
    sorted.sort_by_key(|i| (std::cmp::Reverse(precedence(i)), &i.source));
    let mut seen = BTreeSet::new();
    sorted.retain(|intention| seen.insert(&intention.source));
    sorted
}

/// Consul's precedence, 9 (both exact) to 1 (everything to everything).
fn precedence(intention: &Intention) -> u8 {
    let missing = |party: &Party| match party {
        Party::Service(_) => 0,
        Party::AnyService => 1,
        Party::Anything => 2,
    };
    9 - 3 * missing(&intention.destination) - missing(&intention.source)
}

/// The RBAC filter of `service`. Notes name the intentions that could not be expressed; their sources are denied.
pub fn rbac(
    legacy: &[Intention],
    entries: &[Intention],
    service: &ServiceName,
    trust_domain: &TrustDomain,
    default: DefaultPolicy,
    notes: &mut Vec<Note>,
) -> Rbac {
    let intentions = deciding(legacy, entries, service);
    notes.extend(intentions.iter().filter_map(|intention| inexpressible(intention, service)));
    let (action, listed) = match default {
        DefaultPolicy::Allow => (RbacAction::Deny, false),
        DefaultPolicy::Deny | DefaultPolicy::Unreadable => (RbacAction::Allow, true),
    };
    let mut principals = BTreeSet::new();
    for (at, intention) in intentions.iter().enumerate() {
        if (intention.action == Action::Allow) == listed {
            principals.extend(principal(intention, &intentions[..at], trust_domain));
        }
    }
    let policies = if principals.is_empty() {
        BTreeMap::new()
    } else {
        BTreeMap::from([(POLICY.to_owned(), principals)])
    };
    Rbac { stat_prefix: STAT_PREFIX.to_owned(), action, policies }
}

/// The sources that an intention really decides about, given those that come before it; `None` when one of those
/// already decides about all of them.
fn principal(intention: &Intention, higher: &[&Intention], trust_domain: &TrustDomain) -> Option<Principal> {
    let opposite =
        |other: &&&Intention| (other.action == Action::Allow) != (intention.action == Action::Allow);
    if higher.iter().filter(opposite).any(|other| contains(&other.source, &intention.source)) {
        return None;
    }
    let own = source(&intention.source, trust_domain);
    let excluded: Vec<_> = higher
        .iter()
        .filter(opposite)
        .filter(|other| contains(&intention.source, &other.source))
        .map(|other| Principal::Not(Box::new(source(&other.source, trust_domain))))
        .collect();
    if excluded.is_empty() {
        return Some(own);
    }
    Some(Principal::All([own].into_iter().chain(excluded).collect()))
}

/// Whether every caller that `inner` covers is covered by `outer`.
fn contains(outer: &Party, inner: &Party) -> bool {
    match (outer, inner) {
        (Party::Anything, _) => true,
        (Party::AnyService, inner) => *inner != Party::Anything,
        (Party::Service(_), inner) => outer == inner,
    }
}

fn source(party: &Party, trust_domain: &TrustDomain) -> Principal {
    Principal::SpiffeRegex(match party {
        Party::Service(service) => name::spiffe_regex(service, trust_domain),
        Party::AnyService => name::spiffe_regex_any_service(trust_domain),
        Party::Anything => name::spiffe_regex_anything(trust_domain),
    })
}

fn inexpressible(intention: &Intention, service: &ServiceName) -> Option<Note> {
    let source = match &intention.source {
        Party::Service(source) => source.as_str(),
        Party::AnyService | Party::Anything => "*",
    };
    (intention.action == Action::Inexpressible).then(|| {
        Note::new(
            format!("intention {source} -> {service}"),
            "has L7 permissions, JWT requirements or an unknown action, which are not built yet; its source is denied",
            "give the intention a plain allow or deny",
        )
    })
}

#[cfg(test)]
mod tests;

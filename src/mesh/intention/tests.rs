use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{contains, precedence, rbac};
use crate::model::{
    agent::DefaultPolicy,
    intention::{Action, Intention, Party},
    name::{ServiceName, TrustDomain},
};
use crate::xds::resource::filter::{Principal, Rbac, RbacAction};

fn party(text: &str) -> Party {
    match text {
        "*" => Party::AnyService,
        "*/*" => Party::Anything,
        name => Party::Service(name.into()),
    }
}

fn intention(source: &str, destination: &str, action: Action) -> Intention {
    Intention { source: party(source), destination: party(destination), action }
}

fn filter(intentions: &[Intention], default: DefaultPolicy) -> Rbac {
    rbac(intentions, &[], &"db".into(), &TrustDomain::from("td.consul"), default, &mut Vec::new())
}

/// Whether the filter lets `caller` in: what Envoy does with it, for the principals that we write.
fn admits(filter: &Rbac, caller: &str) -> bool {
    let matched = filter.policies.values().flatten().any(|principal| matches(principal, caller));
    matched == (filter.action == RbacAction::Allow)
}

fn matches(principal: &Principal, caller: &str) -> bool {
    match principal {
        Principal::Any => true,
        Principal::All(all) => all.iter().all(|one| matches(one, caller)),
        Principal::Not(one) => !matches(one, caller),
        Principal::SpiffeRegex(regex) => {
            let (namespace, service) = caller.split_once('/').expect("namespace/service");
            let exact = format!("/ns/{namespace}/dc/[^/]+/svc/{service}$");
            regex.ends_with(&exact)
                || regex.ends_with(&format!("/ns/{namespace}/dc/[^/]+/svc/[^/]+$"))
                || regex.ends_with("/ns/[^/]+/dc/[^/]+/svc/[^/]+$")
        }
    }
}

#[test]
fn precedence_is_consuls() {
    let all = ["web", "*", "*/*"];
    let destinations = ["db", "*", "*/*"];
    let table: Vec<Vec<u8>> = destinations
        .iter()
        .map(|d| all.iter().map(|s| precedence(&intention(s, d, Action::Allow))).collect())
        .collect();
    assert_eq!(table, [[9, 8, 7], [6, 5, 4], [3, 2, 1]]);
}

#[test]
fn default_deny_lists_who_is_allowed() {
    let filter = filter(&[intention("web", "db", Action::Allow)], DefaultPolicy::Deny);
    assert_eq!(filter.action, RbacAction::Allow);
    assert!(admits(&filter, "default/web"));
    assert!(!admits(&filter, "default/other"));
}

#[test]
fn default_allow_lists_who_is_denied() {
    let filter = filter(&[intention("web", "db", Action::Deny)], DefaultPolicy::Allow);
    assert_eq!(filter.action, RbacAction::Deny);
    assert!(!admits(&filter, "default/web"));
    assert!(admits(&filter, "default/other"));
}

#[test]
fn an_exact_deny_goes_before_a_wildcard_allow() {
    let intentions = [intention("*", "db", Action::Allow), intention("web", "db", Action::Deny)];
    let filter = filter(&intentions, DefaultPolicy::Deny);
    assert!(!admits(&filter, "default/web"));
    assert!(admits(&filter, "default/other"));
    assert!(!admits(&filter, "elsewhere/other"));
}

#[test]
fn a_deny_of_all_sources_shadows_an_allow_for_all_destinations() {
    let intentions = [intention("web", "*", Action::Allow), intention("*", "db", Action::Deny)];
    assert!(!admits(&filter(&intentions, DefaultPolicy::Deny), "default/web"));
    assert!(!admits(&filter(&intentions, DefaultPolicy::Allow), "default/web"));
}

#[test]
fn what_cannot_be_expressed_denies_its_source_and_is_noted() {
    let intentions = [intention("*", "db", Action::Allow), intention("web", "db", Action::Inexpressible)];
    let mut notes = Vec::new();
    let domain = TrustDomain::from("td.consul");
    let filter = rbac(&intentions, &[], &"db".into(), &domain, DefaultPolicy::Allow, &mut notes);
    assert!(!admits(&filter, "default/web"));
    assert!(admits(&filter, "default/other"));
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(notes[0].about, "intention web -> db");
}

#[test]
fn an_entry_replaces_the_legacy_answer_about_the_same_pair() {
    let (legacy, entry) = (intention("web", "db", Action::Allow), intention("web", "db", Action::Deny));
    let domain = TrustDomain::from("td.consul");
    let filter = rbac(&[legacy], &[entry], &"db".into(), &domain, DefaultPolicy::Deny, &mut Vec::new());
    assert!(!admits(&filter, "default/web"));
}

#[test]
fn an_unreadable_default_policy_denies() {
    assert!(!admits(&filter(&[], DefaultPolicy::Unreadable), "default/web"));
    assert!(admits(&filter(&[], DefaultPolicy::Allow), "default/web"));
}

#[test]
fn names_are_matched_letter_by_letter() {
    let filter = filter(&[intention("a.b", "db", Action::Allow)], DefaultPolicy::Deny);
    let principals: BTreeSet<_> = filter.policies.values().flatten().cloned().collect();
    let wanted = r"^spiffe://td\.consul/ns/default/dc/[^/]+/svc/a\.b$";
    assert_eq!(principals, BTreeSet::from([Principal::SpiffeRegex(wanted.to_owned())]));
}

/// Consul's own rule, written the slow way: the most specific intention that covers both sides decides.
fn consul_decides(intentions: &[Intention], caller: &Party, default: DefaultPolicy) -> bool {
    let db = ServiceName::from("db");
    let mut covering: Vec<_> =
        intentions.iter().filter(|i| i.destination.covers(&db) && contains(&i.source, caller)).collect();
    covering.sort_by_key(|i| precedence(i));
    covering.last().map_or(default == DefaultPolicy::Allow, |i| i.action == Action::Allow)
}

fn any_intention() -> impl Strategy<Value = Intention> {
    let source = prop::sample::select(vec!["web", "api", "*", "*/*"]);
    let destination = prop::sample::select(vec!["db", "other", "*", "*/*"]);
    let action = prop::sample::select(vec![Action::Allow, Action::Deny, Action::Inexpressible]);
    (source, destination, action).prop_map(|(s, d, a)| intention(s, d, a))
}

proptest! {
    #[test]
    fn the_filter_decides_as_consul_does(
        intentions in prop::collection::vec(any_intention(), 0..8),
        default in prop::sample::select(vec![DefaultPolicy::Allow, DefaultPolicy::Deny]),
    ) {
        // Consul holds one intention for each pair.
        let mut pairs = BTreeSet::new();
        let intentions: Vec<_> = intentions
            .into_iter()
            .filter(|i| pairs.insert((i.source.clone(), i.destination.clone())))
            .collect();
        let filter = filter(&intentions, default);
        for caller in ["web", "api", "stranger"] {
            let wanted = consul_decides(&intentions, &party(caller), default);
            prop_assert_eq!(admits(&filter, &format!("default/{caller}")), wanted, "{} {:?}", caller, filter);
        }
    }
}

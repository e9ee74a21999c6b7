//! One certificate that is no CA: dates, names, purposes, and the way to its CA.

use std::path::Path;

use crate::tls::x509::{
    certificate::{Certificate, Usage},
    check::Demands,
    finding::{Code, Finding},
    lifetime::spoken,
    moment::Moment,
    profile::{Place, Profile},
    set::{FolderFacts, Leaf},
    trust::{self, Fault},
};

const ANEW: &str = "make it anew with `causeway tls cert create`";

/// What it lacks by itself.
pub(crate) fn of(leaf: &Leaf<'_>, demands: &Demands, now: Moment) -> Vec<Finding> {
    let path = &leaf.file.path;
    let mut findings: Vec<_> = dates(path, leaf.certificate, demands, now).into_iter().collect();
    let Some((profile, place)) = leaf.recognised() else {
        findings.push(Finding::warning(
            Code::Unknown,
            path,
            format!("what it is for cannot be told: its names are {}", list(&leaf.certificate.names())),
            "move it elsewhere if it is not Consul's, or make the right one with `causeway tls cert create`",
        ));
        return findings;
    };
    findings.extend(names(leaf, profile, &place, demands));
    findings.extend(purposes(path, leaf.certificate, profile));
    findings
}

fn dates(path: &Path, one: &Certificate, demands: &Demands, now: Moment) -> Option<Finding> {
    if now < one.not_before {
        return Some(Finding::problem(
            Code::NotYetValid,
            path,
            format!("it is valid only from {}: peers refuse it until then", one.not_before),
            "check the clocks of this machine and of the one that made it",
        ));
    }
    let Some(left) = now.until(one.not_after).filter(|left| !left.is_zero()) else {
        return Some(Finding::problem(
            Code::Expired,
            path,
            format!("it ended on {}: peers refuse it", one.not_after),
            "renew it now with `causeway tls renew` where the CA's key is, then reload what uses it",
        ));
    };
    demands.policy.due(one, now).map(|_| {
        Finding::warning(
            Code::EndsSoon,
            path,
            format!("it ends in {}, on {}", spoken(left), one.not_after),
            "renew it with `causeway tls renew` where the CA's key is",
        )
    })
}

fn names(leaf: &Leaf<'_>, profile: &Profile, place: &Place, demands: &Demands) -> Vec<Finding> {
    let (path, one) = (&leaf.file.path, leaf.certificate);
    let mut findings = Vec::new();
    for name in profile.required(place).iter().filter(|name| !one.bears(name)) {
        let has = list(&one.names());
        findings.push(if profile.verified {
            let effect = "with verify_server_hostname others refuse it";
            Finding::problem(
                Code::Name,
                path,
                format!("it lacks the name {name}: {effect}; it has {has}"),
                ANEW,
            )
        } else {
            let effect = "its file says what its names do not";
            Finding::warning(
                Code::Name,
                path,
                format!("it lacks the name {name}: {effect}; it has {has}"),
                ANEW,
            )
        });
    }
    for (what, demanded, found) in
        [("datacenter", &demands.datacenter, &place.datacenter), ("domain", &demands.domain, &place.domain)]
    {
        if let Some(demanded) = demanded.as_ref().filter(|demanded| !demanded.eq_ignore_ascii_case(found)) {
            findings.push(Finding::problem(
                Code::Name,
                path,
                format!("it is for the {what} {found}, not {demanded}"),
                ANEW,
            ));
        }
    }
    let any_node = Place { node: Some("*".into()), ..place.clone() };
    let is_wild = profile.of_node(&any_node).iter().any(|name| one.bears(name));
    if profile.verified && place.node.is_none() && !is_wild {
        findings.push(node_name(path, place, demands.is_federated));
    }
    findings
}

fn node_name(path: &Path, place: &Place, is_federated: bool) -> Finding {
    let Place { datacenter, domain, .. } = place;
    let text = format!(
        "it lacks its node's name, <node>.server.{datacenter}.{domain}: servers of other datacenters cannot reach it \
         through mesh gateways"
    );
    let remedy =
        format!("make it anew with `causeway tls cert create --server --dc {datacenter} --node NAME`");
    if is_federated {
        Finding::problem(Code::NodeName, path, text, remedy)
    } else {
        Finding::warning(Code::NodeName, path, text, remedy)
    }
}

fn purposes(path: &Path, one: &Certificate, profile: &Profile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for usage in profile.usages.iter().filter(|usage| !one.serves(**usage)) {
        let effect = match usage {
            Usage::Server => "who connects to its holder refuses it",
            _ => "with verify_incoming those its holder connects to refuse it",
        };
        let text = format!("it lacks the purpose {} (extended key usage): {effect}", word(*usage));
        findings.push(Finding::problem(Code::Usage, path, text, ANEW));
    }
    for usage in profile.more_usages.iter().filter(|usage| !one.serves(**usage)) {
        let effect = "it works for agents among themselves and not for an HTTPS API";
        let text = format!("it lacks the purpose {} (extended key usage): {effect}", word(*usage));
        findings.push(Finding::warning(Code::Usage, path, text, ANEW));
    }
    if one.key_usages.is_some_and(|usages| !usages.digital_signature) {
        findings.push(Finding::problem(
            Code::KeyUsage,
            path,
            "it lacks the key usage \"digital signature\": no current TLS works with it",
            ANEW,
        ));
    }
    findings
}

fn word(usage: Usage) -> &'static str {
    match usage {
        Usage::Server => "TLS server",
        _ => "TLS client",
    }
}

/// Whether its own folder, and every other that names CAs, trusts it for all its purposes.
pub(crate) fn chains(
    leaf: &Leaf<'_>,
    own: &FolderFacts,
    folders: &[FolderFacts],
    demands: &Demands,
    now: Moment,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in folders {
        let mut roots: Vec<&Certificate> = folder.authorities().into_iter().map(|(_, one)| one).collect();
        roots.extend(&demands.trusted);
        if roots.is_empty() {
            continue;
        }
        if let Err(fault) = chain(leaf, &roots, now) {
            let whom = if folder.path == own.path {
                format!(
                    "the CAs of its folder ({})",
                    list(&roots.iter().map(|one| one.subject.clone()).collect::<Vec<_>>())
                )
            } else {
                format!("the CAs of {}", folder.path.display())
            };
            findings.push(untrusted(leaf, &whom, &fault));
        }
    }
    findings
}

fn chain(leaf: &Leaf<'_>, roots: &[&Certificate], now: Moment) -> Result<(), Fault> {
    let one = leaf.certificate;
    let at = now.min(one.not_after.minus(std::time::Duration::from_secs(1))).max(one.not_before);
    for usage in [Usage::Server, Usage::Client].into_iter().filter(|usage| one.serves(*usage)) {
        trust::judge(one, leaf.intermediates, roots, usage, at)?;
    }
    Ok(())
}

fn untrusted(leaf: &Leaf<'_>, whom: &str, fault: &Fault) -> Finding {
    let problem = match fault {
        Fault::UnknownIssuer => {
            format!("{whom} did not issue it, `{}` did: peers refuse it", leaf.certificate.issuer)
        }
        fault => format!("{whom} do not vouch for it: {fault}"),
    };
    let remedy = match fault {
        Fault::UnknownIssuer => {
            "put the certificate of its CA beside the others (a bundle of several is fine), or issue it by one of these \
             with `causeway tls cert create`"
        }
        _ => "issue it anew with `causeway tls cert create`, by a CA that is trusted everywhere",
    };
    Finding::problem(Code::Untrusted, &leaf.file.path, problem, remedy)
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

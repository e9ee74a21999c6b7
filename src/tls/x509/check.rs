//! A whole set of certificates against what Consul demands of it with `verify_incoming`, `verify_outgoing` and
//! `verify_server_hostname`: everything that is wrong, at once.

mod keys;
mod leaf;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::tls::x509::{
    certificate::{CaState, Certificate},
    finding::{Code, Finding, Severity},
    lifetime::spoken,
    moment::Moment,
    renewal::{self, Policy, authority_ends_soon},
    set::{FolderFacts, Leaf},
};

/// What is demanded beyond what Consul always does.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    /// CAs that every folder trusts besides those it holds.
    pub trusted: Vec<Certificate>,
    /// The one datacenter of all certificates.
    pub datacenter: Option<String>,
    /// The one domain of all certificates.
    pub domain: Option<String>,
    /// Who every key belongs to: number and name.
    pub owner: Option<(u32, String)>,
    /// Whether the datacenters are federated through mesh gateways, so that servers need the names of their nodes.
    pub is_federated: bool,
    /// When renewal is due.
    pub policy: Policy,
}

/// Everything wrong with the folders as one set, problems first, each with its place.
pub fn set(folders: &[FolderFacts], demands: &Demands, now: Moment) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in folders {
        findings.extend(unreadable(folder));
        findings.extend(authorities(folder, now));
        findings.extend(keys::of(folder, demands));
        for leaf in folder.leaves() {
            findings.extend(leaf::of(&leaf, demands, now));
            findings.extend(leaf::chains(&leaf, folder, folders, demands, now));
        }
        if !folder.leaves().is_empty() && folder.authorities().is_empty() && demands.trusted.is_empty() {
            findings.push(Finding::problem(
                Code::NoCa,
                &folder.path,
                "the folder has certificates and no CA certificate; Consul needs one as `ca_file`",
                "copy the CA's certificate (never its key) here, or name it with `--ca`",
            ));
        }
    }
    findings.extend(duplicates(folders));
    findings.sort_by(|a, b| (a.severity, &a.path, a.code).cmp(&(b.severity, &b.path, b.code)));
    findings.dedup();
    findings
}

/// How many findings are problems, and how many are warnings.
pub fn count(findings: &[Finding]) -> (usize, usize) {
    let problems = findings.iter().filter(|one| one.severity == Severity::Problem).count();
    (problems, findings.len() - problems)
}

fn unreadable(folder: &FolderFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &folder.files {
        match &file.contents {
            Err(reason) => findings.push(Finding::problem(
                Code::Unreadable,
                &file.path,
                format!("it cannot be read: {reason}"),
                "run this as the file's owner or as root, or remove the file",
            )),
            Ok(contents) => findings.extend(contents.problems.iter().map(|problem| {
                Finding::problem(
                    Code::Unreadable,
                    &file.path,
                    format!("it holds {problem}"),
                    "replace the file, or remove it from the folder",
                )
            })),
        }
    }
    if folder.files.is_empty() {
        findings.push(Finding::problem(
            Code::Unreadable,
            &folder.path,
            "there is no certificate and no key in it (.pem, .crt, .cer, .key)",
            "name the folder that holds them",
        ));
    }
    findings
}

fn authorities(folder: &FolderFacts, now: Moment) -> Vec<Finding> {
    let mut findings = Vec::new();
    let known: Vec<&Certificate> = folder.authorities().into_iter().map(|(_, one)| one).collect();
    let longest = folder.leaves().iter().map(|leaf| renewal::next_lifetime(leaf, &known)).max();
    for (file, ca) in folder.authorities() {
        let subject = &ca.subject;
        if now < ca.not_before {
            findings.push(Finding::problem(
                Code::NotYetValid,
                &file.path,
                format!("the CA `{subject}` is valid only from {}", ca.not_before),
                "check the clocks of this machine and of the one that made it",
            ));
        } else if now >= ca.not_after {
            findings.push(Finding::problem(
                Code::Expired,
                &file.path,
                format!("the CA `{subject}` ended on {}: everything that it issued is refused", ca.not_after),
                "make a new CA with `causeway tls ca create` and roll over to it, or remove this one",
            ));
        } else if let Some(left) = longest.and_then(|longest| authority_ends_soon(ca, longest, now)) {
            findings.push(Finding::warning(
                Code::EndsSoon,
                &file.path,
                format!("the CA `{subject}` ends in {}; what it issues now ends with it", spoken(left)),
                "make a new CA with `causeway tls ca create` and roll over to it",
            ));
        }
    }
    let all = folder.files.iter().flat_map(|file| file.certificates().iter().map(move |one| (file, one)));
    for (file, ca) in all.filter(|(_, one)| one.ca == CaState::Disarmed) {
        findings.push(Finding::problem(
            Code::NotACa,
            &file.path,
            format!("`{}` is a CA whose key usages do not allow it to sign", ca.subject),
            "use a CA with the key usage \"certificate sign\"; `causeway tls ca create` makes one",
        ));
    }
    findings
}

/// What is there more than once. The same file in two folders is how a set is spread over machines.
fn duplicates(folders: &[FolderFacts]) -> Vec<Finding> {
    let mut serials: BTreeMap<(Vec<u8>, String), Leaf<'_>> = BTreeMap::new();
    let mut keys: BTreeMap<Vec<u8>, Leaf<'_>> = BTreeMap::new();
    let mut nodes: BTreeMap<(String, String), Leaf<'_>> = BTreeMap::new();
    let mut findings = Vec::new();
    for leaf in folders.iter().flat_map(FolderFacts::leaves) {
        let path = &leaf.file.path;
        let one = leaf.certificate;
        if let Some(first) = seen(&mut serials, (one.issuer_raw.clone(), one.serial.clone()), leaf) {
            findings.extend(same_serial(path, &first, &leaf));
        }
        if let Some(first) = seen(&mut keys, one.public_key.clone(), leaf)
            && first.certificate != one
        {
            findings.push(Finding::warning(
                Code::SharedKey,
                path,
                format!("it has the same key as {}: who takes one has both", first.file.path.display()),
                "make one of them anew with `causeway tls cert create`",
            ));
        }
        let Some((profile, place)) = leaf.recognised() else { continue };
        let Some(name) = profile.of_node(&place).into_iter().next() else { continue };
        if let Some(first) = seen(&mut nodes, (profile.name.clone(), name.clone()), leaf)
            && first.certificate != one
        {
            findings.push(Finding::warning(
                Code::Duplicate,
                path,
                format!("{} is for {name} as well", first.file.path.display()),
                "keep the one that the node uses and remove the other with its key",
            ));
        }
    }
    findings
}

fn same_serial(path: &Path, first: &Leaf<'_>, leaf: &Leaf<'_>) -> Option<Finding> {
    let other: PathBuf = first.file.path.clone();
    if first.certificate != leaf.certificate {
        return Some(Finding::problem(
            Code::DuplicateSerial,
            path,
            format!("it has the same issuer and serial number as {}, and is another", other.display()),
            "make one of them anew with `causeway tls cert create`",
        ));
    }
    (other.parent() == path.parent()).then(|| {
        Finding::warning(
            Code::Duplicate,
            path,
            format!("{} is the same certificate", other.display()),
            "remove the one that nothing uses",
        )
    })
}

/// The first that was seen under this key, if this one is not the first.
fn seen<'a, K: Ord>(all: &mut BTreeMap<K, Leaf<'a>>, key: K, leaf: Leaf<'a>) -> Option<Leaf<'a>> {
    let first = *all.entry(key).or_insert(leaf);
    (first.file.path != leaf.file.path).then_some(first)
}

#[cfg(test)]
mod tests;

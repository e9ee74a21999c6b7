//! When a certificate is renewed, and how a folder's certificates are, given which CAs can sign.

mod places;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::tls::x509::{
    certificate::Certificate,
    lifetime::{DAY, spoken},
    moment::Moment,
    profile,
    renewal::places::places,
    set::{FileFacts, FolderFacts, Leaf},
    trust::Fault,
};

/// Where nothing else is said, a certificate is renewed when a third of its life is left: a machine that is off for
/// weeks, or a CA that cannot be reached, costs nothing yet.
const SHARE_LEFT: u32 = 3;

/// When renewal is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// So long before the end; otherwise when a third of the lifetime is left.
    pub before: Option<Duration>,
    /// Now, whatever is left.
    pub all: bool,
}

impl Policy {
    /// From when on the certificate is due.
    pub fn due_from(&self, certificate: &Certificate) -> Moment {
        let left = self.before.unwrap_or_else(|| lifetime(certificate) / SHARE_LEFT);
        certificate.not_after.minus(left).max(certificate.not_before)
    }

    /// Why it is due now; none where it is not.
    pub fn due(&self, certificate: &Certificate, now: Moment) -> Option<String> {
        match now.until(certificate.not_after).filter(|left| !left.is_zero()) {
            None => Some(format!("it ended on {}", certificate.not_after)),
            Some(_) if self.all => Some("all are renewed".into()),
            Some(left) if now >= self.due_from(certificate) => Some(format!("it ends in {}", spoken(left))),
            Some(_) => None,
        }
    }
}

/// For how long it was issued.
pub fn lifetime(certificate: &Certificate) -> Duration {
    certificate.not_before.until(certificate.not_after).unwrap_or_default()
}

/// What is done about one certificate.
#[derive(Clone, Debug)]
pub enum Step<'a> {
    /// Nothing yet.
    Keep {
        /// Its file.
        certificate: &'a Path,
        /// Its end.
        not_after: Moment,
        /// When it will be due.
        due_from: Moment,
    },
    /// It is issued once more.
    Renew(Box<Renewal<'a>>),
    /// It is due and nothing can be done here.
    Stuck {
        /// Its file.
        certificate: PathBuf,
        /// Its end.
        not_after: Moment,
        /// Why it is due.
        reason: String,
        /// What stands in the way.
        obstacle: String,
        /// What to do about it.
        remedy: String,
    },
}

/// A certificate to issue once more.
#[derive(Clone, Debug)]
pub struct Renewal<'a> {
    /// The certificate and its file.
    pub leaf: Leaf<'a>,
    /// Further files that begin with it, as `fullchain.pem` beside `cert.pem`: written together, since they share the key.
    pub copies: Vec<Leaf<'a>>,
    /// The file of its key, which holds nothing else but perhaps one of the above.
    pub key_file: &'a FileFacts,
    /// Which of the CAs at hand signs, by its place in the list.
    pub signer: usize,
    /// Why it is due.
    pub reason: String,
    /// For how long.
    pub lifetime: Duration,
}

/// How the CAs were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signers {
    /// Found in the folder: each signs what it issued before.
    Found,
    /// Named by the operator: the one signs everything, also what another CA issued.
    Named,
}

/// What to do about each certificate of a folder that is no CA, in the order of their files; copies are renewed in one
/// step. `signers` are the CAs whose keys are at hand, `days` another lifetime than each has.
pub fn plan<'a>(
    folder: &'a FolderFacts,
    signers: &[&Certificate],
    how: Signers,
    policy: Policy,
    days: Option<Duration>,
    now: Moment,
) -> Vec<Step<'a>> {
    let known: Vec<&Certificate> = folder.authorities().into_iter().map(|(_, one)| one).collect();
    let step = |leaf: Leaf<'a>| {
        let (path, not_after) = (leaf.file.path.as_path(), leaf.certificate.not_after);
        let Some(reason) = policy.due(leaf.certificate, now) else {
            let due_from = policy.due_from(leaf.certificate);
            return Some(Step::Keep { certificate: path, not_after, due_from });
        };
        match ready(folder, &leaf, signers, how) {
            // The step of the first of them is that of all.
            Ok((first, ..)) if first.file.path != leaf.file.path => None,
            Ok((leaf, copies, key_file, signer)) => {
                let lifetime = days.unwrap_or_else(|| next_lifetime(&leaf, &known));
                Some(Step::Renew(Box::new(Renewal { leaf, copies, key_file, signer, reason, lifetime })))
            }
            Err((obstacle, remedy)) => {
                Some(Step::Stuck { certificate: path.to_owned(), not_after, reason, obstacle, remedy })
            }
        }
    };
    folder.leaves().into_iter().filter_map(step).collect()
}

/// What stands in the way, and what to do about it.
type Obstacle = (String, String);

/// The first file of the leaf's certificate, its copies, its key's file and who signs.
type Ready<'a> = (Leaf<'a>, Vec<Leaf<'a>>, &'a FileFacts, usize);

fn ready<'a>(
    folder: &'a FolderFacts,
    leaf: &Leaf<'a>,
    signers: &[&Certificate],
    how: Signers,
) -> Result<Ready<'a>, Obstacle> {
    let places = places(folder, leaf)?;
    let mut leaves = places.leaves.into_iter();
    let first = leaves.next().unwrap_or(*leaf);
    let signer = signer(&first, signers, how)?;
    Ok((first, leaves.collect(), places.key_file, signer))
}

fn signer(leaf: &Leaf<'_>, signers: &[&Certificate], how: Signers) -> Result<usize, Obstacle> {
    if how == Signers::Named && !signers.is_empty() {
        return Ok(0);
    }
    let obstacle = match leaf.issued_by(signers) {
        Ok(issuer) => match signers.iter().position(|one| *one == issuer) {
            Some(at) => return Ok(at),
            None => "its CA is not at hand".into(),
        },
        Err(Fault::UnknownIssuer) => {
            format!(
                "the key of its CA ({}) is not in the folder, or this user may not read it",
                leaf.certificate.issuer
            )
        }
        Err(fault) => fault.to_string(),
    };
    Err((obstacle, "renew it where its CA's key is, or name CA and key with `--ca` and `--key`".into()))
}

/// For how long a certificate is issued next: as long as before; one that was cut short by the end of one of the
/// `known` CAs gets its profile's days again.
pub fn next_lifetime(leaf: &Leaf<'_>, known: &[&Certificate]) -> Duration {
    let was_cut = known.iter().any(|ca| ca.not_after == leaf.certificate.not_after);
    match leaf.recognised() {
        Some((profile, _)) if was_cut => days(profile),
        _ => lifetime(leaf.certificate),
    }
}

fn days(profile: &profile::Profile) -> Duration {
    DAY * u32::try_from(profile.days).unwrap_or(u32::MAX)
}

/// Whether the CA's end would cut short what it issues now for `longest`, and how long it still has.
pub fn authority_ends_soon(authority: &Certificate, longest: Duration, now: Moment) -> Option<Duration> {
    match now.until(authority.not_after) {
        None => Some(Duration::ZERO),
        // A day of grace: a CA made together with its certificates, for as long, is not at its end.
        Some(left) => (left + DAY < longest && left < lifetime(authority) * 2 / 3).then_some(left),
    }
}

#[cfg(test)]
mod tests;

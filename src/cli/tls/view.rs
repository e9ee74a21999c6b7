//! A certificate as it is shown: one document for people and scripts alike. Pure.

use std::fmt::Write as _;

use serde::Serialize;

use crate::tls::x509::{
    certificate::{Certificate, Usage},
    lifetime::spoken,
    moment::Moment,
    profile::Place,
    renewal::Policy,
    set::{FileFacts, FolderFacts, KeyBeside, Leaf},
};

/// A certificate, what it is for and what belongs to it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct View {
    /// Its file.
    pub(crate) path: String,
    /// Whether it is a CA.
    pub(crate) is_ca: bool,
    /// Its profile's name, where it has one.
    pub(crate) profile: Option<String>,
    #[serde(skip)]
    holder: Option<String>,
    #[serde(flatten)]
    place: Option<Place>,
    names: Vec<String>,
    usages: Option<Vec<Usage>>,
    subject: String,
    issuer: String,
    /// The file beside it with the CA that issued it.
    issued_by: Option<String>,
    serial: String,
    not_before: Moment,
    /// Its end.
    pub(crate) not_after: Moment,
    renewal_from: Moment,
    key_kind: String,
    key: KeyView,
    fingerprint_sha256: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum KeyView {
    Fits { path: String, mode: String, owner: String },
    Mismatch { path: String },
    Missing,
}

impl View {
    /// Of a certificate that is no CA, beside the files of its folder.
    pub(crate) fn of_leaf(leaf: &Leaf<'_>, folder: &FolderFacts, policy: Policy) -> Self {
        let roots = folder.authorities();
        let certificates: Vec<&Certificate> = roots.iter().map(|(_, one)| *one).collect();
        let issuer = leaf.issued_by(&certificates).ok();
        let key = match leaf.key {
            KeyBeside::Fits(file) => fits(file),
            KeyBeside::Other(file) => KeyView::Mismatch { path: file.path.display().to_string() },
            KeyBeside::Missing => KeyView::Missing,
        };
        let mut view = Self::plain(leaf.file, leaf.certificate, policy, key);
        view.issued_by = roots
            .iter()
            .find(|(_, one)| Some(*one) == issuer)
            .map(|(file, _)| file.path.display().to_string());
        if let Some((profile, place)) = leaf.recognised() {
            view.profile = Some(profile.name.clone());
            view.holder = Some(profile.holder.clone());
            view.place = Some(place);
        }
        view
    }

    /// Of a CA.
    pub(crate) fn of_authority(
        file: &FileFacts,
        one: &Certificate,
        folder: &FolderFacts,
        policy: Policy,
    ) -> Self {
        let key = folder.key_of(one).map_or(KeyView::Missing, |(file, _)| fits(file));
        Self::plain(file, one, policy, key)
    }

    fn plain(file: &FileFacts, one: &Certificate, policy: Policy, key: KeyView) -> Self {
        Self {
            path: file.path.display().to_string(),
            is_ca: one.is_authority(),
            profile: None,
            holder: None,
            place: None,
            names: one.names(),
            usages: one.usages.as_ref().map(|all| all.iter().copied().collect()),
            subject: one.subject.clone(),
            issuer: one.issuer.clone(),
            issued_by: None,
            serial: one.serial.clone(),
            not_before: one.not_before,
            not_after: one.not_after,
            renewal_from: policy.due_from(one),
            key_kind: one.key_kind.clone(),
            key,
            fingerprint_sha256: one.fingerprint(),
        }
    }

    /// The view as text, a block of lines.
    pub(crate) fn text(&self, now: Moment) -> String {
        let mut out = format!("{}\n", self.path);
        let mut line = |what: &str, text: String| {
            // Writing into a String cannot fail.
            let _ = writeln!(out, "  {what:<9} {text}");
        };
        line("for", self.purpose());
        if !self.is_ca {
            let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
            line("names", or_none(self.names.join(", ")));
            line("purposes", or_none(self.purposes()));
        }
        line("subject", self.subject.clone());
        line("issuer", self.issuer_text());
        line("valid", self.dates(now));
        line("key", self.key_text());
        line("serial", self.serial.clone());
        line("sha256", self.fingerprint_sha256.clone());
        out
    }

    fn purpose(&self) -> String {
        if self.is_ca {
            return "a CA".into();
        }
        match (&self.profile, &self.holder, &self.place) {
            (Some(profile), Some(holder), Some(place)) => {
                let node = place.node.as_ref().map(|node| format!(", node {node}")).unwrap_or_default();
                format!(
                    "{holder} ({profile}): datacenter {}, domain {}{node}",
                    place.datacenter, place.domain
                )
            }
            _ => "unknown: its names are those of no profile".into(),
        }
    }

    fn purposes(&self) -> String {
        let word = |usage: &Usage| match usage {
            Usage::Any => "anything",
            Usage::Server => "TLS server",
            Usage::Client => "TLS client",
            Usage::Other => "others than TLS",
        };
        let Some(usages) = &self.usages else { return "anything, since it does not say".into() };
        usages.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    fn issuer_text(&self) -> String {
        match &self.issued_by {
            Some(path) => format!("{} ({path})", self.issuer),
            None if self.issuer == self.subject => "itself".into(),
            None => format!("{} (not found beside it)", self.issuer),
        }
    }

    fn dates(&self, now: Moment) -> String {
        let Self { not_before, not_after, renewal_from, .. } = self;
        let state = if now < *not_before {
            "NOT VALID YET".to_owned()
        } else {
            match now.until(*not_after).filter(|left| !left.is_zero()) {
                None => "ENDED".to_owned(),
                Some(left) if now >= *renewal_from && !self.is_ca => {
                    format!("{} left, RENEWAL IS DUE", spoken(left))
                }
                Some(left) if self.is_ca => format!("{} left", spoken(left)),
                Some(left) => format!("{} left, renewal due from {renewal_from}", spoken(left)),
            }
        };
        format!("{not_before} to {not_after}: {state}")
    }

    fn key_text(&self) -> String {
        let kind = &self.key_kind;
        match &self.key {
            KeyView::Fits { path, mode, owner } => {
                format!("{kind}; {path} fits (mode {mode}, owner {owner})")
            }
            KeyView::Mismatch { path } => format!("{kind}; {path} DOES NOT FIT"),
            KeyView::Missing => format!("{kind}; not found beside it"),
        }
    }
}

fn fits(file: &FileFacts) -> KeyView {
    KeyView::Fits {
        path: file.path.display().to_string(),
        mode: format!("{:04o}", file.mode),
        owner: file.owner.clone(),
    }
}

/// Every certificate of a folder, CAs first.
pub(crate) fn all(folder: &FolderFacts, policy: Policy) -> Vec<View> {
    let authorities =
        folder.authorities().into_iter().map(|(file, one)| View::of_authority(file, one, folder, policy));
    let leaves = folder.leaves();
    authorities.chain(leaves.iter().map(|leaf| View::of_leaf(leaf, folder, policy))).collect()
}

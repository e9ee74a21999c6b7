//! Private keys: whether each fits its certificate, and whether others can get at it.

use crate::tls::x509::{
    check::Demands,
    finding::{Code, Finding},
    set::{FileFacts, FolderFacts, KeyBeside, Leaf},
};

/// What is wrong with the keys of a folder.
pub(crate) fn of(folder: &FolderFacts, demands: &Demands) -> Vec<Finding> {
    let mut findings: Vec<Finding> = folder.leaves().iter().filter_map(pairing).collect();
    let key_files: Vec<&FileFacts> = folder.files.iter().filter(|file| !file.keys().is_empty()).collect();
    for file in &key_files {
        findings.extend(open(file));
        findings.extend(owner(file, demands));
        findings.extend(orphan(file, folder));
    }
    if folder.is_open && !key_files.is_empty() {
        findings.push(Finding::problem(
            Code::KeyOpen,
            &folder.path,
            "every user of this machine can replace the keys in it",
            format!("chmod o-w {}", folder.path.display()),
        ));
    }
    findings
}

fn pairing(leaf: &Leaf<'_>) -> Option<Finding> {
    let path = &leaf.file.path;
    match leaf.key {
        KeyBeside::Fits(_) => None,
        KeyBeside::Other(key) => Some(Finding::problem(
            Code::KeyMismatch,
            path,
            format!(
                "the key in {} does not belong to it: Consul does not start with the two",
                key.path.display()
            ),
            "restore the right key, or make the certificate anew with `causeway tls cert create`",
        )),
        KeyBeside::Missing => Some(Finding::warning(
            Code::NoKey,
            path,
            "its key is not in the folder, so nothing here can use it",
            "put the key beside it if something here is to use it",
        )),
    }
}

fn open(file: &FileFacts) -> Option<Finding> {
    file.is_open().then(|| {
        Finding::problem(
            Code::KeyOpen,
            &file.path,
            format!(
                "a private key with mode {:04o}, owner {}: others than its owner can get at it",
                file.mode, file.owner
            ),
            format!("chmod 600 {}", file.path.display()),
        )
    })
}

fn owner(file: &FileFacts, demands: &Demands) -> Option<Finding> {
    let (uid, name) = demands.owner.as_ref()?;
    (file.uid != *uid).then(|| {
        Finding::problem(
            Code::KeyOwner,
            &file.path,
            format!("the private key belongs to {}, not to {name}", file.owner),
            format!("chown {name} {}", file.path.display()),
        )
    })
}

fn orphan(file: &FileFacts, folder: &FolderFacts) -> Option<Finding> {
    let belongs = |public: &[u8]| {
        let mut all = folder.files.iter().flat_map(FileFacts::certificates);
        all.any(|one| one.public_key == public)
    };
    let is_named = || {
        let mut leaves = folder.leaves().into_iter();
        leaves.any(|leaf| matches!(leaf.key, KeyBeside::Other(other) if other.path == file.path))
    };
    (!file.keys().iter().any(|key| belongs(key.public())) && !is_named()).then(|| {
        Finding::warning(
            Code::NoCertificate,
            &file.path,
            "no certificate in the folder belongs to this private key",
            "put its certificate beside it, or remove the key",
        )
    })
}

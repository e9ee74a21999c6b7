//! What is wrong with a set of certificates: a code for scripts, a sentence with its remedy for people.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Consul refuses it, or a key is open to others.
    Problem,
    /// It works today.
    Warning,
}

/// What kind of trouble, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// A file or folder cannot be read, or holds something unusable.
    Unreadable,
    /// A folder holds no CA certificate.
    NoCa,
    /// No CA of the folder issued the certificate.
    Untrusted,
    /// A CA may not sign certificates.
    NotACa,
    /// Not valid yet.
    NotYetValid,
    /// Not valid any more.
    Expired,
    /// It ends soon.
    EndsSoon,
    /// A DNS name is lacking.
    Name,
    /// The name of the node is lacking.
    NodeName,
    /// A purpose is lacking.
    Usage,
    /// A key usage is lacking.
    KeyUsage,
    /// The key beside a certificate is another's.
    KeyMismatch,
    /// A certificate has no key.
    NoKey,
    /// A key has no certificate.
    NoCertificate,
    /// A key can be read or replaced by others.
    KeyOpen,
    /// A key belongs to another user than it should.
    KeyOwner,
    /// Two certificates have one serial number.
    DuplicateSerial,
    /// Two certificates have one key.
    SharedKey,
    /// The same certificate is there twice, or two serve the same node.
    Duplicate,
    /// What it is for cannot be told.
    Unknown,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of trouble it is.
    pub code: Code,
    /// Where.
    pub path: PathBuf,
    /// What is wrong, and what comes of it.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// Something that Consul refuses, or that opens a key to others.
    pub fn problem(code: Code, path: &Path, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        let path = path.to_owned();
        Self { severity: Severity::Problem, code, path, problem: problem.into(), remedy: remedy.into() }
    }

    /// Something that works today.
    pub fn warning(code: Code, path: &Path, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::problem(code, path, problem, remedy) }
    }
}

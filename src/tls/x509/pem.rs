//! What a PEM file holds: certificates, private keys, and what cannot be used.

use rustls::pki_types::{
    PrivateKeyDer,
    pem::{PemObject, SectionKind},
};

use crate::{
    model::secret::SecretText,
    tls::x509::{certificate::Certificate, key::PrivateKey},
};

/// Everything in a PEM file that matters here.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Certificates in their order: a chain begins with its leaf.
    pub certificates: Vec<Certificate>,
    /// Private keys.
    pub keys: Vec<PrivateKey>,
    /// What is there and cannot be used, one sentence each; never what is in a key.
    pub problems: Vec<String>,
}

impl Contents {
    /// Reads a file's text. Text without any section is a problem as well.
    pub fn read(text: &[u8]) -> Self {
        let mut contents = Self::default();
        let is_encrypted = is_encrypted(text);
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            match section {
                Ok((SectionKind::Certificate, der)) => match Certificate::from_der(&der) {
                    Ok(certificate) => contents.certificates.push(certificate),
                    Err(problem) => contents.problems.push(problem),
                },
                Ok((kind, der)) => contents.key(kind, der),
                Err(_) if is_encrypted => break,
                Err(_) => {
                    contents.problems.push("damaged PEM text; restore the file or make it anew".into());
                    break;
                }
            }
        }
        if is_encrypted {
            contents.problems.push(
                "an encrypted private key, which Consul cannot read; write it in the clear, mode 0600: \
                 openssl pkey -in FILE -out NEW"
                    .into(),
            );
        }
        contents
    }

    /// Whether it holds neither a certificate nor a key nor something damaged: not a file of ours.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.keys.is_empty() && self.problems.is_empty()
    }

    fn key(&mut self, kind: SectionKind, der: Vec<u8>) {
        let Some(der) = PrivateKeyDer::from_pem(kind, der) else { return };
        match PrivateKey::read(&der) {
            Ok(key) => self.keys.push(key),
            Err(problem) => self.problems.push(problem),
        }
    }
}

fn is_encrypted(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// A certificate as PEM text.
pub fn certificate(der: &[u8]) -> String {
    section("CERTIFICATE", der)
}

/// A private key of SEC 1 as PEM text.
pub fn ec_key(sec1: &[u8]) -> SecretText {
    section("EC PRIVATE KEY", sec1).into()
}

/// Bytes under a label, 64 characters a line.
fn section(label: &str, der: &[u8]) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let text = BASE64_STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

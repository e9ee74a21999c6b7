//! `/v1/agent/connect/ca/roots` and `/v1/agent/connect/ca/leaf/:service`.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use x509_parser::pem::parse_x509_pem;

use crate::{
    consul::wire::{
        Read, WireError,
        read::{item, nullable, whole},
    },
    model::{
        ca::{Leaf, Roots},
        name::{ServiceName, TrustDomain},
        note::Note,
        secret::SecretText,
    },
};

const END: &str = "-----END CERTIFICATE-----";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireRoots {
    #[serde(default, deserialize_with = "nullable")]
    trust_domain: String,
    #[serde(default, deserialize_with = "nullable")]
    roots: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireRoot {
    #[serde(rename = "ID", default)]
    id: String,
    root_cert: String,
    #[serde(default, deserialize_with = "nullable")]
    intermediate_certs: Vec<String>,
}

#[derive(Deserialize)]
struct WireLeaf {
    #[serde(rename = "CertPEM")]
    cert_pem: String,
    #[serde(rename = "PrivateKeyPEM")]
    private_key_pem: SecretField,
}

/// A text that never reaches an error message.
#[derive(Deserialize)]
#[serde(transparent)]
struct SecretField(String);

/// All roots with their intermediates. Before its certificate authority is ready Consul answers with an empty trust
/// domain: that is [`WireError::NotReady`].
pub fn roots(body: &[u8]) -> Result<Read<Roots>, WireError> {
    let wire: WireRoots = whole(body)?;
    if wire.trust_domain.is_empty() {
        return Err(WireError::NotReady(
            "Consul's certificate authority has no trust domain yet; it is asked again (check connect.enabled on the servers if this stays)",
        ));
    }
    let (mut pem, mut notes) = (BTreeSet::new(), Vec::new());
    for root in wire.roots {
        let Some(root) = item::<WireRoot>(root, "CA root", &mut notes) else { continue };
        for text in root.intermediate_certs.iter().chain([&root.root_cert]) {
            for certificate in certificates(text) {
                if not_after(&certificate).is_some() {
                    pem.insert(certificate);
                } else {
                    notes.push(Note::new(
                        format!("CA root {}", root.id),
                        "one of its certificates cannot be read",
                        "rotate Consul's certificate authority",
                    ));
                }
            }
        }
    }
    if pem.is_empty() {
        return Err(WireError::NotReady(
            "Consul lists no usable CA root; check connect.enabled on the servers",
        ));
    }
    let trust_domain = TrustDomain::from(wire.trust_domain.to_ascii_lowercase());
    Ok((Roots { trust_domain, pem: pem.into_iter().collect() }, notes))
}

/// The leaf of `service`, each certificate of its chain once, in order. Its end is read from the certificate itself.
pub fn leaf(body: &[u8], service: &ServiceName) -> Result<Read<Leaf>, WireError> {
    let wire: WireLeaf = serde_json::from_slice(body)
        // The parser's own words could quote the key.
        .map_err(|_| WireError::Shape("it is no leaf certificate with its key".into()))?;
    let mut chain: Vec<String> = Vec::new();
    for certificate in certificates(&wire.cert_pem) {
        if !chain.contains(&certificate) {
            chain.push(certificate);
        }
    }
    let valid_before_s = chain
        .first()
        .and_then(|leaf| not_after(leaf))
        .ok_or_else(|| WireError::Shape("CertPEM holds no certificate that can be read".into()))?;
    if !wire.private_key_pem.0.contains("PRIVATE KEY-----") {
        return Err(WireError::Shape("PrivateKeyPEM holds no private key".into()));
    }
    let leaf = Leaf {
        service: service.clone(),
        chain_pem: chain.concat(),
        key_pem: SecretText::from(wire.private_key_pem.0),
        valid_before_s,
    };
    Ok((leaf, Vec::new()))
}

/// The certificates of a PEM text, each ending with a newline.
fn certificates(text: &str) -> impl Iterator<Item = String> {
    text.split_inclusive(END).filter(|part| part.contains(END)).map(|part| format!("{}\n", part.trim()))
}

/// The end of a certificate's validity, seconds since the Unix epoch; `None` if it cannot be read.
fn not_after(pem: &str) -> Option<i64> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    Some(pem.parse_x509().ok()?.validity().not_after.timestamp())
}

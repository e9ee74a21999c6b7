//! Owns the lab's certificates: one CA, and a server's and a client's certificate for each datacenter, made anew
//! for every lab; and its gossip key. It must not know what reads them.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::model::secret::SecretText;

/// A lab lives for hours; its certificates outlive it, and are of no use for long after.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Room for clocks that differ.
const BACKDATE: Duration = Duration::from_secs(3600);
/// AES-256, the longest that Consul's gossip takes.
const GOSSIP_KEY_BYTES: usize = 32;

/// A certificate and its key.
#[derive(Debug)]
pub struct Issued {
    /// The file's name without ending: `primary-server`.
    pub name: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: SecretText,
}

/// All certificates of a lab. The CA's key is not kept: nothing else is ever issued.
#[derive(Debug)]
pub struct Certificates {
    /// The CA's certificate, PEM.
    pub ca: String,
    /// What it issued.
    pub issued: Vec<Issued>,
}

/// Makes the CA and, for each datacenter and its server's node name, a server's and a client's certificate, valid
/// from shortly before `now`.
///
/// Errors: a name that no certificate can hold, or no randomness.
pub fn issue(servers: &[(&str, &str)], now: SystemTime) -> Result<Certificates, rcgen::Error> {
    let ca = authority(now)?;
    let mut issued = Vec::new();
    for (datacenter, node) in servers {
        let names = vec![
            format!("server.{datacenter}.consul"),
            format!("{node}.server.{datacenter}.consul"),
            "localhost".into(),
            "127.0.0.1".into(),
        ];
        issued.push(leaf(&ca, format!("{datacenter}-server"), names, now)?);
        let names = vec![format!("client.{datacenter}.consul"), "localhost".into(), "127.0.0.1".into()];
        issued.push(leaf(&ca, format!("{datacenter}-client"), names, now)?);
    }
    Ok(Certificates { ca: ca.pem(), issued })
}

/// A new gossip key, base64.
///
/// Errors: the system gave no randomness.
pub fn gossip_key() -> Result<SecretText, ring::error::Unspecified> {
    let mut key = [0; GOSSIP_KEY_BYTES];
    SystemRandom::new().fill(&mut key)?;
    Ok(SecretText::from(BASE64_STANDARD.encode(key)))
}

fn authority(now: SystemTime) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = params(Vec::new(), "Causeway lab CA", now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn leaf(
    ca: &CertifiedIssuer<'_, KeyPair>,
    name: String,
    names: Vec<String>,
    now: SystemTime,
) -> Result<Issued, rcgen::Error> {
    let common_name = names.first().cloned().unwrap_or_default();
    let mut params = params(names, &common_name, now)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?.pem();
    Ok(Issued { name, certificate, key: key.serialize_pem().into() })
}

fn params(names: Vec<String>, common_name: &str, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + LIFETIME).into();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use x509_parser::{extensions::GeneralName, pem::parse_x509_pem};

    use crate::lifecycle;

    #[test]
    fn a_server_certificate_names_its_datacenter_and_its_node() {
        let certificates = super::issue(&[("primary", "primary-server")], lifecycle::wall_clock()).unwrap();
        let server = &certificates.issued[0];
        assert_eq!(server.name, "primary-server");
        let (_, pem) = parse_x509_pem(server.certificate.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names: Vec<&str> = certificate
            .subject_alternative_name()
            .unwrap()
            .unwrap()
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(*name),
                _ => None,
            })
            .collect();
        assert_eq!(names, ["server.primary.consul", "primary-server.server.primary.consul", "localhost"]);
        assert!(server.key.expose().contains("PRIVATE KEY"));
    }

    #[test]
    fn the_ca_signs_what_it_issued() {
        let certificates = super::issue(&[("primary", "primary-server")], lifecycle::wall_clock()).unwrap();
        let (_, ca) = parse_x509_pem(certificates.ca.as_bytes()).unwrap();
        let ca = ca.parse_x509().unwrap();
        assert!(ca.is_ca());
        for issued in &certificates.issued {
            let (_, pem) = parse_x509_pem(issued.certificate.as_bytes()).unwrap();
            assert_eq!(pem.parse_x509().unwrap().issuer(), ca.subject());
        }
    }

    #[test]
    fn gossip_keys_differ_and_have_32_bytes() {
        let (a, b) = (super::gossip_key().unwrap(), super::gossip_key().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.expose().len(), 44);
    }
}

//! One certificate, read: names, dates, usages, and the raw parts that signing and comparing need.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use serde::Serialize;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    public_key::PublicKey,
};

use crate::tls::x509::moment::Moment;

/// A certificate. Two are equal if their bytes are.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    /// The subject, printable: `CN=server.dc1.consul`.
    pub subject: String,
    /// The issuer, printable.
    pub issuer: String,
    /// The subject as it is encoded; chains compare these bytes.
    pub subject_raw: Vec<u8>,
    /// The issuer as it is encoded.
    pub issuer_raw: Vec<u8>,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// Valid from.
    pub not_before: Moment,
    /// Valid until.
    pub not_after: Moment,
    /// DNS names, as written.
    pub dns: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
    /// Names of other kinds, printable.
    pub other_names: Vec<String>,
    /// Whether it may sign certificates: a CA by its basic constraints and, where it has them, its key usages.
    pub ca: CaState,
    /// What its key may do; none where it does not say, which is no limit.
    pub key_usages: Option<KeyUsages>,
    /// What it is for; none where it does not say, which is no limit.
    pub usages: Option<BTreeSet<Usage>>,
    /// The public key's bits.
    pub public_key: Vec<u8>,
    /// `EC P-256`, `RSA 2048`.
    pub key_kind: String,
    /// The key's identifier, which what it signs refers to.
    pub key_id: Option<Vec<u8>>,
    /// Every extension as it is encoded.
    pub extensions: Vec<RawExtension>,
}

/// Whether a certificate is a CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaState {
    /// It is not one.
    No,
    /// It says that it is one, and its key usages do not allow it to sign certificates.
    Disarmed,
    /// It is one.
    Yes,
}

/// The two key usages that TLS asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsages {
    /// For signatures: every key exchange with ephemeral keys.
    pub digital_signature: bool,
    /// For RSA key exchange.
    pub key_encipherment: bool,
}

/// A purpose by extended key usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Usage {
    /// Any purpose.
    Any,
    /// A server, when others connect to it.
    Server,
    /// A client, when it connects to others.
    Client,
    /// Something that TLS has no use for.
    Other,
}

/// An extension, not interpreted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawExtension {
    /// Its object identifier: `2.5.29.17`.
    pub oid: Vec<u64>,
    /// Whether those who do not know it must refuse the certificate.
    pub is_critical: bool,
    /// Its value, DER.
    pub value: Vec<u8>,
}

impl Certificate {
    /// Reads one; the error says what is wrong with it.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let (rest, read) =
            X509Certificate::from_der(der).map_err(|error| format!("no readable certificate: {error}"))?;
        if !rest.is_empty() {
            return Err("no readable certificate: bytes follow its end".into());
        }
        let names = Names::of(&read)?;
        Ok(Self {
            der: der.to_owned(),
            subject: printable(&read.subject().to_string()),
            issuer: printable(&read.issuer().to_string()),
            subject_raw: read.subject().as_raw().to_owned(),
            issuer_raw: read.issuer().as_raw().to_owned(),
            serial: hexadecimal(read.raw_serial()),
            not_before: Moment::from_unix(read.validity().not_before.timestamp()),
            not_after: Moment::from_unix(read.validity().not_after.timestamp()),
            dns: names.dns,
            addresses: names.addresses,
            other_names: names.others,
            ca: ca_state(&read)?,
            key_usages: key_usages(&read)?,
            usages: usages(&read)?,
            public_key: read.public_key().subject_public_key.data.to_vec(),
            key_kind: key_kind(&read),
            key_id: key_id(&read),
            extensions: read.extensions().iter().filter_map(raw_extension).collect(),
        })
    }

    /// The certificate's bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the bytes, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        hexadecimal(ring::digest::digest(&ring::digest::SHA256, &self.der).as_ref())
    }

    /// Whether it is a CA that may sign.
    pub fn is_authority(&self) -> bool {
        self.ca == CaState::Yes
    }

    /// Whether it serves this purpose: one that says nothing serves all.
    pub fn serves(&self, usage: Usage) -> bool {
        self.usages.as_ref().is_none_or(|all| all.contains(&usage) || all.contains(&Usage::Any))
    }

    /// Whether the DNS name is among its names, wildcards of one label included.
    pub fn bears(&self, name: &str) -> bool {
        self.dns.iter().any(|own| {
            own.eq_ignore_ascii_case(name)
                || own
                    .strip_prefix("*.")
                    .zip(name.split_once('.'))
                    .is_some_and(|(suffix, (_, rest))| suffix.eq_ignore_ascii_case(rest))
        })
    }

    /// All its names, printable, DNS names first.
    pub fn names(&self) -> Vec<String> {
        let addresses = self.addresses.iter().map(ToString::to_string);
        self.dns.iter().map(|name| printable(name)).chain(addresses).chain(self.other_names.clone()).collect()
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({} {})", self.subject, self.serial)
    }
}

#[derive(Default)]
struct Names {
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
    others: Vec<String>,
}

impl Names {
    fn of(read: &X509Certificate<'_>) -> Result<Self, String> {
        let mut names = Self::default();
        let found = read.subject_alternative_name().map_err(|_| twice("subject alternative names"))?;
        for name in found.iter().flat_map(|found| &found.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => match address(bytes) {
                    Some(address) => names.addresses.push(address),
                    None => names.others.push(format!("an address of {} bytes", bytes.len())),
                },
                GeneralName::URI(uri) => names.others.push(printable(uri)),
                GeneralName::RFC822Name(mail) => names.others.push(printable(mail)),
                other => names.others.push(printable(&other.to_string())),
            }
        }
        Ok(names)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}

fn twice(what: &str) -> String {
    format!("no readable certificate: its {what} are there twice")
}

fn ca_state(read: &X509Certificate<'_>) -> Result<CaState, String> {
    let constraints = read.basic_constraints().map_err(|_| twice("basic constraints"))?;
    let may_sign =
        read.key_usage().map_err(|_| twice("key usages"))?.is_none_or(|usage| usage.value.key_cert_sign());
    Ok(match (constraints.is_some_and(|found| found.value.ca), may_sign) {
        (false, _) => CaState::No,
        (true, false) => CaState::Disarmed,
        (true, true) => CaState::Yes,
    })
}

fn key_usages(read: &X509Certificate<'_>) -> Result<Option<KeyUsages>, String> {
    let found = read.key_usage().map_err(|_| twice("key usages"))?;
    Ok(found.map(|usage| KeyUsages {
        digital_signature: usage.value.digital_signature(),
        key_encipherment: usage.value.key_encipherment(),
    }))
}

fn usages(read: &X509Certificate<'_>) -> Result<Option<BTreeSet<Usage>>, String> {
    let found = read.extended_key_usage().map_err(|_| twice("extended key usages"))?;
    Ok(found.map(|found| {
        let value = found.value;
        let is_other = value.code_signing
            || value.email_protection
            || value.time_stamping
            || value.ocsp_signing
            || !value.other.is_empty();
        [
            (value.any, Usage::Any),
            (value.server_auth, Usage::Server),
            (value.client_auth, Usage::Client),
            (is_other, Usage::Other),
        ]
        .into_iter()
        .filter_map(|(has, usage)| has.then_some(usage))
        .collect()
    }))
}

fn key_kind(read: &X509Certificate<'_>) -> String {
    match read.public_key().parsed() {
        Ok(PublicKey::EC(point)) => match point.key_size() {
            // The size of a P-521 point is told in whole bytes.
            528 => "EC P-521".to_owned(),
            bits => format!("EC P-{bits}"),
        },
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        _ if read.public_key().algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".to_owned(),
        _ => format!("of kind {}", read.public_key().algorithm.algorithm.to_id_string()),
    }
}

fn key_id(read: &X509Certificate<'_>) -> Option<Vec<u8>> {
    read.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_owned()),
        _ => None,
    })
}

fn raw_extension(extension: &x509_parser::extensions::X509Extension<'_>) -> Option<RawExtension> {
    let oid = extension.oid.iter()?.collect();
    Some(RawExtension { oid, is_critical: extension.critical, value: extension.value.to_owned() })
}

fn hexadecimal(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

/// Text of strangers for a terminal: control characters are written out.
pub(crate) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

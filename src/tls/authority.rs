//! Signing: a new CA, certificates of a CA, and a certificate once more with a new key.
//!
//! A CA made elsewhere is used as it is: its name is copied byte for byte into what it issues.

mod der;

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData,
    SanType, SerialNumber, SignatureAlgorithm, SigningKey,
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    model::secret::SecretText,
    tls::x509::{
        certificate::{Certificate, Usage},
        key::{PrivateKey, Scheme},
        moment::Moment,
        pem,
        profile::{Names, Profile},
        trust,
    },
};

/// Room for clocks that differ.
const BACKDATE: Duration = Duration::from_secs(3600);
/// RFC 5280 allows 20; 16 random ones never meet.
const SERIAL_BYTES: usize = 16;
/// Extensions that tell of the key or of the issuer, that no certificate but a CA's differs in, or that tell of logs
/// which saw the old certificate: identifiers of keys, basic constraints, signed timestamps. Never copied.
const NOT_COPIED: &[&[u64]] =
    &[&[2, 5, 29, 14], &[2, 5, 29, 35], &[2, 5, 29, 19], &[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2]];

/// A CA that can sign.
#[derive(Clone, Debug)]
pub struct Authority {
    certificate: Certificate,
    key: PrivateKey,
    scheme: Scheme,
}

/// A certificate just made, and its key.
#[derive(Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: Certificate,
    /// Its private key, PEM.
    pub key: SecretText,
    /// Whether it ends earlier than was asked, since its CA does.
    pub is_cut_short: bool,
}

impl Issued {
    /// The certificate as PEM text.
    pub fn pem(&self) -> String {
        pem::certificate(self.certificate.der())
    }
}

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate is no CA.
    #[error("`{subject}` is no CA, or its key usages do not allow it to sign; name a CA's certificate")]
    NotACa {
        /// Its subject.
        subject: String,
    },
    /// The key is another's.
    #[error("the key does not belong to the CA `{subject}`; name the key that was made with it")]
    KeyMismatch {
        /// The CA's subject.
        subject: String,
    },
    /// The key cannot sign certificates.
    #[error("the key of the CA `{subject}` cannot sign certificates here; use a CA with an EC P-256 key")]
    Scheme {
        /// The CA's subject.
        subject: String,
    },
    /// The CA has ended or has not begun.
    #[error("the CA `{subject}` is valid from {from} to {until}, not now; {remedy}")]
    Dates {
        /// The CA's subject.
        subject: String,
        /// Its beginning.
        from: Moment,
        /// Its end.
        until: Moment,
        /// What to do.
        remedy: &'static str,
    },
    /// A name that no certificate can hold.
    #[error("`{name}` cannot be a DNS name in a certificate; use letters, digits, dots and dashes")]
    Name {
        /// The name.
        name: String,
    },
    /// What was signed would not be taken.
    #[error(
        "what the CA `{subject}` signs would be refused: {reason}; its name constraints or its path length may not \
         allow it: use another CA, or names that it allows"
    )]
    Refused {
        /// The CA's subject.
        subject: String,
        /// The library's reason.
        reason: String,
    },
    /// Signing did not work.
    #[error("sign a certificate: {0}")]
    Sign(String),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Sign(error.to_string())
    }
}

/// The moment that the wall clock shows.
pub fn moment(now: SystemTime) -> Moment {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Moment::from_unix(0).plus(since)
}

/// What a new CA is asked to be.
#[derive(Clone, Debug, Default)]
pub struct NewAuthority {
    /// For how long.
    pub lifetime: Duration,
    /// DNS names below which it may issue; empty for everywhere.
    pub constraints: Vec<String>,
}

impl Authority {
    /// A CA out of its certificate and its key. Errors: they do not fit, or it is no CA.
    pub fn new(certificate: Certificate, key: PrivateKey) -> Result<Self, AuthorityError> {
        let subject = certificate.subject.clone();
        if !certificate.is_authority() {
            return Err(AuthorityError::NotACa { subject });
        }
        if key.public() != certificate.public_key {
            return Err(AuthorityError::KeyMismatch { subject });
        }
        let scheme = key.scheme().ok_or(AuthorityError::Scheme { subject })?;
        Ok(Self { certificate, key, scheme })
    }

    /// A new CA with a name of its own, so that it is told apart from the one before it. It signs leaves only.
    pub fn create(request: &NewAuthority, now: Moment) -> Result<(Self, Issued), AuthorityError> {
        let serial = serial()?;
        let short: String = serial.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let mut params = blank(&format!("Causeway CA {short}"));
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_dates(&mut params, now.minus(BACKDATE), now.plus(request.lifetime))?;
        if !request.constraints.is_empty() {
            for name in &request.constraints {
                must_be_name(name)?;
            }
            let permitted_subtrees =
                request.constraints.iter().cloned().map(GeneralSubtree::DnsName).collect();
            params.name_constraints =
                Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        }
        let pair = KeyPair::generate()?;
        let made = params.self_signed(&pair)?;
        let certificate = Certificate::from_der(made.der()).map_err(AuthorityError::Sign)?;
        let issued = Issued { certificate, key: key_text(&pair)?, is_cut_short: false };
        let mut read = pem::Contents::read(issued.key.expose().as_bytes());
        let key = read.keys.pop().ok_or_else(|| AuthorityError::Sign(read.problems.join("; ")))?;
        Ok((Self::new(issued.certificate.clone(), key)?, issued))
    }

    /// The CA's own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// A certificate of this profile for these names, with a new key. It ends with the CA at the latest.
    pub fn issue(
        &self,
        profile: &Profile,
        names: &Names,
        lifetime: Duration,
        now: Moment,
    ) -> Result<Issued, AuthorityError> {
        let mut params = blank(names.dns.first().map_or("", String::as_str));
        for name in &names.dns {
            must_be_name(name)?;
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.subject_alt_names.extend(names.addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            profile.usages.union(&profile.more_usages).filter_map(|usage| purpose(*usage)).collect();
        self.sign(params, None, lifetime + BACKDATE, now)
    }

    /// `old` once more, with a new key: its subject, names, purposes and other extensions are copied as they are.
    pub fn renew(
        &self,
        old: &Certificate,
        lifetime: Duration,
        now: Moment,
    ) -> Result<Issued, AuthorityError> {
        let mut params = blank("");
        params.is_ca = IsCa::ExplicitNoCa;
        for extension in &old.extensions {
            if NOT_COPIED.contains(&extension.oid.as_slice()) {
                continue;
            }
            let mut copy = CustomExtension::from_oid_content(&extension.oid, extension.value.clone());
            copy.set_criticality(extension.is_critical);
            params.custom_extensions.push(copy);
        }
        self.sign(params, Some(&old.subject_raw), lifetime, now)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        subject: Option<&[u8]>,
        lifetime: Duration,
        now: Moment,
    ) -> Result<Issued, AuthorityError> {
        self.must_be_valid(now)?;
        let ca = &self.certificate;
        let from = now.minus(BACKDATE).max(ca.not_before);
        let until = now.minus(BACKDATE).plus(lifetime);
        set_dates(&mut params, from, until.min(ca.not_after))?;
        params.serial_number = Some(SerialNumber::from_slice(&serial()?));
        params.use_authority_key_identifier_extension = ca.key_id.is_some();

        let mut issuer = blank("");
        issuer.key_identifier_method = KeyIdMethod::PreSpecified(ca.key_id.clone().unwrap_or_default());
        let issuer = Issuer::new(issuer, Signer(self));
        let pair = KeyPair::generate()?;
        let made = params.signed_by(&pair, &issuer)?;
        let whole =
            der::with_names(made.der(), &ca.subject_raw, subject, |body| self.key.sign(self.scheme, body))
                .map_err(AuthorityError::Sign)?;
        let certificate = Certificate::from_der(&whole).map_err(AuthorityError::Sign)?;
        self.must_be_taken(&certificate)?;
        Ok(Issued { certificate, key: key_text(&pair)?, is_cut_short: until > ca.not_after })
    }

    fn must_be_valid(&self, now: Moment) -> Result<(), AuthorityError> {
        let ca = &self.certificate;
        let remedy = match (now < ca.not_before, now >= ca.not_after) {
            (true, _) => "check the clock of this machine",
            (_, true) => "make a new CA with `causeway tls ca create` and roll over to it",
            _ => return Ok(()),
        };
        let subject = ca.subject.clone();
        Err(AuthorityError::Dates { subject, from: ca.not_before, until: ca.not_after, remedy })
    }

    /// Judged as a peer will judge it: constraints of the CA show here and not in production.
    fn must_be_taken(&self, certificate: &Certificate) -> Result<(), AuthorityError> {
        for usage in [Usage::Server, Usage::Client] {
            if certificate.serves(usage) {
                trust::judge(certificate, &[], &[&self.certificate], usage, certificate.not_before).map_err(
                    |fault| AuthorityError::Refused {
                        subject: self.certificate.subject.clone(),
                        reason: fault.to_string(),
                    },
                )?;
            }
        }
        Ok(())
    }
}

/// The CA's key as the library that writes certificates wants it.
struct Signer<'a>(&'a Authority);

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.key.public()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.0.scheme {
            Scheme::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Scheme::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Scheme::RsaSha256 => &rcgen::PKCS_RSA_SHA256,
            Scheme::Ed25519 => &rcgen::PKCS_ED25519,
        }
    }
}

impl SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.key.sign(self.0.scheme, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// As `consul tls` writes keys.
fn key_text(pair: &KeyPair) -> Result<SecretText, AuthorityError> {
    der::sec1(pair.serialized_der()).map(|key| pem::ec_key(&key)).map_err(AuthorityError::Sign)
}

fn blank(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if !common_name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, common_name);
    }
    params
}

fn set_dates(params: &mut CertificateParams, from: Moment, until: Moment) -> Result<(), AuthorityError> {
    let date = |moment: Moment| {
        x509_parser::time::ASN1Time::from_timestamp(moment.unix()).map(|time| time.to_datetime()).map_err(
            |_| AuthorityError::Sign(format!("{moment} is no date for a certificate; ask for fewer days")),
        )
    };
    params.not_before = date(from)?;
    params.not_after = date(until)?;
    Ok(())
}

fn serial() -> Result<[u8; SERIAL_BYTES], AuthorityError> {
    let mut bytes = [0; SERIAL_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| AuthorityError::Sign("the system gave no randomness".into()))?;
    // Positive and never zero, at full length.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(bytes)
}

fn must_be_name(name: &str) -> Result<(), AuthorityError> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let bare = name.strip_prefix("*.").unwrap_or(name);
    if bare.len() > 253 || !bare.split('.').all(is_label) {
        return Err(AuthorityError::Name { name: name.to_owned() });
    }
    Ok(())
}

fn purpose(usage: Usage) -> Option<ExtendedKeyUsagePurpose> {
    match usage {
        Usage::Any => Some(ExtendedKeyUsagePurpose::Any),
        Usage::Server => Some(ExtendedKeyUsagePurpose::ServerAuth),
        Usage::Client => Some(ExtendedKeyUsagePurpose::ClientAuth),
        Usage::Other => None,
    }
}

#[cfg(test)]
mod tests;

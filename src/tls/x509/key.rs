//! A private key: which public key it belongs to, and signing with it. What is in it is never shown.

use std::{fmt, sync::Arc};

use rustls::{
    SignatureAlgorithm, SignatureScheme, crypto::ring::sign::any_supported_type, pki_types::PrivateKeyDer,
    sign::SigningKey,
};
use x509_parser::{prelude::FromDer, x509::SubjectPublicKeyInfo};

/// Every form that Consul reads: PKCS#8, SEC 1 (`EC PRIVATE KEY`), PKCS#1 (`RSA PRIVATE KEY`).
#[derive(Clone)]
pub struct PrivateKey {
    signing: Arc<dyn SigningKey>,
    public: Vec<u8>,
}

/// How a key signs certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// ECDSA on P-256 with SHA-256, as `consul tls` makes them.
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384,
    /// RSA, PKCS#1 v1.5, with SHA-256.
    RsaSha256,
    /// Ed25519.
    Ed25519,
}

impl Scheme {
    fn rustls(self) -> SignatureScheme {
        match self {
            Self::EcdsaP256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Self::EcdsaP384 => SignatureScheme::ECDSA_NISTP384_SHA384,
            Self::RsaSha256 => SignatureScheme::RSA_PKCS1_SHA256,
            Self::Ed25519 => SignatureScheme::ED25519,
        }
    }
}

impl PrivateKey {
    /// Reads a key. The error never quotes it.
    pub fn read(der: &PrivateKeyDer<'_>) -> Result<Self, String> {
        // The provider's own words are left out: they could quote the key.
        let unusable = || {
            "a private key that this build cannot use; it takes EC P-256 and P-384, RSA of 2048 to 4096 bits and Ed25519, \
             not encrypted; make the certificate anew with such a key"
                .to_owned()
        };
        let signing = any_supported_type(der).map_err(|_| unusable())?;
        let spki = signing.public_key().ok_or_else(unusable)?;
        let (_, parsed) = SubjectPublicKeyInfo::from_der(&spki).map_err(|_| unusable())?;
        let public = parsed.subject_public_key.data.to_vec();
        Ok(Self { signing, public })
    }

    /// The public key's bits, as a certificate has them.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// How it signs; none where it cannot sign certificates.
    pub fn scheme(&self) -> Option<Scheme> {
        let all = match self.signing.algorithm() {
            SignatureAlgorithm::RSA => &[Scheme::RsaSha256][..],
            SignatureAlgorithm::ED25519 => &[Scheme::Ed25519],
            _ => &[Scheme::EcdsaP256, Scheme::EcdsaP384],
        };
        all.iter().copied().find(|scheme| self.signing.choose_scheme(&[scheme.rustls()]).is_some())
    }

    /// Signs with the scheme that [`Self::scheme`] gave.
    pub fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, String> {
        let signer = self.signing.choose_scheme(&[scheme.rustls()]).ok_or("the key has another scheme")?;
        signer.sign(message).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey([redacted])")
    }
}

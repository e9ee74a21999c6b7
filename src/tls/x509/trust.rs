//! Whether a certificate leads to one of some CAs, for a purpose: judged by the library that our own connections use,
//! so that nothing passes here that a real peer refuses.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{
    CertificateError, Error, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, UnixTime},
    server::{ParsedCertificate, WebPkiClientVerifier},
};

use crate::tls::x509::{
    certificate::{Certificate, Usage},
    moment::Moment,
};

/// Why a certificate does not lead to a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None of the CAs has the issuer's name.
    UnknownIssuer,
    /// A CA has the issuer's name and another key.
    BadSignature,
    /// The purpose is not among its extended key usages.
    Purpose,
    /// Anything else, in the library's words.
    Other(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownIssuer => "its issuer is not among the CAs",
            Self::BadSignature => "a CA of that name has another key and did not sign it",
            Self::Purpose => "it is not meant for this purpose",
            Self::Other(reason) => reason,
        })
    }
}

/// Judges `leaf` with its `intermediates` by `roots` as of `at`, for being a server or a client.
///
/// Dates of roots are not looked at. No root at all is [`Fault::UnknownIssuer`].
pub fn judge(
    leaf: &Certificate,
    intermediates: &[Certificate],
    roots: &[&Certificate],
    usage: Usage,
    at: Moment,
) -> Result<(), Fault> {
    let mut store = RootCertStore::empty();
    for root in roots {
        // One that cannot be a root is told of by itself; here it issues nothing.
        let _ = store.add(CertificateDer::from(root.der().to_vec()));
    }
    if store.is_empty() {
        return Err(Fault::UnknownIssuer);
    }
    let between: Vec<_> = intermediates.iter().map(|one| CertificateDer::from(one.der().to_vec())).collect();
    let end = CertificateDer::from(leaf.der().to_vec());
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.unix()).unwrap_or(0)));
    let judged = match usage {
        Usage::Client => as_client(store, &end, &between, at),
        _ => as_server(&store, &end, &between, at),
    };
    judged.map_err(|error| fault(error, leaf, intermediates, roots))
}

fn as_server(
    store: &RootCertStore,
    end: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    at: UnixTime,
) -> Result<(), Error> {
    let algorithms = default_provider().signature_verification_algorithms;
    let parsed = ParsedCertificate::try_from(end)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, store, between, at, algorithms.all)
}

fn as_client(
    store: RootCertStore,
    end: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    at: UnixTime,
) -> Result<(), Error> {
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    verifier.verify_client_cert(end, between, at).map(|_| ())
}

fn fault(error: Error, leaf: &Certificate, between: &[Certificate], roots: &[&Certificate]) -> Fault {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            let is_named = |issuer: &[u8]| roots.iter().any(|root| root.subject_raw == issuer);
            // The library calls a CA with another key unknown as well.
            if std::iter::once(leaf).chain(between).any(|one| is_named(&one.issuer_raw)) {
                Fault::BadSignature
            } else {
                Fault::UnknownIssuer
            }
        }
        Error::InvalidCertificate(CertificateError::BadSignature) => Fault::BadSignature,
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => Fault::Purpose,
        Error::InvalidCertificate(reason) => Fault::Other(reason.to_string()),
        other => Fault::Other(other.to_string()),
    }
}

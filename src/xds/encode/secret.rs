//! Secrets, written inline. The only place where a private key leaves its wrapper.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret as Message, TlsCertificate, secret::Type,
};

use crate::xds::{
    encode::value::inline,
    resource::secret::{Secret, SecretContent},
};

pub(super) fn message(secret: &Secret) -> Message {
    let content = match &secret.content {
        SecretContent::Leaf { chain_pem, key_pem } => Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(chain_pem)),
            private_key: Some(inline(key_pem.expose())),
            ..TlsCertificate::default()
        }),
        SecretContent::Roots { pem } => Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(inline(pem)),
            ..CertificateValidationContext::default()
        }),
    };
    Message { name: secret.name.clone(), r#type: Some(content) }
}

//! Who the other side of a connection is: TLS over every listed root, and exactly one name. Pure.
//!
//! A Connect leaf bears its service's name as a URI and no DNS name, so that the usual checks of a server's name have
//! nothing to look at. Both verifiers here check the chain as always, and then that name.

mod verifier;

use std::{collections::BTreeSet, fmt, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::{
    mesh::name,
    model::{
        ca::{Leaf, Roots},
        name::{Datacenter, ServiceName, TrustDomain},
    },
    sync::peer::{
        SERVICE,
        identity::verifier::{Callee, Caller},
    },
};

/// Only HTTP/2 is spoken.
const ALPN: &[u8] = b"h2";

/// Who can be at the other end: the sync agents of these datacenters, in one trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// The configured datacenters, the own one among them.
    pub datacenters: BTreeSet<Datacenter>,
}

/// A certificate that is no sync agent's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// It cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// It has no URI, or more than one.
    #[error("the certificate has {0} URI names, and a service of the mesh has exactly one")]
    Uris(usize),
    /// It is another's.
    #[error("the certificate is that of {found}, and only {expected} may connect")]
    Another {
        /// Its URI, printable.
        found: String,
        /// Who is expected.
        expected: String,
    },
}

impl Names {
    /// The datacenter of a sync agent's certificate.
    ///
    /// # Errors
    /// It is another's. Neither chain nor dates are looked at.
    pub fn datacenter(&self, certificate: &[u8]) -> Result<Datacenter, Stranger> {
        let uri = only_uri(certificate)?;
        let found = self.datacenters.iter().find(|dc| self.id(dc) == uri);
        found.cloned().ok_or_else(|| Stranger::Another { found: printable(&uri), expected: self.to_string() })
    }

    /// The SPIFFE id of that datacenter's sync agents.
    pub fn id(&self, dc: &Datacenter) -> String {
        name::spiffe_id(&ServiceName::from(SERVICE), dc, &self.trust_domain)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.datacenters.iter().map(|dc| self.id(dc)).collect();
        f.write_str(&ids.join(", "))
    }
}

/// The URI among the names, if it is the only one.
fn only_uri(certificate: &[u8]) -> Result<String, Stranger> {
    let unreadable = |reason: &dyn fmt::Display| Stranger::Unreadable(reason.to_string());
    let (_, read) = X509Certificate::from_der(certificate).map_err(|error| unreadable(&error))?;
    let names = read.subject_alternative_name().map_err(|_| unreadable(&"its names are there twice"))?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let uris: Vec<&str> = names
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => Ok((*uri).to_owned()),
        all => Err(Stranger::Uris(all.len())),
    }
}

/// Text of strangers for logs: control characters are written out.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// What this agent proves itself with and whom it trusts. A new value takes the place of the old one for connections that
/// begin; open ones stay. Its `Debug` shows no key.
pub struct Identity {
    names: Names,
    datacenter: Datacenter,
    valid_before_s: i64,
    roots: Arc<RootCertStore>,
    key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
    server: Arc<ServerConfig>,
}

/// Roots and a leaf that make no identity. Never holds a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A root cannot be used.
    #[error("use the CA roots that Consul lists: {0}; rotate Consul's certificate authority")]
    Roots(String),
    /// The leaf cannot be used.
    #[error("use the leaf certificate of {SERVICE}: {0}; Consul gives a new one when it is asked anew")]
    Leaf(String),
    /// The leaf is not that of a sync agent here.
    #[error(
        "the leaf certificate that Consul gave is not this agent's: {0}; name this datacenter among those configured"
    )]
    Stranger(#[from] Stranger),
}

impl Identity {
    /// Out of what Consul gave.
    ///
    /// # Errors
    /// Something of it cannot be used, or the leaf is not that of a sync agent in one of these datacenters.
    pub fn new(
        roots: &Roots,
        leaf: &Leaf,
        datacenters: &BTreeSet<Datacenter>,
    ) -> Result<Self, IdentityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let names = Names { trust_domain: roots.trust_domain.clone(), datacenters: datacenters.clone() };
        let unusable = |error: &dyn fmt::Display| IdentityError::Leaf(error.to_string());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(&error))?;
        let own = chain.first().ok_or_else(|| unusable(&"it holds no certificate"))?;
        let datacenter = names.datacenter(own)?;
        // The parser's own words are left out: they could quote the key.
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.expose().as_bytes())
            .map_err(|_| unusable(&"its key cannot be read"))?;
        let key = CertifiedKey::from_der(chain, key, &provider)
            .map_err(|_| unusable(&"its key does not belong to it or is of an unknown kind"))?;
        let (key, roots) = (Arc::new(key), Arc::new(trusted(roots)?));
        let server = server_config(&names, &roots, &key, &provider)?;
        let valid_before_s = leaf.valid_before_s;
        Ok(Self { names, datacenter, valid_before_s, roots, key, provider, server: Arc::new(server) })
    }

    /// Who can be at the other end.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The datacenter that the own certificate names.
    pub fn datacenter(&self) -> &Datacenter {
        &self.datacenter
    }

    /// The end of the own certificate, seconds since the Unix epoch.
    pub fn valid_before_s(&self) -> i64 {
        self.valid_before_s
    }

    /// For accepting connections of sync agents.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For connecting to the sync agents of one datacenter, with the server name that leads there.
    ///
    /// # Errors
    /// That datacenter's name can be in no server name.
    pub fn client(&self, to: &Datacenter) -> Result<(Arc<ClientConfig>, ServerName<'static>), IdentityError> {
        let sni = name::service_sni(&ServiceName::from(SERVICE), to, &self.names.trust_domain);
        let sni = ServerName::try_from(sni)
            .map_err(|_| IdentityError::Roots(format!("datacenter {to} can be in no server name")))?;
        let names = Names { trust_domain: self.names.trust_domain.clone(), datacenters: [to.clone()].into() };
        let algorithms = self.provider.signature_verification_algorithms;
        let callee = Callee::new(names, self.roots.clone(), algorithms);
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| IdentityError::Roots(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(callee))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.key.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would trust certificates that were verified by roots of long ago.
        config.resumption = Resumption::disabled();
        Ok((Arc::new(config), sni))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.names.id(&self.datacenter))
            .field("valid_before_s", &self.valid_before_s)
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

fn trusted(roots: &Roots) -> Result<RootCertStore, IdentityError> {
    let unusable = |error: &dyn fmt::Display| IdentityError::Roots(error.to_string());
    let mut store = RootCertStore::empty();
    for pem in &roots.pem {
        let root = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| unusable(&error))?;
        store.add(root).map_err(|error| unusable(&error))?;
    }
    Ok(store)
}

fn server_config(
    names: &Names,
    roots: &Arc<RootCertStore>,
    key: &Arc<CertifiedKey>,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, IdentityError> {
    let unusable = |error: &dyn fmt::Display| IdentityError::Roots(error.to_string());
    let chains = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| unusable(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(Arc::new(Caller::new(names.clone(), chains)))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // As on the other side: no session outlives the roots by which it was verified.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
mod tests;

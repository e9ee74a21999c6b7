//! TLS client configurations out of PEM files. Knows nothing of who is spoken with.
//!
//! One provider, `ring`, is named explicitly everywhere, so that no process-wide default is needed.

mod verifier;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::tls::client::verifier::AcceptAnyServer;

/// Which files make up a client's side of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// Trusted CA certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// A folder whose `.pem`, `.crt` and `.cer` files hold trusted CA certificates.
    pub ca_path: Option<PathBuf>,
    /// The client's certificate chain, PEM. Needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The client's private key, PEM. Needs `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Whether the server's certificate must lead to a trusted CA and bear the expected name.
    pub verify: bool,
}

impl ClientFiles {
    /// Every file and folder that the configuration was made of, to see whether one changed.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.ca_file, &self.ca_path, &self.cert_file, &self.key_file]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }
}

/// A TLS configuration that cannot be made. Names the file and what to do; never what is in a key file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file or folder cannot be read.
    #[error("read {what} {path}: {reason}; check the path and that this user may read it")]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A file holds nothing usable.
    #[error("read {what} {path}: {reason}; it must hold PEM text")]
    Content {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Only one of certificate and key is given.
    #[error(
        "a client certificate and its key belong together, but only {given} is given; give {missing} as well"
    )]
    Half {
        /// The one that is given.
        given: &'static str,
        /// The one that is missing.
        missing: &'static str,
    },
    /// Certificate and key do not fit, or the provider refuses them.
    #[error(
        "use the client certificate {cert} with the key {key}: {reason}; check that the two were made together"
    )]
    Pair {
        /// Certificate file.
        cert: PathBuf,
        /// Key file.
        key: PathBuf,
        /// What rustls says.
        reason: String,
    },
    /// No CA was given and the system has none.
    #[error("the system has no trusted certificates{reason}; give a CA file")]
    NoRoots {
        /// Why, where known.
        reason: String,
    },
    /// A name that no certificate can bear.
    #[error("`{name}` is no server name; give a DNS name or an IP address")]
    Name {
        /// The name.
        name: String,
    },
    /// The provider refuses the protocol versions.
    #[error("set up TLS: {reason}; this build is broken")]
    Provider {
        /// What rustls says.
        reason: String,
    },
}

/// Makes the client configuration; `alpn` are the protocols to offer, best first. Without CA file and folder the
/// system's trusted certificates are used.
pub fn client_config(files: &ClientFiles, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Provider { reason: error.to_string() })?;
    let builder = if files.verify {
        builder.with_root_certificates(trusted(files)?)
    } else {
        accept_any(builder, &provider)
    };
    let mut config = match (&files.cert_file, &files.key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) => return Err(TlsError::Half { given: "the certificate", missing: "the key" }),
        (None, Some(_)) => return Err(TlsError::Half { given: "the key", missing: "the certificate" }),
        (Some(cert), Some(key)) => {
            let chain = certificates("the client certificate", cert)?;
            builder.with_client_auth_cert(chain, private_key(key)?).map_err(|error| TlsError::Pair {
                cert: cert.clone(),
                key: key.clone(),
                reason: error.to_string(),
            })?
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// The name a server must bear: a DNS name or an IP address, brackets around IPv6 allowed.
pub fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::Name { name: name.to_owned() })
}

fn accept_any(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>,
    provider: &Arc<CryptoProvider>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnyServer::new(
        provider.signature_verification_algorithms,
    )))
}

fn trusted(files: &ClientFiles) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    if let Some(file) = &files.ca_file {
        add_file(&mut store, file)?;
    }
    if let Some(folder) = &files.ca_path {
        for file in certificate_files(folder)? {
            add_file(&mut store, &file)?;
        }
    }
    if files.ca_file.is_none() && files.ca_path.is_none() {
        let native = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(native.certs);
        if store.is_empty() {
            let reason = native.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(TlsError::NoRoots { reason });
        }
    }
    Ok(store)
}

fn add_file(store: &mut RootCertStore, file: &Path) -> Result<(), TlsError> {
    const WHAT: &str = "the CA file";
    for certificate in certificates(WHAT, file)? {
        store.add(certificate).map_err(|error| TlsError::Content {
            what: WHAT,
            path: file.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

fn certificate_files(folder: &Path) -> Result<Vec<PathBuf>, TlsError> {
    const WHAT: &str = "the CA folder";
    let read = |error: std::io::Error| TlsError::Read {
        what: WHAT,
        path: folder.to_owned(),
        reason: error.to_string(),
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let is_certificate = path.extension().is_some_and(|e| e == "pem" || e == "crt" || e == "cer");
        if is_certificate && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        let reason = "it has no .pem, .crt or .cer file".to_owned();
        return Err(TlsError::Content { what: WHAT, path: folder.to_owned(), reason });
    }
    files.sort();
    Ok(files)
}

fn certificates(what: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(what, file)?;
    let content = |reason: String| TlsError::Content { what, path: file.to_owned(), reason };
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| content(error.to_string()))?;
    if found.is_empty() {
        return Err(content("it holds no certificate".into()));
    }
    Ok(found)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const WHAT: &str = "the client key";
    // The parser's own words are left out: they could quote the file.
    PrivateKeyDer::from_pem_slice(&read(WHAT, file)?).map_err(|_| TlsError::Content {
        what: WHAT,
        path: file.to_owned(),
        reason: "it holds no private key".into(),
    })
}

fn read(what: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|error| TlsError::Read { what, path: file.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests;

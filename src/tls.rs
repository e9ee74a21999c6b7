//! TLS of our own connections and of Consul's: client configurations out of PEM files, and certificates: reading,
//! issuing, checking, renewing. It must not know the mesh, whose certificates Consul itself issues.
//!
//! [`x509`] decides and is pure; [`authority`] signs, [`folder`] and [`store`] read and write files. One provider,
//! `ring`, is named explicitly everywhere, so that no process-wide default is needed.

pub mod authority;
pub mod client;
pub mod folder;
pub mod gossip;
pub mod owner;
pub mod store;
pub mod x509;

pub use crate::tls::client::{ClientFiles, TlsError, client_config, server_name};

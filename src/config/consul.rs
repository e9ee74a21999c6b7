//! How to reach the local Consul agent, as Consul's own tools are told: flags, file, `CONSUL_*`.

mod env;
mod section;

use std::{fmt, path::PathBuf};

pub(crate) use crate::config::consul::section::{SECTION, read};
use crate::model::secret::SecretText;

/// Where the local Consul agent is and how to speak with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulSettings {
    /// Its HTTP API.
    pub address: ConsulAddress,
    /// The token, given in full.
    pub token: Option<SecretText>,
    /// A file that holds the token; read again when it changes. Used when `token` is not given.
    pub token_file: Option<PathBuf>,
    /// `user:password` for HTTP basic authentication.
    pub http_auth: Option<SecretText>,
    /// TLS, used when the address asks for it.
    pub tls: ConsulTls,
    /// How many connections may be open at once over plain HTTP/1.1. Consul closes those beyond
    /// `limits.http_max_conns_per_client`, 200 by default, which all clients of one address share.
    pub max_connections: usize,
}

/// The address of Consul's HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsulAddress {
    /// `http://host:port`
    Http {
        /// Host and port.
        authority: String,
    },
    /// `https://host:port`
    Https {
        /// Host and port.
        authority: String,
    },
    /// `unix:///path`
    Unix {
        /// The socket.
        path: PathBuf,
    },
}

/// TLS towards Consul.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulTls {
    /// Trusted CA certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// A folder of trusted CA certificates, PEM.
    pub ca_path: Option<PathBuf>,
    /// Client certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
    /// The server name to send and to verify, when another than the address's host.
    pub server_name: Option<String>,
    /// Whether the server's certificate is verified.
    pub verify: bool,
}

impl Default for ConsulSettings {
    fn default() -> Self {
        Self {
            address: ConsulAddress::Http { authority: "127.0.0.1:8500".into() },
            token: None,
            token_file: None,
            http_auth: None,
            tls: ConsulTls {
                ca_file: None,
                ca_path: None,
                cert_file: None,
                key_file: None,
                server_name: None,
                verify: true,
            },
            max_connections: 128,
        }
    }
}

impl ConsulAddress {
    /// Reads `host:port`, `http://host:port`, `https://host:port` or `unix:///path`. A scheme without a port takes
    /// the scheme's own. The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            if path.is_empty() {
                return Err(format!("`{text}` names no socket; write unix:///path/to/socket"));
            }
            return Ok(Self::Unix { path: PathBuf::from(path) });
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let port = match scheme {
            "" => 8500,
            "http" => 80,
            "https" => 443,
            _ => return Err(format!("`{scheme}` is no scheme for Consul; write http, https or unix")),
        };
        let authority = authority(rest.strip_suffix('/').unwrap_or(rest), port)
            .ok_or_else(|| format!("`{text}` is no address; write host:port, for example 127.0.0.1:8500"))?;
        Ok(if scheme == "https" { Self::Https { authority } } else { Self::Http { authority } })
    }
}

impl fmt::Display for ConsulAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { authority } => write!(f, "http://{authority}"),
            Self::Https { authority } => write!(f, "https://{authority}"),
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
        }
    }
}

/// `host:port`, with `port` where the text has none.
fn authority(text: &str, port: u16) -> Option<String> {
    let bracketed_end = text.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match text[bracketed_end..].rfind(':') {
        Some(colon) => {
            let (host, port) = text.split_at(bracketed_end + colon);
            (host, port[1..].parse().ok().filter(|port| *port != 0)?)
        }
        None => (text, port),
    };
    let is_v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let is_host = match is_v6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    is_host.then(|| format!("{host}:{port}"))
}

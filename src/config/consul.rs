//! How to reach the local Consul agent, as Consul's own tools are told: flags, file, `CONSUL_*`.

use std::{fmt, path::PathBuf};

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

impl ConsulSettings {
    /// The defaults with every `CONSUL_*` variable laid over them.
    ///
    /// # Errors
    /// One sentence with its remedy for each variable that cannot be used.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let given = |name: &str| env(name).filter(|value| !value.is_empty());
        let mut settings = Self::default();
        let mut problems = Vec::new();
        if let Some(text) = given("CONSUL_HTTP_ADDR") {
            match ConsulAddress::parse(&text) {
                Ok(address) => settings.address = address,
                Err(why) => problems.push(format!("CONSUL_HTTP_ADDR: {why}")),
            }
        }
        settings.token = given("CONSUL_HTTP_TOKEN").map(SecretText::from);
        settings.token_file = given("CONSUL_HTTP_TOKEN_FILE").map(PathBuf::from);
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }
}

impl ConsulAddress {
    /// Reads `http://`, `https://` or `unix://`; a bare `host:port` is plain HTTP.
    ///
    /// # Errors
    /// One sentence that says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Self::Unix { path: path.into() });
        }
        let (is_tls, authority) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => return Err(format!("`{scheme}` is no scheme; write http, https or unix")),
            None => (false, text),
        };
        let authority = authority.trim_end_matches('/').to_owned();
        if authority.parse::<http::uri::Authority>().is_err() {
            return Err(format!("`{authority}` is no host and port; write it as 127.0.0.1:8500"));
        }
        Ok(if is_tls { Self::Https { authority } } else { Self::Http { authority } })
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

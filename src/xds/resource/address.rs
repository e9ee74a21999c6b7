//! Where something listens or is reached.

use std::{fmt, net::SocketAddr};

use serde::Serialize;

/// `envoy.config.core.v3.Address`, as far as the mesh uses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Address {
    /// An IP address and a TCP port.
    Socket(SocketAddr),
    /// A Unix socket.
    Pipe(Pipe),
}

/// A Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pipe {
    /// Its absolute path, at most 107 bytes, or `@` and a name in Linux's abstract namespace.
    pub path: String,
    /// Permission bits of a listener's socket; Envoy's own choice when not given.
    pub mode: Option<u32>,
}

impl Address {
    /// A Unix socket to connect to.
    pub fn pipe(path: impl Into<String>) -> Self {
        Self::Pipe(Pipe { path: path.into(), mode: None })
    }

    /// What only one listener can have: of a Unix socket the path, whatever its permissions.
    pub fn place(&self) -> Self {
        match self {
            Self::Socket(at) => Self::Socket(*at),
            Self::Pipe(pipe) => Self::pipe(&pipe.path),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(at: SocketAddr) -> Self {
        Self::Socket(at)
    }
}

impl fmt::Display for Address {
    /// `10.0.0.1:80`, or a Unix socket's path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(at) => at.fmt(f),
            Self::Pipe(pipe) => f.write_str(&pipe.path),
        }
    }
}

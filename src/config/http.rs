//! `[http]`: where the agent's own HTTP interface listens, and who may change something through it.

mod network;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub use crate::config::http::network::{Network, NoNetwork};
use crate::config::{
    key::{Key, Kind, Section, Value},
    reader::{Document, Refusal},
    xds,
};

/// The port when none is set.
const DEFAULT_PORT: u16 = 18500;

/// The agent's HTTP interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Its address.
    pub listen: SocketAddr,
    /// From where keys, sessions and locks may be written besides loopback.
    pub allow_write_from: Vec<Network>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)), allow_write_from: Vec::new() }
    }
}

impl HttpSettings {
    /// Whether a client of this address may write. Which keys, its token decides.
    pub fn may_write(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        client.is_loopback() || self.allow_write_from.iter().any(|network| network.contains(client))
    }
}

pub(crate) const SECTION: Section =
    Section { name: "http", about: "The agent's own HTTP interface", keys: &[LISTEN, ALLOW_WRITE_HTTP_FROM] };

const LISTEN: Key = Key {
    name: "listen",
    kind: Kind::Text("IP address and port"),
    example: r#""127.0.0.1:18500""#,
    meaning: "where `/healthz`, `/readyz`, `/metrics`, `/status` and `/log-level` are, and Consul's API for keys, sessions \
              and transactions where [`[sync]`](#sync-keys-and-locks-between-datacenters) serves it",
    more: "Nothing secret is served without the token that Consul asks for; off loopback the status can be read by \
           whoever reaches it, and the log level is still changed from loopback only",
    value: |config| Value::text(config.http.listen),
    ..Key::TEXT
};
const ALLOW_WRITE_HTTP_FROM: Key = Key {
    name: "allow_write_http_from",
    kind: Kind::List("networks as IP address and prefix length"),
    example: r#"["10.0.0.0/8"]"#,
    unset: "loopback only",
    meaning: "from where keys, sessions and locks may be written besides loopback, as Consul's setting of that name",
    more: "This interface has no TLS: whoever can listen on the way reads tokens and values. Reading needs no entry here",
    value: |config| Value::list(&config.http.allow_write_from),
    ..Key::TEXT
};

pub(crate) fn read(document: &mut Document<'_>) -> HttpSettings {
    let default = HttpSettings::default();
    let mut section = document.section("http");
    HttpSettings {
        listen: section.parsed(&LISTEN, xds::address).unwrap_or(default.listen),
        allow_write_from: section.list(&ALLOW_WRITE_HTTP_FROM, network).unwrap_or_default(),
    }
}

fn network(text: &str) -> Result<Network, Refusal> {
    text.parse().map_err(|error: NoNetwork| Refusal::from(error.to_string()))
}

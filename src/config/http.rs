//! `[http]`: where the agent's own HTTP interface listens. Nothing secret is served there.

use std::net::{Ipv4Addr, SocketAddr};

use crate::config::{
    key::{Key, Kind, Section, Value},
    reader::Document,
    xds,
};

/// The port when none is set.
const DEFAULT_PORT: u16 = 18500;

/// The agent's HTTP interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Its address.
    pub listen: SocketAddr,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)) }
    }
}

pub(crate) const SECTION: Section =
    Section { name: "http", about: "The agent's own HTTP interface", keys: &[LISTEN] };

const LISTEN: Key = Key {
    name: "listen",
    kind: Kind::Text("IP address and port"),
    example: r#""127.0.0.1:18500""#,
    meaning: "where `/healthz`, `/readyz`, `/metrics`, `/status` and `/log-level` are",
    more: "Nothing secret is served; off loopback the status can be read by whoever reaches it, and the log level \
           is still changed from loopback only",
    value: |config| Value::text(config.http.listen),
    ..Key::TEXT
};

pub(crate) fn read(document: &mut Document<'_>) -> HttpSettings {
    let listen = document.section("http").parsed(&LISTEN, xds::address);
    listen.map_or_else(HttpSettings::default, |listen| HttpSettings { listen })
}

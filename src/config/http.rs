//! `[http]`: where the agent's own HTTP interface listens. Nothing secret is served there.

use std::net::{Ipv4Addr, SocketAddr};

use crate::config::{
    reader::{Document, Key},
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

const LISTEN: Key = Key { name: "listen", example: r#""127.0.0.1:18500""# };

pub(crate) fn read(document: &mut Document<'_>) -> HttpSettings {
    let listen = document.section("http").parsed(&LISTEN, xds::address);
    listen.map_or_else(HttpSettings::default, |listen| HttpSettings { listen })
}

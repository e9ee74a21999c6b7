//! What goes wrong outside: each case gives a clear error that names the remedy, and everything else goes on.
//! The real binary beside a real Consul, each test on a loopback address of its own.

mod catalog;
mod command_line;
mod configuration;
mod garbage;
mod proxies;
mod signals;
mod sockets;
mod without_consul;

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// An address for one test.
fn host(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 58, 0, last)
}

/// `web` with a sidecar whose only upstream is `api`.
fn web() -> Value {
    json!({"Name": "web", "ID": "web", "Port": 8080, "Connect": {"SidecarService": {"Port": 21000, "Checks": [],
        "Proxy": {"Upstreams": [{"DestinationName": "api", "LocalBindPort": 5000}]}}}})
}

/// Asserts that each of these is in the text.
#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

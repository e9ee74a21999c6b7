//! What is fuzzed: one function for each kind of input from outside. What can be written again must read the same.

mod consul;
mod discovery;
mod files;
mod sync;

use super::Target;

pub(super) const TARGETS: &[Target] = &[
    Target { name: "consul_json", decode: consul::answers },
    Target { name: "consul_kv", decode: consul::pairs },
    Target { name: "filter", decode: consul::filter },
    Target { name: "escape_hatch", decode: consul::escape_hatch },
    Target { name: "discovery_delta", decode: discovery::delta },
    Target { name: "discovery_sotw", decode: discovery::state_of_the_world },
    Target { name: "envoy_admin", decode: discovery::admin },
    Target { name: "configuration", decode: files::configuration },
    Target { name: "state_files", decode: files::state },
    Target { name: "certificates", decode: files::certificates },
    Target { name: "http_request", decode: sync::http_request },
    Target { name: "http_answer", decode: sync::http_answer },
    Target { name: "peer_messages", decode: sync::peer_message },
    Target { name: "kv_records", decode: sync::record },
];

/// The rest of what a kind is told by its first byte.
fn kind_and_rest(bytes: &[u8]) -> Option<(u8, &[u8])> {
    bytes.split_first().map(|(kind, rest)| (*kind, rest))
}

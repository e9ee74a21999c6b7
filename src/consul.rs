//! Consul's HTTP: the client, its JSON, the rules of blocking queries, and the watches that keep the catalog fresh.
//!
//! Typed topics come out ([`watch::Watches::catalog`]). This module knows nothing of Envoy.

pub mod acl;
pub mod api;
pub mod census;
pub mod client;
#[cfg(test)]
mod fake;
mod fallback;
mod guide;
pub mod index;
pub mod kv;
pub mod metrics;
pub(crate) mod poller;
pub mod shelf;
mod sight;
pub mod topic;
pub mod watch;
pub mod wire;

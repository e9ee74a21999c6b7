//! Envoy itself: the bootstrap it starts with, its admin interface.
//!
//! Knows nothing of Consul.

pub mod admin;
pub mod bootstrap;

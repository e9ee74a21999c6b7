//! Envoy itself: the bootstrap it starts with, its messages as JSON, its admin interface.
//!
//! Knows nothing of Consul.

pub mod admin;
pub mod bootstrap;
pub mod descriptors;

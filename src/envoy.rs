//! Envoy itself: the bootstrap it starts with, its admin interface, how much it has to do.
//!
//! Knows nothing of Consul.

pub mod admin;
pub mod bootstrap;
pub mod report;
pub mod work;

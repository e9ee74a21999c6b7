//! Causeway: one agent per VM, beside Envoy, that turns a Consul catalog spanning several datacenters into live
//! Envoy v3 configuration. `ARCHITECTURE.md` shows the rooms and what each must not know.

pub mod api;
pub mod cli;
pub mod config;
pub mod lifecycle;
pub mod model;
pub mod telemetry;
pub mod xds;

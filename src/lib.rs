//! Causeway: one agent per VM, beside Envoy, that turns a Consul catalog spanning several datacenters into live
//! Envoy v3 configuration. `ARCHITECTURE.md` shows the rooms and what each must not know.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod consul;
pub mod envoy;
pub mod fetch;
pub mod lab;
pub mod lifecycle;
pub mod mesh;
pub mod model;
pub mod state;
pub mod sync;
pub mod telemetry;
pub mod tls;
pub mod xds;

//! The one integration-test binary: it links the library once.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "in a test a panic is the report")]

mod acl;
mod architecture;
mod bad_input;
mod compatibility;
mod config_golden;
mod consul;
mod drain;
mod fuzz;
mod golden;
mod golden_envoy;
mod kv_command;
mod lab;
mod lab_sync;
mod many_services;
mod metrics_golden;
mod operating;
mod package;
mod proxy_diff;
mod reliability;
mod rig;
mod state;
mod sync;
mod sync_door;
mod sync_endpoint;
mod sync_faults;
mod sync_peer;
mod sync_store;
mod sync_stream;
mod tls;
mod xds_envoy;
mod xds_failover;
mod xds_rig;
mod xds_sockets;
mod xds_stream;

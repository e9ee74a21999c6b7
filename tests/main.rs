//! Tests of the whole: over real sockets, and with the real Envoy.

#![expect(
    clippy::unwrap_used,
    reason = "test code throughout; clippy exempts only functions marked as tests"
)]

mod xds_envoy;
mod xds_rig;
mod xds_stream;

//! Tests of the whole: over real sockets, and with the real Envoy.

mod xds_envoy;
mod xds_rig;
mod xds_stream;

//! What tests of the whole program need: real parts on loopback, and a raw client of the xDS server.

pub(crate) mod crowd;
pub(crate) mod parts;
pub(crate) mod stream;

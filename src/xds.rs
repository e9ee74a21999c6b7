//! xDS: resources in our own ordered types, their versions and encodings, and how they are served.
//!
//! Knows nothing of Consul. `mesh` makes [`resource::Resource`]s; `snapshot` gives each a version and encodes it
//! once; `subscription` decides, as a pure state machine, what one stream is sent; `server` moves the bytes.

pub mod encode;
pub mod json;
pub mod metrics;
pub mod resource;
pub mod server;
pub mod snapshot;
pub mod status;
pub mod subscription;
pub mod version;

//! The messages of `proto/causeway/sync/v1` and the service over them, as generated. Nothing is decided here.

#[expect(
    missing_docs,
    reason = "generated: the messages are documented in proto/causeway/sync/v1/sync.proto"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/causeway.sync.v1.rs"));
}

pub use self::generated::*;

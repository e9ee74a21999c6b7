//! What both ends of a connection keep to, as `proto/causeway/sync/v1` tells.

use std::time::Duration;

/// With [`PING_PATIENCE`] a cut is noticed within 8 s.
pub(super) const PING_EVERY: Duration = Duration::from_secs(4);
/// See [`PING_EVERY`].
pub(super) const PING_PATIENCE: Duration = Duration::from_secs(4);
/// What one stream may be sent before it has taken anything.
pub(super) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What all streams of a connection may be sent together.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Calls at once over one connection; further ones wait for their turn, within their time. More than an engine lets wait
/// (its `MAX_WAITING_AWAY`), by a whole herd of others.
pub(super) const MAX_CALLS: u32 = 1024;

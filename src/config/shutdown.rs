//! `[shutdown]`: how long the agent takes to stop.

use crate::config::reader::{Document, Key};

/// Longer than ten minutes no service manager waits.
const MAX_DRAIN_MS: u64 = 600_000;

/// Stopping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// How long open streams and requests may take to end, in milliseconds.
    pub drain_ms: u64,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self { drain_ms: 5000 }
    }
}

const DRAIN_MS: Key = Key { name: "drain_ms", example: "5000" };

pub(crate) fn read(document: &mut Document<'_>) -> ShutdownSettings {
    let drain_ms = document.section("shutdown").number(&DRAIN_MS, 0..=MAX_DRAIN_MS);
    drain_ms.map_or_else(ShutdownSettings::default, |drain_ms| ShutdownSettings { drain_ms })
}

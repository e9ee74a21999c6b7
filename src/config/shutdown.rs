//! `[shutdown]`: how long the agent takes to stop.

use crate::config::{
    key::{Effect, Key, Kind, Section, Value},
    reader::Document,
};

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

pub(crate) const SECTION: Section = Section { name: "shutdown", about: "Stopping", keys: &[DRAIN_MS] };

const DRAIN_MS: Key = Key {
    name: "drain_ms",
    kind: Kind::Number("milliseconds", 0..=MAX_DRAIN_MS),
    example: "5000",
    meaning: "how long open streams and requests may take to end after `SIGTERM` or `SIGINT`",
    more: "What has not ended then is cut, and named in the log. A second signal cuts at once",
    effect: Effect::Reload(|running, new| running.shutdown.drain_ms = new.shutdown.drain_ms),
    value: |config| Value::Number(config.shutdown.drain_ms),
    ..Key::TEXT
};

pub(crate) fn read(document: &mut Document<'_>) -> ShutdownSettings {
    let drain_ms = document.section("shutdown").number(&DRAIN_MS);
    drain_ms.map_or_else(ShutdownSettings::default, |drain_ms| ShutdownSettings { drain_ms })
}

//! Splitting what is due into responses that every client can take.

use std::sync::Arc;

use crate::xds::{resource::Kind, snapshot::Entry};

/// gRPC clients refuse messages above 4 MiB (rule 40); the rest is headroom for what surrounds the resources.
pub(super) const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024 - 256 * 1024;

/// Field tags, lengths and version of one resource in a response, and a removed name's errors; rounded up.
const RESOURCE_OVERHEAD_BYTES: usize = 160;

/// A cluster names three places to fetch from at most: its endpoints, its certificate and its CAs. Listeners are few.
const SOURCES: usize = 3;

/// What is due for one type.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) resources: Vec<Arc<Entry>>,
    /// To be carried along unchanged, in a response that carries everything.
    pub(super) carried: Vec<Arc<Entry>>,
    pub(super) removed: Vec<String>,
}

impl Due {
    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }

    /// Removals go first: a listener's address must be free before its successor takes it.
    /// `source_bytes` is what each place to fetch from takes in the client's form, beyond what it takes over ADS.
    pub(super) fn split(self, source_bytes: usize) -> Vec<Self> {
        let removed = self.removed.iter().map(|name| removed_bytes(name));
        let resources = self.resources.iter().map(|entry| resource_bytes(entry, source_bytes));
        let bytes: usize = resources.chain(removed).sum();
        if bytes <= MAX_RESPONSE_BYTES {
            return vec![self];
        }
        let mut parts = vec![Self::default()];
        let mut bytes = 0;
        let removed = self.removed.into_iter().map(Part::Removed);
        for part in removed.chain(self.resources.into_iter().map(Part::Resource)) {
            let size = part.bytes(source_bytes);
            if bytes > 0 && bytes + size > MAX_RESPONSE_BYTES {
                parts.push(Self::default());
                bytes = 0;
            }
            bytes += size;
            if let Some(last) = parts.last_mut() {
                match part {
                    Part::Removed(name) => last.removed.push(name),
                    Part::Resource(entry) => last.resources.push(entry),
                }
            }
        }
        parts
    }
}

enum Part {
    Removed(String),
    Resource(Arc<Entry>),
}

impl Part {
    fn bytes(&self, source_bytes: usize) -> usize {
        match self {
            Self::Removed(name) => removed_bytes(name),
            Self::Resource(entry) => resource_bytes(entry, source_bytes),
        }
    }
}

/// Once as a removal and once as an error with a sentence about it.
fn removed_bytes(name: &str) -> usize {
    name.len() * 3 + RESOURCE_OVERHEAD_BYTES
}

fn resource_bytes(entry: &Entry, source_bytes: usize) -> usize {
    let sources = if matches!(entry.key.kind, Kind::Cluster | Kind::Listener) { SOURCES } else { 0 };
    entry.any.len()
        + entry.key.name.len()
        + entry.type_url.len()
        + RESOURCE_OVERHEAD_BYTES
        + sources * source_bytes
}

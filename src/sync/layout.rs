//! The reserved keys: where replication keeps its own records in each datacenter's Consul. Pure.
//!
//! At home: `epoch`, `head`, `sentinel`, `log/`, `blob/` and `lock/` of a prefix. At a replica: `state` and `held/`. On both
//! sides `duty/`, which the agent holds that does the work.

use crate::model::{
    kv::Op,
    sync::{PrefixId, RESERVED},
};

/// The version of everything below `_sync/`.
const VERSION: &str = "v1";

/// Digits of a sequence number: `u64::MAX` has twenty, so that the order of keys is the order of entries.
const SEQ_DIGITS: usize = 20;

/// The reserved keys of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: String,
}

/// Work of which there is one doer at a time in a datacenter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// Commits what is written to a prefix whose home is here.
    Home,
    /// Applies the journal of a prefix whose home is elsewhere.
    Applier,
}

impl Duty {
    /// As in its lock key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Applier => "applier",
        }
    }
}

impl Layout {
    /// Those of this prefix.
    pub fn new(id: &PrefixId) -> Self {
        Self { root: format!("{RESERVED}{VERSION}/{id}/") }
    }

    /// What all of them begin with.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Which epoch the home is in.
    pub fn epoch(&self) -> String {
        format!("{}epoch", self.root)
    }

    /// The journal's last entry.
    pub fn head(&self) -> String {
        format!("{}head", self.root)
    }

    /// A key that is always there: a list of the root that lacks it is no list.
    pub fn sentinel(&self) -> String {
        format!("{}sentinel", self.root)
    }

    /// What all journal entries begin with.
    pub fn log(&self) -> String {
        format!("{}log/", self.root)
    }

    /// One journal entry.
    pub fn entry(&self, seq: u64) -> String {
        format!("{}log/{seq:0SEQ_DIGITS$}", self.root)
    }

    /// The sequence number of an entry's key.
    pub fn seq(&self, key: &str) -> Option<u64> {
        key.strip_prefix(&self.root)?.strip_prefix("log/")?.parse().ok()
    }

    /// What all blobs begin with.
    pub fn blobs(&self) -> String {
        format!("{}blob/", self.root)
    }

    /// A value that is too large for its entry, named by the BLAKE3 hash of its bytes, in hex.
    pub fn blob(&self, hash: &str) -> String {
        format!("{}blob/{hash}", self.root)
    }

    /// How often a lock was granted.
    pub fn fence(&self, lock: &str) -> String {
        format!("{}lock/{lock}/fence", self.root)
    }

    /// How far a replica is.
    pub fn state(&self) -> String {
        format!("{}state", self.root)
    }

    /// What all held keys begin with.
    pub fn all_held(&self) -> String {
        format!("{}held/", self.root)
    }

    /// Says at a replica that this key lives at home only, as locks do.
    pub fn held(&self, key: &str) -> String {
        format!("{}held/{key}", self.root)
    }

    /// The key that this one says so of.
    pub fn is_held<'k>(&self, key: &'k str) -> Option<&'k str> {
        key.strip_prefix(&self.root)?.strip_prefix("held/")
    }

    /// The lock of a duty. Its value tells others whom to ask and proves nothing.
    pub fn duty(&self, duty: Duty) -> String {
        format!("{}duty/{}", self.root, duty.as_str())
    }
}

/// Whether a client may not name this key or tree: it is replication's own, or would take that along.
pub fn is_reserved(op: &Op) -> bool {
    let key = op.key();
    key.starts_with(RESERVED)
        || key.trim_end_matches('/') == RESERVED.trim_end_matches('/')
        || (matches!(op, Op::DeleteTree { .. }) && RESERVED.starts_with(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_entries_are_in_the_order_of_entries() {
        let layout = Layout::new(&PrefixId::of("config/"));
        assert!(layout.entry(9) < layout.entry(10));
        assert!(layout.entry(10) < layout.entry(u64::MAX));
        assert_eq!(layout.seq(&layout.entry(10)), Some(10));
        assert_eq!(layout.seq(&layout.head()), None);
        assert_eq!(layout.is_held(&layout.held("config/a")), Some("config/a"));
    }

    #[test]
    fn what_would_take_reserved_keys_along_is_reserved() {
        let tree = |prefix: &str| is_reserved(&Op::DeleteTree { prefix: prefix.into() });
        assert!(tree("") && tree("_") && tree("_sync") && tree("_sync/v1/x"));
        assert!(!tree("a") && !tree("_synced"));
        assert!(is_reserved(&Op::Delete { key: "_sync/v1/x".into() }));
        assert!(!is_reserved(&Op::Get { key: "config/x".into() }));
    }
}

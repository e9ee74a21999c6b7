//! What is kept of what is known. Pure.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{
    ca::Leaf,
    catalog::{Answer, Catalog, Heard, Stale, Topic, Topics},
    note::Note,
};

/// Why nothing newer is known of what was read from disk, until asking fails for a better reason.
pub const UNASKED: &str = "Consul has not answered since the agent started";

/// What is worth keeping, with leaf certificates apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep<'a> {
    /// Everything but the leaves.
    pub topics: BTreeMap<&'a Topic, &'a Heard>,
    /// Leaf certificates that are still valid.
    pub leaves: Vec<&'a Leaf>,
}

impl<'a> Keep<'a> {
    /// All that is in use, and what lies on the shelf and was not used yet. A proxy that is not registered is not kept:
    /// anybody may ask for any name. Expired certificates are not kept either.
    pub fn of(catalog: &'a Catalog, shelf: &'a Topics, now_s: u64) -> Self {
        let mut keep = Self::default();
        let shelved = shelf.iter().filter(|(topic, _)| catalog.heard(topic).is_none());
        for (topic, heard) in catalog.topics().chain(shelved) {
            match &*heard.answer {
                Answer::Leaf(leaf) if is_valid(leaf, now_s) => keep.leaves.push(leaf),
                Answer::Leaf(_) | Answer::Registration(None) => {}
                _ => drop(keep.topics.insert(topic, heard)),
            }
        }
        keep.leaves.sort_by(|a, b| a.service.cmp(&b.service));
        keep
    }

    /// When the next of these certificates expires, seconds since the Unix epoch.
    pub fn next_expiry_s(&self) -> Option<u64> {
        self.leaves.iter().filter_map(|leaf| u64::try_from(leaf.valid_before_s).ok()).min()
    }
}

/// Whether a certificate has not expired.
pub fn is_valid(leaf: &Leaf, now_s: u64) -> bool {
    u64::try_from(leaf.valid_before_s).is_ok_and(|end_s| end_s > now_s)
}

/// An answer as it comes back from disk.
pub fn from_disk(answer: Answer, notes: Vec<Note>) -> Heard {
    let stale = Some(Stale { reason: Arc::from(UNASKED), is_from_disk: true });
    Heard { answer: Arc::new(answer), notes: notes.into(), stale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::registration::Defaults;

    const NOW_S: u64 = 1_000;

    fn leaf(service: &str, valid_before_s: i64) -> (Topic, Heard) {
        let leaf = Leaf {
            service: service.into(),
            chain_pem: "CHAIN".into(),
            key_pem: "KEY".into(),
            valid_before_s,
        };
        (Topic::Leaf(service.into()), Heard::fresh(Answer::Leaf(leaf)))
    }

    fn defaults(protocol: &str) -> Heard {
        Heard::fresh(Answer::Defaults(Defaults { protocol: Some(protocol.into()), ..Defaults::default() }))
    }

    #[test]
    fn what_is_in_use_wins_over_the_shelf_and_what_is_absent_or_over_is_left_out() {
        let mut catalog = Catalog::default();
        catalog.hear(Topic::ProxyDefaults, defaults("http"));
        catalog.hear(Topic::Registration("nobody".into()), Heard::fresh(Answer::Registration(None)));
        for (topic, heard) in [leaf("web", 1_001), leaf("api", 2_000), leaf("old", 1_000), leaf("odd", -1)] {
            catalog.hear(topic, heard);
        }
        let shelf = Topics::from([
            (Topic::ProxyDefaults, defaults("tcp")),
            (Topic::ServiceDefaults("db".into()), defaults("tcp")),
        ]);
        let keep = Keep::of(&catalog, &shelf, NOW_S);
        let topics: Vec<_> = keep.topics.iter().map(|(topic, heard)| (topic.to_string(), *heard)).collect();
        let (used, unused) = (defaults("http"), defaults("tcp"));
        assert_eq!(topics, [("proxy-defaults".into(), &used), ("service-defaults/db".into(), &unused)]);
        let services: Vec<_> = keep.leaves.iter().map(|leaf| leaf.service.as_str()).collect();
        assert_eq!(services, ["api", "web"]);
        assert_eq!(keep.next_expiry_s(), Some(1_001));
    }
}

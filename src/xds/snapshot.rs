//! Snapshots: everything one proxy should have, each resource versioned and encoded once and shared by all streams.
//!
//! Pure. Knows neither where resources come from nor who is sent what.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use crate::xds::{
    encode::{Protocol, Source, encode, encode_for},
    resource::{Key, Kind, Resource, XDS_CLUSTER},
    version::{Version, version_of},
};

/// What was built for a proxy, before versions and encodings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The resources by identity.
    pub resources: BTreeMap<Key, Resource>,
    /// Those built from incomplete inputs: better than nothing, worse than what a proxy may already hold.
    pub partial: BTreeSet<Key>,
    /// Whether everything the proxy needs is known. Until then a resource that was never in a snapshot of this series
    /// is unknown, not gone; one that was in the last and is not in this is gone.
    pub complete: bool,
}

/// One resource, ready to be sent.
#[derive(Clone)]
pub struct Entry {
    /// Its identity.
    pub key: Key,
    /// The resource itself.
    pub resource: Resource,
    /// Its version.
    pub version: Version,
    /// Its protobuf bytes.
    pub any: Bytes,
    /// The type URL of those bytes.
    pub type_url: &'static str,
    /// The resources that it names.
    pub refers_to: BTreeSet<Key>,
    /// Built from incomplete inputs.
    pub partial: bool,
    /// Its bytes for clients without ADS; made when the first of them comes.
    without_ads: WithoutAds,
}

#[derive(Clone, Default)]
struct WithoutAds {
    delta: OnceLock<Bytes>,
    state_of_the_world: OnceLock<Bytes>,
}

/// Everything one proxy should have at one moment.
#[derive(Debug)]
pub struct Snapshot {
    entries: BTreeMap<Key, Arc<Entry>>,
    versions: BTreeMap<Kind, Version>,
    complete: bool,
}

// The bytes of a secret hold its private key.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.key, self.version, if self.partial { " (partial)" } else { "" })
    }
}

impl Entry {
    fn new(key: Key, resource: Resource, partial: bool) -> Self {
        let version = version_of(&resource);
        let refers_to = resource.refers_to();
        let any = Bytes::from(encode(&resource).value);
        let type_url = key.kind.type_url();
        let without_ads = WithoutAds::default();
        Self { key, resource, version, any, type_url, refers_to, partial, without_ads }
    }

    /// Its protobuf bytes for a client that fetches from there what the resource names. The version is the same in
    /// every form: it is taken from the resource. Encoded once for each form, but for clusters under names of the
    /// client's own: those are its to choose, and would be kept without end.
    pub fn bytes(&self, source: &Source) -> Bytes {
        let names_sources = matches!(self.key.kind, Kind::Cluster | Kind::Listener);
        let Source::Services { protocol, cluster } = source else { return self.any.clone() };
        if !names_sources {
            return self.any.clone();
        }
        let encoded = || Bytes::from(encode_for(&self.resource, source).value);
        match protocol {
            _ if cluster != XDS_CLUSTER => encoded(),
            Protocol::Delta => self.without_ads.delta.get_or_init(encoded).clone(),
            Protocol::StateOfTheWorld => self.without_ads.state_of_the_world.get_or_init(encoded).clone(),
        }
    }
}

impl Snapshot {
    /// Nothing known yet: incomplete, so that nobody takes its emptiness for an answer.
    pub fn empty() -> Self {
        Self { entries: BTreeMap::new(), versions: kind_versions(&BTreeMap::new()), complete: false }
    }

    /// The snapshot of a later draft. Entries of equal resources are shared with this one, neither encoded nor
    /// hashed again.
    #[must_use]
    pub fn next(&self, draft: Draft) -> Arc<Self> {
        let Draft { resources, partial, complete } = draft;
        let entries: BTreeMap<Key, Arc<Entry>> = resources
            .into_iter()
            .map(|(key, resource)| {
                let entry = self.entry(&key, resource, partial.contains(&key));
                (key, entry)
            })
            .collect();
        let versions = kind_versions(&entries);
        Arc::new(Self { entries, versions, complete })
    }

    /// A snapshot of entries that were made elsewhere.
    pub fn of(entries: impl IntoIterator<Item = Arc<Entry>>, complete: bool) -> Arc<Self> {
        let entries = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        let versions = kind_versions(&entries);
        Arc::new(Self { entries, versions, complete })
    }

    fn entry(&self, key: &Key, resource: Resource, partial: bool) -> Arc<Entry> {
        match self.entries.get(key) {
            Some(known) if known.resource == resource && known.partial == partial => known.clone(),
            Some(known) if known.resource == resource => Arc::new(Entry { partial, ..Entry::clone(known) }),
            _ => Arc::new(Entry::new(key.clone(), resource, partial)),
        }
    }

    /// The entry with that identity.
    pub fn get(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    /// All entries, by kind in sending order and then by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// The entries of one kind, by name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries
            .range(Key::new(kind, "")..)
            .map(|(_, entry)| entry)
            .take_while(move |e| e.key.kind == kind)
    }

    /// Whether everything the proxy needs is known, so that what is absent does not exist.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// One version for all resources of a kind, changing when any of them does.
    pub fn kind_version(&self, kind: Kind) -> &Version {
        self.versions.get(&kind).expect("kind_versions fills every kind")
    }

    /// References to resources that are absent, as (who refers, to what). A whole snapshot has none.
    pub fn dangling(&self) -> Vec<(Key, Key)> {
        let refs =
            self.entries.values().flat_map(|e| e.refers_to.iter().map(|to| (e.key.clone(), to.clone())));
        refs.filter(|(_, to)| !self.entries.contains_key(to)).collect()
    }

    /// What changed since `older`, a line for each resource: `+` new, `~` changed, `-` gone. For logs and tests.
    pub fn diff_text(&self, older: &Self) -> String {
        let mut text = String::new();
        let keys: BTreeSet<&Key> = self.entries.keys().chain(older.entries.keys()).collect();
        for key in keys {
            // Writing to a String cannot fail.
            let _ = match (older.get(key), self.get(key)) {
                (None, Some(new)) => writeln!(text, "+ {key} {}", new.version),
                (Some(old), None) => writeln!(text, "- {key} {}", old.version),
                (Some(old), Some(new)) if old.version != new.version => {
                    writeln!(text, "~ {key} {} -> {}", old.version, new.version)
                }
                _ => Ok(()),
            };
        }
        text
    }
}

fn kind_versions(entries: &BTreeMap<Key, Arc<Entry>>) -> BTreeMap<Kind, Version> {
    let mut hashers: BTreeMap<Kind, blake3::Hasher> =
        Kind::ALL.into_iter().map(|kind| (kind, blake3::Hasher::new())).collect();
    for entry in entries.values() {
        if let Some(hasher) = hashers.get_mut(&entry.key.kind) {
            hasher.update(entry.key.name.as_bytes()).update(&[0]);
            hasher.update(entry.version.as_str().as_bytes()).update(&[0]);
        }
    }
    hashers.into_iter().map(|(kind, hasher)| (kind, Version::of_hash(&hasher.finalize()))).collect()
}

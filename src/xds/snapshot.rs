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
    resource::{Key, Kind, Resource, XDS_CLUSTER, per_kind::PerKind},
    version::{Version, version_of},
};

/// What was built for a proxy, before versions and encodings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The resources by identity.
    pub resources: BTreeMap<Key, Arc<Resource>>,
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
    /// The name in it: one text for all versions, shared by the streams that remember it.
    pub name: Arc<str>,
    /// The resource itself.
    pub resource: Arc<Resource>,
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
    /// By identity, so that no response has a name twice (rule 9).
    entries: BTreeMap<Key, Arc<Entry>>,
    versions: PerKind<Version>,
    revision: Version,
    complete: bool,
    /// Tells this snapshot from all others.
    identity: Arc<()>,
    made_from: Option<MadeFrom>,
}

/// How a snapshot differs from the one it was made from, and that from those before it.
#[derive(Debug)]
struct MadeFrom {
    identity: Arc<()>,
    changed: Changes,
    /// The oldest first. A stream that was busy while several were made looks at what they changed and at nothing else.
    before: Vec<Earlier>,
}

/// What was changed by the snapshot that was made from this one.
#[derive(Clone, Debug)]
struct Earlier {
    identity: Arc<()>,
    keys: Arc<[Key]>,
}

/// What is not the same in two snapshots, with the entries of the later; none of what is gone.
type Changes = BTreeMap<Key, Option<Arc<Entry>>>;

/// Snapshots whose changes are remembered: a stream that is further behind looks at everything.
const MOST_EARLIER: usize = 64;
/// What they may have changed together: names are remembered for each proxy.
const MOST_EARLIER_KEYS: usize = 1_024;

// The bytes of a secret hold its private key.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.key, self.version, if self.partial { " (partial)" } else { "" })
    }
}

impl Entry {
    fn new(key: Key, name: Arc<str>, resource: Arc<Resource>, partial: bool) -> Self {
        let version = version_of(&resource);
        let refers_to = resource.refers_to();
        let any = Bytes::from(encode(&resource).value);
        let type_url = key.kind.type_url();
        let without_ads = WithoutAds::default();
        Self { key, name, resource, version, any, type_url, refers_to, partial, without_ads }
    }

    /// Its protobuf bytes for a client that fetches from there what the resource names. The version is the same in
    /// every form: it is taken from the resource. Encoded once for each form, but for clusters under names of the
    /// client's own: those are its to choose, and would be kept without end. A form with a token is kept nowhere.
    pub fn bytes(&self, source: &Source) -> Bytes {
        let names_sources = matches!(self.key.kind, Kind::Cluster | Kind::Listener);
        let Source::Services { protocol, cluster, token } = source else { return self.any.clone() };
        if !names_sources {
            return self.any.clone();
        }
        let encoded = || Bytes::from(encode_for(&self.resource, source).value);
        match protocol {
            _ if cluster != XDS_CLUSTER || token.is_some() => encoded(),
            Protocol::Delta => self.without_ads.delta.get_or_init(encoded).clone(),
            Protocol::StateOfTheWorld => self.without_ads.state_of_the_world.get_or_init(encoded).clone(),
        }
    }

    /// The entry of a resource, shared with the last one if that is equal.
    fn next(last: Option<&Arc<Self>>, key: &Key, resource: Arc<Resource>, partial: bool) -> Arc<Self> {
        match last {
            Some(last) if last.resource == resource && last.partial == partial => last.clone(),
            Some(last) if last.resource == resource => Arc::new(Self { partial, ..Self::clone(last) }),
            _ => {
                let name = last.map_or_else(|| key.name.as_str().into(), |last| last.name.clone());
                Arc::new(Self::new(key.clone(), name, resource, partial))
            }
        }
    }
}

impl MadeFrom {
    /// What the next snapshot remembers of those before it.
    fn remembered(&self) -> Vec<Earlier> {
        if self.changed.len() > MOST_EARLIER_KEYS {
            return Vec::new();
        }
        let last = Earlier { identity: self.identity.clone(), keys: self.changed.keys().cloned().collect() };
        let newest_first = [&last].into_iter().chain(self.before.iter().rev());
        let mut keys = 0;
        let few = newest_first.take(MOST_EARLIER).take_while(|earlier| {
            keys += earlier.keys.len();
            keys <= MOST_EARLIER_KEYS
        });
        let mut remembered: Vec<Earlier> = few.cloned().collect();
        remembered.reverse();
        remembered
    }
}

impl Snapshot {
    /// Nothing known yet: incomplete, so that nobody takes its emptiness for an answer.
    pub fn empty() -> Self {
        let versions = PerKind::new(|_| kind_version([].iter()));
        Self {
            entries: BTreeMap::new(),
            revision: revision(&versions),
            versions,
            complete: false,
            identity: Arc::default(),
            made_from: None,
        }
    }

    /// The snapshot of a later draft. Entries of equal resources are shared with this one, neither encoded nor
    /// hashed again.
    #[must_use]
    pub fn next(&self, draft: Draft) -> Arc<Self> {
        let Draft { resources, partial, complete } = draft;
        let mut changed = Changes::new();
        let mut known = self.entries.iter().peekable();
        let mut entries = Vec::with_capacity(resources.len());
        // Both are sorted, and mostly the same: side by side is faster than looking each up.
        for (key, resource) in resources {
            while let Some((gone, _)) = known.next_if(|(known, _)| **known < key) {
                changed.insert(gone.clone(), None);
            }
            let last = known.next_if(|(known, _)| **known == key).map(|(_, entry)| entry);
            let entry = Entry::next(last, &key, resource, partial.contains(&key));
            if !last.is_some_and(|last| Arc::ptr_eq(last, &entry)) {
                changed.insert(key.clone(), Some(entry.clone()));
            }
            entries.push((key, entry));
        }
        changed.extend(known.map(|(gone, _)| (gone.clone(), None)));
        let entries = entries.into_iter().collect();
        let versions = self.next_versions(&entries, &changed);
        let before = self.made_from.as_ref().map_or_else(Vec::new, MadeFrom::remembered);
        let made_from = Some(MadeFrom { identity: self.identity.clone(), changed, before });
        let revision = revision(&versions);
        Arc::new(Self { entries, versions, revision, complete, identity: Arc::default(), made_from })
    }

    /// A snapshot of entries that were made elsewhere.
    pub fn of(entries: impl IntoIterator<Item = Arc<Entry>>, complete: bool) -> Arc<Self> {
        let entries: BTreeMap<Key, Arc<Entry>> =
            entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        let versions = PerKind::new(|kind| kind_version(of_kind(&entries, kind)));
        let (revision, identity) = (revision(&versions), Arc::default());
        Arc::new(Self { entries, versions, revision, complete, identity, made_from: None })
    }

    fn next_versions(&self, entries: &BTreeMap<Key, Arc<Entry>>, changed: &Changes) -> PerKind<Version> {
        let mut versions = self.versions.clone();
        let kinds: BTreeSet<Kind> = changed.keys().map(|key| key.kind).collect();
        for kind in kinds {
            versions[kind] = kind_version(of_kind(entries, kind));
        }
        versions
    }

    /// The text of a name: the one that an entry bears it in, if any.
    pub(crate) fn name(&self, key: &Key) -> Arc<str> {
        self.get(key).map_or_else(|| key.name.as_str().into(), |entry| entry.name.clone())
    }

    /// The resources that may not be the same, there or gone, in this snapshot and in `older`, some more than once; only
    /// if this one was made from that one, not too many others ago, and they are equally complete.
    pub fn changed_since(
        &self,
        older: &Self,
    ) -> Option<impl Iterator<Item = (&Key, Option<&Arc<Entry>>)> + use<'_>> {
        let MadeFrom { identity, changed, before } = self.made_from.as_ref()?;
        let earlier = if Arc::ptr_eq(identity, &older.identity) {
            &[]
        } else {
            let at = before.iter().position(|earlier| Arc::ptr_eq(&earlier.identity, &older.identity))?;
            &before[at..]
        };
        let keys = earlier.iter().flat_map(|earlier| earlier.keys.iter());
        let changed = changed.iter().map(|(key, entry)| (key, entry.as_ref()));
        (self.complete == older.complete).then(|| keys.map(|key| (key, self.get(key))).chain(changed))
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
        of_kind(&self.entries, kind)
    }

    /// Whether everything the proxy needs is known, so that what is absent does not exist.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// One version for all resources of a kind, changing when any of them does.
    pub fn kind_version(&self, kind: Kind) -> &Version {
        &self.versions[kind]
    }

    /// One version for all resources of all kinds: what people compare to see whether two clients, or two agents, are
    /// equally far.
    pub fn revision(&self) -> &Version {
        &self.revision
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

fn of_kind(entries: &BTreeMap<Key, Arc<Entry>>, kind: Kind) -> impl Iterator<Item = &Arc<Entry>> {
    let from_there = entries.range(Key::new(kind, "")..).map(|(_, entry)| entry);
    from_there.take_while(move |entry| entry.key.kind == kind)
}

fn kind_version<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>) -> Version {
    let mut hasher = blake3::Hasher::new();
    for entry in entries {
        hasher.update(entry.key.name.as_bytes()).update(&[0]);
        hasher.update(entry.version.as_str().as_bytes()).update(&[0]);
    }
    Version::of_hash(&hasher.finalize())
}

fn revision(versions: &PerKind<Version>) -> Version {
    let mut hasher = blake3::Hasher::new();
    for (_, version) in versions.iter() {
        hasher.update(version.as_str().as_bytes()).update(&[0]);
    }
    Version::of_hash(&hasher.finalize())
}

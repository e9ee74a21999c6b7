//! The words of replication: prefixes and their homes, positions in a journal, fencing tokens.

use std::{collections::BTreeMap, fmt, ops::Bound, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::model::name::Datacenter;

/// Below this every key is replication's own. Clients neither write here nor see it replicated.
pub const RESERVED: &str = "_sync/";

/// How a prefix is replicated. `mirrored`, for prefixes with foreign writers, is not served yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Every write passes the home agent, which writes the journal in the same transaction.
    #[default]
    Journaled,
}

/// A prefix of keys with one home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// What its keys begin with, for example `config/`.
    pub text: String,
    /// Where it is written.
    pub home: Datacenter,
    /// How it is replicated.
    pub mode: Mode,
}

/// The prefix's name in reserved keys, metrics and logs: its text made readable, and eight digits of its hash, so
/// that no two prefixes share one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrefixId(String);

impl PrefixId {
    /// The id of this prefix.
    pub fn of(prefix: &str) -> Self {
        let readable = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' };
        let slug: String = prefix.trim_end_matches('/').chars().take(40).map(readable).collect();
        let hash = blake3::hash(prefix.as_bytes()).to_hex();
        Self(format!("{slug}-{}", &hash[..8]))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PrefixId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All managed prefixes. None begins with another: a key has one home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixTable(BTreeMap<String, Prefix>);

/// Why a prefix cannot be in the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixProblem {
    /// It holds no key name, or begins with `/`.
    #[error("is empty or begins with a slash, and must be the start of a key such as `config/`")]
    Empty,
    /// It overlaps with the reserved keys.
    #[error("overlaps with `{RESERVED}`, which replication keeps for itself")]
    Reserved,
    /// It overlaps with another.
    #[error("overlaps with `{0}`: a key can have one home only")]
    Overlaps(String),
}

impl PrefixTable {
    /// Adds a prefix.
    ///
    /// # Errors
    /// It cannot stand beside those that are there.
    pub fn add(&mut self, prefix: Prefix) -> Result<(), PrefixProblem> {
        let text = &prefix.text;
        let overlaps = |other: &str| other.starts_with(text.as_str()) || text.starts_with(other);
        if text.is_empty() || text.starts_with('/') {
            return Err(PrefixProblem::Empty);
        }
        if overlaps(RESERVED) {
            return Err(PrefixProblem::Reserved);
        }
        if let Some(other) = self.0.keys().find(|other| overlaps(other)) {
            return Err(PrefixProblem::Overlaps(other.clone()));
        }
        self.0.insert(text.clone(), prefix);
        Ok(())
    }

    /// The prefix that this key belongs to.
    pub fn of_key(&self, key: &str) -> Option<&Prefix> {
        let (text, prefix) = self.0.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        key.starts_with(text.as_str()).then_some(prefix)
    }

    /// The prefixes that keys beginning with `tree` can belong to: the one around it, or all below it.
    pub fn of_tree<'a>(&'a self, tree: &'a str) -> impl Iterator<Item = &'a Prefix> {
        self.0.values().filter(move |prefix| prefix.text.starts_with(tree) || tree.starts_with(&prefix.text))
    }

    /// All, in the order of their texts.
    pub fn iter(&self) -> impl Iterator<Item = &Prefix> {
        self.0.values()
    }

    /// Whether nothing is managed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A place in a prefix's journal. A later epoch is later, whatever the number in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Counts the histories of the home: one more after each restore.
    pub epoch: u32,
    /// Counts the entries, without a gap, through all epochs.
    pub seq: u64,
}

/// A fencing token: of all grants of one lock, each has a greater one than those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The epoch of the prefix when it was granted.
    pub epoch: u32,
    /// Counts the grants of this lock.
    pub n: u64,
}

/// A text that is no position or token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not two numbers with a dot between them, such as 3.17")]
pub struct NotDotted(String);

fn dotted(text: &str) -> Result<(u32, u64), NotDotted> {
    let parse = || {
        let (epoch, n) = text.split_once('.')?;
        Some((epoch.parse().ok()?, n.parse().ok()?))
    };
    parse().ok_or_else(|| NotDotted(text.to_owned()))
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

impl FromStr for Position {
    type Err = NotDotted;

    fn from_str(text: &str) -> Result<Self, NotDotted> {
        dotted(text).map(|(epoch, seq)| Self { epoch, seq })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}

impl FromStr for Token {
    type Err = NotDotted;

    fn from_str(text: &str) -> Result<Self, NotDotted> {
        dotted(text).map(|(epoch, n)| Self { epoch, n })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(texts: &[&str]) -> Result<PrefixTable, PrefixProblem> {
        let mut table = PrefixTable::default();
        for text in texts {
            table.add(Prefix {
                text: (*text).to_owned(),
                home: Datacenter::from("primary"),
                mode: Mode::Journaled,
            })?;
        }
        Ok(table)
    }

    #[test]
    fn a_key_belongs_to_the_one_prefix_that_it_begins_with() {
        let table = table(&["config/", "locks/", "a"]).unwrap();
        let of = |key: &str| table.of_key(key).map(|prefix| prefix.text.as_str());
        assert_eq!(of("config/x"), Some("config/"));
        assert_eq!(of("config/"), Some("config/"));
        assert_eq!(of("config"), None);
        assert_eq!(of("configs/x"), None);
        assert_eq!(of("abc"), Some("a"));
        assert_eq!(of("zzz"), None);
        let below = |tree: &str| table.of_tree(tree).map(|prefix| prefix.text.clone()).collect::<Vec<_>>();
        assert_eq!(below(""), ["a", "config/", "locks/"]);
        assert_eq!(below("config/deep/"), ["config/"]);
        assert_eq!(below("con"), ["config/"]);
    }

    #[test]
    fn overlapping_prefixes_are_refused() {
        assert_eq!(table(&["config/", "config/a/"]).unwrap_err(), PrefixProblem::Overlaps("config/".into()));
        assert_eq!(
            table(&["config/a/", "config/"]).unwrap_err(),
            PrefixProblem::Overlaps("config/a/".into())
        );
        assert_eq!(table(&["_sy"]).unwrap_err(), PrefixProblem::Reserved);
        assert_eq!(table(&["_sync/x"]).unwrap_err(), PrefixProblem::Reserved);
        assert_eq!(table(&[""]).unwrap_err(), PrefixProblem::Empty);
        assert_eq!(table(&["/config"]).unwrap_err(), PrefixProblem::Empty);
    }

    #[test]
    fn ids_are_readable_and_differ() {
        assert!(PrefixId::of("config/").as_str().starts_with("config-"));
        assert_ne!(PrefixId::of("config/"), PrefixId::of("config"));
    }

    #[test]
    fn positions_and_tokens_are_read_as_they_are_written() {
        assert_eq!("3.17".parse(), Ok(Position { epoch: 3, seq: 17 }));
        assert_eq!(Token { epoch: 2, n: 9 }.to_string().parse(), Ok(Token { epoch: 2, n: 9 }));
        assert!(Token { epoch: 2, n: 1 } > Token { epoch: 1, n: 99 });
        for bad in ["", "3", "3.", ".1", "a.b", "1.2.3", "-1.2"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }
}

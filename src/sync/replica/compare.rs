//! Which home index belongs to which local one, found by comparing both lists. Pure.
//!
//! An applier that takes over knows no index. The two lists are of different moments, so that a difference can be an
//! entry that is still to come. It is one of these until the journal was applied beyond the moment of the home's list;
//! what differs after that is an edit.

use std::{collections::BTreeSet, ops::Bound};

use crate::sync::replica::{
    indexes::Memory,
    snapshot::{Finding, Hashed, Listed, Merge, Unusable},
};

/// Beyond so many differences they are not kept one by one: all data is taken anew.
const MOST_DIFFERENCES: usize = 100_000;

/// Keys that differ between the two sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    keys: BTreeSet<String>,
    is_full: bool,
}

impl Differences {
    /// How many are known.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether there are more than are kept.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Their keys.
    pub fn into_keys(self) -> BTreeSet<String> {
        self.keys
    }

    /// An entry said what this key holds.
    pub fn settle(&mut self, key: &str) {
        self.keys.remove(key);
    }

    /// An entry deleted these keys.
    pub fn settle_below(&mut self, tree: &str) {
        let range = self.keys.range::<str, _>((Bound::Included(tree), Bound::Unbounded));
        let keys: Vec<String> = range.take_while(|key| key.starts_with(tree)).cloned().collect();
        for key in keys {
            self.keys.remove(&key);
        }
    }

    fn add(&mut self, key: String) {
        if self.keys.len() < MOST_DIFFERENCES {
            self.keys.insert(key);
        } else {
            self.is_full = true;
        }
    }
}

/// A comparison under way.
#[derive(Debug)]
pub struct Compare {
    merge: Merge,
    memory: Memory,
    differences: Differences,
}

impl Compare {
    /// Begins with the keys that are marked as locks here.
    pub fn new(prefix: String, marked: BTreeSet<String>) -> Self {
        let mut memory = Memory::default();
        for key in &marked {
            memory.hold(key, None);
        }
        Self { merge: Merge::new(prefix, marked), memory, differences: Differences::default() }
    }

    /// The merge of both lists, which is to be fed with the local one.
    pub fn merge(&mut self) -> &mut Merge {
        &mut self.merge
    }

    /// Takes the next key of the home's list.
    ///
    /// # Errors
    /// It cannot be the next one.
    pub fn take(&mut self, listed: Listed<Hashed>) -> Result<(), Unusable> {
        match self.merge.take(listed)? {
            // The session of a lock may end without an entry. The mark stays: readers are sent home, which is right.
            Finding::Same { unmark: true, .. } | Finding::Differs { unmark: true, .. } => {}
            Finding::Same { home, local, print, .. } => self.memory.know(&home.pair, local, print),
            Finding::Differs { home, local, .. } => {
                if let Some((local, print)) = local {
                    self.memory.see(&home.pair, local, print);
                }
                self.differences.add(home.pair.key);
            }
            Finding::Held { key, local, mark } => {
                if local.is_some() || mark {
                    self.differences.add(key);
                }
            }
        }
        Ok(())
    }

    /// Ends with the number of keys that the home says it sent.
    ///
    /// # Errors
    /// Another number came.
    pub fn end(mut self, told: u64) -> Result<(Memory, Differences), Unusable> {
        let rest = self.merge.end(told)?;
        rest.deletes.into_iter().for_each(|alone| self.differences.add(alone.key));
        Ok((self.memory, self.differences))
    }
}

#[cfg(test)]
mod tests;

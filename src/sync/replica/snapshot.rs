//! The home's list of keys beside the local one, both in the order of keys, merged while both come in. Pure.
//!
//! What differs is set at once. What only the local list has is deleted when the home's list is known to be whole, and
//! not at all when that is more than the guard lets pass: no list that ends early and no mistake at home empties a
//! replica.

use std::collections::{BTreeSet, VecDeque};

use crate::{
    model::kv::Pair,
    sync::replica::indexes::{Here, Print, here},
};

/// A key of the home's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed<D> {
    /// It holds data.
    Data(D),
    /// It is a lock, which lives at home only.
    Held(String),
}

/// A key with the hash of its value instead of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Without its value.
    pub pair: Pair,
    /// The BLAKE3 hash of the value.
    pub hash: [u8; 32],
}

/// Data of the home's list, which can be compared with the local one.
pub trait Content {
    /// The key.
    fn key(&self) -> &str;
    /// Whether the local key holds the same.
    fn is_in(&self, local: &Pair) -> bool;
}

impl Content for Pair {
    fn key(&self) -> &str {
        &self.key
    }

    fn is_in(&self, local: &Pair) -> bool {
        self.flags == local.flags && self.value == local.value
    }
}

impl Content for Hashed {
    fn key(&self) -> &str {
        &self.pair.key
    }

    fn is_in(&self, local: &Pair) -> bool {
        self.pair.flags == local.flags && *blake3::hash(&local.value).as_bytes() == self.hash
    }
}

/// A key with data that only the local list has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alone {
    /// The key.
    pub key: String,
    /// As it is here.
    pub local: Here,
}

/// What the two lists say of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding<D> {
    /// Both have it, and it holds the same.
    Same {
        /// As it is at home.
        home: D,
        /// Its index here.
        local: u64,
        /// What it holds.
        print: Print,
        /// It is marked as a lock here, and is none.
        unmark: bool,
    },
    /// It is missing here or holds something else.
    Differs {
        /// As it is at home.
        home: D,
        /// As it is here.
        local: Option<Here>,
        /// It is marked as a lock here, and is none.
        unmark: bool,
    },
    /// It is a lock at home.
    Held {
        /// The key.
        key: String,
        /// The data that it holds here, and must not.
        local: Option<Here>,
        /// It is not marked here.
        mark: bool,
    },
}

impl<D: Content> Finding<D> {
    /// The key.
    pub fn key(&self) -> &str {
        match self {
            Self::Same { home, .. } | Self::Differs { home, .. } => home.key(),
            Self::Held { key, .. } => key,
        }
    }

    /// The data that it holds here.
    pub fn here(&self) -> Option<Here> {
        match self {
            Self::Same { local, print, .. } => Some((*local, *print)),
            Self::Differs { local, .. } | Self::Held { local, .. } => *local,
        }
    }
}

/// A list of the home that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Keys do not grow, or are not of the prefix.
    #[error("the home's list is out of order: a key came twice, too late or from outside the prefix")]
    Order,
    /// Keys are missing.
    #[error("the home's list is not whole: {got} of {told} keys came")]
    Short {
        /// How many came.
        got: u64,
        /// How many there are.
        told: u64,
    },
}

/// What only the local side has, after the whole list of the home was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Keys with data that the home does not have.
    pub deletes: Vec<Alone>,
    /// Keys that are marked as locks and are none.
    pub unmarks: Vec<String>,
    /// How many keys held data here.
    pub local: usize,
    /// How many keys the home has, locks among them.
    pub home: u64,
}

/// How many deletes pass without a person's word: the greater of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// So many keys.
    pub keys: usize,
    /// So many of a hundred of the replica's keys.
    pub percent: usize,
}

impl Default for Guard {
    fn default() -> Self {
        Self { keys: 100, percent: 10 }
    }
}

/// More deletes than pass without a person's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// How many keys would be deleted.
    pub deletes: usize,
    /// Of how many.
    pub keys: usize,
}

impl Rest {
    /// Whether the deletes are so many that a person has to approve them.
    pub fn excess(&self, guard: Guard) -> Option<Excess> {
        let deletes = self.deletes.len();
        let is_many = deletes > guard.keys.max(self.local.saturating_mul(guard.percent) / 100);
        is_many.then_some(Excess { deletes, keys: self.local })
    }

    /// Whether all data would be gone. A list that shows nothing is whole as easily as it is none.
    pub fn leaves_nothing(&self) -> bool {
        self.home == 0 && !self.deletes.is_empty()
    }
}

/// The merge of two lists. It holds what has come of the local one and is not reached yet.
#[derive(Debug)]
pub struct Merge {
    prefix: String,
    local: VecDeque<Pair>,
    local_is_whole: bool,
    marked: BTreeSet<String>,
    last: Option<String>,
    rest: Rest,
}

impl Merge {
    /// Begins with the keys that are marked as locks here.
    pub fn new(prefix: String, marked: BTreeSet<String>) -> Self {
        let (local, rest) = (VecDeque::new(), Rest::default());
        Self { prefix, local, local_is_whole: false, marked, last: None, rest }
    }

    /// Takes the next local keys, in their order.
    pub fn feed(&mut self, page: Vec<Pair>) {
        self.rest.local += page.len();
        self.local.extend(page);
    }

    /// There are no further local keys.
    pub fn end_local(&mut self) {
        self.local_is_whole = true;
    }

    /// Whether more local keys must come before this key of the home's list can be judged.
    pub fn needs(&self, key: &str) -> bool {
        !self.local_is_whole && self.local.back().is_none_or(|pair| *pair.key < *key)
    }

    /// The home's list has no further keys: local ones that still come are in no list but theirs.
    pub fn drain(&mut self) {
        self.rest.deletes.extend(self.local.drain(..).map(alone));
    }

    /// The keys that only the local list has, as far as both lists have come.
    pub fn alone(&self) -> &[Alone] {
        &self.rest.deletes
    }

    /// Takes the next key of the home's list.
    ///
    /// # Errors
    /// It cannot be the next one.
    pub fn take<D: Content>(&mut self, listed: Listed<D>) -> Result<Finding<D>, Unusable> {
        let key = match &listed {
            Listed::Data(data) => data.key(),
            Listed::Held(key) => key,
        };
        if !key.starts_with(&self.prefix) || self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(Unusable::Order);
        }
        while let Some(pair) = self.next_local(|local| local < key) {
            self.rest.deletes.push(alone(pair));
        }
        let local = self.next_local(|local| local == key);
        let is_marked = self.marked.remove(key);
        self.last = Some(key.to_owned());
        self.rest.home += 1;
        Ok(match (listed, local) {
            (Listed::Held(key), local) => {
                Finding::Held { key, local: local.as_ref().map(here), mark: !is_marked }
            }
            (Listed::Data(home), Some(local)) if home.is_in(&local) => {
                let (local, print) = here(&local);
                Finding::Same { home, local, print, unmark: is_marked }
            }
            (Listed::Data(home), local) => {
                Finding::Differs { home, local: local.as_ref().map(here), unmark: is_marked }
            }
        })
    }

    fn next_local(&mut self, is_next: impl Fn(&str) -> bool) -> Option<Pair> {
        self.local.front().filter(|pair| is_next(&pair.key))?;
        self.local.pop_front()
    }

    /// Ends with the number of keys that the home says it sent.
    ///
    /// # Errors
    /// Another number came, or the local list is not whole: nothing can be said of what is missing.
    pub fn end(mut self, told: u64) -> Result<Rest, Unusable> {
        if !self.local_is_whole || self.rest.home != told {
            return Err(Unusable::Short { got: self.rest.home, told });
        }
        self.drain();
        self.rest.unmarks = self.marked.into_iter().collect();
        Ok(self.rest)
    }
}

fn alone(pair: Pair) -> Alone {
    let local = here(&pair);
    Alone { key: pair.key, local }
}

#[cfg(test)]
mod tests;

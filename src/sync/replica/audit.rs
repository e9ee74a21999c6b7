//! Edits of a replica by others than its applier, found by their index: whoever writes a key moves its `ModifyIndex`
//! beyond the one that was recorded. Pure.
//!
//! An audit looks for them now and then, and a copy of all data sees them beside what the home has changed.

use std::{collections::BTreeSet, iter::Peekable};

use crate::{
    model::kv::Pair,
    sync::replica::indexes::{Here, Memory, Record},
};

/// So many suspects are looked at in one audit. A replica with more is taken anew after the first that proves true.
pub const MOST_SUSPECTS: usize = 64;

/// What a second look at a suspect tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as recorded: it was applied meanwhile.
    Fine,
    /// It was edited and edited back: it holds what it should, under this index.
    Restored(u64),
    /// It was edited, made or deleted here.
    Edited,
}

/// A local list beside the memory, page by page.
#[derive(Debug)]
pub struct Look {
    /// The greatest local index that was remembered when the list was asked for: what was applied after that is no
    /// suspect.
    since: u64,
    last: Option<String>,
    suspects: Suspects,
}

impl Look {
    /// Begins.
    pub fn new(since: u64) -> Self {
        Self { since, last: None, suspects: Suspects::default() }
    }

    /// Takes the next keys of the list, in their order.
    pub fn take(&mut self, page: &[Pair], memory: &Memory) {
        let last = self.last.take();
        let mut records = memory.records(last.as_deref()).peekable();
        for pair in page {
            self.missing(&mut records, Some(&pair.key));
            match records.next_if(|(key, _)| **key == *pair.key) {
                Some((_, record)) if record.local == pair.modify_index || record.local > self.since => {}
                _ => self.suspects.add(&pair.key),
            }
        }
        self.last = page.last().map(|pair| pair.key.clone()).or_else(|| last.clone());
    }

    /// Ends the list: keys of which it does not show what is remembered.
    pub fn end(mut self, memory: &Memory) -> Vec<String> {
        let last = self.last.take();
        self.missing(&mut memory.records(last.as_deref()).peekable(), None);
        self.suspects.0
    }

    /// Records before this key, which the list lacks.
    fn missing<'m>(
        &mut self,
        records: &mut Peekable<impl Iterator<Item = (&'m str, &'m Record)>>,
        before: Option<&str>,
    ) {
        while let Some((key, record)) = records.next_if(|(key, _)| before.is_none_or(|before| *key < before))
        {
            if record.local <= self.since {
                self.suspects.add(key);
            }
        }
    }
}

/// The list of marks beside the keys that are remembered as locks, page by page. What is applied meanwhile may make any of
/// them a suspect.
#[derive(Debug, Default)]
pub struct Marks {
    last: Option<String>,
    suspects: Suspects,
}

impl Marks {
    /// Takes the next keys that are marked, in their order.
    pub fn take(&mut self, marked: &[&str], memory: &Memory) {
        let last = self.last.take();
        let mut held = memory.held_behind(last.as_deref()).peekable();
        for key in marked {
            while let Some(unmarked) = held.next_if(|held| held < key) {
                self.suspects.add(unmarked);
            }
            if held.next_if_eq(key).is_none() {
                self.suspects.add(key);
            }
        }
        self.last = marked.last().map(|key| (*key).to_owned()).or_else(|| last.clone());
    }

    /// Ends the list: keys that are marked and no locks, or locks and not marked.
    pub fn end(mut self, memory: &Memory) -> Vec<String> {
        let last = self.last.take();
        memory.held_behind(last.as_deref()).for_each(|key| self.suspects.add(key));
        self.suspects.0
    }
}

#[derive(Debug, Default)]
struct Suspects(Vec<String>);

impl Suspects {
    fn add(&mut self, key: &str) {
        if self.0.len() < MOST_SUSPECTS {
            self.0.push(key.to_owned());
        }
    }
}

/// What a key proves to be, by what it holds now, while nothing is being applied.
pub fn verdict(key: &str, now: Option<Here>, memory: &Memory) -> Verdict {
    match (now, memory.record(key)) {
        (None, None) => Verdict::Fine,
        (Some((index, _)), Some(record)) if index == record.local => Verdict::Fine,
        (Some((index, print)), Some(record)) if print == record.print => Verdict::Restored(index),
        _ => Verdict::Edited,
    }
}

/// The edits that a copy of all data finds on its way. However often it is begun anew it judges each key once, by what
/// was remembered before it: what it wrote itself is none.
#[derive(Debug, Default)]
pub struct Edits {
    unseen: Unseen,
    /// Those that were counted before the copy.
    counted: BTreeSet<String>,
    found: usize,
}

/// The keys that no copy has judged yet.
#[derive(Debug, Default)]
enum Unseen {
    /// None: what is remembered is not of all keys.
    #[default]
    None,
    /// All.
    All,
    /// Those behind this one.
    Behind(String),
}

impl Edits {
    /// From now on all keys are remembered. These were found to be edited, and were counted.
    pub fn but(counted: BTreeSet<String>) -> Self {
        Self { unseen: Unseen::All, counted, found: 0 }
    }

    /// Judges a key by what a list shows of it. Keys come in their order. True when it seems to be deleted here: a list may
    /// lack what is there, and only the index of the write that puts it back tells.
    pub fn look(&mut self, key: &str, now: Option<Here>, memory: &Memory) -> bool {
        match &mut self.unseen {
            Unseen::None => return false,
            Unseen::All => self.unseen = Unseen::Behind(key.to_owned()),
            Unseen::Behind(last) if last.as_str() < key => key.clone_into(last),
            Unseen::Behind(_) => return false,
        }
        let is_edited = verdict(key, now, memory) == Verdict::Edited;
        if is_edited && now.is_some() {
            self.found(key);
        }
        is_edited && now.is_none()
    }

    /// Takes in what putting back a key that seemed to be deleted made its index.
    pub fn put_back(&mut self, key: &str, index: u64, memory: &Memory) {
        if memory.record(key).is_some_and(|record| record.local != index) {
            self.found(key);
        }
    }

    fn found(&mut self, key: &str) {
        self.found += usize::from(!self.counted.contains(key));
    }

    /// How many were found since this was asked last.
    pub fn take(&mut self) -> usize {
        std::mem::take(&mut self.found)
    }
}

#[cfg(test)]
mod tests;

//! Edits of a replica by others than its applier, found by their index: whoever writes a key moves its `ModifyIndex`
//! beyond the one that was recorded. Pure.

use std::iter::Peekable;

use crate::{
    model::kv::Pair,
    sync::replica::indexes::{Memory, Print, Record},
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
    suspects: Vec<String>,
}

impl Look {
    /// Begins.
    pub fn new(since: u64) -> Self {
        Self { since, last: None, suspects: Vec::new() }
    }

    /// Takes the next keys of the list, in their order.
    pub fn take(&mut self, page: &[Pair], memory: &Memory) {
        let last = self.last.take();
        let mut records = memory.records(last.as_deref()).peekable();
        for pair in page {
            self.missing(&mut records, Some(&pair.key));
            match records.next_if(|(key, _)| **key == *pair.key) {
                Some((_, record)) if record.local == pair.modify_index || record.local > self.since => {}
                _ => self.suspect(&pair.key),
            }
        }
        self.last = page.last().map(|pair| pair.key.clone()).or_else(|| last.clone());
    }

    /// Ends the list: keys of which it does not show what is remembered.
    pub fn end(mut self, memory: &Memory) -> Vec<String> {
        let last = self.last.take();
        self.missing(&mut memory.records(last.as_deref()).peekable(), None);
        self.suspects
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
                self.suspect(key);
            }
        }
    }

    fn suspect(&mut self, key: &str) {
        if self.suspects.len() < MOST_SUSPECTS {
            self.suspects.push(key.to_owned());
        }
    }
}

/// What a key proves to be, by what it holds now, while nothing is being applied.
pub fn verdict(key: &str, now: Option<&Pair>, memory: &Memory) -> Verdict {
    match (now, memory.record(key)) {
        (None, None) => Verdict::Fine,
        (Some(pair), Some(record)) if pair.modify_index == record.local => Verdict::Fine,
        (Some(pair), Some(record)) if Print::of(&pair.value, pair.flags) == record.print => {
            Verdict::Restored(pair.modify_index)
        }
        _ => Verdict::Edited,
    }
}

#[cfg(test)]
mod tests;

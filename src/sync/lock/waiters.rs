//! Who waits for a lock, in the order in which they came. Pure.
//!
//! A client that waits long asks again and again, each time for a part of the time. Its place is kept for
//! [`PLACE_KEPT`] in between; whoever is first *and there* has the turn.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// How long the place of one who went away is kept.
pub const PLACE_KEPT: Duration = Duration::from_secs(5);

/// How many wait for one lock. Each costs a connection of its own; with more, most wait for nothing.
pub const MAX_WAITERS: usize = 256;

/// How many wait for all locks of a prefix.
pub const MAX_ALL_WAITERS: usize = 4096;

/// One stay in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Where a ticket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has the turn.
    First,
    /// So many are before it.
    Behind(usize),
    /// It is no longer in line: the same client asked again, or its time is over.
    Gone,
}

/// Too many wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// How one leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It got what it wanted, or wants it no more.
    Done,
    /// It will be back.
    Away,
}

/// All lines of a prefix.
#[derive(Debug, Default)]
pub struct Waiters {
    lines: BTreeMap<String, VecDeque<Place>>,
    last: u64,
}

#[derive(Debug)]
struct Place {
    ticket: Ticket,
    /// What the client calls itself: the same in every try.
    name: String,
    until: Instant,
    away_since: Option<Instant>,
}

impl Place {
    fn is_kept(&self, now: Instant) -> bool {
        self.away_since.is_none_or(|since| now < since + PLACE_KEPT)
    }

    fn is_there(&self, now: Instant) -> bool {
        self.away_since.is_none() && now <= self.until
    }
}

impl Waiters {
    /// Comes to the end of the line, or back to the place that was kept. An earlier stay of the same client is over.
    ///
    /// # Errors
    /// Too many wait already.
    pub fn join(&mut self, lock: &str, name: &str, until: Instant, now: Instant) -> Result<Ticket, Full> {
        for line in self.lines.values_mut() {
            line.retain(|place| place.is_kept(now));
        }
        self.lines.retain(|_, line| !line.is_empty());
        let all: usize = self.lines.values().map(VecDeque::len).sum();
        self.last += 1;
        let ticket = Ticket(self.last);
        let line = self.lines.entry(lock.to_owned()).or_default();
        if let Some(place) = line.iter_mut().find(|place| place.name == name) {
            (place.ticket, place.until, place.away_since) = (ticket, until, None);
            return Ok(ticket);
        }
        if line.len() >= MAX_WAITERS || all >= MAX_ALL_WAITERS {
            return Err(Full);
        }
        line.push_back(Place { ticket, name: name.to_owned(), until, away_since: None });
        Ok(ticket)
    }

    /// Leaves the line.
    pub fn leave(&mut self, lock: &str, ticket: Ticket, how: Leave, now: Instant) {
        let Some(line) = self.lines.get_mut(lock) else { return };
        match how {
            Leave::Done => line.retain(|place| place.ticket != ticket),
            Leave::Away => {
                if let Some(place) = line.iter_mut().find(|place| place.ticket == ticket) {
                    place.away_since = Some(now);
                }
            }
        }
        if line.is_empty() {
            self.lines.remove(lock);
        }
    }

    /// Where a ticket stands.
    pub fn standing(&self, lock: &str, ticket: Ticket, now: Instant) -> Standing {
        let line = self.lines.get(lock).into_iter().flatten();
        let mut there = line.filter(|place| place.is_there(now));
        match there.position(|place| place.ticket == ticket) {
            Some(0) => Standing::First,
            Some(before) => Standing::Behind(before),
            None => Standing::Gone,
        }
    }

    /// How many wait for a lock.
    pub fn count(&self, lock: &str, now: Instant) -> usize {
        self.lines.get(lock).map_or(0, |line| line.iter().filter(|place| place.is_there(now)).count())
    }
}

#[cfg(test)]
mod tests;

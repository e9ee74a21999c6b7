//! What clients did and saw, and what must hold of it. Simulated and real runs are judged alike.
//!
//! I1 `linear`: each key is a linearizable register. I2 `lists`: transactions that append have an order. I5, I6, I7
//! `locks`: tokens grow, what they guard is in their order, what was acknowledged stays. I3, I4, I8, I9 `witness`: what
//! replicas hold. I4 once more, `reads`: what readers are told of that.

mod linear;
mod lists;
mod locks;
mod reads;
mod restored;
mod rights;
#[cfg(test)]
mod tests;
mod witness;

use causeway::model::sync::Token;

pub(crate) use self::{
    linear::registers,
    lists::lists,
    locks::locks,
    reads::{Shown, reads},
    restored::{Restored, judge_restored},
    rights::{May, Turn, Use, rights},
    witness::{Side, Witness},
};

/// A value: clients write each number once, so that it tells who wrote it.
pub(crate) type Number = u64;

/// When something was, in ns of the simulation or since the start of a real run.
pub(crate) type Moment = u64;

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was carried out.
    Done,
    /// It was not, and never will be.
    Refused,
    /// Nobody knows.
    Open,
}

impl Outcome {
    /// Of an answer of HTTP: 2xx is done, 4xx refused, as is the 503 of a home that was never asked; anything else
    /// leaves it open.
    pub(crate) fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Done,
            400..=499 | 503 => Self::Refused,
            _ => Self::Open,
        }
    }
}

/// What was asked, and seen where it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A consistent read.
    Read { key: String, seen: Option<Number> },
    /// A write, or without a value a delete.
    Write { key: String, value: Option<Number> },
    /// A write of what was seen before; none stands for a key that was missing.
    Cas { key: String, from: Option<Number>, to: Number, is_done: bool },
    /// All keys below are deleted.
    DeleteTree { prefix: String, keys: Vec<String> },
    /// In one transaction the number is added to these lists, which held this before.
    Append { item: Number, lists: Vec<(String, Vec<Number>)> },
    /// Lists that one transaction read.
    Lists { seen: Vec<(String, Vec<Number>)> },
    /// A lock was granted.
    Grant { lock: String, token: Token },
    /// Under a lock a counter was set from the one to the other.
    Count { lock: String, token: Token, from: Number, to: Number },
}

/// One call of one client.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) client: usize,
    pub(crate) began: Moment,
    /// Never, for one that is open.
    pub(crate) ended: Moment,
    pub(crate) outcome: Outcome,
    pub(crate) act: Act,
}

impl Call {
    /// Whether it had ended when the other began.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        self.ended < other.began
    }
}

/// A sentence about what does not hold, beginning with its invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

/// Everything that must hold of the calls of clients.
pub(crate) fn judge(calls: &[Call]) -> Vec<Violation> {
    let mut found = registers(calls);
    found.extend(lists(calls));
    found.extend(locks(calls));
    found
}

/// The calls that a violation is about, one per line, in the order in which they began.
pub(crate) fn shown(calls: &[Call]) -> String {
    let mut calls: Vec<&Call> = calls.iter().collect();
    calls.sort_by_key(|call| call.began);
    let ms = |moment: Moment| {
        if moment == Moment::MAX { "-".to_owned() } else { format!("{:.3}", moment as f64 / 1e9) }
    };
    let line = |call: &&Call| {
        let (began, ended) = (ms(call.began), ms(call.ended));
        format!("  [{began} {ended}] client {} {:?} {:?}\n", call.client, call.outcome, call.act)
    };
    calls.iter().map(line).collect()
}

//! What a client, or the world around it, does next.

use super::catalog::Catalog;
use crate::xds::resource::Kind;

#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// The catalog is now this one.
    Offer(usize),
    Subscribe(Kind, usize),
    SubscribeAll(Kind),
    Unsubscribe(Kind, usize),
    UnsubscribeAll(Kind),
    /// Answers the oldest response.
    Answer(Kind, Answer),
    /// Answers all responses that have arrived by answering the last; state of the world only.
    AnswerLast(Kind),
    /// Unsubscribes from one name and subscribes to another while answering, in one request.
    AnswerAndChange(Kind, usize, usize),
    /// Says something with a nonce that was never on this stream.
    StaleAnswer(Kind, bool),
    /// Comes back on a new stream with what it has.
    Reconnect,
    /// Says no more; only a new stream helps.
    HalfClose,
    /// Vanishes; another takes its place, without anything.
    Vanish,
    Wait(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Take,
    /// Refuses and applies nothing, naming no resource.
    RefuseAll,
    /// Refuses the resource of that place, by name, and applies the others.
    RefuseOne(usize),
}

impl Op {
    pub(super) fn told(self, catalog: &Catalog) -> String {
        let Self::Offer(i) = self else { return format!("{self:?}") };
        let snapshot = &catalog.snapshots[i];
        let entries = snapshot.iter().map(|entry| {
            let refers_to: Vec<&str> = entry.refers_to.iter().map(|key| key.name.as_str()).collect();
            format!("\n    {entry:?} names {}", refers_to.join(" "))
        });
        let entries: String = entries.collect();
        format!("{self:?}, {}{entries}", if snapshot.is_complete() { "complete" } else { "incomplete" })
    }
}

/// The operations of one case; the last offers a complete catalog.
pub(super) fn random(seed: u64, catalog: &Catalog) -> Vec<Op> {
    let mut rng = fastrand::Rng::with_seed(seed);
    // Short cases reach all that takes few steps more often.
    let count = if rng.bool() { rng.usize(4..20) } else { rng.usize(20..70) };
    let mut ops: Vec<Op> = (0..count).map(|_| one(&mut rng, catalog)).collect();
    ops.insert(0, Op::Offer(rng.usize(0..catalog.snapshots.len())));
    follow_up(&mut ops, &mut rng, catalog);
    ops.push(Op::Offer(catalog.complete[rng.usize(0..catalog.complete.len())]));
    ops
}

/// Every other catalog is the one that was made from the one before it, as in an agent.
fn follow_up(ops: &mut [Op], rng: &mut fastrand::Rng, catalog: &Catalog) {
    let mut last = None;
    for op in ops {
        let Op::Offer(i) = op else { continue };
        let next = last.map(|last| last + 1).filter(|next| *next < catalog.snapshots.len());
        *i = next.filter(|_| rng.bool()).unwrap_or(*i);
        last = Some(*i);
    }
}

fn one(rng: &mut fastrand::Rng, catalog: &Catalog) -> Op {
    let kind = Kind::ALL[rng.usize(0..5)];
    let (name, other) = (rng.usize(0..3), rng.usize(0..3));
    match rng.u8(0..100) {
        0..13 => Op::Offer(rng.usize(0..catalog.snapshots.len())),
        13..25 => Op::Subscribe(kind, name),
        25..32 => Op::SubscribeAll(if rng.bool() { Kind::Cluster } else { kind }),
        32..37 => Op::SubscribeAll(if rng.bool() { Kind::Listener } else { kind }),
        37..43 => Op::Unsubscribe(kind, name),
        43..46 => Op::UnsubscribeAll(kind),
        46..73 => Op::Answer(kind, Answer::Take),
        73..76 => Op::Answer(kind, Answer::RefuseAll),
        76..79 => Op::Answer(kind, Answer::RefuseOne(name)),
        79..84 => Op::AnswerLast(kind),
        84..87 => Op::AnswerAndChange(kind, name, other),
        87..90 => Op::StaleAnswer(kind, rng.bool()),
        90..93 => Op::Reconnect,
        93 => Op::HalfClose,
        94 => Op::Vanish,
        _ => Op::Wait(if rng.bool() { 1 } else { rng.u64(500..3000) }),
    }
}

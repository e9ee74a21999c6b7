//! Whether a follower's position is part of our history. Pure.

use crate::{
    model::sync::Position,
    sync::record::{Entry, Epochs, Hash, Head},
};

/// An entry as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// What it says.
    pub entry: Entry,
    /// The hash of its bytes.
    pub hash: Hash,
    /// The `ModifyIndex` of its key, which is that of what it changed.
    pub index: u64,
}

/// Where a follower stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has what we had then: the entries behind it are what it lacks.
    Continues,
    /// What it has is ours, as far as can be told, but the entries behind it were trimmed.
    Trimmed,
    /// What it has was never, or is no longer, part of our history.
    Forked {
        /// Why.
        reason: String,
        /// It has an entry of the present epoch, or a later one, that we lack: it is we who have lost something.
        contests: bool,
    },
}

/// The entry that must be read to compare: that at the follower's position, or the one after it, which tells its hash.
pub fn wanted(head: &Head, at: Position) -> Option<u64> {
    let Head { position, first, .. } = head;
    if at.seq >= position.seq || at.seq == 0 && *first > 1 {
        return None;
    }
    (at.seq + 1 >= *first).then(|| at.seq.max(*first))
}

/// Judges a follower's last entry. `entry` is what [`wanted`] names.
pub fn standing(epochs: &Epochs, head: &Head, at: (Position, &Hash), entry: Option<&Logged>) -> Standing {
    let (position, hash) = at;
    let contests = position.epoch >= epochs.epoch;
    let forked = |reason: String| Standing::Forked { reason, contests };
    if position > head.position {
        return forked(format!("it has {position}, and the journal here ends at {}", head.position));
    }
    // Only what lies before every fork that came after its epoch is shared.
    let forks = epochs.forks.iter().filter(|fork| fork.epoch > position.epoch);
    if let Some(fork) = forks.min_by_key(|fork| fork.seq)
        && (position.seq > fork.seq || position.seq == fork.seq && *hash != fork.hash)
    {
        return forked(format!(
            "it has {position}, and epoch {} goes on from entry {}",
            fork.epoch, fork.seq
        ));
    }
    let began = epochs.forks.iter().find(|fork| fork.epoch == position.epoch).map_or(0, |fork| fork.seq);
    if position.seq < began {
        return forked(format!("it has {position}, and that epoch began behind entry {began}"));
    }
    let other = || forked(format!("its entry {position} is another one than ours"));
    if position.seq == head.position.seq {
        return if *hash == head.hash { Standing::Continues } else { other() };
    }
    match entry {
        Some(logged) => {
            let ours = match logged.entry.position.seq == position.seq {
                true => &logged.hash,
                false => &logged.entry.prev_hash,
            };
            if ours == hash { Standing::Continues } else { other() }
        }
        None => Standing::Trimmed,
    }
}

#[cfg(test)]
mod tests;

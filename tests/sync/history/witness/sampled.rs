//! The same invariants where Consul is looked at now and then, as at a real one: what was between two looks is read from
//! the journal, along the hashes by which each entry names the one before.

use std::sync::Arc;

use causeway::{
    model::sync::Position,
    sync::record::{self, Entry, Hash, Head},
};

use super::{Folded, Pairs, Place, Witness, read};

impl Witness {
    /// Whether the entry of this hash was followed: those before it need not be read again.
    pub(crate) fn knows(&self, seq: u64, hash: &Hash) -> bool {
        self.fold(seq, hash).is_some()
    }

    /// Looks at home. `pairs` are the data with the head, of one moment, and all entries that are not known yet.
    /// False: the entries do not lead from the head to anything known, as while a Consul is being restored.
    pub(crate) fn look_sampled(&mut self, pairs: &Pairs) -> bool {
        // A lock may have been free between two looks, with the value that it has now.
        let data = pairs.iter().filter(|(key, _)| key.starts_with(&self.prefix));
        self.free.extend(data.map(|(key, pair)| (key.clone(), pair.flags, pair.value.clone())));
        let Some(head) = read::<Head>(pairs, &self.layout.head()) else { return false };
        if !self.folds.is_empty() && !self.follow_hashes(&head, pairs) {
            return false;
        }
        self.look_home(pairs);
        true
    }

    /// Only what is needed from now on is kept: everything is where its home is.
    pub(crate) fn forget_the_past(&mut self) {
        let Some(at) = self.at.clone() else { return };
        self.folds.retain(|place, _| *place == at);
        self.indexes.clear();
    }

    fn fold(&self, seq: u64, hash: &Hash) -> Option<&Folded> {
        // An epoch that begins without an entry has the hash of the one before.
        let mut same = self.folds.iter().filter(|(place, _)| place.0.seq == seq && place.1 == *hash);
        same.next().map(|(_, folded)| folded)
    }

    fn follow_hashes(&mut self, head: &Head, pairs: &Pairs) -> bool {
        let mut ways: Vec<Place> = Vec::new();
        let (mut seq, mut hash) = (head.position.seq, head.hash.clone());
        let base = loop {
            if let Some(folded) = self.fold(seq, &hash) {
                break folded.clone();
            }
            let key = self.layout.entry(seq);
            let Some(pair) = pairs.get(&key).filter(|pair| Hash::of(&pair.value) == hash) else {
                return false;
            };
            let Ok(entry) = record::decode::<Entry>(&key, &pair.value) else { return false };
            ways.push((entry.position, hash));
            (seq, hash) = (seq.saturating_sub(1), entry.prev_hash);
        };
        let mut before = ((seq, hash), base);
        for (position, hash) in ways.into_iter().rev() {
            self.begin_epoch(position, &before);
            let folded = self.step(&before.1, position, pairs);
            self.folds.insert((position, hash.clone()), folded.clone());
            before = ((position.seq, hash), folded);
        }
        self.begin_epoch(head.position, &before);
        self.at = Some((head.position, head.hash.clone()));
        true
    }

    /// A home stands at the last entry of the epoch before until it has one of its own.
    fn begin_epoch(&mut self, at: Position, before: &((u64, Hash), Folded)) {
        let ((seq, hash), folded) = before;
        let place = (Position { epoch: at.epoch, seq: *seq }, hash.clone());
        let same = Folded { data: Arc::clone(&folded.data), held: Arc::clone(&folded.held) };
        self.folds.entry(place).or_insert(same);
    }
}

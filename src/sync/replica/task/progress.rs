//! The state record: read at the beginning, written with the data, told to the rest of the engine.

use std::collections::BTreeSet;

use bytes::Bytes;
use tokio::time::timeout;

use crate::{
    lifecycle,
    model::{kv::Pair, sync::Position},
    sync::{
        peer::Peers,
        record::{self, Hash, Phase, State},
        replica::{
            audit::Edits,
            compare::Differences,
            indexes::Memory,
            machine::Reason,
            task::{End, LIST, Worker},
        },
        store::{Read, Store},
    },
};

/// The state record that this agent wrote or read last. The memory belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) position: Position,
    pub(super) hash: Hash,
    pub(super) phase: Phase,
    /// Its `ModifyIndex`; 0 while there is none.
    pub(super) index: u64,
}

impl<S: Store, P: Peers> Worker<S, P> {
    /// Reads the progress. The second value says whether the memory belongs to it.
    pub(super) async fn load(&mut self) -> Result<(Option<State>, bool), End> {
        let key = self.layout.state();
        let pair = self.read(&key).await?;
        let index = pair.as_ref().map_or(0, |pair| pair.modify_index);
        let mut state = match pair.as_ref().map(|pair| self.readable(pair)) {
            Some(Err(reason)) if !self.machine.is_approved() => return Err(End::Held(reason)),
            Some(Err(_)) | None => None,
            Some(Ok(state)) => Some(state),
        };
        let mut is_known = index != 0 && self.progress.as_ref().is_some_and(|own| own.index == index);
        if let (false, Some(state), Some(batch)) = (is_known, &state, self.pending.take()) {
            is_known = self.settle(state, index, batch).await?;
        }
        if !is_known {
            self.begin(state.as_ref(), index).await?;
        }
        self.pending = None;
        // What was copied and cut before it settled needs no second copy.
        if let Some(state) = state.as_mut().filter(|_| is_known && self.is_copied) {
            state.phase = Phase::Stream;
        }
        self.publish();
        Ok((state, is_known))
    }

    /// Begins with an empty memory.
    pub(super) async fn begin(&mut self, state: Option<&State>, index: u64) -> Result<(), End> {
        (self.is_copied, self.differences, self.edits) = (false, Differences::default(), Edits::default());
        let mut memory = Memory::default();
        for key in self.marks().await? {
            memory.hold(&key, None);
        }
        *self.shared.memory_mut() = Some(memory);
        self.progress = Some(match state {
            Some(State { position, hash, phase, .. }) => {
                Progress { position: *position, hash: hash.clone(), phase: *phase, index }
            }
            None => Progress {
                position: Position::default(),
                hash: Hash::default(),
                phase: Phase::Snapshot,
                index,
            },
        });
        Ok(())
    }

    pub(super) fn readable(&self, pair: &Pair) -> Result<State, Reason> {
        let state: State = record::decode(&pair.key, &pair.value)?;
        if state.home != self.settings.prefix.home || state.prefix != self.settings.prefix.text {
            return Err(Reason::Moved { prefix: state.prefix, home: state.home.to_string() });
        }
        Ok(state)
    }

    /// The keys that are marked as locks.
    pub(super) async fn marks(&self) -> Result<BTreeSet<String>, End> {
        let root = self.layout.all_held();
        let list = self.list(&root).await?;
        Ok(list.iter().filter_map(|pair| self.layout.is_held(&pair.key)).map(str::to_owned).collect())
    }

    pub(super) async fn read(&self, key: &str) -> Result<Option<Pair>, End> {
        match timeout(self.settings.commit, self.store.get(key, Read::Consistent)).await {
            Ok(Ok(answer)) => Ok(answer.value),
            Ok(Err(error)) => Err(End::Failed(format!("read {key}: {error}"))),
            Err(_) => Err(End::Failed(format!("read {key}: no answer in {:?}", self.settings.commit))),
        }
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Pair>, End> {
        match timeout(LIST, self.store.list(prefix, Read::Consistent)).await {
            Ok(Ok(answer)) => Ok(answer.value),
            Ok(Err(error)) => Err(End::Failed(format!("list {prefix}: {error}"))),
            Err(_) => Err(End::Failed(format!("list {prefix}: no answer in {LIST:?}"))),
        }
    }

    /// The bytes of a state record. No two are equal: an equal one would keep its index, and what was sent under the
    /// one before could still come in.
    pub(super) fn state(&mut self, position: Position, hash: &Hash, phase: Phase) -> Bytes {
        let since_1970 = lifecycle::wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        self.last_ts_ms = now_ms.max(self.last_ts_ms.saturating_add(1));
        record::encode(&State {
            home: self.settings.prefix.home.clone(),
            prefix: self.settings.prefix.text.clone(),
            position,
            hash: hash.clone(),
            phase,
            node: self.settings.node.clone(),
            ts_ms: self.last_ts_ms,
        })
    }

    /// Tells the rest of the engine how far the data is. While a snapshot goes in, the data is of no single position:
    /// the position is shown to people, and reads are answered at home.
    pub(super) fn publish(&self) {
        let Some(progress) = &self.progress else { return };
        let has_begun = progress.position != Position::default();
        let is_single = progress.phase == Phase::Stream;
        let mut view = self.shared.view();
        view.at = has_begun.then(|| (progress.position, progress.hash.clone()));
        if is_single && view.is_connected && view.tip.is_some_and(|tip| progress.position >= tip) {
            view.level_at = Some(lifecycle::now());
        }
        view.differences = self.differences.len();
        drop(view);
        self.shared.set_applied((has_begun && is_single).then_some(progress.position));
    }
}

//! One transaction: what waits is prepared, sent, and answered.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    lifecycle,
    model::kv::{Op, Pair, TxnReply},
    sync::{
        home::{
            Live, Others, Shared,
            batch::{self, Batch, Budget, Fit, Journaled, Transaction},
            commit::{Commit, End, Reign},
            execute::{self, Executed},
            facts::{self, Looked},
            memory,
            pending::Pending,
            prepare::{self, Ground, Prepared},
            request::{Outcome, Written, another},
            settle::{self, RolledBack, Verdict},
            trim::BLOB_LEEWAY,
        },
        record::Head,
        refusal::Refusal,
        store::{Store, StoreError},
    },
};

/// Entries up to this size are kept for followers; larger ones they are read for.
const LIVE_BYTES: usize = 64 * 1024;
/// How often large values are put before their requests are refused.
const PUT_ATTEMPTS: usize = 3;

type Taking = (Pending, Prepared);

impl<S: Store, O: Others> Commit<S, O> {
    /// Takes a request in: it is answered at once if it was carried out before, or if its id is another's.
    pub(crate) fn admit(&mut self, pending: Pending) {
        match self.seen.get(&pending.request.id, pending.digest) {
            Ok(None) => {}
            Ok(Some(outcome)) => {
                self.shared.counts.repeated.fetch_add(1, Ordering::Relaxed);
                pending.answer(outcome);
                return;
            }
            Err(refusal) => {
                pending.answer(&Err(refusal));
                return;
            }
        }
        match self.queue.iter_mut().find(|other| other.request.id == pending.request.id) {
            Some(other) if other.digest == pending.digest => other.join(pending),
            Some(_) => pending.answer(&Err(another())),
            None => self.queue.push_back(pending),
        }
    }

    /// One transaction.
    pub(crate) async fn round(&mut self, reign: &mut Reign) -> Result<(), End> {
        let budget = *self.shared.budget.borrow();
        self.gather(reign, &budget).await;
        let facts = self.facts(reign, &budget).await;
        let taking = self.take(reign, &budget, &facts);
        if taking.is_empty() {
            return Ok(());
        }
        let taking = self.put_blobs(reign, &budget, taking).await?;
        if taking.is_empty() {
            return Ok(());
        }
        reign.is_busy = taking.len() > 1;
        let shared = self.shared.clone();
        let behind = reign.behind(&shared);
        let transaction =
            batch::compose(taking.iter().map(|(pending, prepared)| (&pending.request, prepared)), &behind);
        let executed = execute::execute(&shared, &transaction, &behind, &self.duty, &self.stop).await;
        self.settle(reign, transaction, taking, executed)
    }

    /// Takes in what waits, and what comes within a moment when many are at it.
    async fn gather(&mut self, reign: &Reign, budget: &Budget) {
        let until = lifecycle::now() + self.shared.settings.linger;
        loop {
            while self.queue.len() < budget.ops {
                match self.incoming.try_recv() {
                    Ok(pending) => self.admit(pending),
                    Err(_) => break,
                }
            }
            if !reign.is_busy || self.queue.len() >= budget.ops {
                return;
            }
            tokio::select! { biased;
                Some(pending) = self.incoming.recv() => self.admit(pending),
                () = tokio::time::sleep_until(until) => return,
            }
        }
    }

    fn ground<'a>(&'a self, reign: &'a Reign, locks: &'a memory::Locks) -> Ground<'a> {
        let settings = &self.shared.settings;
        Ground {
            datacenter: &settings.datacenter,
            prefix: &settings.prefix.text,
            prefixes: &settings.prefixes,
            layout: &self.shared.layout,
            epoch: reign.epochs.epoch,
            locks,
            fences: &self.fences,
        }
    }

    /// Reads what the next requests rest on.
    async fn facts(&self, reign: &Reign, budget: &Budget) -> Looked {
        let keys: BTreeSet<String> = {
            let locks = self.shared.locks.borrow();
            let ground = self.ground(reign, &locks);
            self.queue
                .iter()
                .take(budget.ops)
                .flat_map(|pending| prepare::wanted(&pending.request, &ground))
                .collect()
        };
        facts::look(&self.shared.store, keys).await
    }

    /// The requests of the next transaction, from the front of the queue.
    fn take(&mut self, reign: &Reign, budget: &Budget, facts: &Looked) -> Vec<Taking> {
        let now = lifecycle::now();
        let mut batch = Batch::default();
        let mut taking: Vec<Taking> = Vec::new();
        for _ in 0..self.queue.len().min(budget.ops) {
            let Some(mut pending) = self.queue.pop_front() else { break };
            if batch.is_full(budget) || (pending.is_first && !taking.is_empty()) {
                self.queue.push_front(pending);
                break;
            }
            if !pending.take(now) {
                continue;
            }
            let fit = self.prepare(&pending, reign, facts).map(|prepared| {
                (batch.add(&pending.request, &prepared, budget, &self.shared.layout), prepared)
            });
            match fit {
                Ok((Fit::Yes, prepared)) => {
                    pending.is_first = false;
                    taking.push((pending, prepared));
                }
                Ok((Fit::Later, _)) => {
                    pending.put_back();
                    self.queue.push_front(pending);
                    break;
                }
                Ok((Fit::Never(refusal), _)) | Err(refusal) => self.refuse(pending, refusal),
            }
        }
        taking
    }

    fn prepare(&self, pending: &Pending, reign: &Reign, facts: &Looked) -> Result<Prepared, Refusal> {
        let locks = self.shared.locks.borrow();
        let ground = self.ground(reign, &locks);
        if !facts.failed.is_empty()
            && let Some(refusal) = facts.refusal(&prepare::wanted(&pending.request, &ground))
        {
            return Err(refusal);
        }
        prepare::prepare(&pending.request, &facts.facts, &ground)
    }

    fn refuse(&mut self, pending: Pending, refusal: Refusal) {
        let is_final = matches!(refusal, Refusal::Held { .. } | Refusal::StaleToken { .. });
        let outcome = Err(refusal);
        if is_final {
            // A copy of it that comes late must not do what its sender was told is not done.
            self.seen.insert(&pending.request.id, Some(pending.digest), outcome.clone());
        }
        pending.answer(&outcome);
    }

    /// Puts large values beside the journal, before the entry that names them.
    async fn put_blobs(
        &mut self,
        reign: &Reign,
        budget: &Budget,
        mut taking: Vec<Taking>,
    ) -> Result<Vec<Taking>, End> {
        let next = reign.head.position.seq + 1;
        let is_put = |at: Option<u64>| at.is_some_and(|at| next <= at.saturating_add(BLOB_LEEWAY / 2));
        let mut blobs = Vec::new();
        for (pending, prepared) in &mut taking {
            if !prepared.blobs.is_empty() && !is_put(pending.blobs_for) {
                blobs.extend(prepared.blobs.iter().cloned());
            }
        }
        if blobs.is_empty() {
            return Ok(taking);
        }
        let shared = self.shared.clone();
        let behind = reign.behind(&shared);
        for ops in batch::put_blobs(&blobs, budget, &behind) {
            match put(&shared, ops).await {
                Put::Done => {}
                Put::DutyLost => {
                    self.give_back(taking);
                    return Err(End::DutyLost);
                }
                Put::Not(reason) => {
                    for (pending, _) in taking {
                        pending.answer(&Err(Refusal::NotServing(reason.clone())));
                    }
                    return Ok(Vec::new());
                }
            }
        }
        for (pending, _) in &mut taking {
            pending.blobs_for = Some(next);
        }
        Ok(taking)
    }

    /// Puts requests back to the front of the queue, in their order.
    fn give_back(&mut self, taking: Vec<Taking>) {
        for (mut pending, _) in taking.into_iter().rev() {
            pending.put_back();
            self.queue.push_front(pending);
        }
    }

    fn settle(
        &mut self,
        reign: &mut Reign,
        transaction: Transaction,
        taking: Vec<Taking>,
        executed: Executed,
    ) -> Result<(), End> {
        match executed {
            Executed::Committed { pairs, index } => {
                self.committed(reign, transaction, taking, pairs, index);
                Ok(())
            }
            Executed::RolledBack(errors) => {
                let prepared: Vec<&Prepared> = taking.iter().map(|(_, prepared)| prepared).collect();
                let why = settle::rolled_back(&transaction, &prepared, &errors);
                self.rolled_back(reign, taking, why)
            }
            Executed::Undone { barrier, index } => {
                self.advance(reign, barrier, index);
                self.give_back(taking);
                Ok(())
            }
            Executed::Refused(reason) => {
                let refusal =
                    Err(Refusal::NotServing(format!("Consul of the home did not execute it: {reason}")));
                taking.into_iter().for_each(|(pending, _)| pending.answer(&refusal));
                Ok(())
            }
            Executed::Overtaken => {
                self.give_back(taking);
                Err(End::Doubt("another entry stands where ours should be".into()))
            }
            Executed::Unknown(reason) => {
                for (pending, _) in taking {
                    let request_id = pending.request.id.clone();
                    pending.answer(&Err(Refusal::OutcomeUnknown { request_id, reason: reason.clone() }));
                }
                Err(End::Doubt(reason))
            }
        }
    }

    fn committed(
        &mut self,
        reign: &mut Reign,
        transaction: Transaction,
        taking: Vec<Taking>,
        pairs: Option<Vec<Pair>>,
        index: u64,
    ) {
        let answers = pairs.and_then(|pairs| settle::committed(&transaction, pairs));
        if let Some(journaled) = transaction.written {
            self.shared.locks.send_modify(|locks| {
                for (pending, prepared) in &taking {
                    locks.apply(&pending.request.ops, &prepared.changes);
                }
            });
            self.advance(reign, journaled, index);
        }
        let mut answers = answers.map(Vec::into_iter);
        for (pending, prepared) in taking {
            let pairs = answers.as_mut().and_then(Iterator::next);
            let pairs = pairs.unwrap_or_else(|| memory::shown(&prepared.changes, index));
            for (lock, token) in &prepared.tokens {
                self.fences.insert(lock, *token, index);
                self.shared.counts.granted(*token);
            }
            let index = if prepared.changes.is_empty() { 0 } else { index };
            let reply = TxnReply::Committed(pairs);
            let written = Written { reply, at: reign.head.position, index, tokens: prepared.tokens };
            self.done(pending, Ok(written));
        }
    }

    fn done(&mut self, pending: Pending, outcome: Outcome) {
        self.shared.counts.requests.fetch_add(1, Ordering::Relaxed);
        self.seen.insert(&pending.request.id, Some(pending.digest), outcome.clone());
        pending.answer(&outcome);
    }

    /// The journal has one more entry.
    fn advance(&mut self, reign: &mut Reign, journaled: Journaled, index: u64) {
        let Journaled { entry, bytes, hash } = journaled;
        reign.head = Head { position: entry.position, hash: hash.clone(), first: reign.head.first };
        reign.head_index = index;
        reign.ts_ms = entry.ts_ms;
        self.shared.counts.entries.fetch_add(1, Ordering::Relaxed);
        let seq = entry.position.seq;
        let entry = (bytes.len() <= LIVE_BYTES).then_some(entry);
        // Without followers there is nobody to tell.
        let _ = self.shared.live.send(Arc::new(Live { seq, hash, index, entry }));
        self.show(reign);
    }

    fn rolled_back(&mut self, reign: &Reign, taking: Vec<Taking>, why: RolledBack) -> Result<(), End> {
        let verdicts = match why {
            RolledBack::DutyLost => {
                self.give_back(taking);
                return Err(End::DutyLost);
            }
            RolledBack::HeadMoved => {
                self.give_back(taking);
                return Err(End::Doubt("the journal's head was replaced by somebody else".into()));
            }
            RolledBack::ByRequests(verdicts) => verdicts,
        };
        let (mut again, mut after) = (Vec::new(), Vec::new());
        for ((mut pending, prepared), verdict) in taking.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Again => again.push((pending, prepared)),
                Verdict::After => {
                    pending.is_first = after.is_empty();
                    after.push((pending, prepared));
                }
                Verdict::Anew => {
                    prepared.tokens.iter().for_each(|(lock, _)| self.fences.forget(lock));
                    again.push((pending, prepared));
                }
                Verdict::Failed(errors) => {
                    self.shared.counts.rolled_back.fetch_add(1, Ordering::Relaxed);
                    let (reply, at) = (TxnReply::RolledBack(errors), reign.head.position);
                    self.done(pending, Ok(Written { reply, at, index: 0, tokens: Vec::new() }));
                }
            }
        }
        again.append(&mut after);
        self.give_back(again);
        Ok(())
    }
}

enum Put {
    Done,
    DutyLost,
    Not(String),
}

/// Putting twice what is named by its content does no harm: it is tried again.
async fn put<S: Store>(shared: &Shared<S>, ops: Vec<Op>) -> Put {
    let mut reason = String::new();
    for _ in 0..PUT_ATTEMPTS {
        match tokio::time::timeout(shared.settings.commit_timeout, shared.store.txn(ops.clone())).await {
            Ok(Ok(TxnReply::Committed(_))) => return Put::Done,
            Ok(Ok(TxnReply::RolledBack(errors))) if errors.iter().any(|error| error.op_index == 0) => {
                return Put::DutyLost;
            }
            Ok(Ok(TxnReply::RolledBack(_))) => return Put::Not("Consul took a large value back".into()),
            Ok(Err(error @ (StoreError::NotSent(_) | StoreError::Refused { .. }))) => {
                return Put::Not(error.to_string());
            }
            Ok(Err(error)) => reason = error.to_string(),
            Err(_) => reason = "Consul did not answer in time".into(),
        }
    }
    Put::Not(reason)
}

//! A model that many share, with tokio's clock: the seam that the engine runs over.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use causeway::{
    lifecycle,
    model::{
        kv::{Op, Pair, TxnReply},
        secret::SecretText,
        session::{SessionId, SessionSpec},
    },
    sync::store::{Answer, Read, Right, Store, StoreError},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Ask, Model, Told};

/// A handle on a model. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Shared {
    model: Arc<Mutex<Model>>,
    began: Instant,
    /// Whoever waits is woken in the order in which they came, so that a seed gives the same again.
    changes: Arc<Notify>,
    /// Time does not pass for who looks through this handle.
    is_timeless: bool,
}

/// What becomes of blocking queries when a snapshot is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// They end with what there is, though it may be no newer.
    End,
    /// They go on to the end of their time, as was measured after a restore.
    Hang,
}

impl Shared {
    /// The model's time begins now.
    pub(crate) fn new(model: Model) -> Self {
        Self {
            model: Arc::new(Mutex::new(model)),
            began: lifecycle::now(),
            changes: Arc::default(),
            is_timeless: false,
        }
    }

    /// For who has another clock: time passes only by other handles.
    pub(crate) fn timeless(&self) -> Self {
        Self { is_timeless: true, ..self.clone() }
    }

    /// Looks at the model or changes it, at the time that it is.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Model) -> T) -> T {
        let result = act(&mut self.at_now());
        self.changes.notify_waiters();
        result
    }

    /// The same for what changes nothing: no wait looks again.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        look(&self.at_now())
    }

    /// One exchange over HTTP, waits included.
    pub(crate) async fn ask(&self, ask: &Ask) -> Told {
        let Some((index, wait)) = ask.wait() else {
            return self.with(|model| model.answer(ask));
        };
        let look = |model: &mut Model| model.answer(ask);
        self.wait(look, |told: &Told| told.index.unwrap_or(0), index, wait).await
    }

    fn at_now(&self) -> MutexGuard<'_, Model> {
        let mut model = self.model.lock().unwrap();
        if !self.is_timeless {
            model.advance(lifecycle::now().duration_since(self.began));
        }
        model
    }

    /// Looks until the index is beyond `index`.
    async fn wait<T>(
        &self,
        mut look: impl FnMut(&mut Model) -> T,
        index_of: impl Fn(&T) -> u64,
        index: u64,
        wait: Duration,
    ) -> T {
        let end = lifecycle::now() + wait;
        let dropped = self.look(|model| model.dropped_waits);
        loop {
            let mut change = std::pin::pin!(self.changes.notified());
            change.as_mut().enable();
            let (seen, expiry, is_dropped) = {
                let mut model = self.at_now();
                (look(&mut model), model.next_expiry(), model.dropped_waits != dropped)
            };
            if index_of(&seen) > index || lifecycle::now() >= end || is_dropped {
                return seen;
            }
            // A session that ends by itself is a change that nobody announces.
            let next = expiry.map_or(end, |at| end.min(self.began + at));
            tokio::select! {
                biased;
                () = change => {}
                () = sleep_until(next) => {}
            }
        }
    }

    async fn read<T>(&self, read: Read, look: impl Fn(&Model) -> (u64, T)) -> Answer<T> {
        let (index, value) = match read {
            Read::Wait { index, wait } if index > 0 => {
                self.wait(|model| look(model), |(index, _)| *index, index, wait).await
            }
            _ => self.look(look),
        };
        Answer { value, index }
    }
}

impl Store for Shared {
    async fn txn(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        self.with(|model| model.txn(&ops))
    }

    async fn get(&self, key: &str, read: Read) -> Result<Answer<Option<Pair>>, StoreError> {
        Ok(self.read(read, |model| model.get(key)).await)
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Answer<Vec<Pair>>, StoreError> {
        Ok(self.read(read, |model| model.list(prefix)).await)
    }

    async fn create_session(&self, spec: &SessionSpec) -> Result<SessionId, StoreError> {
        let refused = |reason| StoreError::Refused { status: 500, reason };
        self.with(|model| model.create_session(spec)).map_err(refused)
    }

    async fn renew_session(&self, id: &SessionId) -> Result<bool, StoreError> {
        Ok(self.with(|model| model.renew_session(id)))
    }

    async fn destroy_session(&self, id: &SessionId) -> Result<(), StoreError> {
        self.with(|model| model.end_session(id));
        Ok(())
    }

    async fn authorize(
        &self,
        _token: Option<&SecretText>,
        rights: &[Right],
    ) -> Result<Vec<bool>, StoreError> {
        Ok(vec![true; rights.len()])
    }
}

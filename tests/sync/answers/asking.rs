//! A Consul as the agent asks it, over HTTP. Where the test's clock jumps, the exchange is made on a clock that runs, and takes
//! no time on the other: what comes after minutes comes at once, and the client is the real one all the same.

use std::{
    sync::{OnceLock, mpsc::sync_channel},
    time::Duration,
};

use causeway::{
    model::{
        kv::{Op, Pair, TxnReply},
        secret::SecretText,
        session::{SessionId, SessionSpec},
    },
    sync::store::{Answer, Read, Right, Store, StoreError, consul::ConsulStore},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};

use crate::sync::consul_model::Shared;

/// How time passes in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// As it does.
    Runs,
    /// To what happens next (`start_paused`).
    Jumps,
}

impl Clock {
    /// Between two looks of a test.
    pub(super) fn step(self) -> Duration {
        match self {
            Self::Runs => Duration::from_millis(1),
            Self::Jumps => Duration::from_millis(20),
        }
    }
}

/// Does it where the clock runs, while nothing else happens here.
pub(super) fn elsewhere<T: Send + 'static>(act: impl Future<Output = T> + Send + 'static) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let make = || Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (done, is_done) = sync_channel(1);
    RUNTIME.get_or_init(make).handle().spawn(async move { done.send(act.await) });
    is_done.recv().unwrap()
}

/// One Consul. Clones are the same one.
#[derive(Clone)]
pub(super) struct Asking {
    store: ConsulStore,
    consul: Shared,
    clock: Clock,
}

impl Asking {
    /// Over this model, which `store` asks for.
    pub(super) fn new(store: ConsulStore, consul: Shared, clock: Clock) -> Self {
        Self { store, consul, clock }
    }

    async fn ask<T, F>(&self, act: impl FnOnce(ConsulStore) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let exchange = act(self.store.clone());
        if self.clock == Clock::Runs {
            return exchange.await;
        }
        // What time has done by now is done first: sessions end.
        self.consul.look(|_| ());
        elsewhere(exchange)
    }

    /// A wait is waited here, on the model.
    async fn waited(&self, key: &str, read: Read) -> Read {
        if self.clock == Clock::Runs || !matches!(read, Read::Wait { .. }) {
            return read;
        }
        drop(self.consul.get(key, read).await);
        Read::Default
    }
}

impl Store for Asking {
    async fn txn(&self, ops: Vec<Op>) -> Result<TxnReply, StoreError> {
        self.ask(|store| async move { store.txn(ops).await }).await
    }

    async fn get(&self, key: &str, read: Read) -> Result<Answer<Option<Pair>>, StoreError> {
        let (read, key) = (self.waited(key, read).await, key.to_owned());
        self.ask(|store| async move { store.get(&key, read).await }).await
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Answer<Vec<Pair>>, StoreError> {
        let prefix = prefix.to_owned();
        self.ask(|store| async move { store.list(&prefix, read).await }).await
    }

    async fn scan(
        &self,
        prefix: &str,
        read: Read,
        pages: mpsc::Sender<Vec<Pair>>,
    ) -> Result<Answer<u64>, StoreError> {
        if self.clock == Clock::Runs {
            return self.store.scan(prefix, read, pages).await;
        }
        // Its reader is here, and waits.
        let Answer { value, index } = self.list(prefix, read).await?;
        let count = value.len() as u64;
        match pages.send(value).await {
            Ok(()) => Ok(Answer { value: count, index }),
            Err(_) => Err(StoreError::Unusable("the list was given up by its reader".to_owned())),
        }
    }

    async fn create_session(&self, spec: &SessionSpec) -> Result<SessionId, StoreError> {
        let spec = spec.clone();
        self.ask(|store| async move { store.create_session(&spec).await }).await
    }

    async fn renew_session(&self, id: &SessionId) -> Result<bool, StoreError> {
        let id = id.clone();
        self.ask(|store| async move { store.renew_session(&id).await }).await
    }

    async fn destroy_session(&self, id: &SessionId) -> Result<(), StoreError> {
        let id = id.clone();
        self.ask(|store| async move { store.destroy_session(&id).await }).await
    }

    async fn authorize(&self, token: Option<&SecretText>, rights: &[Right]) -> Result<Vec<bool>, StoreError> {
        let (token, rights) = (token.cloned(), rights.to_vec());
        self.ask(|store| async move { store.authorize(token.as_ref(), &rights).await }).await
    }
}

//! The one connection that carries the calls to a target: opened by whoever needs it first, while the others wait.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use crate::{
    lifecycle,
    model::instance::HostPort,
    sync::peer::{PeerError, grpc::link::Link},
};

/// A target that was just found closed is not tried again at once by each of many callers.
const REST: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Default)]
struct State {
    link: Option<Arc<Link>>,
    failed: Option<(Instant, PeerError)>,
}

impl Slot {
    /// Whether somebody could use its connection at once.
    pub(super) fn is_open(&self) -> bool {
        // Who holds the lock is about to open one.
        self.0.try_lock().map_or(true, |state| state.link.as_ref().is_some_and(|link| link.is_usable()))
    }

    /// The connection, opened if there is none. Who waited for an attempt that failed shares its outcome.
    pub(super) async fn link<F>(
        &self,
        open: impl FnOnce(Option<HostPort>) -> F,
    ) -> Result<Arc<Link>, PeerError>
    where
        F: Future<Output = Result<Link, PeerError>>,
    {
        let arrived = lifecycle::now();
        let mut state = self.0.lock().await;
        if let Some(link) = state.link.as_ref().filter(|link| link.is_usable()) {
            return Ok(link.clone());
        }
        if let Some((at, error)) = &state.failed
            && *at + REST > arrived
        {
            return Err(error.clone());
        }
        let preferred = state.link.take().map(|link| link.way().clone());
        match open(preferred).await {
            Ok(link) => {
                let link = Arc::new(link);
                *state = State { link: Some(link.clone()), failed: None };
                Ok(link)
            }
            Err(error) => {
                state.failed = Some((lifecycle::now(), error.clone()));
                Err(error)
            }
        }
    }
}

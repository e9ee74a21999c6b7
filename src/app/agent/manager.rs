//! What the service manager is told, and when.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    app::sources::readiness,
    lifecycle::{Stop, notify::Notify},
    model::catalog::{Catalog, Topic},
};

/// How long the start waits for Consul. Longer would hold up a boot or whoever starts the agent, and what serves can
/// be counted as started: Envoys may connect and wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nothing to tell.
const SERVING: &str = "serving";

/// What the end of the process takes after the drain.
const MARGIN: Duration = Duration::from_secs(5);

/// The way to the service manager, and whether it counts the agent as started.
#[derive(Clone, Debug)]
pub(super) struct Manager {
    notify: Notify,
    has_started: watch::Sender<bool>,
}

impl Manager {
    pub(super) fn new(notify: Notify) -> Self {
        Self { notify, has_started: watch::Sender::new(false) }
    }

    /// Tells health checks once Consul was heard, and the service manager then or when its patience is over; goes on
    /// until the stop.
    pub(super) async fn tell_ready(
        self,
        told: watch::Sender<bool>,
        mut catalog: watch::Receiver<Arc<Catalog>>,
        stop: Stop,
    ) {
        self.notify.status(&status(&catalog.borrow()));
        let mut patience = Some(PATIENCE);
        let is_heard = loop {
            tokio::select! {
                () = stop.wait() => return,
                ready = catalog.wait_for(|catalog| readiness(catalog).ready) => break ready.is_ok(),
                () = over(patience) => {}
            }
            patience = None;
            let status = status(&catalog.borrow());
            warn!(%status, "agent started without Consul");
            self.started(&status);
        };
        if !is_heard {
            return;
        }
        let mut now = status(&catalog.borrow());
        self.started(&now);
        told.send_replace(true);
        info!("agent ready");
        while changed(&mut catalog, &stop).await {
            let next = status(&catalog.borrow());
            if next != now {
                self.notify.status(&next);
                now = next;
            }
        }
        stop.wait().await;
    }

    pub(super) fn reloading(&self) {
        self.notify.reloading();
    }

    /// Ends a reload, with what became of it unless there is worse to tell. Before the agent has started a reload does
    /// not make it so.
    pub(super) fn reloaded(&self, catalog: &Catalog, outcome: &str) {
        if *self.has_started.borrow() {
            let status = status(catalog);
            self.notify.ready(if status == SERVING { outcome } else { &status });
        }
    }

    pub(super) fn stopping(&self, drain: Duration) {
        self.notify.stopping(drain + MARGIN);
    }

    pub(super) fn watchdog(&self, stop: Stop) -> impl Future<Output = ()> + use<> {
        self.notify.clone().watch(stop)
    }

    fn started(&self, status: &str) {
        self.has_started.send_replace(true);
        self.notify.ready(status);
    }
}

/// Whether there is another catalog; none comes after the stop.
async fn changed(catalog: &mut watch::Receiver<Arc<Catalog>>, stop: &Stop) -> bool {
    tokio::select! {
        () = stop.wait() => false,
        changed = catalog.changed() => changed.is_ok(),
    }
}

async fn over(patience: Option<Duration>) {
    match patience {
        Some(patience) => tokio::time::sleep(patience).await,
        None => std::future::pending().await,
    }
}

fn status(catalog: &Catalog) -> String {
    let readiness = readiness(catalog);
    if !readiness.ready {
        return format!("waiting for {}", readiness.waiting_for.join(", "));
    }
    match catalog.heard(&Topic::Agent).and_then(|heard| heard.stale.as_ref()) {
        Some(reason) => format!("serving what was known last; waiting for the local Consul agent: {reason}"),
        None => SERVING.into(),
    }
}

//! How tasks start and stop, and where the clock is read.
//!
//! Every task has a name, an owner and a way to stop: [`spawn`] gives the owner a [`Task`], dropping it ends the
//! task. [`Stop`] is the one stop signal that everything long-lived listens to.

pub(crate) mod clock;
mod memory;
pub mod notify;
pub mod pace;
pub mod process;
pub mod runtime;
pub mod signals;
pub mod supervise;

use std::future::Future;

use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tracing::Instrument;

pub use crate::lifecycle::clock::wall_clock;

/// The monotonic clock. Shells read it here and pass the value on; tests pause it.
pub fn now() -> Instant {
    Instant::now()
}

/// The name of this machine, as the kernel says; empty where it has none. Not from `/proc/sys`, which a unit may not see.
pub fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// A task and its owner's hold on it. Dropping it aborts the task.
#[derive(Debug)]
#[must_use = "dropping a task ends it"]
pub struct Task<T> {
    name: &'static str,
    handle: JoinHandle<T>,
}

/// How a task ended when it did not return: it panicked or was aborted.
#[derive(Debug, thiserror::Error)]
#[error("task {name} ended unexpectedly: {reason}")]
pub struct TaskFailed {
    /// The task's name.
    pub name: &'static str,
    /// What tokio says of it.
    pub reason: String,
}

/// Starts a task named for what it does (`xds.publish`); the name is on all its log lines.
#[expect(clippy::disallowed_methods, reason = "the one place where tasks start")]
pub fn spawn<F>(name: &'static str, future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let future = future.instrument(tracing::info_span!("task", task = name));
    let handle = match process::current() {
        Some(turns) => tokio::spawn(process::within(turns, future)),
        None => tokio::spawn(future),
    };
    Task { name, handle }
}

impl<T> Task<T> {
    /// The task's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Waits for its end. Cancel-safe: the task goes on if the wait is dropped.
    pub async fn join(&mut self) -> Result<T, TaskFailed> {
        (&mut self.handle).await.map_err(|error| TaskFailed { name: self.name, reason: error.to_string() })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// The stop signal. Clones all see the same signal.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Raises the stop signal, by [`StopSource::stop`] or by being dropped.
#[derive(Debug)]
pub struct StopSource(watch::Sender<bool>);

impl Stop {
    /// A signal and what raises it.
    pub fn pair() -> (StopSource, Self) {
        let (sender, receiver) = watch::channel(false);
        (StopSource(sender), Self(receiver))
    }

    /// Whether the signal was raised.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the signal is raised. Cancel-safe.
    pub async fn wait(&self) {
        // A dropped source means that its owner is gone: that is a stop as well.
        let _ = self.0.clone().wait_for(|stop| *stop).await;
    }
}

impl StopSource {
    /// Raises the signal.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests;

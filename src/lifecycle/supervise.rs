//! The critical tasks: none of them may end before it is told to. Their owner notices, and ends the others in order.

use std::{fmt, future::Future, time::Duration};

use futures_util::future::select_all;

use crate::lifecycle::{Stop, StopSource, Task, TaskFailed, now, spawn};

/// How a task came to its end: with nothing to say, or with a reason.
pub trait Ending: Send + 'static {
    /// Why it ended, if it says so.
    fn reason(self) -> Option<String>;
}

impl Ending for () {
    fn reason(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display + Send + 'static> Ending for Result<(), E> {
    fn reason(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// Owns the critical tasks. Dropping it aborts them.
#[derive(Debug)]
pub struct Supervisor {
    source: StopSource,
    stop: Stop,
    tasks: Vec<Task<Option<String>>>,
}

/// Why supervision ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupervisorEnd {
    /// The stop was asked for.
    Asked,
    /// A task ended although nothing asked it to: the agent must stop, and exit with an error.
    TaskEnded {
        /// The task.
        name: &'static str,
        /// What it said, or that it panicked.
        reason: String,
    },
}

impl fmt::Display for SupervisorEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("asked to stop"),
            Self::TaskEnded { name, reason } => write!(f, "task {name} ended unexpectedly: {reason}"),
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// One without tasks.
    pub fn new() -> Self {
        let (source, stop) = Stop::pair();
        Self { source, stop, tasks: Vec::new() }
    }

    /// The signal that tells its tasks to end; give it to each of them.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Starts a critical task.
    pub fn start<F>(&mut self, name: &'static str, future: F)
    where
        F: Future<Output: Ending> + Send + 'static,
    {
        self.tasks.push(spawn(name, async move { future.await.reason() }));
    }

    /// Waits until the stop is asked for or a task ends. Cancel-safe.
    pub async fn run(&mut self, asked: &Stop) -> SupervisorEnd {
        if self.tasks.is_empty() {
            asked.wait().await;
            return SupervisorEnd::Asked;
        }
        let (ended, index) = tokio::select! {
            biased;
            () = asked.wait() => return SupervisorEnd::Asked,
            (ended, index, _) = select_all(self.tasks.iter_mut().map(|task| Box::pin(task.join()))) => (ended, index),
        };
        let name = self.tasks.swap_remove(index).name();
        let reason = match ended {
            Ok(reason) => reason.unwrap_or_else(|| "it returned without a reason".into()),
            Err(TaskFailed { reason, .. }) => reason,
        };
        SupervisorEnd::TaskEnded { name, reason }
    }

    /// Tells all tasks to end and waits for them, at most `deadline` and not beyond `hurry`; then aborts the rest.
    /// Gives the names of those that had not ended.
    pub async fn drain(mut self, deadline: Duration, hurry: &Stop) -> Vec<&'static str> {
        self.source.stop();
        let until = now() + deadline;
        let mut late = Vec::new();
        for task in &mut self.tasks {
            tokio::select! {
                biased;
                ended = task.join() => if let Err(error) = ended {
                    tracing::warn!(%error, "task failed while stopping");
                },
                () = hurry.wait() => late.push(task.name()),
                () = tokio::time::sleep_until(until) => late.push(task.name()),
            }
        }
        late
    }
}

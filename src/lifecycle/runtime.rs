//! The runtime that carries the agent's tasks, the same wherever the agent is measured.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// The agent shares its machine with the services it is for: two threads carry its work on any of them.
const WORKER_THREADS: usize = 2;

/// Makes it.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()
}

//! The runtime that carries the agent's tasks, the same wherever the agent is measured.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// The agent shares its machine with the services it is for: two threads carry its work on any of them.
const WORKER_THREADS: usize = 2;

/// After so many turns of tasks a busy thread looks for what came over the network. A change goes to all streams before the
/// first ACKs of it are read: with Tokio's 61 they got in between, and the last of 1,000 streams had it 15 % later. A push
/// takes some 20 µs, so that what comes and what is due wait for some 20 ms then, and for nothing when there is nothing else to do.
const EVENT_INTERVAL: u32 = 1024;

/// Makes it.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .event_interval(EVENT_INTERVAL)
        .enable_all()
        .build()
}

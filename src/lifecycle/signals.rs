//! Process signals as values: stop, hurry, reload. What they lead to is decided by those who listen.

use std::io;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::lifecycle::{Stop, StopSource, Task, spawn};

/// The signals of this process. Dropping it stops listening; the process then takes signals as they come no more.
#[derive(Debug)]
pub struct Signals {
    stop: Stop,
    hurry: Stop,
    reloads: watch::Receiver<u64>,
    _listener: Task<()>,
}

struct Sources {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Starts to listen for `SIGTERM`, `SIGINT` and `SIGHUP`.
    ///
    /// # Errors
    /// The process may not install a handler.
    pub fn listen() -> io::Result<Self> {
        let sources = Sources {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        };
        let (stop_source, stop) = Stop::pair();
        let (hurry_source, hurry) = Stop::pair();
        let (reload, reloads) = watch::channel(0);
        let listener = spawn("lifecycle.signals", listen(sources, stop_source, hurry_source, reload));
        Ok(Self { stop, hurry, reloads, _listener: listener })
    }

    /// Raised by the first `SIGTERM` or `SIGINT`.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Raised by the second one: drain no longer.
    pub fn hurry(&self) -> Stop {
        self.hurry.clone()
    }

    /// Counts `SIGHUP`. Those that come while one is handled coalesce.
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.clone()
    }
}

async fn listen(mut sources: Sources, stop: StopSource, hurry: StopSource, reload: watch::Sender<u64>) {
    let mut stops_heard = 0_u32;
    loop {
        let name = tokio::select! {
            Some(()) = sources.terminate.recv() => "SIGTERM",
            Some(()) = sources.interrupt.recv() => "SIGINT",
            Some(()) = sources.hangup.recv() => {
                tracing::info!("SIGHUP: reload");
                reload.send_modify(|count| *count += 1);
                continue;
            }
            else => return,
        };
        stops_heard += 1;
        if stops_heard == 1 {
            tracing::info!(signal = name, "stopping; a second signal stops at once");
            stop.stop();
        } else {
            tracing::warn!(signal = name, "stopping at once");
            hurry.stop();
        }
    }
}

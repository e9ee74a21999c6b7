//! The command that runs under the lock: started, signalled, waited for.

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::process::{Child as Process, Command};

use crate::sync::lock::wire::Granted;

/// The token of the grant, for `X-Lock-Token` and for whatever else checks tokens.
const TOKEN: &str = "CAUSEWAY_LOCK_TOKEN";
/// The key that is held, for `X-Lock`.
const NAME: &str = "CAUSEWAY_LOCK_NAME";

/// What a shell answers for a command that it cannot start, and for one that it cannot find.
const CANNOT_START: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The command. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    /// It leads a process group of its own with this number, which is signalled as one.
    group: Option<Pid>,
}

impl Child {
    /// Starts it with the grant in its environment.
    pub(super) fn start(command: &[OsString], granted: &Granted) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        // On a terminal it stays in our group: another one could not read from it.
        let is_group = !io::stdin().is_terminal();
        let mut start = Command::new(program);
        start.args(arguments).env(TOKEN, &granted.token).env(NAME, &granted.key).kill_on_drop(true);
        if is_group {
            start.process_group(0);
        }
        let process = start.spawn()?;
        let group =
            process.id().filter(|_| is_group).and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        Ok(Self { process, group })
    }

    /// Waits for its end. Cancel-safe.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Signals it and, but on a terminal, what it started.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw) else {
            return;
        };
        // It may have ended just now.
        let _ = self.group.map_or_else(|| signal::kill(pid, signal), |group| signal::killpg(group, signal));
    }

    /// Kills what it started and left behind when it ended, a moment ago. Its number stays that of its group as long as
    /// anything is left of that.
    pub(super) fn kill_rest(&self) {
        if let Some(group) = self.group {
            let _ = signal::killpg(group, Signal::SIGKILL);
        }
    }

    /// Passes on a signal that we got; the terminal has sent its own to both of us.
    pub(super) fn pass_on(&self, signal: Signal) {
        let is_of_terminal = matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
        if self.group.is_some() || !is_of_terminal {
            self.signal(signal);
        }
    }
}

/// The exit code that stands for how it ended, as with a shell.
pub(super) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The exit code of one that did not start.
pub(super) fn code_of_start(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_START }
}

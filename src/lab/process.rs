//! Owns the life of one process: starting it, noticing its end, ending it, and telling it from another that was
//! given its pid later. It must not know what the process is for.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::{
    lab::plan::ProcessPlan,
    lifecycle::{self, Task},
};

/// A process told by pid and start time: a pid alone may have passed to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid.
    pub pid: u32,
    /// When it started, in clock ticks since the machine's start, as in field 22 of `/proc/<pid>/stat`.
    pub start_ticks: u64,
}

impl ProcessId {
    /// The identity of the process that has this pid now; none if there is none, or only its remains.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        start_ticks(&stat).map(|start_ticks| Self { pid, start_ticks })
    }

    /// This very process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal, unless the process is gone. A pid that was given to another process is never signalled.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let Ok(pid) = i32::try_from(self.pid) else { return Ok(()) };
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The start time in the text of `/proc/<pid>/stat`; none for a zombie, which has ended in all but name.
fn start_ticks(stat: &str) -> Option<u64> {
    // The command stands in brackets and may itself hold spaces and brackets: count from the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let state = *fields.first()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// The end of a process that nobody asked to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The node it ran on.
    pub node: String,
    /// The process.
    pub process: String,
    /// How it ended, in the system's words.
    pub status: String,
}

/// A process this lab started. Dropping it kills the process.
#[derive(Debug)]
pub struct Running {
    /// Which process it is.
    pub id: ProcessId,
    /// What it was started from.
    pub plan: ProcessPlan,
    ended: watch::Receiver<Option<String>>,
    is_expected: Arc<AtomicBool>,
    _reaper: Task<()>,
}

/// Starts a process in a process group of its own, so that a terminal's Ctrl-C reaches the lab and not its parts.
/// Its unexpected end is told to `deaths`.
pub fn start(node: &str, plan: &ProcessPlan, deaths: mpsc::Sender<Death>) -> io::Result<Running> {
    let mut child = command(plan)?.kill_on_drop(true).spawn()?;
    let id = child.id().and_then(ProcessId::of);
    // A process that ended at once has no identity any more; its status tells why.
    let id = id.unwrap_or(ProcessId { pid: child.id().unwrap_or_default(), start_ticks: 0 });
    let (ended_sender, ended) = watch::channel(None);
    let is_expected = Arc::new(AtomicBool::new(false));
    let (death, expected) = ((node.to_owned(), plan.name.clone()), Arc::clone(&is_expected));
    let reaper = lifecycle::spawn("lab.reap", async move {
        let status = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        ended_sender.send_replace(Some(status.clone()));
        if !expected.load(Ordering::Acquire) {
            // Nobody listens any more when the lab itself is going: then the death is no news.
            let _ = deaths.send(Death { node: death.0, process: death.1, status }).await;
        }
    });
    Ok(Running { id, plan: plan.clone(), ended, is_expected, _reaper: reaper })
}

fn command(plan: &ProcessPlan) -> io::Result<tokio::process::Command> {
    let log = open_log(plan)?;
    let mut command = Command::new(&plan.program);
    command.args(&plan.args).process_group(0).stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log);
    // What the user's shell says of another Consul must not reach this one.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"CONSUL_") {
            command.env_remove(name);
        }
    }
    command.envs(&plan.env);
    Ok(command.into())
}

fn open_log(plan: &ProcessPlan) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(&plan.log)
}

impl Running {
    /// How it ended, once it has.
    pub fn ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// A view of its end that can be waited for without holding the process.
    pub fn watch_end(&self) -> watch::Receiver<Option<String>> {
        self.ended.clone()
    }

    /// Marks its end as asked for, so that it is no news, and signals it.
    pub fn end(&self, signal: Signal) -> io::Result<()> {
        self.is_expected.store(true, Ordering::Release);
        if self.ended().is_some() { Ok(()) } else { self.id.signal(signal) }
    }
}

/// Waits for an end, at most this long. Returns whether it came.
pub async fn ended_within(mut ended: watch::Receiver<Option<String>>, limit: Duration) -> bool {
    // A closed channel means that the reaper is gone, and it goes only after the process.
    tokio::time::timeout(limit, ended.wait_for(Option::is_some)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use super::*;
    use crate::lab::plan::Stage;

    fn sleeper(dir: &std::path::Path) -> ProcessPlan {
        ProcessPlan {
            name: "sleeper".into(),
            stage: Stage::Service,
            program: PathBuf::from("/bin/sleep"),
            args: vec!["600".into()],
            env: BTreeMap::new(),
            log: dir.join("sleeper.log"),
        }
    }

    #[test]
    fn start_time_is_read_behind_the_last_bracket() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(start_ticks(&format!("77 (a) b (c)) {fields}")), Some(4242));
        assert_eq!(start_ticks(&format!("77 (x) {}", fields.replacen('S', "Z", 1))), None);
        assert_eq!(start_ticks("garbage"), None);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        let earlier = ProcessId { start_ticks: own.start_ticks - 1, ..own };
        assert!(!earlier.is_alive());
        // Were it signalled, this test would end here.
        earlier.signal(Signal::SIGKILL).unwrap();
    }

    #[tokio::test]
    async fn an_unexpected_end_is_news_and_an_expected_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (deaths, mut news) = mpsc::channel(4);
        let quiet = start("n", &sleeper(dir.path()), deaths.clone()).unwrap();
        quiet.end(Signal::SIGTERM).unwrap();
        assert!(ended_within(quiet.watch_end(), Duration::from_secs(5)).await);
        let loud = start("n", &sleeper(dir.path()), deaths).unwrap();
        loud.id.signal(Signal::SIGKILL).unwrap();
        let death = news.recv().await.unwrap();
        assert_eq!((death.node.as_str(), death.process.as_str()), ("n", "sleeper"));
        assert!(death.status.contains("signal: 9"), "{}", death.status);
        assert!(!loud.id.is_alive());
        assert!(news.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_does_not_start() {
        let dir = tempfile::tempdir().unwrap();
        let plan = ProcessPlan { program: "/nonexistent/program".into(), ..sleeper(dir.path()) };
        let (deaths, _news) = mpsc::channel(1);
        assert_eq!(start("n", &plan, deaths).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

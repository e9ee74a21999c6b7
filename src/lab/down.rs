//! Owns taking a lab down from outside, whether its supervisor still lives or was killed. It must not know what
//! the lab consists of beyond its state file.

use std::{fs, io, path::Path, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    lab::{
        LabError,
        process::ProcessId,
        state::{self, LabFile, LabState},
    },
    lifecycle,
};

/// Longer than a whole orderly stop with every stage at its limit.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(60);
/// A killed process goes as soon as the system gets to it.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(30);

/// What there was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// Nothing ran.
    WasStopped,
    /// The supervisor stopped everything.
    Stopped,
    /// The supervisor was gone; this many processes that it had left were ended.
    Cleaned(usize),
}

/// Stops the lab in this folder. Stopping a stopped lab is no error.
///
/// Errors: the state file is unreadable, or something does not end.
pub async fn down(dir: &Path) -> Result<Down, LabError> {
    let was_held = state::is_held(dir)?;
    if was_held {
        stop_supervisor(dir).await?;
    }
    let cleaned = clean_leftovers(dir).await?;
    Ok(match (was_held, cleaned) {
        (true, 0) => Down::Stopped,
        (false, 0) => Down::WasStopped,
        (_, cleaned) => Down::Cleaned(cleaned),
    })
}

/// Asks the supervisor to stop and waits until it let go of the folder; kills it if it never does.
async fn stop_supervisor(dir: &Path) -> Result<(), LabError> {
    let deadline = lifecycle::now() + SUPERVISOR_LIMIT;
    let mut asked = None;
    while state::is_held(dir)? {
        // A supervisor that has just started may not have written its file yet.
        let supervisor = LabFile::read(dir)?.and_then(|file| file.supervisor).filter(ProcessId::is_alive);
        if let Some(supervisor) = supervisor.filter(|found| asked != Some(*found)) {
            supervisor.signal(Signal::SIGTERM).map_err(crate::lab::error::file("signal the lab in", dir))?;
            asked = Some(supervisor);
        }
        if lifecycle::now() > deadline {
            return kill_all(&asked.into_iter().collect::<Vec<_>>(), "the lab's supervisor").await;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Ends what a killed supervisor left, told by pid and start time, and marks the lab stopped. The caller has made
/// sure that no supervisor lives. Returns how many processes were ended.
pub(crate) async fn clean_leftovers(dir: &Path) -> Result<usize, LabError> {
    let Some(mut file) = LabFile::read(dir)? else { return Ok(0) };
    let left: Vec<ProcessId> =
        file.processes.iter().map(|process| process.id).filter(ProcessId::is_alive).collect();
    kill_all(&left, "a process of the lab").await?;
    if let Some(sockets) = file.socket_dir.take() {
        match fs::remove_dir_all(&sockets) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(crate::lab::error::file("remove", sockets)(error));
            }
            _ => {}
        }
    }
    if file.state != LabState::Stopped {
        file.state = LabState::Stopped;
        file.processes.clear();
        file.write(dir)?;
    }
    Ok(left.len())
}

async fn kill_all(processes: &[ProcessId], what: &str) -> Result<(), LabError> {
    let deadline = lifecycle::now() + KILL_LIMIT;
    for process in processes {
        // Whether it worked is seen below.
        let _ = process.signal(Signal::SIGKILL);
    }
    while let Some(process) = processes.iter().find(|process| process.is_alive()) {
        if lifecycle::now() > deadline {
            return Err(LabError::WillNotStop { what: what.into(), pid: process.pid });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use super::*;
    use crate::lab::{
        LabOptions,
        plan::{Plan, Stage},
        state::ProcessRecord,
    };

    fn record(id: ProcessId) -> ProcessRecord {
        ProcessRecord { node: "primary-server".into(), name: "consul".into(), stage: Stage::Server, id }
    }

    #[tokio::test]
    async fn what_a_killed_lab_left_is_ended_and_a_reused_pid_is_spared() {
        let dir = tempfile::tempdir().unwrap();
        let mut left = Command::new("/bin/sleep").arg("600").process_group(0).spawn().unwrap();
        let left_id = ProcessId::of(left.id()).unwrap();
        let own = ProcessId::own().unwrap();
        let mut file = LabFile::starting(&Plan::new(&LabOptions::example(), 0));
        file.supervisor = None;
        // This very process stands for one that was given the pid of a lab's process later.
        file.processes = vec![record(left_id), record(ProcessId { start_ticks: own.start_ticks - 1, ..own })];
        file.write(dir.path()).unwrap();

        assert_eq!(down(dir.path()).await.unwrap(), Down::Cleaned(1));
        assert!(!left.wait().unwrap().success());
        assert_eq!(state::status(dir.path()).unwrap().state, LabState::Stopped);
        assert_eq!(down(dir.path()).await.unwrap(), Down::WasStopped);
    }

    #[tokio::test]
    async fn a_folder_without_a_lab_has_nothing_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(down(dir.path()).await.unwrap(), Down::WasStopped);
        assert_eq!(down(&dir.path().join("none")).await.unwrap(), Down::WasStopped);
    }
}

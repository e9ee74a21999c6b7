//! Owns the running processes of one lab and keeps the state file true to them. It must not know in which order a
//! lab comes up, nor what its processes do.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};

use crate::lab::{
    LabError,
    plan::{Plan, ProcessPlan, Stage},
    process::{self, Death, Running},
    state::{LabFile, LabState, ProcessRecord},
};

/// How long the processes of one stage may take to end by themselves. A Consul client takes 4.6 s to leave, most of
/// it a fixed wait for its farewell to spread.
const STAGE_LIMIT: Duration = Duration::from_secs(10);
/// A killed process ends as soon as the system gets to it; this is for a machine under load.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A process by node and name.
pub(crate) type Place = (String, String);

/// The running processes. Dropping it kills them all.
#[derive(Debug)]
pub(crate) struct Runner {
    plan: Plan,
    deaths: mpsc::Sender<Death>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    file: LabFile,
    running: BTreeMap<Place, Running>,
}

impl Runner {
    /// A lab of which nothing runs yet; its state file says `starting` from now on.
    pub(crate) fn new(plan: Plan, deaths: mpsc::Sender<Death>) -> Result<Self, LabError> {
        let file = LabFile::starting(&plan);
        file.write(&plan.dir)?;
        Ok(Self { plan, deaths, held: Mutex::new(Held { file, running: BTreeMap::new() }) })
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Every change below leaves the value whole, also when a later one panics.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process as planned; the same again when it has ended.
    pub(crate) fn start(&self, node: &str, name: &str) -> Result<(), LabError> {
        let plan = self.process_plan(node, name)?;
        self.start_plan(node, &plan)
    }

    fn process_plan(&self, node: &str, name: &str) -> Result<ProcessPlan, LabError> {
        if let Some(running) = self.held().running.get(&place(node, name)) {
            return Ok(running.plan.clone());
        }
        let planned = self.plan.node(node).and_then(|node| node.process(name));
        planned.cloned().ok_or_else(|| self.unknown(node, name))
    }

    /// Starts any process on a node, and records it before returning.
    pub(crate) fn start_plan(&self, node: &str, plan: &ProcessPlan) -> Result<(), LabError> {
        let started = process::start(node, plan, self.deaths.clone()).map_err(|reason| LabError::Spawn {
            node: node.into(),
            process: plan.name.clone(),
            program: plan.program.clone(),
            reason,
        })?;
        let record =
            ProcessRecord { node: node.into(), name: plan.name.clone(), stage: plan.stage, id: started.id };
        let mut held = self.held();
        held.file.processes.retain(|other| (other.node.as_str(), other.name.as_str()) != (node, &plan.name));
        held.file.processes.push(record);
        held.running.insert(place(node, &plan.name), started);
        held.file.write(&self.plan.dir)
    }

    /// A view of a started process's end, and its log.
    pub(crate) fn watch(
        &self,
        node: &str,
        name: &str,
    ) -> Result<(watch::Receiver<Option<String>>, PathBuf), LabError> {
        let held = self.held();
        let running = held.running.get(&place(node, name));
        running.map(|it| (it.watch_end(), it.plan.log.clone())).ok_or_else(|| self.unknown(node, name))
    }

    pub(crate) fn pid(&self, node: &str, name: &str) -> Result<u32, LabError> {
        let pid = self.held().running.get(&place(node, name)).map(|running| running.id.pid);
        pid.ok_or_else(|| self.unknown(node, name))
    }

    /// Ends one process with this signal, and with SIGKILL when that is not enough.
    pub(crate) async fn end(&self, node: &str, name: &str, signal: Signal) -> Result<(), LabError> {
        if !self.held().running.contains_key(&place(node, name)) {
            return Err(self.unknown(node, name));
        }
        self.end_these(&[place(node, name)], signal).await
    }

    /// Sends a signal to one process and waits for nothing.
    pub(crate) fn signal(&self, node: &str, name: &str, signal: Signal) -> Result<(), LabError> {
        let held = self.held();
        let running = held.running.get(&place(node, name)).ok_or_else(|| self.unknown(node, name))?;
        running.id.signal(signal).map_err(|reason| LabError::Spawn {
            node: node.into(),
            process: name.into(),
            program: running.plan.program.clone(),
            reason,
        })
    }

    /// Says in the state file how far the lab is.
    pub(crate) fn set_state(&self, state: LabState) -> Result<(), LabError> {
        let mut held = self.held();
        held.file.state = state;
        held.file.write(&self.plan.dir)
    }

    /// Ends everything, what started last first, and says so in the state file.
    pub(crate) async fn stop(&self) -> Result<(), LabError> {
        self.set_state(LabState::Starting)?;
        for stage in [Stage::Envoy, Stage::Service, Stage::Agent, Stage::Client, Stage::Server] {
            self.end_these(&self.places(stage), Signal::SIGTERM).await?;
        }
        self.forget_all()
    }

    fn places(&self, stage: Stage) -> Vec<Place> {
        let held = self.held();
        let of_stage = held.running.iter().filter(|(_, running)| running.plan.stage == stage);
        of_stage.map(|(place, _)| place.clone()).collect()
    }

    async fn end_these(&self, places: &[Place], signal: Signal) -> Result<(), LabError> {
        for (signal, limit) in [(signal, STAGE_LIMIT), (Signal::SIGKILL, KILL_LIMIT)] {
            let ends: Vec<_> = places.iter().filter_map(|place| self.signal_end(place, signal)).collect();
            let waits = ends.into_iter().map(|end| process::ended_within(end, limit));
            if futures_util::future::join_all(waits).await.into_iter().all(|ended| ended) {
                return Ok(());
            }
        }
        let held = self.held();
        let left = places.iter().find_map(|place| {
            held.running.get(place).filter(|running| running.ended().is_none()).map(|it| (place, it.id.pid))
        });
        match left {
            None => Ok(()),
            Some(((node, name), pid)) => Err(LabError::WillNotStop { what: format!("{node}: {name}"), pid }),
        }
    }

    fn signal_end(&self, place: &Place, signal: Signal) -> Option<watch::Receiver<Option<String>>> {
        let held = self.held();
        let running = held.running.get(place).filter(|running| running.ended().is_none())?;
        if let Err(error) = running.end(signal) {
            tracing::warn!(node = place.0, process = place.1, %error, "process not signalled");
        }
        Some(running.watch_end())
    }

    fn forget_all(&self) -> Result<(), LabError> {
        let mut held = self.held();
        held.running.clear();
        held.file.processes.clear();
        held.file.state = LabState::Stopped;
        if let Some(dir) = &self.plan.socket_dir {
            // It may be gone already; nothing depends on it.
            let _ = fs::remove_dir_all(dir);
        }
        held.file.write(&self.plan.dir)
    }

    fn unknown(&self, node: &str, name: &str) -> LabError {
        let known = self.plan.nodes.iter().flat_map(|node| {
            node.processes.iter().map(move |process| format!("{}/{}", node.name, process.name))
        });
        let known: Vec<String> = known.collect();
        LabError::Unknown { what: format!("{node}/{name}"), known: known.join(", ") }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let is_empty = self.held().running.is_empty();
        if is_empty {
            return;
        }
        for running in self.held().running.values() {
            // Best effort, here and below: there is nobody left to tell.
            let _ = running.end(Signal::SIGKILL);
        }
        let _ = self.forget_all();
    }
}

fn place(node: &str, name: &str) -> Place {
    (node.to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{LabOptions, process::ProcessId, state};

    struct Bench {
        runner: Runner,
        news: mpsc::Receiver<Death>,
        dir: tempfile::TempDir,
    }

    const NODE: &str = "primary-server";

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let options = LabOptions { dir: dir.path().to_owned(), ..LabOptions::example() };
        let (deaths, news) = mpsc::channel(8);
        Bench { runner: Runner::new(Plan::new(&options, 0), deaths).unwrap(), news, dir }
    }

    fn sleeper(dir: &tempfile::TempDir, name: &str, stage: Stage) -> ProcessPlan {
        ProcessPlan {
            name: name.into(),
            stage,
            program: "/bin/sleep".into(),
            args: vec!["600".into()],
            env: BTreeMap::new(),
            log: dir.path().join(name),
        }
    }

    #[tokio::test]
    async fn a_killed_process_degrades_the_lab_until_it_is_started_again() {
        let Bench { runner, mut news, dir } = bench();
        runner.start_plan(NODE, &sleeper(&dir, "one", Stage::Client)).unwrap();
        runner.set_state(LabState::Ready).unwrap();
        let seen = || state::status(dir.path()).unwrap().state;
        assert_eq!(seen(), LabState::Ready);
        let first = runner.pid(NODE, "one").unwrap();
        runner.end(NODE, "one", Signal::SIGKILL).await.unwrap();
        assert_eq!(seen(), LabState::Degraded);
        runner.start(NODE, "one").unwrap();
        assert_eq!(seen(), LabState::Ready);
        assert_ne!(runner.pid(NODE, "one").unwrap(), first);
        assert!(news.try_recv().is_err(), "an end that was asked for is no news");
        runner.stop().await.unwrap();
        assert_eq!(seen(), LabState::Stopped);
    }

    #[tokio::test]
    async fn dropping_kills_everything() {
        let Bench { runner, news: _news, dir } = bench();
        runner.start_plan(NODE, &sleeper(&dir, "one", Stage::Client)).unwrap();
        runner.start_plan(NODE, &sleeper(&dir, "two", Stage::Envoy)).unwrap();
        let file = LabFile::read(dir.path()).unwrap().unwrap();
        let ids: Vec<ProcessId> = file.processes.iter().map(|process| process.id).collect();
        assert!(ids.len() == 2 && ids.iter().all(ProcessId::is_alive));
        let ends = ["one", "two"].map(|name| runner.watch(NODE, name).unwrap().0);
        drop(runner);
        for end in ends {
            assert!(process::ended_within(end, KILL_LIMIT).await);
        }
        assert_eq!(state::status(dir.path()).unwrap().state, LabState::Stopped);
    }

    #[tokio::test]
    async fn an_unknown_process_is_answered_with_those_there_are() {
        let Bench { runner, .. } = bench();
        let error = runner.start(NODE, "envoy").unwrap_err().to_string();
        assert!(
            error.contains("no primary-server/envoy") && error.contains("primary-gateway/envoy"),
            "{error}"
        );
    }
}

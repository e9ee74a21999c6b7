//! Owns the lab's state file and what is told from it: what runs, and how to find it again after the lab itself
//! was killed. It must not know how anything is started.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::lab::{
    LabError,
    error::file,
    plan::{Node, Plan, Role, Stage},
    process::ProcessId,
};

/// The state file's name inside the lab's folder.
pub const STATE_FILE: &str = "lab.json";
/// Locked by the supervisor for its whole life.
const LOCK_FILE: &str = "lab.lock";
/// A detached supervisor's output.
pub const LOG_FILE: &str = "lab.log";

/// How far the lab is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabState {
    /// Coming up, or going down.
    Starting,
    /// It works and everything runs.
    Ready,
    /// Something of it ended that should run.
    Degraded,
    /// Nothing of it runs.
    Stopped,
}

impl LabState {
    /// As in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Stopped => "stopped",
        }
    }
}

/// A node as `lab status --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `<datacenter>-<role>`.
    pub name: String,
    /// Its datacenter.
    pub datacenter: String,
    /// What it is for.
    pub role: Role,
    /// Its address.
    pub address: String,
    /// Consul's HTTP API, a full URL like all that follow.
    pub consul_http: Option<String>,
    /// The Causeway agent's HTTP interface.
    pub causeway_http: Option<String>,
    /// Where Causeway serves xDS.
    pub xds: Option<String>,
    /// Where Causeway serves other sync agents, `address:port`.
    #[serde(default)]
    pub sync: Option<String>,
    /// Envoy's admin interface.
    pub envoy_admin: Option<String>,
}

impl From<&Node> for NodeStatus {
    fn from(node: &Node) -> Self {
        Self {
            name: node.name.clone(),
            datacenter: node.datacenter.to_string(),
            role: node.role,
            address: node.address.to_string(),
            consul_http: Some(node.consul_http.clone()),
            causeway_http: node.causeway_http.clone(),
            xds: node.xds.clone(),
            sync: node.sync.clone(),
            envoy_admin: node.envoy_admin.clone(),
        }
    }
}

/// What `lab status --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabStatus {
    /// How far it is.
    pub state: LabState,
    /// Where the dashboard is; none while stopped.
    pub dashboard: Option<String>,
    /// Its nodes; none while stopped.
    pub nodes: Vec<NodeStatus>,
}

/// A process in the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// The node it is on.
    pub node: String,
    /// Its name there.
    pub name: String,
    /// When it stops relative to others.
    pub stage: Stage,
    /// Which process it is.
    #[serde(flatten)]
    pub id: ProcessId,
}

/// The state file: written whole, at every change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabFile {
    /// Its block of addresses.
    pub slot: u8,
    /// What the supervisor last said: starting, ready or stopped. Degraded is told from the processes.
    pub state: LabState,
    /// The process that holds the lab up.
    pub supervisor: Option<ProcessId>,
    /// Where the dashboard is.
    pub dashboard: Option<String>,
    /// A folder for sockets outside the lab's, to be removed with it.
    pub socket_dir: Option<PathBuf>,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// What was started and not ended by the supervisor.
    pub processes: Vec<ProcessRecord>,
}

impl LabFile {
    /// The file of a lab about to start.
    pub fn starting(plan: &Plan) -> Self {
        Self {
            slot: plan.slot,
            state: LabState::Starting,
            supervisor: ProcessId::own(),
            dashboard: plan.dashboard.clone(),
            socket_dir: plan.socket_dir.clone(),
            nodes: plan.nodes.iter().map(NodeStatus::from).collect(),
            processes: Vec::new(),
        }
    }

    /// What the lab is now, given which processes are alive. A supervisor that was killed leaves a lab that runs
    /// on unwatched: that is degraded as long as anything runs, and stopped after.
    pub fn observe(&self, is_alive: impl Fn(&ProcessId) -> bool) -> LabStatus {
        let alive = self.processes.iter().filter(|process| is_alive(&process.id)).count();
        let is_supervised = self.supervisor.as_ref().is_some_and(&is_alive);
        let state = match self.state {
            LabState::Stopped => LabState::Stopped,
            LabState::Starting if is_supervised => LabState::Starting,
            LabState::Ready if is_supervised && alive == self.processes.len() => LabState::Ready,
            _ if is_supervised || alive > 0 => LabState::Degraded,
            _ => LabState::Stopped,
        };
        match state {
            LabState::Stopped => LabStatus::stopped(),
            _ => LabStatus { state, dashboard: self.dashboard.clone(), nodes: self.nodes.clone() },
        }
    }

    /// The recorded processes that should run and do not, as `node/process`.
    pub fn dead(&self, is_alive: impl Fn(&ProcessId) -> bool) -> Vec<String> {
        let dead = self.processes.iter().filter(|process| !is_alive(&process.id));
        dead.map(|process| format!("{}/{}", process.node, process.name)).collect()
    }

    /// Reads the state file; none if no lab was ever there.
    ///
    /// Errors: unreadable, or not a state file.
    pub fn read(dir: &Path) -> Result<Option<Self>, LabError> {
        let path = dir.join(STATE_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("read", path)(error)),
        };
        let read = serde_json::from_slice(&text);
        read.map(Some).map_err(|error| LabError::State { path, reason: error.to_string() })
    }

    /// Writes the state file: whoever reads it sees the former or this one, never a part.
    ///
    /// Errors: the folder cannot be written to.
    pub fn write(&self, dir: &Path) -> Result<(), LabError> {
        let (path, part) = (dir.join(STATE_FILE), dir.join(format!("{STATE_FILE}.part")));
        let text = serde_json::to_string_pretty(self).expect("a state file is plain data");
        write_private(&part, text.as_bytes())?;
        fs::rename(&part, &path).map_err(file("write", path))
    }
}

impl LabStatus {
    /// The status of a lab that does not run.
    pub fn stopped() -> Self {
        Self { state: LabState::Stopped, dashboard: None, nodes: Vec::new() }
    }
}

/// What runs in this folder now.
///
/// Errors: the state file cannot be read.
pub fn status(dir: &Path) -> Result<LabStatus, LabError> {
    let observed = LabFile::read(dir)?.map(|file| file.observe(ProcessId::is_alive));
    Ok(observed.unwrap_or_else(LabStatus::stopped))
}

/// Takes the folder for a lab, creating it if needed, or finds that another supervisor holds it. The lock goes
/// with the returned file, whichever way its holder ends.
///
/// Errors: held by a running lab, not a lab's folder, or not writable.
pub fn lock(dir: &Path) -> Result<File, LabError> {
    if !is_lab_or_empty(dir)? {
        return Err(LabError::NotALab { dir: dir.to_owned() });
    }
    create_private_dir(dir)?;
    let lock = open_lock(dir)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(LabError::AlreadyRunning { dir: dir.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(file("lock", dir.join(LOCK_FILE))(error)),
    }
}

/// Whether a supervisor holds the folder.
///
/// Errors: the lock file cannot be opened.
pub fn is_held(dir: &Path) -> Result<bool, LabError> {
    if !dir.join(LOCK_FILE).exists() {
        return Ok(false);
    }
    Ok(matches!(open_lock(dir)?.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

fn open_lock(dir: &Path) -> Result<File, LabError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(&path).map_err(file("open", path))
}

fn is_lab_or_empty(dir: &Path) -> Result<bool, LabError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(file("read", dir)(error)),
    };
    let names: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
    Ok(names.iter().any(|name| name == STATE_FILE)
        || names.iter().all(|name| name == LOCK_FILE || name == LOG_FILE))
}

/// Creates a folder, and those above it, that only its owner can enter.
///
/// Errors: what the system says.
pub fn create_private_dir(dir: &Path) -> Result<(), LabError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(file("create", dir))
}

/// Writes a file that only its owner can read.
///
/// Errors: what the system says.
pub fn write_private(path: &Path, text: &[u8]) -> Result<(), LabError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text));
    written.map_err(file("write", path))
}

#[cfg(test)]
mod tests;
